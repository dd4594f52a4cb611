"""The artifact store: keys, verified hits, interrupted and simultaneous builds, errors."""

import errno
import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ra3core.artifacts import MANIFEST, Artifact, Store, content_digest, load_artifact
from ra3core.config import EStepConfig, MStepConfig, Section
from ra3core.errors import UserError
from ra3core.stage import ABOUT, ON_THE_WAY, Context, Metrics

SPAWN = multiprocessing.get_context("spawn")


class CountConfig(Section):
    to: int = 6
    pause: float = 0.0  # seconds a step
    fail_at: int = -1


def count(config: CountConfig, context: Context) -> Metrics:
    """Adds 1..to, a checkpoint after each step; calls.txt beside the store counts the steps really taken."""
    checkpoint = context.scratch / "checkpoint.json"
    step, total = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, 0)
    context.log.resume(step)
    while step < config.to:
        if step == config.fail_at:
            raise UserError(f"step {step}: expected another value")
        step, total = step + 1, total + step + 1
        with (context.scratch.parents[2] / "calls.txt").open("a") as calls:
            calls.write(f"{step}\n")
        context.log.metrics(step, total=total)
        temporary = checkpoint.with_suffix(".tmp")
        temporary.write_text(json.dumps([step, total]))
        temporary.replace(checkpoint)
        time.sleep(config.pause)
    (context.out / "model").mkdir(exist_ok=True)
    (context.out / "model" / "total.txt").write_text(str(total))
    return {"total": total, "inputs": sorted(context.inputs)}


def calls(store: Store) -> list[int]:
    file = store.root / "calls.txt"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def only(store: Store, pattern: str) -> Path:
    (path,) = store.root.glob(pattern)
    return path


def build_in_child(root: Path, config: CountConfig) -> None:
    Store(root).build("count", count, config, {})


def test_a_second_build_reuses_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, reused = store.build("count", count, CountConfig(), {})
    assert not reused
    assert first.metrics == {"total": 21, "inputs": []}
    assert (first.path / "model" / "total.txt").read_text() == "21"
    assert set(first.manifest.files) == {"metrics.jsonl", "model/total.txt"}
    second, reused = store.build("count", count, CountConfig(), {})
    assert reused
    assert second == first == load_artifact(first.path)
    assert calls(store) == [1, 2, 3, 4, 5, 6]
    assert store.artifacts() == [first]
    assert [path.name for path in first.path.parent.iterdir() if path.is_dir()] == [first.path.name]


def test_the_key_changes_with_config_input_and_seed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.external("hub", Path("some/model"), "revision-1")
    two = store.external("hub", Path("some/model"), "revision-2")
    keys = {
        store.key("count", count, CountConfig(), {}),
        store.key("other", count, CountConfig(), {}),
        store.key("count", count, CountConfig(to=7), {}),
        store.key("count", count, CountConfig(), {}, seed=1),
        store.key("count", count, CountConfig(), {"model": one}),
        store.key("count", count, CountConfig(), {"model": two}),
        store.key("count", count, CountConfig(), {"policy": two}),
    }
    assert len(keys) == 7
    assert store.key("count", count, CountConfig(to=6), {}) in keys


def test_the_key_takes_an_infinite_penalty(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = {store.key("e", count, EStepConfig(think_penalty=c), {}) for c in (0.0, 1.0, float("inf"))}
    assert len(keys) == 3
    config = EStepConfig(think_penalty=float("inf"))
    artifact, _ = store.build("e", constant, config, {})
    assert load_artifact(artifact.path).manifest.config["think_penalty"] == float("inf")


def constant(config: Section, context: Context) -> Metrics:
    (context.out / "constant.txt").write_text("always the same")
    (context.out / ".note").write_text(str(time.time()))
    context.log.metrics(1, seconds=time.time())
    return {"best": float("inf"), "by_steps": {2: 0.5}}


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, _ = store.build("constant", constant, CountConfig(to=1), {})
    two, _ = store.build("constant", constant, CountConfig(to=2), {})
    assert one.key != two.key
    assert one.digest == two.digest
    assert one.manifest.files["metrics.jsonl"] != two.manifest.files["metrics.jsonl"]
    assert one.metrics == {"best": float("inf"), "by_steps": {"2": 0.5}} == load_artifact(one.path).metrics
    other, _ = store.build("count", count, CountConfig(), {"model": one})
    assert other.digest != one.digest
    assert other.manifest.inputs == {"model": one.digest}
    assert store.build("count", count, CountConfig(), {"model": two}) == (other, True)  # an early cut-off


@pytest.mark.parametrize("name", [*sorted(ABOUT - {ON_THE_WAY}), f"{ON_THE_WAY}/1_of_2/model/config.json"])
def test_what_is_about_a_result_is_no_part_of_its_digest(tmp_path: Path, name: str) -> None:
    (tmp_path / "result.txt").write_text("result")
    before = content_digest(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("how it was made")
    assert content_digest(tmp_path) == before
    (tmp_path / "result.txt").write_text("another")
    assert content_digest(tmp_path) != before


@pytest.mark.parametrize("name", ["model/total.txt", "metrics.jsonl", MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_noticed_and_computed_again(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    artifact, _ = store.build("count", count, CountConfig(to=2), {})
    file = artifact.path / name
    before = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(before[:-1] + b"?" if damage == "flip" else before[:-1])
    with pytest.raises(UserError, match=name):
        load_artifact(artifact.path)
    with caplog.at_level(logging.WARNING):
        again, reused = store.build("count", count, CountConfig(to=2), {})
    assert not reused
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert again.digest == artifact.digest
    assert calls(store) == [1, 2, 1, 2]


def test_find_removes_what_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact, _ = store.build("count", count, CountConfig(to=2), {})
    assert store.find("count", artifact.key) == artifact
    assert store.find("count", "0" * 64) is None
    (artifact.path / "model" / "total.txt").write_text("4")
    assert store.find("count", artifact.key) is None
    assert not artifact.path.exists()


def test_an_error_leaves_no_artifact_and_the_next_attempt_resumes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    config = CountConfig(to=4, fail_at=2)
    with pytest.raises(UserError, match="step 2"):
        store.build("count", count, config, {})
    assert store.artifacts() == []
    assert store.find("count", store.key("count", count, config, {})) is None
    with pytest.raises(UserError, match="step 2"):
        store.build("count", count, config, {})
    assert calls(store) == [1, 2]  # the second attempt went on from the checkpoint


def test_an_error_before_any_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserError, match="step 0"):
        store.build("count", count, CountConfig(fail_at=0), {})
    assert not [path for path in (tmp_path / "count").iterdir() if path.is_dir()]


def leave_rubbish(config: Section, context: Context) -> Metrics:
    assert not list(context.out.iterdir())
    (context.out / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def build_rubbish(root: Path) -> None:
    Store(root).build("rubbish", leave_rubbish, CountConfig(), {})


def test_without_a_checkpoint_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    for _ in range(2):  # the second asserts that its folder is empty
        child = SPAWN.Process(target=build_rubbish, args=(tmp_path,))
        child.start()
        child.join(30)
        assert child.exitcode == -signal.SIGKILL
    assert Store(tmp_path).artifacts() == []


def test_a_killed_stage_resumes_and_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    config = CountConfig(to=8, pause=0.2)
    store = Store(tmp_path / "killed")
    child = SPAWN.Process(target=build_in_child, args=(store.root, config))
    child.start()
    while len(calls(store)) < 3:
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join(30)
    assert store.artifacts() == []
    done = len(calls(store))
    artifact, reused = store.build("count", count, config, {})
    assert not reused
    steps = calls(store)
    assert steps in ([*range(1, done + 1), *range(done + 1, 9)], [*range(1, done + 1), *range(done, 9)])
    reference, _ = Store(tmp_path / "reference").build("count", count, config, {})
    assert artifact.digest == reference.digest
    assert artifact.manifest.files == reference.manifest.files  # metrics.jsonl too: no row lost, none twice
    assert artifact.manifest.seconds > 7 * 0.2 * 0.95  # the killed attempt counts up to its last write
    assert sorted(path.name for path in artifact.path.parent.iterdir() if path.is_dir()) == [artifact.path.name]


def test_two_processes_build_the_same_thing_once(tmp_path: Path) -> None:
    config = CountConfig(to=3, pause=0.3)
    children = [SPAWN.Process(target=build_in_child, args=(tmp_path, config)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    store = Store(tmp_path)
    assert calls(store) == [1, 2, 3]
    assert store.build("count", count, config, {})[1]


def test_a_process_killed_right_after_its_rename_leaves_a_hit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact, _ = store.build("count", count, CountConfig(), {})
    work = artifact.path.with_name(f".{artifact.path.name}.work")
    (work / "scratch").mkdir(parents=True)
    (work / "scratch" / "checkpoint.json").write_text("[6, 21]")
    assert store.build("count", count, CountConfig(), {}) == (artifact, True)
    assert not work.exists()


def full(config: Section, context: Context) -> Metrics:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(context.out / "model.safetensors"))


def full_in_words(config: Section, context: Context) -> Metrics:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("stage", [full, full_in_words])
def test_a_full_disk_is_one_sentence(tmp_path: Path, stage) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}: the disk is full, stage full needs more than the \d+ MiB"):
        Store(tmp_path).build("full", stage, CountConfig(), {})
    assert Store(tmp_path).artifacts() == []


def test_execute_calls_the_stage_and_the_sink_hears_of_it(tmp_path: Path) -> None:
    def execute(function, config, context):
        assert function is count
        return function(config, replace(context, threads=3)) | {"by": "execute"}

    events = []
    artifact, _ = Store(tmp_path).build("count", count, CountConfig(to=2), {}, execute=execute, sink=events.append)
    assert artifact.metrics["by"] == "execute"
    assert [(event["step"], event["values"]) for event in events] == [(1, {"total": 1.0}), (2, {"total": 3.0})]


def test_a_result_of_other_code_than_the_key_says_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, text = tmp_path / "edited_stage.py", "def stage(config, context):\n    return {}\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    stage = importlib.import_module("edited_stage").stage
    store, edits = Store(tmp_path / "store"), [text + "# a comment\n", text + "LATE = 1\n"]
    ran: list[str] = []

    def execute(function, config, context: Context) -> Metrics:
        ran.append(edits[0])
        (context.scratch / "checkpoint").touch()
        module.write_text(edits.pop(0))
        return function(config, context)

    def build(seed: int) -> Artifact:
        return store.build("edited", stage, Section(), {}, seed, execute=execute)[0]

    kept = build(0)  # comments are no code
    for _ in range(2):  # while it ran, and before it runs
        with pytest.raises(UserError, match=r"^stage edited: its sources were changed while the run .*again$"):
            build(1)
        assert len(ran) == 2 and store.artifacts() == [kept]
        assert [path.name for path in kept.path.parent.iterdir() if path.is_dir()] == [kept.path.name]
    assert build(0) == kept
    module.write_text("def stage(")
    with pytest.raises(UserError, match="sources were changed"):
        build(1)


def test_an_external_folder_has_the_digest_of_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    one = Store.external("user_model", folder)
    assert one == Artifact(folder, one.manifest)
    assert one.digest == content_digest(folder)
    (folder / "weights").write_bytes(b"2")
    assert Store.external("user_model", folder).digest != one.digest
    assert Store.external("data", folder, "md5-of-dvc", {"documents": 3}).metrics == {"documents": 3}
    with pytest.raises(UserError, match="no such file or folder"):
        Store.external("user_model", tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "x"}'])
def test_loading_what_is_no_artifact_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="no artifact"):
        load_artifact(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        load_artifact(tmp_path)


def test_a_manifest_of_another_key_is_no_hit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, _ = store.build("count", count, CountConfig(to=1), {})
    two, _ = store.build("count", count, CountConfig(to=2), {})
    two.path.rename(tmp_path / "aside")
    one.path.rename(two.path)
    assert store.find("count", two.key) is None


def test_no_heavy_library_is_needed() -> None:
    code = "import sys, ra3core.artifacts; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    assert os.popen(f'{sys.executable} -c "{code}"').read().strip() == "[]"


def test_sections_are_hashed_by_value(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = store.key("m", count, MStepConfig(), {})
    assert store.key("m", count, MStepConfig.model_validate({"epochs": 2}), {}) == key
    assert store.key("m", count, MStepConfig(epochs=3), {}) != key
