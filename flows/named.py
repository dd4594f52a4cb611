"""Which artifact is meant by what a user types: a run, or a folder.

A run goes by its folder below reports/ or by that folder's name (`latest`, `demo-08c3f013`), which ends in the key of
its report; a folder is an artifact of the store. Artifacts are followed by the digests in their manifests.
"""

from __future__ import annotations

import re
from pathlib import Path

from ra3core.artifacts import MANIFEST, Artifact, Store, load_artifact
from ra3core.errors import UserError


def is_stage(name: str, kind: str, root: Path) -> bool:
    """Whether `name` is a run of the checkout's reports/ or an artifact of stage `kind`."""
    folder = Path(name).expanduser()
    if (folder / MANIFEST).is_file():
        return load_artifact(folder).stage == kind
    return _report_folder(name, root) is not None


def find(name: str, kind: str, root: Path, seed: int | None = None) -> Artifact:
    """The artifact of stage `kind`, the last round's, of a run; or the one that lies in the folder `name`.

    seed: of a run of several; the first by default. Raises UserError when there is none.
    """
    folder = Path(name).expanduser()
    if (folder / MANIFEST).is_file():
        found = load_artifact(folder.resolve())
        if found.stage != kind:
            raise UserError(f"{name}: an artifact of stage {found.stage}, expected one of {kind}")
        return found
    report = report_of(name, root)
    if report is None:
        raise UserError(f"{name}: neither a run below {root / 'reports'} nor a folder with a {MANIFEST}")
    inputs = report.manifest.inputs
    rounds = {
        (int(m[2]), int(m[1])): digest
        for stage, digest in inputs.items()
        if (m := re.fullmatch(rf"{re.escape(kind)}_(\d+)/(\d+)", stage))
    }
    seeds = sorted({number for number, _ in rounds})
    if not rounds or (seed is not None and seed not in seeds):
        known = f"expected one of {', '.join(map(str, seeds))}" if rounds else f"the run has no stage {kind}"
        raise UserError(f"{name}: no {kind}{'' if seed is None else f' of seed {seed}'}, {known}")
    chosen = max(place for place in rounds if place[0] == (seeds[0] if seed is None else seed))
    return by_digest(rounds[chosen], kind, root / "artifacts")


def report_of(name: str, root: Path) -> Artifact | None:
    """The report of a run that goes by its folder below reports/, or by that folder's name; None for other names.

    Raises UserError when the store no longer has it.
    """
    page = _report_folder(name, root)
    if page is None:
        return None
    store = Store(root / "artifacts")
    key = page.name.rpartition("-")[2]
    reports = [a for a in store.artifacts() if a.stage == "report" and a.key.startswith(key)]
    if not reports:
        raise UserError(f"{name}: its report {key} is no longer in {store.root}, expected the artifacts of that run")
    return reports[-1]


def input_of(artifact: Artifact, role: str) -> Artifact:
    """What an artifact of the store was made from. Raises UserError when the store no longer has it."""
    digest = artifact.manifest.inputs[role]
    return by_digest(digest, f"{role} of {artifact.path}", artifact.path.parent.parent)


def by_digest(digest: str, what: str, artifacts: Path) -> Artifact:
    """The newest artifact with this content, verified; or the model of the user's that has it (tasks/external.py)."""
    outside = artifacts / "external" / digest[:16]
    if outside.is_dir():
        return Store.external(outside.name, outside, digest)
    found = [artifact for artifact in Store(artifacts).artifacts() if artifact.digest == digest]
    if not found:
        raise UserError(f"{what}: no artifact with digest {digest[:16]} in {artifacts}, expected the run that made it")
    return load_artifact(found[-1].path)


def _report_folder(name: str, root: Path) -> Path | None:
    for folder in (root / "reports" / name, Path(name).expanduser()):
        if (folder / "report.html").is_file() and folder.resolve().parent == (root / "reports").resolve():
            return folder.resolve()
    return None
