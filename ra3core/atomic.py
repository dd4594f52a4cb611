"""Files, links and folders that appear whole: whoever looks meanwhile finds what was there before, or what is new."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from ra3core.errors import UserError


def write_text(file: Path, text: str) -> None:
    """Make a file hold `text`; one that does already is left alone."""
    if not file.is_file() or file.read_bytes() != text.encode():
        _appear(file, lambda partial: partial.write_bytes(text.encode()))


def link(place: Path, target: Path) -> None:
    """Make `place` a symbolic link to `target`; one that is already is left alone."""
    if not place.is_symlink() or place.readlink() != target:
        _appear(place, lambda partial: partial.symlink_to(target, target_is_directory=target.is_dir()))


def folder(place: Path, fill: Callable[[Path], None]) -> None:
    """Have a hidden sibling filled, which then takes the place of `place`; what a killed one left is thrown away.

    Raises UserError when the disk does not take it.
    """
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
    except OSError as error:
        raise UserError(f"{place}: could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _appear(place: Path, make: Callable[[Path], object]) -> None:
    """make(path) beside `place`, under a name that no other thread or process takes, then renamed."""
    partial = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        make(partial)
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
