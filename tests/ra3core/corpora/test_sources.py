"""Each kind of source gives demonstrations, and each way to get it wrong gives one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ra3core.corpora.demonstrations import Demonstration, write_demonstrations, write_rows
from ra3core.corpora.snippets import Snippets, load_demonstrations
from ra3core.corpora.sources import Document, Hub, Reader, source_digest
from ra3core.errors import UserError

CODE = "def f(x):\n    # why\n    y = x\n    return y\n\n\ndef g(x):\n    return -x\n"
CUT = ["def f(x):\n    y = x\n    return y\n", "def g(x):\n    return -x\n"]


def texts(source: str, data: Path = Path("missing"), max_lines: int = 40) -> list[str]:
    return [d.text for d in load_demonstrations(source, data, max_lines)]


def write_json(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_embedded(tmp_path: Path) -> None:
    demonstration = Demonstration("d", "def f(x):", ("    return x",), (0,), {0: "identity"})
    long = Demonstration("l", "def f(x):", ("    x = 1",) * 3, (0, 1, 2))
    write_demonstrations([demonstration, long, demonstration], tmp_path / "demonstrations.parquet")
    cutter = Cutter(2)
    assert list(load_demonstrations("embedded", tmp_path, cutter)) == [demonstration]
    assert dict(cutter.counts) == {"kept": 1, "too_long": 1, "duplicate": 1}


def test_python(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    assert texts(f"python:{tmp_path}") == CUT


@pytest.mark.parametrize("scheme", ["jsonl", "parquet"])
def test_rows(tmp_path: Path, scheme: str) -> None:
    rows = [
        {"prompt": "def f(x):\n", "lines": ["    a = '''", "  b'''", "", "    return a"]},
        {"prompt": "def g(x):", "lines": ["    # a comment could not be told from a rationale", "    return x"]},
        {"prompt": "def h(x):", "lines": ["    return ("]},
        {"prompt": "def i(x):  # here it may stand", "lines": ["    return '#'"]},
        {"prompt": "def j(x):", "lines": ["", " "]},
    ]
    file = tmp_path / f"rows.{scheme}"
    write_json(file, rows) if scheme == "jsonl" else write_rows(rows, file)
    cutter = Cutter(9)
    found = list(load_demonstrations(f"{scheme}:{file}", tmp_path, cutter))
    assert [d.id for d in found] == [f"rows.{scheme}:1", f"rows.{scheme}:4"]
    assert found[0].text == "def f(x):\n    a = '''\n  b'''\n\n    return a\n"
    assert found[0].boundaries == (0, 3)
    assert dict(cutter.counts) == {"kept": 2, "commented": 1, "not_python": 1, "no_body": 1}


@pytest.mark.parametrize("scheme", ["jsonl", "parquet"])
def test_rows_of_text(tmp_path: Path, scheme: str) -> None:
    file = tmp_path / f"rows.{scheme}"
    write_json(file, [{"text": CODE}]) if scheme == "jsonl" else write_rows([{"text": CODE, "stars": 3}], file)
    assert texts(f"{scheme}:{file}") == CUT


def test_lines_may_be_one_text(tmp_path: Path) -> None:
    file = write_json(tmp_path / "rows.jsonl", [{"prompt": "def f(x):", "lines": "    y = x\r\n    return y\r\n"}])
    assert texts(f"jsonl:{file}") == CUT[:1]


def test_our_own_files_can_be_read_back(tmp_path: Path) -> None:
    demonstration = Demonstration("d", "def f(x):", ("    s = '''", "    '''", "    return s"), (0, 1, 2))  # 1 is wrong
    write_demonstrations([demonstration], tmp_path / "own.parquet")
    (found,) = load_demonstrations(f"parquet:{tmp_path / 'own.parquet'}", tmp_path, Cutter(9))
    assert (found.prompt, found.lines, found.boundaries) == (demonstration.prompt, demonstration.lines, (0, 2))


@pytest.mark.parametrize("suffix", ["", ":train", ":train:content", ":validation:other", "::content"])
def test_hub(tmp_path: Path, suffix: str) -> None:
    for split in ("train", "validation"):
        write_rows([{"content": CODE, "other": "def h(x):\n    return 1\n"}], tmp_path / f"{split}.parquet")
    assert texts(f"hub:{tmp_path}{suffix}") == (["def h(x):\n    return 1\n"] if "other" in suffix else CUT)


def test_hub_with_prompt_and_lines(tmp_path: Path) -> None:
    write_json(tmp_path / "train.jsonl", [{"prompt": "def g(x):", "lines": ["    return -x"]}])
    assert texts(f"hub:{tmp_path}") == CUT[1:]


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (":missing", "cannot be loaded"),
        (":train:missing", "expected a column 'missing', found source"),
        ("", "expected prompt and lines, or one of content, code, text, found source"),
    ],
)
def test_hub_errors(tmp_path: Path, suffix: str, message: str) -> None:
    write_rows([{"source": CODE}], tmp_path / "train.parquet")
    with pytest.raises(UserError, match=message) as error:
        texts(f"hub:{tmp_path}{suffix}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["", "git:x", "python", "python:", "embedded:x", "parquet:", "Embedded"])
def test_unknown_source(source: str) -> None:
    with pytest.raises(UserError, match=r"expected embedded, python:FOLDER, parquet:FILE, jsonl:FILE or hub:NAME"):
        texts(source)
    with pytest.raises(UserError):
        source_digest(source)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not a JSON object"),
        ("[1]", "line 2: expected a JSON object, found list"),
        ('{"prompt": "x"}', "rows.jsonl:2: expected columns prompt and lines, or text, found prompt"),
        ('{"prompt": 1, "lines": []}', "rows.jsonl:2: prompt: expected text, found int"),
        ('{"prompt": "x", "lines": 3}', "rows.jsonl:2: lines: expected a list of lines or one text, found int"),
        ('{"prompt": "x", "lines": [3]}', "rows.jsonl:2: lines: expected text, found int"),
        ('{"prompt": "x", "lines": ["a\\nb"]}', "rows.jsonl:2: lines: expected one line in each entry"),
        ('{"text": null}', "rows.jsonl:2: text: expected text, found NoneType"),
        ('{"text": "\\ud800"}', "rows.jsonl:2: text: expected valid Unicode"),
    ],
)
def test_malformed_rows(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": CODE}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        texts(f"jsonl:{file}")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    for scheme in ("parquet", "jsonl"):
        with pytest.raises(UserError, match="no such file"):
            texts(f"{scheme}:{tmp_path / 'missing'}")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="not a readable parquet file"):
        texts(f"parquet:{tmp_path / 'bad.parquet'}")
    write_rows([{"code": "x"}], tmp_path / "columns.parquet")
    with pytest.raises(UserError, match="expected columns prompt and lines, or text, found code"):
        texts(f"parquet:{tmp_path / 'columns.parquet'}")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    file = write_json(tmp_path / "rows.jsonl", [{"text": "x = 1"}, {"text": "def f(:"}, {"text": CODE}])
    with pytest.raises(UserError, match=r"holds no demonstration that can be used \(1 not_python, 2 too_long\)"):
        texts(f"jsonl:{file}", max_lines=0)


def test_source_digest_follows_the_content(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "a.py").write_text(CODE)
    source = f"python:{folder}"
    first = source_digest(source)
    (folder / "note.txt").write_text("not read")
    assert first == source_digest(source) and first is not None
    folder.rename(tmp_path / "b")
    assert source_digest(f"python:{tmp_path / 'b'}") == first
    (tmp_path / "b" / "a.py").rename(tmp_path / "b" / "c.py")  # ids name the file
    assert source_digest(f"python:{tmp_path / 'b'}") != first

    file = write_json(tmp_path / "rows.jsonl", [{"text": CODE}])
    before = source_digest(f"jsonl:{file}")
    write_json(file, [{"text": CODE + "\n"}])
    assert before is not None and source_digest(f"jsonl:{file}") != before
    assert source_digest(f"hub:{tmp_path}:train:text") is not None
    assert source_digest("embedded") is None and source_digest("hub:someone/dataset") is None
    for missing in ("python:/no/such/folder", "jsonl:/no/such/file"):
        with pytest.raises(UserError, match="no such"):
            source_digest(missing)
