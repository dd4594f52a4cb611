"""Inputs that no stage made, while others read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import external


@pytest.mark.parametrize("chat", [False, True])
def test_a_link_to_a_model_is_there_at_all_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "chat_template.jinja").write_text("x")
    home = external.model(str(tmp_path / "one"), tmp_path, chat=chat).path
    place = home / "model" / "config.json"
    symlink_to, made = Path.symlink_to, []

    def seen(path: Path, target: Path, target_is_directory: bool = False) -> None:
        made.append(place.exists())
        symlink_to(path, target, target_is_directory)

    monkeypatch.setattr(Path, "symlink_to", seen)
    external.model(str(tmp_path / "one"), tmp_path, chat=chat)
    assert not made
    assert external.model(str(tmp_path / "two"), tmp_path, chat=chat).path == home  # of the same content
    assert made and all(made) and place.resolve() == tmp_path / "two" / "config.json"
    assert not list(home.glob("**/.*"))
