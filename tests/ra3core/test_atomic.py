"""Files and links that others read while they are made again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ra3core import atomic
from ra3core.corpora.held_out import FILE, write_texts
from ra3core.errors import UserError


def test_texts_that_are_there_are_not_written_again(tmp_path: Path) -> None:
    write_texts({"a": "text", "b": "é"}, tmp_path)
    file = tmp_path / FILE
    before, whole = file.stat(), file.read_text()
    write_texts({"a": "text", "b": "é"}, tmp_path)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    file.write_text(whole[:-4])  # as a process that was killed leaves it
    with file.open() as reader:
        write_texts({"a": "text", "b": "é"}, tmp_path)
        assert reader.read() == whole[:-4]
    assert file.read_text() == whole and list(tmp_path.iterdir()) == [file]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic.link(tmp_path / "folder", tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "ntp"
    target.mkdir()
    (target / "old").touch()
    (tmp_path / ".ntp.partial").mkdir()
    (tmp_path / ".ntp.partial" / "of a killed one").touch()

    def fails(partial: Path) -> None:
        (partial / "half").touch()
        raise UserError("no")

    with pytest.raises(UserError):
        atomic.folder(target, fails)
    assert [path.name for path in target.iterdir()] == ["old"]
    atomic.folder(target, lambda partial: (partial / "new").touch())
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["ntp"]

    def full(partial: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"ntp: could not be written: .*No space left"):
        atomic.folder(target, full)
    assert [path.name for path in target.iterdir()] == ["new"]
