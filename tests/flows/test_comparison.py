"""What a run is composed of, without running any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from dry import Asked, composed

from flows.arms import stages
from flows.comparison import check_refresh
from ra3core.arms import MidTrained
from ra3core.config import EMBEDDED, load, preset_names
from ra3core.errors import UserError
from tasks.evaluate import asked

DEMO = {
    "corpus/0": "c9248d0a3790",
    "rlvr_tasks/0": "cdbcde5c3618",
    "base/0": "9ff0a8b43c36",
    "demonstrations/0": "0744ed23acbf",
    "e_step_1/0": "9f63455c6a0d",
    "bootstrap_1/0": "f98acc9b4751",
    "m_step_1/0": "f18812b03706",
    "ntp/0": "c52ac245f576",
    "ntp_compute/0": "df690c1a005f",
    "bootstrap_no_rl/0": "d7eea332a0d7",
    "ra3_no_rl/0": "f606486e8801",
    "ntp_rlvr/0": "c050abc4c33e",
    "ra3_rlvr/0": "79cbdb94d44d",
    "evaluate_base/0": "aa995dac1538",
    "evaluate_ntp/0": "028d39eb35b5",
    "evaluate_ntp_compute/0": "9ea97f1b8a06",
    "evaluate_ra3/0": "ca96fc28efeb",
    "evaluate_ra3_no_rl/0": "ae9c4d9d2a87",
    "evaluate_ntp_rlvr/0": "ffba2468278c",
    "evaluate_ra3_rlvr/0": "ed1f90df19a4",
}
"""The demo's stages with what decides their keys beside code and data, as they were when it was last measured."""


def test_the_demo_runs_what_it_ran() -> None:
    """A change here is a demo that takes other time, and stages in users' stores that are made again."""
    found = {name: one.digest for name, one in composed(load("demo")).items()}
    assert found == DEMO


def test_rlvr_on_a_task_set_differs_in_its_tasks_alone(tmp_path: Path) -> None:
    """The set's content is an input, and where it lies is not in the key."""
    sets = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "set.jsonl").write_text("{}")
        sets.append(composed(load("demo", [f"rlvr_tasks.source=file:{tmp_path / place / 'set.jsonl'}"])))
    tasks = sets[0]["rlvr_tasks/0"]
    assert tasks.digest == sets[1]["rlvr_tasks/0"].digest
    assert set(tasks.inputs) == {"data", "source"}
    values = tasks.config.model_dump()
    assert values["source"] == "file:set.jsonl" and values["ngram"] == load("demo").corpus.ngram
    changed = {name for name, one in sets[0].items() if one.digest != composed(load("demo"))[name].digest}
    assert changed == {"rlvr_tasks/0", "ntp_rlvr/0", "ra3_rlvr/0", "evaluate_ntp_rlvr/0", "evaluate_ra3_rlvr/0"}
    (tmp_path / "b" / "set.jsonl").write_text("{} ")
    other = composed(load("demo", [f"rlvr_tasks.source=file:{tmp_path / 'b' / 'set.jsonl'}"]))
    assert other["rlvr_tasks/0"].digest != tasks.digest


ALL = list(get_args(MidTrained))
EVERY_ARM = (f"arms.mid_trained=[{', '.join(ALL)}]", "arms.rlvr=[base, ntp, ra3, brite]", "rounds=2")


@pytest.fixture(scope="module")
def every_arm() -> dict[str, Asked]:
    """Two rounds of every arm at the demo's settings, annotation with selection."""
    return composed(load("demo", [*EVERY_ARM, "bootstrap.samples=6"]))


def differences(one: Asked, other: Asked) -> dict[str, Any]:
    """Settings of `one` that are not those of `other`."""
    values, others = one.config.model_dump(), other.config.model_dump()
    return {name: value for name, value in values.items() if value != others[name]}


def test_controls_differ_from_ra3_in_one_thing(every_arm: dict[str, Asked]) -> None:
    at = {name.removesuffix("/0"): one for name, one in every_arm.items()}
    assert differences(at["e_step_brite"], at["e_step_2"]) == {"window": 1}
    assert differences(at["bootstrap_brite"], at["bootstrap_2"]) == {"window": 1}
    assert differences(at["bootstrap_sampled"], at["bootstrap_2"]) == {"samples": 1}
    assert differences(at["e_step_sampled"], at["e_step_2"]) == {}
    assert differences(at["bootstrap_no_rl"], at["bootstrap_2"]) == {}
    rewarded = at["e_step_1"].config.model_dump()
    assert rewarded["unterminated_penalty"] > 0
    assert differences(at["bootstrap_best_of_g"], at["bootstrap_2"]) == {
        "decision": "gain",
        **{name: rewarded[name] for name in ("think_penalty", "unterminated_penalty")},
    }
    assert differences(at["bootstrap_no_thinking"], at["bootstrap_2"]) == {"think_penalty": float("inf")}
    for arm in ("brite", "ra3_sampled", "ra3_no_rl", "shuffled"):
        assert differences(at[arm], at["m_step_2"]) == {}, arm

    # what a round starts from, and who annotates
    assert at["e_step_brite"].inputs["model"] == at["brite_round_1"].digest
    assert at["brite"].inputs["model"] == at["brite_round_1"].digest
    assert at["e_step_sampled_round_1"].digest == at["e_step_1"].digest  # the same policy annotates, and is shared
    assert at["bootstrap_no_rl"].inputs["policy"] == at["ra3_no_rl_round_1"].digest
    assert at["shuffled"].inputs["demonstrations"] == at["bootstrap_shuffled"].digest
    assert at["bootstrap_shuffled"].inputs == {"annotated": at["bootstrap_2"].digest}
    assert at["bootstrap_distilled"].inputs == {"demonstrations": at["demonstrations"].digest}


def test_arms_without_rounds_see_the_data_as_often(every_arm: dict[str, Asked]) -> None:
    at = {name.removesuffix("/0"): one.config.model_dump() for name, one in every_arm.items()}
    for arm in ("ntp", "distilled", "no_thinking"):
        assert at[arm] == {**at["m_step_2"], "epochs": 2 * at["m_step_2"]["epochs"]}, arm


def test_compute_is_matched_by_tokens_and_by_operations(every_arm: dict[str, Asked]) -> None:
    """Four stages of 100 tokens each, 10 of them for curves; of the other 90, 40 are trained on and 50 are read."""
    tokens, operations = every_arm["ntp_compute/0"], every_arm["ntp_flops/0"]
    assert tokens.config.model_dump()["token_budget"] == 4 * 90
    assert operations.config.model_dump()["token_budget"] == 4 * ((6 * 40 + 2 * 50) // 6)
    annotated = {f"matched_{r}": every_arm[f"bootstrap_{r}/0"].digest for r in (1, 2)}  # their M-steps count, too
    assert annotated.items() < tokens.inputs.items() and annotated.items() < operations.inputs.items()


def test_rlvr_starts_from_the_last_m_step(every_arm: dict[str, Asked]) -> None:
    starts = {"base": "base", "ntp": "ntp", "ra3": "m_step_2", "brite": "brite"}
    for arm, stage in starts.items():
        assert every_arm[f"{arm}_rlvr/0"].inputs["model"] == every_arm[f"{stage}/0"].digest
        assert every_arm[f"evaluate_{arm}/0"].inputs["model"] == every_arm[f"{stage}/0"].digest


def test_refresh_knows_every_stage(every_arm: dict[str, Asked]) -> None:
    config = load("demo", [*EVERY_ARM])
    evaluated = {f"evaluate_{arm}" for arm in config.arms.names}
    shared = {"corpus", "rlvr_tasks", "base", "demonstrations"}
    assert {name.partition("/")[0] for name in every_arm} == {*stages(config), *evaluated, *shared}
    benchmarks = asked(config, Path("/nowhere"))
    check_refresh([*stages(config), "tune_brite", "shuffle", "evaluate_base_rlvr/3"], config, benchmarks)
    with pytest.raises(UserError, match="--refresh brite: expected a stage"):
        check_refresh(["brite"], load("demo"), benchmarks)


TUNING = (
    *("tuning.seeds=[100, 101]", "tuning.m_step_learning_rates=[0.001, 0.002, 0.004]"),
    *("tuning.rlvr_learning_rates=[0.0001, 0.0003]", "evaluation.limit=40", "seeds=2"),
)


def test_tuning_is_the_same_for_every_arm_and_sees_no_result() -> None:
    found = composed(load("demo", [*TUNING]))
    trials = {name: one for name, one in found.items() if "learning_rate=" in name}
    assert {name.rpartition("/")[2] for name in trials} == {"100", "101"}
    for arm in ("ntp", "ntp_compute", "ra3", "ra3_no_rl", "ntp_rlvr", "ra3_rlvr"):
        section, values = ("rlvr", (0.0001, 0.0003)) if "rlvr" in arm else ("m_step", (0.001, 0.002, 0.004))
        judged = [found[f"{section}.learning_rate={v:g} validate_{arm}/{seed}"] for v in values for seed in (100, 101)]
        choice = found[f"tune_{arm}/0"]
        assert list(choice.inputs.values()) == [one.digest for one in judged]  # by value, then by seed
        assert {one.inputs["tasks"] for one in judged} == {found["validation/0"].digest}
        at_rate = found[f"{section}.learning_rate={values[1]:g} {'m_step_1' if arm == 'ra3' else arm}/100"]
        assert at_rate.config.model_dump()["learning_rate"] == values[1]
    validated = {one.inputs["tasks"] for name, one in trials.items() if "validate_" in name}
    evaluated = {one.inputs["tasks"] for name, one in found.items() if name.startswith("evaluate_")}
    assert not validated & evaluated


def test_chosen_rates_are_those_that_results_are_made_with() -> None:
    """The dry choice is the last value of a grid."""
    found = composed(load("demo", [*TUNING]))
    for seed in (0, 1):
        for stage in ("m_step_1", "ntp", "ntp_compute", "ra3_no_rl"):
            assert found[f"{stage}/{seed}"].config.model_dump()["learning_rate"] == 0.004
        for stage in ("ntp_rlvr", "ra3_rlvr"):
            assert found[f"{stage}/{seed}"].config.model_dump()["learning_rate"] == 0.0003
    # RLVR is tuned from the model at its chosen rate, which the first trials have made already
    start = found["rlvr.learning_rate=0.0001 ntp_rlvr/100"].inputs["model"]
    assert start == found["m_step.learning_rate=0.004 ntp/100"].digest


def test_an_e_step_is_tuned_at_the_m_steps_best_rate_and_before_rlvr() -> None:
    arms = "arms.mid_trained=[ntp, ntp_compute, ra3, ra3_sampled, brite, ra3_no_rl]"
    found = composed(load("demo", [*TUNING, "tuning.e_step_learning_rates=[0.00002, 0.00003]", arms]))
    trials = {name.rpartition(" ")[2] for name in found if name.startswith("e_step.learning_rate=2e-05")}
    trained = {"e_step_1", "bootstrap_1", "m_step_1", "e_step_brite", "bootstrap_brite", "brite"}
    trained |= {"base", "demonstrations", "validate_ra3", "validate_brite"}
    assert trials == {f"{stage}/{seed}" for stage in trained for seed in (100, 101)}  # of no other arm
    for arm, stage, trained in (("ra3", "e_step_1", "m_step_1"), ("brite", "e_step_brite", "brite")):
        judged = [found[f"e_step.learning_rate={v} validate_{arm}/{s}"] for v in ("2e-05", "3e-05") for s in (100, 101)]
        assert list(found[f"tune_{arm}_e_step/0"].inputs.values()) == [one.digest for one in judged]
        assert found[f"e_step.learning_rate=2e-05 {stage}/100"].config.model_dump()["learning_rate"] == 0.00002
        assert found[f"e_step.learning_rate=2e-05 {trained}/100"].config.model_dump()["learning_rate"] == 0.004
        for name in (f"{stage}/0", f"{stage}/1", f"rlvr.learning_rate=0.0001 {stage}/100"):
            assert found[name].config.model_dump()["learning_rate"] == 0.00003  # the dry choice
    assert found["e_step_sampled/0"].digest == found["e_step_1/0"].digest  # RA3's policy
    check_refresh(["tune_ra3_e_step"], load("demo"), asked(load("demo"), Path("/")))


def test_rates_of_single_arms_without_tuning() -> None:
    rates = ("arms.m_step_learning_rates.ntp=0.01", "arms.rlvr_learning_rates.ra3=0.02")
    found, plain = composed(load("demo", [*rates, "arms.e_step_learning_rates.ra3=0.03"])), composed(load("demo"))
    changed = {name for name in found if found[name].config != plain[name].config}
    assert changed == {"ntp/0", "e_step_1/0", "ra3_rlvr/0"}


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_composed(preset: str) -> None:
    config = load(preset)
    found = composed(config)
    for seed in range(config.seed, config.seed + config.seeds):
        for arm in config.arms.names:
            for entry in config.evaluation.benchmarks:
                name = f"evaluate_{arm}" + ("" if entry.name == EMBEDDED else f":{entry.slug}")
                modes = found[f"{name}/{seed}"].config.model_dump()["modes"]
                every = entry.name == EMBEDDED and arm in config.arms.every_mode
                assert len(modes) == (len(config.evaluation.modes) if every else 1)
    assert ("validation/0" in found) == bool(config.tuning.seeds)


@pytest.mark.parametrize("preset", ["qwen2.5-1.5b", "llama3.2-1b", "llama3.1-8b"])
def test_the_papers_models_learn_from_as_many_public_tasks(preset: str) -> None:
    config = load(preset)
    tasks = composed(config)["rlvr_tasks/0"].config.model_dump()
    assert (tasks["source"], tasks["tasks"], tasks["prompt"]) == (config.rlvr_tasks.source, 7700, "docstring")
    assert tasks["source"].startswith("hub:") and config.rlvr.zero_variance == "downsample"
    assert config.rlvr.steps * config.rlvr.prompts >= 1.9 * 7700


@pytest.mark.parametrize("preset", ["paper-mini", "paper-small"])
def test_the_papers_presets_have_every_arm(preset: str) -> None:
    config = load(preset)
    assert set(config.arms.mid_trained) == set(ALL)
    assert set(ALL) - {"ntp_flops", "ra3_no_rl", "no_thinking"} <= set(config.arms.rlvr)  # NTP once more, or nearly
    assert config.evaluation.samples >= 20 and config.evaluation.k == [1, 5]
    tuning = config.tuning
    assert tuning.m_step_learning_rates and tuning.e_step_learning_rates and tuning.rlvr_learning_rates


DURING = ("arms.mid_trained=[ntp, ra3, brite]", "arms.during=[ntp, ra3, brite]", "m_step.snapshots=2", "rounds=2")


def test_models_on_the_way_are_evaluated_as_arms_are() -> None:
    found, plain = composed(load("demo", DURING)), composed(load("demo", [DURING[0], DURING[3]]))
    further = {name.partition("/")[0]: one for name, one in found.items() if name not in plain}
    at = [f"{stage}_at_{part}" for stage in ("ntp", "m_step_1", "m_step_2") for part in ("1_of_3", "2_of_3")]
    brite = [f"brite{r}_at_{part}" for r in ("_round_1", "") for part in ("1_of_3", "2_of_3")]
    assert set(further) == {f"evaluate_{name}" for name in (*at, *brite, "m_step_1", "brite_round_1")}
    for name, one in further.items():
        stage, _, part = name.removeprefix("evaluate_").partition("_at_")
        assert one.inputs["model"] == found[f"{stage}/0"].digest
        folder = f"on_the_way/{part}/model" if part else "model"
        assert differences(one, found["evaluate_ra3_rlvr/0"]) == ({"model": folder} if part else {})
    for name, one in found.items():
        assert getattr(one.config, "snapshots", 0) == (2 if one.kind == "m_step" else 0), name
    check_refresh(["evaluate_ntp_at_1_of_3", "evaluate_m_step_1"], load("demo", DURING), asked(load("demo"), Path("/")))


def test_only_arms_that_are_watched_keep_models_on_the_way_and_no_trial_does() -> None:
    changes = ("arms.during=[ntp]", "m_step.snapshots=3", *TUNING)
    found = composed(load("demo", changes))
    kept = {name for name, one in found.items() if getattr(one.config, "snapshots", 0)}
    assert kept == {"ntp/0", "ntp/1"}
    assert {name.partition("/")[0] for name in found if "_at_" in name} == {
        f"evaluate_ntp_at_{n}_of_4" for n in (1, 2, 3)
    }


def test_arms_are_analysed_with_what_made_them() -> None:
    """Of the last round; the base model's sets are what the others' are compared with."""
    arms = ("arms.mid_trained=[ntp, ra3, ra3_no_rl, distilled]", "arms.rlvr=[base, ntp, ra3]", "rounds=2")
    changes = (*arms, "arms.every_mode=[]", "arms.analysed=[ra3, base, ntp, ra3_no_rl, distilled]")
    found = composed(load("demo", changes))

    def inputs(arm: str) -> dict[str, str]:
        by_digest = {one.digest: name.partition("/")[0] for name, one in found.items()}
        return {role: by_digest[digest] for role, digest in found[f"analysis_{arm}/0"].inputs.items()}

    before = {"demonstrations": "demonstrations", "before": "analysis_base"}
    assert inputs("base") == {"model": "base", "demonstrations": "demonstrations", "rlvr": "base_rlvr"}
    assert inputs("ntp") == before | {"model": "ntp", "rlvr": "ntp_rlvr"}
    assert inputs("ra3") == before | {
        "model": "m_step_2",
        "annotated": "bootstrap_2",
        "policy": "e_step_2",
        "likelihood": "m_step_1",
        "e_step_1": "e_step_1",
        "e_step_2": "e_step_2",
        "rlvr": "ra3_rlvr",
    }
    model = "ra3_no_rl_round_1"
    assert inputs("ra3_no_rl") == before | {
        "model": "ra3_no_rl",
        "annotated": "bootstrap_no_rl",
        "policy": model,
        "likelihood": model,
    }
    assert inputs("distilled") == before | {
        "model": "distilled",
        "annotated": "bootstrap_distilled",
        "likelihood": "base",
    }
    check_refresh(["analysis_ra3", "analysis"], load("demo", changes), [])
    with pytest.raises(UserError, match="analysis_brite"):
        check_refresh(["analysis_brite"], load("demo", changes), [])
