"""data/ against data.dvc, with DVC itself as the judge."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ra3core.config import DataConfig, load
from ra3core.corpora.suite.generate import generate
from ra3core.errors import UserError
from ra3core.stage import StageLog
from tasks import versioning
from tasks.versioning import accept, dvc_digest, version

SMALL = DataConfig(web_documents=20, outlines=8, demonstrations=10, rlvr_tasks=3, evaluation_tasks=2)
LOG = StageLog()
CHECKOUT = Path(__file__).resolve().parents[2]


def dvc(root: Path, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True).returncode


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Path:
    """A checkout with tracked data; tests copy it."""
    return new_checkout(tmp_path_factory.mktemp("accepted"), SMALL)


@pytest.fixture
def root(accepted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(accepted, tmp_path / "checkout"))


def test_digest_is_the_one_that_dvc_records(root: Path) -> None:
    assert dvc_digest(root / "data") in (root / "data.dvc").read_text()
    assert version(SMALL, root, LOG).digest == dvc_digest(root / "data")


def test_the_committed_version_is_what_the_generator_makes(tmp_path: Path) -> None:
    generate(load("demo").data, tmp_path / "data")
    assert dvc_digest(tmp_path / "data") in (CHECKOUT / "data.dvc").read_text()


def test_missing_data_are_generated_and_dvc_agrees(root: Path) -> None:
    recorded = (root / "data.dvc").read_bytes()
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")  # a fresh clone
    artifact = version(SMALL, root, LOG)
    assert (root / "data.dvc").read_bytes() == recorded
    assert dvc(root, "status", "--quiet", "data.dvc") == 0
    assert artifact.digest.encode() in recorded


def test_changed_data_stop_the_run_until_they_are_accepted(root: Path) -> None:
    with (root / "data" / "outlines.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"outlines\.parquet was changed; `ra3 data --accept`"):
        version(SMALL, root, LOG)
    assert dvc(root, "status", "--quiet", "data.dvc") == 1
    accept(SMALL, root, LOG)
    assert version(SMALL, root, LOG).digest == dvc_digest(root / "data")
    assert (root / "data" / "outlines.parquet").read_bytes().endswith(b"x")  # accepted as it was, not made again


def test_missing_and_new_files_are_named(root: Path) -> None:
    (root / "data" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is new"):
        version(SMALL, root, LOG)
    (root / "data" / "notes.txt").unlink()
    (root / "data" / "web.parquet").unlink()
    with pytest.raises(UserError, match=r"web\.parquet is missing"):
        version(SMALL, root, LOG)


def test_another_configuration_is_refused_by_name_and_can_be_accepted(root: Path) -> None:
    other = SMALL.model_copy(update={"outlines": 9})
    with pytest.raises(UserError, match=r"^data\.outlines is 9, but data/ was made with 8; `ra3 data --accept`"):
        version(other, root, LOG)
    shutil.rmtree(root / "data")
    with pytest.raises(UserError, match=r"does not match data\.dvc"):
        version(other, root, LOG)
    assert not (root / "data").exists()
    accept(other, root, LOG)
    version(other, root, LOG)


def test_no_or_a_broken_data_dvc(root: Path) -> None:
    (root / "data.dvc").write_text("outs: 3\n")
    with pytest.raises(UserError, match=r"data\.dvc: expected a DVC file"):
        version(SMALL, root, LOG)
    (root / "data.dvc").unlink()
    with pytest.raises(UserError, match=r"data\.dvc: no such file"):
        version(SMALL, root, LOG)


def test_a_killed_generation_leaves_no_data(root: Path, monkeypatch) -> None:
    from ra3core.corpora.suite import generate

    def killed(config, folder: Path, log) -> None:
        (folder / "web.parquet").write_text("half")
        raise KeyboardInterrupt

    shutil.rmtree(root / "data")
    with monkeypatch.context() as patch:
        patch.setattr(generate, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            version(SMALL, root, LOG)
    assert not (root / "data").exists()
    version(SMALL, root, LOG)


def test_a_checkout_without_git(root: Path) -> None:
    shutil.rmtree(root / ".git")
    shutil.rmtree(root / ".dvc" / "cache")
    version(SMALL, root, LOG)
    assert dvc(root, "status", "--quiet", "data.dvc") == 0


def test_a_failing_dvc_is_one_sentence(root: Path) -> None:
    with pytest.raises(UserError, match=r"^dvc add nothing failed in .*nothing") as error:
        versioning._dvc(root, "add", "nothing")
    assert "\n" not in str(error.value)
