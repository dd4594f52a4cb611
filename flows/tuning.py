"""Every arm's learning rates, tuned: trials are the very stages of the comparison, at each rate of one grid.

They run on seeds of their own (base model included) and are judged on validation tasks, so that no result has seen
either. First the M-step's rate of every arm, by the whole arm trained at it; then, of the arms that have one, the
E-step's, at the M-step's best; then RLVR's, from the arm at its best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flows.arms import CONTROL, Future, LearningRates, after_rlvr, mid_training, stage_of
from ra3core.arms import TuningConfig
from ra3core.config import EMBEDDED, BenchmarkConfig, BenchmarkEntry, RunConfig
from tasks.corpus import HeldOut
from tasks.evaluate import submit_evaluate
from tasks.session import Session
from tasks.tune import tune, validation

Point = Callable[[RunConfig, str], Session]
"""Opens a session for other settings: configuration, title."""


Train = Callable[[Session, int], Mapping[str, Future]]
"""Submits the stages of a trial: session, seed -> stage -> artifact to come."""


def tuned(
    session: Session, point: Point, made: dict[str, Future], others: list[Future], texts: HeldOut, *, rl: bool
) -> LearningRates:
    """Every arm's rates: in M-step and E-step, and of every model that RLVR starts from in RLVR.

    made: the run's stages so far, "stage/seed"; is given the validation tasks and the choices, tune_<arm>,
    tune_<arm>_e_step and tune_<arm>_rlvr. others: is given the trials. texts: of the benchmarks, held out of the
    corpora. Without tuning the rates are the configuration's.
    """
    config, tuning = session.config, session.config.tuning
    arms = config.arms
    rates = LearningRates({**arms.m_step_learning_rates}, {**arms.e_step_learning_rates}, {**arms.rlvr_learning_rates})
    if not tuning.seeds:
        return rates
    first = config.seed
    data, corpus = made["data"], made[f"corpus/{first}"]
    made[f"validation/{first}"] = tasks = validation.submit(session, first, data)

    def choose(
        section: str, values: Sequence[float], arms: Sequence[str], train: Train, suffix: str = ""
    ) -> dict[str, Future]:
        """Train every arm at every rate and judge it: arm -> the choice to come, stage tune_<arm><suffix>."""
        trials: dict[str, list[Future]] = {arm: [] for arm in arms}
        for value in values:
            here = point(at_rate(config, section, value), f"{section}.learning_rate={value:g}")
            for seed in tuning.seeds:
                models = train(here, seed)
                others.extend(models.values())
                for arm in arms:
                    model, name = models[stage_of(arm, config)], f"validate_{arm}"
                    judged, shards = submit_evaluate(here, seed, name, model, tasks, judgement(config), CONTROL)
                    others.extend([judged, *shards])
                    trials[arm].append(judged)
        setting = f"{section}.learning_rate"
        chosen = {arm: tune.submit(session, first, f"tune_{arm}{suffix}", setting, values, trials[arm]) for arm in arms}
        made.update({f"tune_{arm}{suffix}/{first}": choice for arm, choice in chosen.items()})
        return chosen

    def mid_trained(here: Session, seed: int) -> dict[str, Future]:
        return mid_training(here, seed, data, corpus, rates, others, texts)

    if values := tuning.m_step_learning_rates:
        rates = rates._replace(m_step=choose("m_step", values, arms.mid_trained, mid_trained))
    if (values := tuning.e_step_learning_rates) and arms.reinforced:
        rates = rates._replace(e_step=choose("e_step", values, arms.reinforced, mid_trained, "_e_step"))
    if (values := tuning.rlvr_learning_rates) and rl:
        problems = made[f"rlvr_tasks/{first}"]

        def reinforced(here: Session, seed: int) -> Mapping[str, Future]:
            models = mid_trained(here, seed)
            return models | after_rlvr(here, seed, models, problems, {})

        chosen = choose("rlvr", values, arms.after_rlvr, reinforced)
        rates = rates._replace(rlvr={arm.removesuffix("_rlvr"): choice for arm, choice in chosen.items()})
    return rates


def at_rate(config: RunConfig, section: str, value: float) -> RunConfig:
    """The settings of a trial: a rate of the grid, on the tuning's seeds; its models on the way are not looked at."""
    seeds = config.tuning.seeds
    changed = getattr(config, section).model_copy(update={"learning_rate": value})
    arms: dict[str, object] = {"during": []}
    if section == "e_step":
        arms["mid_trained"] = config.arms.reinforced
    trial = {"seed": seeds[0], "seeds": len(seeds), "tuning": TuningConfig(), section: changed}
    return config.model_copy(update=trial | {"arms": config.arms.model_copy(update=arms)})


def judgement(config: RunConfig) -> BenchmarkConfig:
    """How a trial is judged: as the embedded suite is sampled, freely decoded, on all validation tasks."""
    changes = {
        "samples": config.tuning.samples,
        "k": [1],
        "limit": None,
        "modes": ["free"],
        "verifier": config.verifier,
    }
    return config.evaluation.model_copy(update=changes).settled(BenchmarkEntry(name=EMBEDDED), {})
