"""A checkout of its own for every test that runs the pipeline or versions data."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.environment import CHECKOUT
from ra3core.config import DataConfig
from ra3core.stage import StageLog

os.environ.setdefault("PREFECT_HOME", str(CHECKOUT / ".cache" / "prefect-tests"))  # before anything imports Prefect

NewCheckout = Callable[[Path, DataConfig], Path]


@pytest.fixture(scope="session")
def new_checkout() -> NewCheckout:
    """new_checkout(folder, config): an empty git repository with DVC's configuration and tracked data in it."""
    from tasks.versioning import accept

    def make(root: Path, config: DataConfig) -> Path:
        subprocess.run(["git", "init", "--quiet", str(root)], check=True)
        (root / ".dvc").mkdir()
        shutil.copy(CHECKOUT / ".dvc" / "config", root / ".dvc")
        (root / ".gitignore").write_text("/data\n")
        accept(config, root, StageLog())
        return root

    return make
