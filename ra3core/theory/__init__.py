"""The paper's theory on finite decision processes, where every quantity can be computed: numpy alone.

semi_mdp.py   finite tasks with options, solved exactly      iteration.py  value iteration against its bound
families.py   families of tasks M ~ p(M)                     regret.py     regret = pruning error + RL error
pruning.py    pruning by demonstrations against its bound
study.py      `ra3 theory`: all of it measured; figures.py and page.py show it

docs/theory.md has the definitions, and where they differ from the paper's.
"""
