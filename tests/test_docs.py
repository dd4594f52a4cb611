"""docs/code.md names every module."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("flows", "tasks", "ra3core", "bench")


def test_the_page_of_the_code_names_every_module_at_its_folder() -> None:
    git = subprocess.run(["git", "ls-files", "-z", *FOLDERS], cwd=CHECKOUT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git repository")
    modules = {PurePosixPath(name) for name in git.stdout.split("\0") if name.endswith(".py")}
    tracked = {str(module) for module in modules if module.name != "__init__.py"}
    assert tracked == _named((CHECKOUT / "docs" / "code.md").read_text())


def _named(page: str) -> set[str]:
    """Modules that the page names: below the line of their folder, or on it."""
    found, folder = defaultdict(set), ""
    for line in page.splitlines():
        if heading := re.match(r" {4}(\S.*?)(?: |$)", line):
            folder = heading[1]
        found[folder] |= {folder + name for name in re.findall(r"\w+\.py\b", line)}
    return {name for names in found.values() for name in names if name.split("/")[0] in FOLDERS}
