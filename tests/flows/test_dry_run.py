"""The plan of a run: what is in the store, what would follow, what fits, and that nothing heavy is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli
from flows.composition import Composition, Stage, outside
from flows.environment import CHECKOUT
from flows.planning import Plan, benchmarks, plan
from ra3core.artifacts import Artifact, Store
from ra3core.config import RuntimeConfig, load, preset_names
from ra3core.plan.machines import GPUS, Machine

FIGURES = {
    "demonstrations": {"demonstrations": 40, "available": 80, "lines": 400, "tokens": 8000},
    "rlvr_tasks": {"tasks": 12, "tokens": 600},
    "bootstrap": {"thinks_per_demonstration": 0.5, "rationale_tokens": 5.0, "tokens": 900, "train_tokens": 0},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout as far as a plan reads one."""
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0123.dir\n")
    return tmp_path


def planned(root: Path, preset: str, *overrides: str, gpu: str = "h100", refresh: tuple[str, ...] = ()) -> Plan:
    return plan(
        load(preset, overrides),
        RuntimeConfig(root=root),
        refresh,
        Machine(GPUS[gpu]),
        None,
        lambda further: load(preset, [*overrides, *further]),
    )


class Run(Composition):
    """Builds every stage in the store, as a session would, without its function being called."""

    def artifact(self, stage: Stage) -> Artifact:
        def execute(function, config, context):
            (context.out / "file").write_text(stage.digest)
            return {"tokens": 100, "train_tokens": 40, "evaluation_tokens": 10, **FIGURES.get(stage.kind, {})}

        store = Store(self.runtime.root / "artifacts")
        made, _ = store.build(stage.kind, stage.function, stage.config, stage.inputs, stage.seed, execute=execute)
        return made


def run(root: Path, preset: str) -> None:
    config = load(preset)
    Run(config, RuntimeConfig(root=root), outside("data", "0123.dir"), None).compose(benchmarks(config))


def states(found: Plan) -> dict[str, str]:
    return {row.name.removesuffix("/0"): row.state for row in found.rows}


def test_before_a_run_only_what_needs_nothing_is_known(root: Path) -> None:
    found = states(planned(root, "demo"))
    ready = {"corpus", "rlvr_tasks", "demonstrations"}
    assert {name for name, state in found.items() if state == "to run"} == ready
    assert set(found.values()) == {"to run", "after its inputs"}


def test_after_a_run_everything_is_cached_and_a_change_reaches_what_depends_on_it(root: Path) -> None:
    run(root, "smoke")
    found = planned(root, "smoke")
    assert set(states(found).values()) == {"cached"}
    assert (found.device_seconds, found.disk, found.advice) == (0, 0, [])
    assert {row.work.tokens for row in found.rows if row.kind == "e_step"} == {100}  # as the manifest says

    changed = states(planned(root, "smoke", "rlvr.steps=3"))
    rlvr = {"ntp_rlvr", "ra3_rlvr"}
    assert {name for name, state in changed.items() if state == "to run"} == rlvr
    assert {name for name, state in changed.items() if state == "after its inputs"} == {f"evaluate_{a}" for a in rlvr}

    again = planned(root, "smoke", refresh=("bootstrap_1",))
    assert states(again)["bootstrap_1"] == "to run"
    rows = {row.name: row for row in again.rows}
    assert rows["ntp_compute/0"].state == "after its inputs"
    ntp = planned(root, "smoke", refresh=("ntp",))
    trained = next(row for row in ntp.rows if row.name == "ntp/0").work
    assert trained.basis == "data" and trained.trained == 38 * 100  # 40 in the store, two held out, of 100 tokens


def test_what_two_arms_share_is_counted_once(root: Path) -> None:
    arms = "arms.mid_trained=[ntp, ra3, ra3_no_rl, ra3_sampled]"
    found = {row.name.removesuffix("/0"): row for row in planned(root, "demo", arms, "bootstrap.samples=2").rows}
    assert found["e_step_sampled"].shared == "e_step_1/0" and not found["e_step_sampled"].runs
    assert found["bootstrap_sampled"].shared is None  # another number of samples


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_has_a_plan(root: Path, preset: str) -> None:
    found = planned(root, preset)
    assert 0 < found.wall_seconds == pytest.approx(found.device_seconds)  # one device
    assert set(found.memories) >= {"e_step", "bootstrap", "m_step", "rlvr", "evaluate"}
    assert all(row.seconds > 0 for row in found.to_run if row.work.tokens)
    assert found.rows[0].kind in ("suite", "corpus")


def test_settings_that_are_proposed_make_it_fit(root: Path) -> None:
    found = planned(root, "llama3.1-8b", gpu="h200")
    proposed = {one.stage: one.settings for one in found.advice}
    assert proposed and all(proposed.values())
    changed = {row.name: row for row in planned(root, "llama3.1-8b", *sum(proposed.values(), ()), gpu="h200").rows}
    for stage in proposed:
        memory = changed[stage].memory
        assert memory is not None and memory.total <= GPUS["h200"].usable
    assert planned(root, "demo").advice == []
    for preset in ("qwen2.5-1.5b", "llama3.2-1b", "paper-small"):
        assert planned(root, preset, gpu="h100").advice == []
    rlvr = planned(root, "llama3.1-8b", gpu="h100").advice
    assert any(
        one.settings and one.settings[0].startswith("rlvr.batch_size=") for one in rlvr
    )  # kept when LoRA follows
    hopeless = planned(root, "llama3.1-8b", gpu="rtx4090").advice
    assert all(not one.settings for one in hopeless if one.stage.endswith("_rlvr/0"))


def test_models_on_the_way_take_room_and_evaluations(root: Path) -> None:
    plain = planned(root, "demo")
    found = planned(root, "demo", "arms.during=[ra3]", "m_step.snapshots=3")
    further = {row.name: row for row in found.rows if row.name not in {row.name for row in plain.rows}}
    assert list(further) == [f"evaluate_m_step_1_at_{n}_of_4/0" for n in (1, 2, 3)]
    assert all(row.needs[0] == "m_step_1/0" and row.state == "after its inputs" for row in further.values())
    assert found.disk - plain.disk == 3 * 4 * found.shape.parameters


def test_every_problem_of_a_benchmark_is_asked(root: Path) -> None:
    found = {row.name: row.work for row in planned(root, "qwen2.5-1.5b").rows if row.kind == "evaluate"}
    assert found["evaluate_ra3:humaneval/0"].written == 164 * 20 * 512
    assert found["evaluate_ra3:livecodebench/0"].written == 454 * 10 * 2000
    embedded = {row.name: row.work for row in planned(root, "demo").rows}
    assert embedded["evaluate_ra3/0"].written == 4 * 60 * 2 * 3 * 320  # lengths, tasks, samples, modes, tokens


def test_files_that_benchmarks_lack_are_named(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(planned(root, "qwen2.5-1.5b").missing) == {"humaneval-plus", "mbpp-plus"}


def test_the_command_loads_nothing_heavy_and_asks_no_one() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a plan asks no one')\n"
        "socket.socket.connect = refuse\n"
        "options = '--preset qwen2.5-1.5b --set precision=float32 --gpu h100 --gpus 4 --price 3'\n"
        "sys.argv = f'ra3 run --dry-run {options}'.split()\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code or 0)\n"
        "heavy = ('torch', 'transformers', 'datasets', 'prefect', 'mlflow', 'dvc_data', 'huggingface_hub')\n"
        "print(*(name for name in heavy if name in sys.modules), '.')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["0", "."]
    assert lines[0].startswith("Plan of qwen2.5-1.5b: Qwen/Qwen2.5-1.5B, 1,543,714,304 parameters")
    assert lines[1].startswith("Computed, not measured")
    assert any(line.startswith("Does not fit: e_step_1/0") and "--set e_step." in line for line in lines)
    assert any(line.startswith("Cost: ") for line in lines)


def test_the_plan_for_machines(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RA3_ROOT", str(root))
    monkeypatch.setattr(sys, "argv", ["ra3", "run", "--dry-run", "--preset", "smoke", "--json", "--price", "2"])
    monkeypatch.setenv("RA3_DEVICE", "cuda")  # on whatever machine the plan is made
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["computed"] is True
    assert found["cost"] == pytest.approx(2 * found["wall_seconds"] / 3600)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert stages["e_step_1/0"]["waits_for"] == ["base/0", "demonstrations/0"]
    assert stages["base/0"]["memory"]["total"] > stages["base/0"]["memory"]["weights"] > 0
