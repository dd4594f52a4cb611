"""Each kind of source gives demonstrations, and each way to get it wrong gives one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
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
    assert list(load_demonstrations("embedded", tmp_path, 2)) == [demonstration]


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
    snippets = Snippets(9, None)
    documents = filter(snippets.admits, Reader(f"{scheme}:{file}", tmp_path))
    found = [demonstration for document in documents for demonstration in snippets.of(document)]
    assert [d.id for d in found] == [f"rows.{scheme}:1", f"rows.{scheme}:4"]
    assert found[0].text == "def f(x):\n    a = '''\n  b'''\n\n    return a\n"
    assert found[0].boundaries == (0, 3)
    assert dict(snippets.counts) == {"commented": 1, "not_python": 1, "no_body": 1}


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
    (found,) = load_demonstrations(f"parquet:{tmp_path / 'own.parquet'}", tmp_path, 9)
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
    with pytest.raises(UserError, match=r"expected embedded, python:FOLDER, parquet:FILES, jsonl:FILES or hub:NAME"):
        texts(source)
    with pytest.raises(UserError):
        source_digest(source)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "rows.jsonl:2: not a JSON object"),
        ("[1]", "rows.jsonl:2: expected a JSON object, found list"),
        ('{"prompt": "x"}', "rows.jsonl:2: expected prompt and lines, or one of content, code, text, found prompt"),
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
    with pytest.raises(UserError, match="not readable parquet files"):
        texts(f"parquet:{tmp_path / 'bad.parquet'}")
    write_rows([{"source": "x"}], tmp_path / "columns.parquet")
    with pytest.raises(UserError, match="expected prompt and lines, or one of content, code, text, found source"):
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


def test_python_folder(tmp_path: Path) -> None:
    body = "\n    x = {}\n    return x\n"
    for name in ("b.py", "a/z.py", ".hidden/h.py", "__pycache__/c.py", "site-packages/s.py", "a/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"def f_{Path(name).stem}():" + body.format(len(name)))
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\ndef g():\n    x = '\xe9'\n    return x\n")
    documents = list(Reader(f"python:{tmp_path}", tmp_path))
    assert [(d.place, d.problem) for d in documents] == [("a/z.py", ""), ("b.py", ""), ("latin.py", "not_utf8")]
    with pytest.raises(UserError, match="no such folder"):
        texts(f"python:{tmp_path / 'missing'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.py files, expected at least one"):
        texts(f"python:{tmp_path / 'empty'}")


def test_windows_files_are_read_as_python_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfdef f(x):\r\n    s = '''a\r\nb'''\r\n    return s\r\n")
    assert texts(f"python:{tmp_path}") == ["def f(x):\n    s = '''a\nb'''\n    return s\n"]


def numbered(folder: Path, scheme: str, shards: int, rows: int) -> list[str]:
    """Files of rows with licences; the sources in order."""
    sources = [f"def f{i}(x):\n    return x + {i}\n" for i in range(shards * rows)]
    for shard in range(shards):
        of_shard = [
            {"content": text, "max_stars_repo_licenses": ["MIT", "Apache-2.0"]}
            for text in sources[shard * rows : (shard + 1) * rows]
        ]
        if scheme == "parquet":
            table = pyarrow.Table.from_pylist(of_shard)
            parquet.write_table(table, folder / f"part-{shard}.parquet", row_group_size=max(1, rows // 3))
        else:
            with pyarrow.output_stream(folder / f"part-{shard}.jsonl.{scheme}", compression="detect") as stream:
                stream.write("".join(json.dumps(row) + "\n\n" for row in of_shard).encode())
    return sources


@pytest.mark.parametrize("scheme", ["parquet", "gz", "zst"])
def test_shards_in_a_folder_by_a_pattern_and_by_name(tmp_path: Path, scheme: str) -> None:
    sources = numbered(tmp_path, scheme, shards=3, rows=4)
    kind, suffix = ("parquet", "parquet") if scheme == "parquet" else ("jsonl", f"jsonl.{scheme}")
    assert texts(f"{kind}:{tmp_path}") == sources
    assert texts(f"{kind}:{tmp_path}/part-[12].*") == sources[4:]
    assert texts(f"{kind}:{tmp_path}/part-2.{suffix},{tmp_path}/part-0.*") == sources[8:] + sources[:4]
    for nothing in (f"{tmp_path}/part-7*", f"{tmp_path}/part-0.{suffix},{tmp_path}/missing"):
        with pytest.raises(UserError, match="no such file, expected a file, a folder, or a pattern of files"):
            texts(f"{kind}:{nothing}")
    assert {d.licence for d in load_demonstrations(f"{kind}:{tmp_path}", tmp_path, 9)} == {"Apache-2.0 AND MIT"}


def test_a_damaged_stream_is_one_sentence(tmp_path: Path) -> None:
    numbered(tmp_path, "gz", shards=1, rows=40)
    file = tmp_path / "part-0.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-0\.jsonl\.gz: cannot be read"):
        texts(f"jsonl:{file}")


@pytest.mark.parametrize("scheme", ["python", "parquet", "jsonl", "hub"])
@pytest.mark.parametrize("read", [0, 1, 5, 6, 11])
def test_a_reader_goes_on_where_one_was_left(tmp_path: Path, scheme: str, read: int) -> None:
    """Left within a shard, at its end, and at the end of all; positions are kept as JSON."""
    if scheme == "python":
        for i, source in enumerate(numbered(tmp_path, "parquet", shards=1, rows=11)):
            (tmp_path / f"{i:02}.py").write_text(source)
    else:
        numbered(tmp_path, "gz" if scheme == "jsonl" else "parquet", shards=3, rows=6)
    source = f"{scheme}:{tmp_path}"
    everything = list(Reader(source, tmp_path))
    reader = Reader(source, tmp_path)
    before = list(islice(reader, read))
    position = json.loads(json.dumps(reader.position())) if read else {}
    assert before + list(Reader(source, tmp_path, position)) == everything
    assert len(everything) == (11 if scheme == "python" else 18)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for datasets.load_dataset: only the calls are checked, the streams of the tests above are real."""
    import datasets

    asked: list[Any] = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return datasets.IterableDataset.from_generator(lambda: iter([{"code": CODE, "license": "mit"}]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = "hub:bigcode/the-stack-dedup/data/python@v1.1#small:test:code"
    assert [d.licence for d in load_demonstrations(source, Path("missing"), 9)] == ["mit", "mit"]
    options = {"data_dir": "data/python", "revision": "v1.1", "split": "test", "streaming": True}
    assert asked == [(("bigcode/the-stack-dedup", "small"), options)]
    assert Hub.of("codeparrot") == Hub("codeparrot")
    with pytest.raises(UserError, match="expected a column 'other', found code, license"):
        list(load_demonstrations("hub:owner/name:train:other", Path("missing"), 9))


def test_a_stream_that_breaks_off_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows() -> Iterator[dict[str, str]]:
        yield {"code": CODE}
        raise OSError("connection\nreset")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(rows))
    with pytest.raises(UserError, match=r"^hub:owner/name:2: the stream broke off \(connection reset\)$"):
        texts("hub:owner/name")


@pytest.mark.parametrize(
    ("row", "licence"),
    [
        ({"license": "MIT"}, "MIT"),
        ({"licenses": ["b", "a", "b"]}, "a AND b"),
        ({"license": None, "detected_licenses": []}, ""),
        ({}, "BSD-3-Clause"),
    ],
)
def test_licences(tmp_path: Path, row: dict[str, Any], licence: str) -> None:
    head = "" if "license" in row else "# SPDX-License-Identifier: BSD-3-Clause\n"
    file = write_json(tmp_path / "rows.jsonl", [{"text": head + CODE, **row}])
    (document,) = Reader(f"jsonl:{file}", tmp_path)
    assert document == Document("rows.jsonl:1", head + CODE, licence=licence)
    assert {d.licence for d in load_demonstrations(f"jsonl:{file}", tmp_path, 9)} == {licence}
