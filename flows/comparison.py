"""The paper's comparison as Prefect tasks: every arm for every seed, from the data on.

Composition only: every box is a task of tasks/ over a stage function of ra3core; flows/arms.py has the boxes of one
seed, flows/tuning.py how the arms' learning rates are chosen. The flows of flows/pipeline.py and flows/sweep.py call
`comparison`. Futures go by "stage/seed", as the report and the trackers name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.arms import LEAF, Future, after_rlvr, analysed_with, mid_training, on_the_way, stage_of, stages
from flows.tuning import Point, tuned
from ra3core.config import EMBEDDED, RunConfig
from ra3core.errors import UserError
from tasks.analysis import analysis
from tasks.corpus import corpus, rlvr_tasks
from tasks.data import data
from tasks.evaluate import Asked, held_out, label, submit_evaluate
from tasks.session import Session

KINDS = (
    *("corpus", "demonstrations", "rlvr_tasks", "base", "e_step", "bootstrap", "m_step", "rlvr", "evaluate"),
    *("collection", "distil", "shuffle", "validation", "tune", "analysis"),
)


def comparison(
    session: Session, benchmarks: Sequence[Asked], point: Point, *, rl: bool
) -> tuple[dict[str, Future], list[Future]]:
    """Every arm of the configuration for every seed, and their evaluations; and what to wait for besides.

    point: opens a session for a trial of the tuning. rl: with RLVR. Raises UserError for prompts that no model could
    be asked.
    """
    config, first = session.config, session.config.seed
    if rl:
        check_prompts(config)
    others: list[Future] = []
    made: dict[str, Future] = {"data": data.submit(session)}
    texts = held_out(benchmarks)
    made[f"corpus/{first}"] = shared = corpus.submit(session, first, made["data"], texts)
    if rl:
        made[f"rlvr_tasks/{first}"] = rlvr_tasks.submit(session, first, made["data"], texts)
    rates = tuned(session, point, made, others, texts, rl=rl)
    for seed in range(first, first + config.seeds):
        arms = mid_training(session, seed, made["data"], shared, rates, others, texts)
        if rl:
            arms |= after_rlvr(session, seed, arms, made[f"rlvr_tasks/{first}"], rates.rlvr)
        arms |= analyses(session, seed, arms)
        arms |= evaluations(session, seed, made["data"], benchmarks, arms, others)
        made |= {f"{stage}/{seed}": future for stage, future in arms.items()}
    return made, others


def evaluations(
    session: Session,
    seed: int,
    data: Future,
    benchmarks: Sequence[Asked],
    arms: Mapping[str, Future],
    others: list[Future],
) -> dict[str, Future]:
    """Every arm that there is, and the models on the way, on every benchmark with the same decoding budget."""
    made, config = {}, session.config
    models = {arm: (stage_of(arm, config), "model") for arm in config.arms.names} | on_the_way(config)
    for benchmark in benchmarks:
        for name, (stage, folder) in models.items():
            if stage not in arms:  # after RLVR, in a run without
                continue
            settings = benchmark.config.model_copy(update={"model": folder})
            if name not in config.arms.every_mode:
                settings = settings.model_copy(update={"modes": ["free"]})
            title, tasks = label(name, settings), benchmark.tasks or data
            made[title], shards = submit_evaluate(session, seed, title, arms[stage], tasks, settings, LEAF)
            others.extend(shards)
    return made


def analyses(session: Session, seed: int, arms: Mapping[str, Future]) -> dict[str, Future]:
    """What mid-training did to the models of the arms that the configuration names, beside the base model's sets."""
    config, made = session.config, {}
    expert = arms["demonstrations"]
    for arm in sorted(config.arms.analysed, key=lambda arm: arm != "base"):
        others = analysed_with(arm, config, arms)
        if "analysis_base" in made:
            others["before"] = made["analysis_base"]
        model, name = arms[stage_of(arm, config)], f"analysis_{arm}"
        made[name] = analysis.submit(session, seed, name, model, expert, others, LEAF)
    return made


def check_prompts(config: RunConfig) -> None:
    """Raises UserError when tasks are put as messages to a base model that is trained here, which has no template."""
    tasks = config.rlvr_tasks
    if config.arms.rlvr and config.base.model is None and tasks.source != EMBEDDED and tasks.prompt == "chat":
        raise UserError(
            "rlvr_tasks.prompt: chat, expected docstring, or a base.model whose tokenizer has a chat template"
        )


def check_refresh(refresh: Sequence[str], config: RunConfig, benchmarks: Sequence[Asked]) -> None:
    """Raises UserError for a stage of `--refresh` that no run of this configuration has."""
    evaluated = (*config.arms.names, *on_the_way(config))
    labels = [label(name, benchmark.config) for benchmark in benchmarks for name in evaluated]
    tunable = (*config.arms.mid_trained, *(f"{arm}_e_step" for arm in config.arms.reinforced), *config.arms.after_rlvr)
    choices = [f"tune_{arm}" for arm in tunable]
    analysed = [f"analysis_{arm}" for arm in config.arms.analysed]
    known = dict.fromkeys([*KINDS, *stages(config), *choices, *analysed, *labels, "report"])
    for name in refresh:
        stage, slash, seed = name.partition("/")
        if stage not in known or (slash and not seed.isdigit()):
            raise UserError(f"--refresh {name}: expected a stage, or stage/seed, out of {', '.join(known)}")
