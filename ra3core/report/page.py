"""A document as one self-contained HTML page: no script, no font, no image that is not in the file."""

from __future__ import annotations

import base64
import re
from html import escape

from ra3core.report.blocks import (
    Block,
    Cell,
    Document,
    Example,
    Heading,
    Paragraph,
    Picture,
    Statements,
    Table,
)

CSS = """
:root { --ink: #1c1c1e; --soft: #5f6368; --faint: #8a8f94; --line: #dadce0; --wash: #f6f7f8; --accent: #b34700; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16.5px/1.58 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Georgia, serif; }
main { max-width: 58rem; margin: 0 auto; padding: 3.2rem 1.5rem 5rem; }
h1, h2, h3, nav, table, figcaption, .caption, .badge, dl.facts, .note, .example-title {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 2.1rem; line-height: 1.18; letter-spacing: -0.02em; margin: 0 0 .5rem; font-weight: 680; }
h2 { font-size: 1.32rem; letter-spacing: -0.01em; margin: 3.4rem 0 .9rem; padding-top: 1.1rem;
  border-top: 1px solid var(--line); font-weight: 650; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; font-weight: 650; }
p { margin: .7rem 0; max-width: 46rem; }
.subtitle { color: var(--soft); font-size: 1.1rem; margin: 0 0 1.5rem; }
.note { color: var(--soft); font-size: .84rem; line-height: 1.5; }
code { font: .87em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .9rem 1.6rem;
  margin: 0 0 1.4rem; padding: 1rem 0; border: solid var(--line); border-width: 1px 0; }
dl.facts dt { font-size: .72rem; text-transform: uppercase; letter-spacing: .06em; color: var(--soft); }
dl.facts dd { margin: .1rem 0 0; font-size: .93rem; line-height: 1.4; overflow-wrap: anywhere; }
nav { font-size: .86rem; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin-bottom: .5rem; }
nav a { color: var(--soft); text-decoration: none; border-bottom: 1px solid var(--line); }
nav a:hover { color: var(--accent); border-color: currentColor; }
ul.statements { list-style: none; margin: 1rem 0; padding: 0; }
ul.statements li { display: grid; grid-template-columns: 8.4rem 1fr; gap: .6rem; padding: .62rem 0;
  border-bottom: 1px solid #ececee; align-items: baseline; }
.badge { justify-self: start; font-size: .73rem; font-weight: 620; line-height: 1; padding: .34rem .6rem;
  border-radius: 1rem; border: 1px solid; white-space: nowrap; }
.badge.shown { color: #fff; background: #00694b; border-color: #00694b; }
.badge.not-shown { color: #5f6368; background: #fff; border-color: #b9bcc0; }
.badge.against { color: #8f2a00; background: #fff1e8; border-color: #d98a5b; }
.badge.fact { color: #1f4e79; background: #eef4fa; border-color: #a9c3dc; }
.caption, figcaption { font-size: .86rem; line-height: 1.5; color: var(--soft); max-width: 54rem; }
.caption b, figcaption b { color: var(--ink); font-weight: 640; }
section.table { margin: 1.8rem 0 2.2rem; }
.scroll { overflow-x: auto; margin-top: .55rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums; border: solid var(--ink); border-width: 1.6px 0; }
th { font-weight: 620; font-size: .78rem; text-align: right; padding: .5rem .55rem; vertical-align: bottom;
  border-bottom: 1px solid var(--ink); }
td { text-align: right; padding: .42rem .55rem; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
td:first-child { white-space: normal; }
th:first-child, td:first-child { padding-left: .1rem; }
tr.rule td { border-top: 1px solid var(--line); }
tr.total td { border-top: 1px solid var(--ink); font-weight: 640; }
td small { display: block; color: #6d7277; font-size: .74rem; font-weight: 400; }
table.marked td, table.marked th { padding-right: 1.05rem; }
td { position: relative; }
td .mark { position: absolute; right: .2rem; top: .5rem; color: var(--ink); font-size: .66rem; }
.swatch { display: inline-block; width: .62rem; height: .62rem; border-radius: 2px; margin-right: .5rem; }
table.compact { font-size: .76rem; }
table.compact td { padding: .2rem .5rem; white-space: normal; overflow-wrap: anywhere; }
table.compact td:first-child, table.compact td code { white-space: nowrap; }
table.compact td code.long { white-space: normal; overflow-wrap: anywhere; }
table.compact td { line-height: 1.5; } table.compact td b { font-weight: 600; }
figure { margin: 1.8rem 0 2.4rem; }
figure img { display: block; width: 100%; height: auto; }
figure img.narrow { width: 62%; }
figcaption { margin-top: .6rem; }
.example { margin: 1.4rem 0 2rem; }
.example-title { font-size: .84rem; color: var(--soft); margin-bottom: .4rem; }
.example table { table-layout: fixed; border: 1px solid var(--line); border-radius: 4px; }
.example th { text-align: left; background: var(--wash); border-bottom: 1px solid var(--line); padding: .4rem .7rem; }
.example td { font: 11.8px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; text-align: left; padding: 0 .7rem; tab-size: 4; }
.example th + th, .example td + td { border-left: 1px solid var(--line); }
.example tr:nth-child(2) td { padding-top: .5rem; } .example tr:last-child td { padding-bottom: .5rem; }
.example td.rationale { background: #fff0e4; box-shadow: inset 3px 0 #d55e00; color: #7a2f00; font-weight: 600; }
.example td.gap { background: repeating-linear-gradient(-45deg, #fbfbfb 0 5px, #f1f1f2 5px 6px); }
.k { color: #00578a; font-weight: 600; } .s { color: #3f6b34; } .n { color: #7a3d8f; }
.c { color: #7c7c7c; font-style: italic; }
@media (max-width: 44rem) { ul.statements li { grid-template-columns: 1fr; gap: .3rem; } }
@media print {
  @page { margin: 16mm 14mm; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } nav { display: none; }
  h2 { break-after: avoid; margin-top: 1.8rem; } h3, .caption { break-after: avoid; }
  figure, tr, .example, ul.statements li { break-inside: avoid; } .scroll { overflow: visible; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""

_TOKEN = re.compile(
    r"(?P<s>'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")|(?P<c>#[^\n]*)"
    r"|(?P<k>\b(?:and|as|assert|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is"
    r"|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False)\b)"
    r"|(?P<n>\b\d+(?:\.\d+)?\b)",
    re.DOTALL,
)


def render(document: Document) -> str:
    """The page."""
    numbers = {"Table": 0, "Figure": 0}
    body = "\n".join(_block(block, numbers) for block in document.blocks)
    sections = [block for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    contents = "".join(f'<a href="#{escape(s.anchor)}">{escape(s.text)}</a>' for s in sections)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{inline(value)}</dd></div>" for name, value in document.facts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(document.title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(document.title)}</h1>
<p class="subtitle">{inline(document.subtitle)}</p>
<dl class="facts">{facts}</dl>
<nav>{contents}</nav>
</header>
{body}
</main>
</body>
</html>
"""


def inline(text: str) -> str:
    """Escaped text with ``**strong**`` and `` `code` `` as HTML."""
    marked = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text, quote=False))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", marked)


def highlight(source: str) -> list[str]:
    """Lines of Python source as HTML with keywords, strings, numbers and comments marked."""
    parts: list[str] = []
    end = 0
    for match in _TOKEN.finditer(source):
        parts.append(escape(source[end : match.start()]))
        kind = match.lastgroup
        parts.append("\n".join(f'<span class="{kind}">{escape(part)}</span>' for part in match[0].split("\n")))
        end = match.end()
    parts.append(escape(source[end:]))
    return "".join(parts).split("\n")


def _block(block: Block, numbers: dict[str, int]) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{escape(block.anchor)}">{escape(block.text)}</h{block.level}>'
    if isinstance(block, Paragraph):
        return f"<p{_class('note' if block.note else '')}>{inline(block.text)}</p>"
    if isinstance(block, Statements):
        items = "".join(
            f'<li><span class="badge {item.verdict.replace(" ", "-")}">{escape(item.label)}</span>'
            f"<span>{inline(item.text)}</span></li>"
            for item in block.items
        )
        return f'<ul class="statements">{items}</ul>'
    if isinstance(block, Table):
        numbers["Table"] += 1
        return _table(block, numbers["Table"])
    if isinstance(block, Picture):
        numbers["Figure"] += 1
        return _picture(block, numbers["Figure"])
    return _example(block)


def _table(table: Table, number: int) -> str:
    text = {0, *table.text_columns}
    head = "".join(
        f'<th scope="col"{_class("text" if i in text else "")}>{inline(column)}</th>'
        for i, column in enumerate(table.columns)
    )
    rows = []
    for row in table.rows:
        looks = " ".join(name for name, on in (("rule", row.rule), ("total", row.total)) if on)
        swatch = f'<span class="swatch" style="background:{row.color}"></span>' if row.color else ""
        content = "".join(
            f"<td{_class('text' if i in text else '')}>{swatch if i == 0 else ''}{_cell(cell)}</td>"
            for i, cell in enumerate(row.cells)
        )
        rows.append(f"<tr{_class(looks)}>{content}</tr>")
    marked = any(cell.mark for row in table.rows for cell in row.cells)
    kinds = " ".join(name for name, on in (("compact", table.compact), ("marked", marked)) if on)
    return (
        f'<section class="table" id="table-{escape(table.name)}">'
        f'<div class="caption"><b>Table {number}.</b> {inline(table.caption)}</div>'
        f'<div class="scroll"><table{_class(kinds)}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _class(name: str) -> str:
    """A class attribute, if there is a class."""
    return f' class="{name}"' if name else ""


def _cell(cell: Cell) -> str:
    mark = f'<span class="mark">{escape(cell.mark)}</span>' if cell.mark else ""
    detail = f"<small>{inline(cell.detail)}</small>" if cell.detail else ""
    return f"{inline(cell.text)}{mark}{detail}"


def _picture(picture: Picture, number: int) -> str:
    data = base64.b64encode(picture.svg).decode("ascii")
    return (
        f'<figure id="figure-{escape(picture.name)}"><img alt="{escape(picture.alt)}" '
        f'src="data:image/svg+xml;base64,{data}">'
        f"<figcaption><b>Figure {number}.</b> {inline(picture.caption)}</figcaption></figure>"
    )


def _example(example: Example) -> str:
    """Two columns, line beside line; where a rationale stands on the right there is a gap on the left."""
    left = iter(highlight("\n".join(example.before)))
    right = highlight("\n".join(example.after))
    rows = []
    for position, line in enumerate(right):
        if position in example.rationale_lines:
            rows.append(f'<tr><td class="gap"></td><td class="rationale">{escape(example.after[position])}</td></tr>')
        else:
            rows.append(f"<tr><td>{next(left)}</td><td>{line}</td></tr>")
    return (
        f'<div class="example"><div class="example-title">{inline(example.title)}</div><table>'
        f"<tr><th>before</th><th>after</th></tr>{''.join(rows)}</table></div>"
    )
