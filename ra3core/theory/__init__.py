"""The paper's theory on finite decision processes, where every quantity can be computed: numpy alone.

docs/theory.md has the definitions, the bounds, and where they differ from the paper's. From below: semi_mdp (tasks with
options, solved exactly), families, pruning and hardest, iteration, regret, surveys, study, figures and page.
"""
