"""Inputs that no stage made: a model of the user's or from the hub, and the user's demonstrations.

Each becomes an `Artifact` whose digest is that of its content (or the hub's revision), so that a change of it makes
new keys downstream and nothing is copied.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ra3core import atomic
from ra3core.artifacts import Artifact, Store, content_digest
from ra3core.config import CHAT_MARK
from ra3core.corpora.sources import files, parse_source, source_digest
from ra3core.errors import UserError


def model(name: str, root: Path, setting: str = "base.model", chat: bool = False) -> Artifact:
    """A model to start from: a folder that AutoModelForCausalLM loads, one of the store's with such a folder in it, or
    the name of a model on the hub. setting: what named it. chat: `base.chat`, which is noted in its tokenizer's
    configuration (ra3core/lm/chat.py).

    Stages look for model/ below an input, so a link of that name is put below artifacts/external/ in `root`; with
    `chat`, a folder of links. Raises UserError when it is neither, and for `chat` without a chat template.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        if (folder / "model" / "config.json").is_file():
            folder = folder / "model"
        if not (folder / "config.json").is_file():
            raise UserError(f"{setting}: {folder} has no config.json, expected a folder that transformers can load")
        digest = content_digest(folder)
    else:
        folder, digest = _from_hub(name, setting)
    if chat:
        digest = chat_digest(digest)
    home = root / "artifacts" / "external" / digest[:16]
    home.mkdir(parents=True, exist_ok=True)
    if chat:
        _mark(folder, home / "model")
    else:
        atomic.link(home / "model", folder)
    return Store.external("base", home, digest)


def chat_digest(digest: str) -> str:
    """What stands for a model's content when it is prompted as a chat model."""
    return hashlib.sha256(f"{digest} {CHAT_MARK}".encode()).hexdigest()


def _mark(folder: Path, marked: Path) -> None:
    """A folder of links to a model's files, and a tokenizer configuration that says that it is a chat model."""
    own = "tokenizer_config.json"
    settings = json.loads((folder / own).read_text()) if (folder / own).is_file() else {}
    if not settings.get("chat_template") and not (folder / "chat_template.jinja").is_file():
        raise UserError(f"base.chat: the tokenizer of {folder.name} has no chat template, expected a chat model")
    marked.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.name != own:
            atomic.link(marked / file.name, file.resolve())
    atomic.write_text(marked / own, json.dumps(settings | {CHAT_MARK: True}, indent=2) + "\n")


def demonstrations(source: str) -> Artifact | None:
    """The files behind `corpus.source`; None when it names none here (the embedded suite, a data set on the hub).

    Raises UserError when they do not exist.
    """
    digest = source_digest(source)
    return None if digest is None else Store.external("source", Path(parse_source(source)[1]), digest)


def tasks(source: str) -> tuple[Artifact | None, str]:
    """The files behind `rlvr_tasks.source`, and the source as the stage's settings have it: of a file its name alone,
    for where it lies decides nothing. None for the embedded suite, and for a data set on the hub.

    Raises UserError when the files do not exist.
    """
    scheme, _, rest = source.partition(":")
    name, colon, split = rest.partition(":") if scheme == "hub" else (rest, "", "")
    path = Path(name).expanduser()
    if scheme not in ("file", "hub") or (scheme == "hub" and not path.is_dir()):
        return None, source
    if not path.exists():
        raise UserError(f"rlvr_tasks.source {source}: no such file or folder")
    path = path.resolve()
    return Store.external("source", path, content_digest(path)), f"{scheme}:{path.name}{colon}{split}"


def absolute(source: str) -> str:
    """`source` with its path made absolute: stages run in another working directory than the user's.

    Raises UserError for a source of no known kind, and when nothing lies there.
    """
    kind, name = parse_source(source)
    if kind in ("parquet", "jsonl"):
        absolute_ones = ",".join(str(Path(part).expanduser().absolute()) for part in name.split(","))
        files(absolute_ones, kind)
        return f"{kind}:{absolute_ones}"
    path, separator, rest = name.partition(":") if kind == "hub" else (name, "", "")
    folder = Path(path).expanduser()
    if kind == "embedded" or (kind == "hub" and not folder.is_dir()):
        return source
    if not folder.exists():
        raise UserError(f"corpus.source {source}: no such folder")
    return f"{kind}:{folder.resolve()}{separator}{rest}"


def _from_hub(name: str, setting: str) -> tuple[Path, str]:
    """The local copy of a hub model, and its revision."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"])
        )
    except (OSError, ValueError) as error:  # HTTP errors are OSErrors; ValueError: not a possible name
        raise UserError(f"{setting}: {name!r} is no folder, and no model of that name could be fetched") from error
    return folder, folder.name
