"""data/ and the version of it that is committed as data.dvc.

data.dvc holds DVC's digest of the folder, and that is all that the repository needs: any machine generates the embedded
suite again to the byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock

from ra3core.artifacts import Artifact, Store
from ra3core.config import DataConfig
from ra3core.errors import UserError
from ra3core.stage import StageLog

ACCEPT = "`ra3 data --accept` with the same --preset and --set makes it the tracked version"


def version(config: DataConfig, root: Path, log: StageLog) -> Artifact:
    """data/ below `root`, made first if it is missing, and proven to be what data.dvc and the configuration say.

    Raises UserError, with nothing changed, when it is not.
    """
    folder = root / "data"
    with _lock(root):
        recorded = recorded_digest(root)
        if folder.is_dir():
            digest = dvc_digest(folder)
            if digest != recorded:
                raise UserError(f"data/ does not match data.dvc: {_difference(root, recorded)}; {ACCEPT}")
            _check_config(config, folder)
        else:
            made = _generate(config, root, log)
            digest = dvc_digest(made)
            if digest != recorded:
                shutil.rmtree(made)
                raise UserError(
                    f"data/ as the configuration's data section describes it does not match data.dvc: its digest is "
                    f"{digest}, expected {recorded}; {ACCEPT}"
                )
            made.replace(folder)
        if not _listing(root, digest).is_file():  # without it `dvc status` calls the folder changed
            _dvc(root, "commit", "--force", "data.dvc")
    return Store.external("data", folder, digest)


def accept(config: DataConfig, root: Path, log: StageLog) -> Artifact:
    """Make data/ the tracked version: made again if it is missing or its configuration differs, else as it is now."""
    folder = root / "data"
    with _lock(root):
        if not folder.is_dir() or _made_with(folder) != config:
            made = _generate(config, root, log)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
        _dvc(root, "add", "data")
        return Store.external("data", folder, dvc_digest(folder))


def dvc_digest(folder: Path) -> str:
    """What `dvc add` records for a folder, without the seconds that starting DVC takes."""
    from dvc_data.hashfile.hash import hash_file
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.fs.local import LocalFileSystem

    tree, files = Tree(), LocalFileSystem()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        meta, digest = hash_file(str(path), files, "md5")
        tree.add(path.relative_to(folder).parts, meta, digest)
    tree.digest()
    if tree.oid is None:
        raise ValueError(f"{folder}: DVC gave no digest")
    return tree.oid


def _lock(root: Path) -> FileLock:
    (root / ".cache").mkdir(exist_ok=True)
    return FileLock(root / ".cache" / "data.lock")


def recorded_digest(root: Path) -> str:
    """The digest in data.dvc."""
    path = root / "data.dvc"
    try:
        return yaml.safe_load(path.read_text())["outs"][0]["md5"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {ACCEPT}") from error
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: expected a DVC file with the md5 of one folder; {ACCEPT}") from error


def _generate(config: DataConfig, root: Path, log: StageLog) -> Path:
    """Make the suite in a sibling of data/; what a killed run left there is thrown away."""
    from ra3core.corpora.suite.generate import generate

    folder = root / ".cache" / "data.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generate(config, folder, log)
    return folder


def _made_with(folder: Path) -> DataConfig | None:
    """The configuration that the suite in a folder was made with; None when it does not say."""
    try:
        return DataConfig.model_validate(json.loads((folder / "suite.json").read_text())["config"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _check_config(config: DataConfig, folder: Path) -> None:
    made_with = _made_with(folder)
    if made_with is None:
        raise UserError(f"{folder / 'suite.json'}: expected the configuration that the data were made with; {ACCEPT}")
    for name, value in config:
        if getattr(made_with, name) != value:
            raise UserError(f"data.{name} is {value}, but data/ was made with {getattr(made_with, name)}; {ACCEPT}")


def _difference(root: Path, recorded: str) -> str:
    """The first file that is not as DVC recorded it, if DVC's cache still has the listing."""
    listing = _listing(root, recorded)
    if not listing.is_file():
        return "its digest is another one"
    from dvc_data.hashfile.hash import file_md5

    then = {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_text())}
    folder = root / "data"
    now = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            return f"{name} is missing"
        if name not in then:
            return f"{name} is new"
        if file_md5(str(now[name])) != then[name]:
            return f"{name} was changed"
    return "the order of its files"


def _listing(root: Path, digest: str) -> Path:
    """Where DVC's cache keeps the list of the files of a folder."""
    return root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def _dvc(root: Path, *arguments: str) -> None:
    """Run a DVC command in the checkout; raises UserError with DVC's own error when it fails."""
    if not (root / ".git").exists() and arguments[0] != "config":
        _dvc(root, "config", "--local", "core.no_scm", "true")  # an unpacked archive: DVC insists on git otherwise
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"}
    )
    if done.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(f"dvc {' '.join(arguments)} failed in {root}: {'; '.join(errors) or 'it gave no reason'}")
