"""One stage of dvc.yaml, called by DVC in the folder of dvc.yaml: `python -m flows.dvc_stage NAME`.

It calls the task that the Prefect flow calls, without Prefect: the artifact is looked up in the same store or built
there, with the same locks, checkpoints and child runs in MLflow. Then it is copied to pipeline/NAME, which is DVC's
alone, as artifacts/ is the store's. So what `ra3 run` has made is not made again, and neither writes where the other
does. Inputs are read from pipeline/ too: their digests, and so the keys, are those that the flow sees.

The store and MLflow lie below RA3_ROOT, else below the checkout that DVC was started in (DVC_ROOT): an experiment that
DVC runs in a temporary copy shares them.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from flows import environment
from ra3core import atomic
from ra3core.artifacts import MANIFEST, Artifact, Store, load_artifact
from ra3core.config import EMBEDDED, DataConfig, RunConfig, load
from ra3core.errors import UserError
from ra3core.stage import METRICS_FILE, StageLog, read_metrics

if TYPE_CHECKING:  # a second of imports that a wrong name or a bad params.yaml need not wait for
    from flows.dvc_tracking import StageTracking
    from tasks.session import Session, StageTask

PARAMS = "params.yaml"
FOLDER = "pipeline"
FIGURES = f"{FOLDER}/metrics.json"
EXTERNAL = "external.json"  # in place of a base model that the user names: what it was when the stage ran

ARMS = {
    "base": "base",
    "ntp": "ntp",
    "ntp_compute": "ntp_compute",
    "ra3": "m_step",
    "ra3_no_rl": "ra3_no_rl",
    "ntp_rlvr": "ntp_rlvr",
    "ra3_rlvr": "ra3_rlvr",
}
"""Arm -> the stage whose model it evaluates."""

EVERY_MODE = ("base", "ntp", "ntp_compute", "ra3")
"""Arms that are decoded with comments banned and forced too, as in the flow (whose module is slow to import)."""

LABELS = {"e_step": "e_step_1", "bootstrap": "bootstrap_1", "m_step": "m_step_1"}
"""What the flow calls a stage, where it counts rounds."""

BUILT = (
    *("corpus", "demonstrations", "rlvr_tasks", "base", "e_step", "bootstrap", "m_step", "ntp", "ntp_compute"),
    *("bootstrap_no_rl", "ra3_no_rl", "ntp_rlvr", "ra3_rlvr"),
)
EVALUATIONS = tuple(f"evaluate@{arm}" for arm in ARMS)
NAMES = ("data", *BUILT, *EVALUATIONS, "report")

CURVES = {
    "e_step": ("reward", "gain", "think_rate"),
    "m_step": ("held_out_code", "held_out_nats"),
    "rlvr": ("reward", "held_out_pass"),
}
"""Kind of stage -> columns of its step-wise metrics that dvc.yaml may plot: curves/COLUMN.csv beside the artifact."""


class Evaluated(NamedTuple):
    """An artifact of an evaluation: its stage's name in the flow, and the folder of its benchmark."""

    label: str
    folder: str
    artifact: Artifact


class Pipeline:
    """The stages of dvc.yaml over one session: each method that makes an artifact takes its inputs from pipeline/."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.session = session
        self.config = session.config
        self.folder = folder

    def run(self, name: str) -> None:
        """Make stage `name` and put it below pipeline/. Raises UserError when an input is missing or damaged."""
        if name == "data":
            atomic.folder(self.folder / "data", self._data)
        elif name == "report":
            self._report()
        elif name in EVALUATIONS:
            found = self._evaluate(name.partition("@")[2])
            publish(self.folder / place(name), {one.folder: one.artifact for one in found})
        else:
            artifact = self._build(name)
            target = self.folder / place(name)
            if (artifact.path / MANIFEST).is_file():
                publish(target, {"": artifact})
            else:
                record = {"model": self.config.base.model, "digest": artifact.digest}
                atomic.folder(target, lambda partial: atomic.write_text(partial / EXTERNAL, _json(record)))

    def input(self, name: str) -> Artifact:
        """What another stage left below pipeline/, verified."""
        folder = self.folder / place(name)
        if name == "data":
            from tasks.versioning import dvc_digest

            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder; `dvc repro data` makes it")
            return Store.external("data", folder, dvc_digest(folder))
        if (folder / EXTERNAL).is_file():
            return self._external(folder / EXTERNAL)
        return _load(folder, name)

    def _data(self, partial: Path) -> None:
        """The suite as the data section describes it: the accepted data/ if it was made by it (its tasks may be the
        user's own), else generated. data.dvc stays with the flow; an experiment with other data changes none of it."""
        from ra3core.corpora.suite.generate import generate

        with self.session.display.stage("data") as show:
            log = StageLog(sink=show)
            if _copy_accepted(self.session.runtime.root, self.config.data, partial):
                log.message("copied from data/")
                return
            generate(self.config.data, partial, log)
            log.message("generated")

    def _build(self, name: str) -> Artifact:
        """The artifact of a stage by the flow's own task."""
        session, seed, label = self.session, self.config.seed, LABELS.get(name, name)
        if name in ("corpus", "demonstrations", "rlvr_tasks"):
            from tasks import corpus as corpora
            from tasks.evaluate import held_out_by

            texts = held_out_by(self.config, session.runtime.root)
            return call(getattr(corpora, name), session, seed, self.input("data"), texts)
        if name == "base":
            from tasks.base import base

            return call(base, session, seed, self.input("corpus"))
        if name == "e_step":
            from tasks.e_step import e_step

            return call(e_step, session, seed, label, self.input("base"), self.input("demonstrations"))
        if name in ("bootstrap", "bootstrap_no_rl"):
            from tasks.bootstrap import bootstrap

            start = self.input("base")
            policy = self.input("e_step") if name == "bootstrap" else start
            return call(bootstrap, session, seed, label, policy, start, self.input("demonstrations"))
        if name in ("ntp_rlvr", "ra3_rlvr"):
            from tasks.rlvr import rlvr

            model = self.input("ntp" if name == "ntp_rlvr" else "m_step")
            return call(rlvr, session, seed, label, model, self.input("rlvr_tasks"))
        from tasks.m_step import m_step

        start = self.input("base")
        if name == "ntp_compute":
            annotated = self.input("bootstrap")
            spent = [self.input("e_step"), annotated]
            expert = self.input("demonstrations")
            return call(m_step, session, seed, label, start, expert, matched=spent, annotated=[annotated])
        source = {"m_step": "bootstrap", "ntp": "demonstrations", "ra3_no_rl": "bootstrap_no_rl"}[name]
        return call(m_step, session, seed, label, start, self.input(source))

    def _evaluate(self, arm: str) -> list[Evaluated]:
        """An arm on every benchmark that the configuration asks for."""
        from tasks.evaluate import asked, evaluate, label

        model, data = self.input(ARMS[arm]), self.input("data")
        found = []
        for one in asked(self.config, self.session.runtime.root):
            config = one.config if arm in EVERY_MODE else one.config.model_copy(update={"modes": ["free"]})
            name = label(arm, config)
            made = call(evaluate, self.session, self.config.seed, name, model, one.tasks or data, config)
            found.append(Evaluated(name, config.slug, made))
        return found

    def _evaluated(self) -> Iterator[Evaluated]:
        """What the evaluations left below pipeline/."""
        for arm in ARMS:
            home = self.folder / place(f"evaluate@{arm}")
            folders = sorted(path for path in home.glob("[!.]*") if path.is_dir())
            if not folders:
                raise UserError(f"{home}: no artifact in it; `dvc repro evaluate@{arm}` makes it")
            for folder in folders:
                label = f"evaluate_{arm}" + ("" if folder.name == EMBEDDED else f":{folder.name}")
                yield Evaluated(label, folder.name, _load(folder, f"evaluate@{arm}"))

    def _report(self) -> None:
        """The page over all arms, the headline figures, and the parent run in MLflow, which adopts the stages' runs."""
        from flows.results import headline, track
        from tasks.report import report

        made = {"data": self.input("data")}
        made |= {f"{LABELS.get(name, name)}/{self.config.seed}": self.input(name) for name in BUILT}
        made |= {f"{one.label}/{self.config.seed}": one.artifact for one in self._evaluated()}
        tracking: StageTracking = self.session.tracking  # pyright: ignore[reportAssignmentType]
        with track(self.session, flow="dvc"):
            tracking.dataset("labelled-steps", made["data"].digest, made["data"].path, "suite")
            tracking.adopt({name: self._in_store(artifact) for name, artifact in made.items()})
            commit = environment.commit(self.folder.parent)
            page = call(report, self.session, self.config.seed, made, commit)
            tracking.finish(headline(page.metrics), page.path)
        publish(self.folder / "report", {"": page})
        atomic.write_text(self.folder.parent / FIGURES, _json(figures(page.metrics)))
        self.session.display.line(f"Report: {self.folder / 'report' / 'report.html'}")

    def _in_store(self, artifact: Artifact) -> Path:
        """Where the store keeps an artifact; the link to the run that made it lies beside it."""
        return self.session.store.root / artifact.stage / artifact.key[:16]

    def _external(self, file: Path) -> Artifact:
        """The base model that the user named, as it was when the base stage ran."""
        from tasks import external

        record = json.loads(file.read_text())
        artifact = external.model(record["model"], self.session.runtime.root, chat=self.config.base.chat)
        if artifact.digest != record["digest"]:
            raise UserError(
                f"base.model: {record['model']} has changed since; `dvc repro --force base` takes it as it is"
            )
        return artifact


def call(task: StageTask, *arguments: Any, **options: Any) -> Artifact:
    """The artifact that a task returns, without Prefect: its function returns it inside a state."""
    state: Any = task.fn(*arguments, **options)
    return state.data


def place(name: str) -> str:
    """Where a stage's artifact lies below pipeline/."""
    return name.replace("@", "/")


def publish(target: Path, artifacts: Mapping[str, Artifact]) -> None:
    """Put copies of artifacts (subfolder -> artifact) and their curves at `target`, whole or not at all."""

    def fill(partial: Path) -> None:
        for subfolder, artifact in artifacts.items():
            shutil.copytree(artifact.path, partial / subfolder, dirs_exist_ok=True)
            for column in CURVES.get(artifact.stage, ()):
                write_curve(artifact.path / METRICS_FILE, column, partial / subfolder / "curves" / f"{column}.csv")

    atomic.folder(target, fill)


def write_curve(metrics: Path, column: str, file: Path) -> None:
    """A column of step-wise metrics as CSV, for `dvc plots`, which reads no JSON lines. Not every step has every one;
    a file with a header alone is written where none has, so that dvc.yaml may name it."""
    rows = read_metrics(metrics) if metrics.is_file() else []
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["step", column])
        writer.writerows([row["step"], row[column]] for row in rows if column in row)


def figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What `dvc metrics` and `dvc exp show` list: pass@1 of every arm, free decoding, and the paired differences."""
    return {
        "pass_at_1": {arm: modes["free"]["value"] for arm, modes in metrics["results"].items() if "free" in modes},
        "difference": {name: difference["value"] for name, difference in metrics["differences"].items()},
    }


def settings(folder: Path) -> RunConfig:
    """params.yaml below `folder`. Raises UserError that names the field."""
    path = folder / PARAMS
    if not path.is_file():
        raise UserError(f"{path}: no such file; this command is run by DVC, in the folder of dvc.yaml")
    config = load(str(path))
    if config.rounds != 1:
        raise UserError(f"{path}: rounds is {config.rounds}, expected 1: dvc.yaml lists one round, `ra3 run` does more")
    if config.seeds != 1:
        raise UserError(f"{path}: seeds is {config.seeds}, expected 1: dvc.yaml lists one seed, `ra3 run` does more")
    for section in ("arms", "tuning"):
        if getattr(config, section) != getattr(RunConfig(), section):
            raise UserError(f"{path}: {section}: dvc.yaml lists the demo's arms at given rates, `ra3 run` does others")
    return config


@contextmanager
def session_of(config: RunConfig, folder: Path) -> Iterator[Session]:
    """A session whose store and tracking are those of the checkout that DVC was started in."""
    root = os.environ.get("RA3_ROOT") or os.environ.get("DVC_ROOT") or folder
    runtime = environment.runtime(root=root)
    environment.prepare(runtime.root)
    from flows.dvc_tracking import StageTracking
    from tasks.display import Display
    from tasks.runner import Runner
    from tasks.session import Machine, Session

    tags = {"dvc.stage": os.environ.get("DVC_STAGE"), "dvc.experiment": os.environ.get("DVC_EXP_NAME")}
    tags["git_commit"] = environment.commit(folder)
    tracking = StageTracking(runtime.root, {name: value for name, value in tags.items() if value})
    machine = Machine(runtime)
    machine.runner = Runner(runtime, preload=())  # one stage: its child imports what it needs, and no more
    with (
        closing(tracking),
        closing(machine),
        Display() as display,
        Session(config, runtime, tracking, display, machine=machine) as session,
    ):
        yield session


def main(arguments: Sequence[str]) -> int:
    """Run a stage; what the user can put right is one sentence on stderr and exit code 2."""
    folder = Path.cwd()
    try:
        if len(arguments) != 1 or arguments[0] not in NAMES:
            raise UserError(f"{' '.join(arguments) or 'no stage'}: expected a stage of dvc.yaml: {', '.join(NAMES)}")
        with session_of(settings(folder), folder) as session:
            Pipeline(session, folder / FOLDER).run(arguments[0])
    except UserError as error:
        print(f"ra3: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ra3: interrupted; `dvc repro` continues from here", file=sys.stderr)
        return 130
    return 0


def _load(folder: Path, name: str) -> Artifact:
    try:
        return load_artifact(folder)
    except UserError as error:
        raise UserError(f"{error}; `dvc repro --force --single-item {name}` makes it again") from error


def _copy_accepted(root: Path, config: DataConfig, folder: Path) -> bool:
    """Copy data/ to an empty folder if it is what data.dvc and the section say; nothing is left there if not."""
    from tasks.versioning import dvc_digest

    if not (root / "data" / "suite.json").is_file():
        return False
    shutil.copytree(root / "data", folder, dirs_exist_ok=True)
    try:  # of the copy: data/ may be replaced meanwhile
        made_with = DataConfig.model_validate(json.loads((folder / "suite.json").read_text())["config"])
        accepted = yaml.safe_load((root / "data.dvc").read_text())["outs"][0]["md5"] == dvc_digest(folder)
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        made_with, accepted = None, False
    if accepted and made_with == config:
        return True
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return False


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
