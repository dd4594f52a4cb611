"""What changes the digest of a stage's code, and what does not."""

from pathlib import Path

import pytest

from ra3core import fingerprint, stage
from ra3core.fingerprint import PLUMBING, code_digest, source_digest

FILES = {
    "__init__.py": "",
    "config.py": "LIMIT = 1\n",
    "lm/__init__.py": "",
    "lm/models.py": "def load():\n    return 1\n",
    "lm/deep.py": "DEPTH = 1\n",
    "lm/unused.py": "UNUSED = 1\n",
    "lm/child.py": "print(1)\n",
    "verifier/__init__.py": "",
    "verifier/server.py": "SERVER = 1\n",
    "learning/__init__.py": "",
    "learning/stage.py": """
from pathlib import Path
from core.config import LIMIT
from core.lm import models
COMMAND = ["python", "-m", "core.verifier.server"]

def stage(config, context):
    from ..lm.deep import DEPTH
    return models.load() + DEPTH
""",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "core" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "core/lm/models.py").write_text('SCRIPT = "child.py"\n' + FILES["lm/models.py"])
    return tmp_path / "core"


def digest(package: Path) -> str:
    fingerprint._scan.cache_clear()
    return source_digest(package / "learning/stage.py", package)


@pytest.mark.parametrize(
    "name",
    [
        "learning/stage.py",
        "lm/models.py",  # from core.lm import models
        "lm/deep.py",  # a relative import inside a function
        "lm/child.py",  # a script beside models.py, named in it
        "verifier/server.py",  # python -m
        "lm/__init__.py",
        "__init__.py",
    ],
)
def test_a_change_of_code_that_runs_changes_the_digest(package: Path, name: str) -> None:
    before = digest(package)
    file = package / name
    text = file.read_text()
    file.write_text(text + "EXTRA = 1\n")
    assert digest(package) != before
    file.write_text(text)
    assert digest(package) == before


@pytest.mark.parametrize("name", ["config.py", "lm/unused.py"])
def test_plumbing_and_unused_modules_do_not_count(package: Path, name: str) -> None:
    before = digest(package)
    (package / name).write_text("EXTRA = 1\n")
    assert digest(package) == before


def test_comments_docstrings_and_formatting_do_not_count(package: Path) -> None:
    before = digest(package)
    (package / "lm/models.py").write_text(
        '"""A docstring."""\nSCRIPT = "child.py"  # a comment\n"""What SCRIPT is."""\n\n\n'
        'def load():\n    """Another."""\n\n    return (\n        1  # one\n    )\n'
    )
    assert digest(package) == before
    (package / "lm/models.py").write_text('SCRIPT = "child.py"\n\n\ndef load():\n    return 2\n')
    assert digest(package) != before


@pytest.mark.parametrize(("one", "other"), [("x = None", "x = 0"), ("x = 1", "x = 1.0"), ("x = 'a'", "x = b'a'")])
def test_constants_are_told_apart(package: Path, one: str, other: str) -> None:
    file = package / "lm/deep.py"
    file.write_text(one)
    before = digest(package)
    file.write_text(other)
    assert digest(package) != before


def test_the_place_of_the_package_does_not_count(package: Path, tmp_path: Path) -> None:
    before = digest(package)
    (tmp_path / "elsewhere").mkdir()
    assert digest(package.rename(tmp_path / "elsewhere" / "core")) == before


def test_modules_called_plumbing_exist() -> None:
    assert all((fingerprint.PACKAGE / name).is_file() for name in PLUMBING)


def test_a_stage_outside_the_package_is_known_by_its_file() -> None:
    assert code_digest(test_modules_called_plumbing_exist) != code_digest(stage.read_metrics)
    assert len(code_digest(stage.read_metrics)) == 64
