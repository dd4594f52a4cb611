"""The abstraction browser: one HTML page that needs nothing else. Its script only sorts and searches.

Every text is escaped where it is written. Rows are ordinary table rows, so that a page without scripts, a screen
reader and a browser's own search see all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SHOWN = 5_000  # abstractions on the page; the table beside it has all

COLUMNS = (
    ("text", "Abstraction", "normalised text; open a row for examples"),
    ("count", "Count", "rationales with this text"),
    ("demonstrations", "Programs", "demonstrations that have it"),
    ("variants", "Variants", "texts it was written as"),
    ("lines", "Lines", "expert lines from the rationale to the next one or the end, mean"),
    ("gain", "Gain", "nats that the governed lines gain in log-likelihood, mean and standard error"),
    ("gain_per_line", "Gain a line", "nats, mean"),
    ("helps", "Helps", "share of measured occurrences with a gain above 0"),
)

CSS = """
:root { --ink: #1c1c1e; --soft: #5f6368; --line: #dadce0; --wash: #f6f7f8; --accent: #8c3b00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.4rem 1.5rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; }
p { max-width: 52rem; margin: .5rem 0; color: var(--soft); }
.find { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: center; margin: 1.4rem 0 .6rem; }
.find label { font-weight: 600; }
input { font: inherit; padding: .35rem .6rem; width: 22rem; max-width: 100%; border: 1px solid #80868b;
  border-radius: 4px; }
:focus-visible { outline: 2px solid #0b57d0; outline-offset: 1px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .4rem .6rem; vertical-align: top; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: #fff; border-bottom: 1.5px solid var(--ink); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; width: 45%; }
td:first-child { font-weight: 400; overflow-wrap: anywhere; }
th button { font: inherit; font-weight: 650; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover { color: var(--accent); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td small { display: block; color: var(--soft); }
summary { cursor: pointer; }
pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; background: var(--wash);
  margin: .4rem 0; padding: .5rem .7rem; overflow-x: auto; border-left: 3px solid #d55e00; }
.from { color: var(--soft); font-size: .86rem; margin: .6rem 0 0; }
@media print { .find { display: none; } th { position: static; } }
"""

SCRIPT = """
const body = document.querySelector("tbody"), rows = [...body.rows];
const input = document.getElementById("find"), status = document.getElementById("found");
const texts = rows.map(row => row.textContent.toLowerCase());
document.querySelector(".find").hidden = false;
function find() {
  const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let found = 0;
  rows.forEach((row, i) => { row.hidden = !words.every(word => texts[i].includes(word)); found += !row.hidden; });
  status.textContent = found + " of " + rows.length + " abstractions";
}
function key(row, column) {
  const value = row.cells[column].dataset.value;
  return column === 0 ? value : value === "" ? null : Number(value);
}
function sort(header, column) {
  const down = header.getAttribute("aria-sort") === (column === 0 ? "ascending" : "none") ||
    header.getAttribute("aria-sort") === "ascending";
  document.querySelectorAll("th").forEach(other => other.setAttribute("aria-sort", "none"));
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const ordered = rows.map(row => [key(row, column), row]).sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
  });
  body.append(...ordered.map(([, row]) => row));
}
document.querySelectorAll("th").forEach((header, column) =>
  header.querySelector("button").addEventListener("click", () => sort(header, column)));
let waiting;
input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(find, 120); });
find();
"""


def render(rows: Sequence[Mapping[str, Any]], title: str, facts: str) -> str:
    """The page. rows: of `abstraction_table`. facts: a sentence on what was read and how gains were measured."""
    head = "".join(
        f'<th scope="col" aria-sort="{"descending" if name == "count" else "none"}" title="{escape(meaning)}">'
        f'<button type="button">{escape(label)}</button></th>'
        for name, label, meaning in COLUMNS
    )
    legend = "; ".join(f"{label}: {meaning}" for _, label, meaning in COLUMNS)
    left_out = f" The first {SHOWN} are shown; the table beside this page has all." if len(rows) > SHOWN else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(facts)} {len(rows)} abstractions.{left_out}</p>
<p>{escape(legend)}.</p>
<div class="find" hidden><label for="find">Search</label>
<input id="find" type="search" autocomplete="off" spellcheck="false" aria-describedby="found">
<span id="found" role="status"></span></div>
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(map(_row, rows[:SHOWN]))}
</tbody>
</table></div>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _row(row: Mapping[str, Any]) -> str:
    error = "" if row["gain_se"] is None else f"<small>± {row['gain_se']:.2f}</small>"
    cells = (
        _cell(row["text"], _opened(row)),
        _cell(row["count"], str(row["count"])),
        _cell(row["demonstrations"], str(row["demonstrations"])),
        _cell(len(row["variants"]), str(len(row["variants"]))),
        _cell(row["lines"], f"{row['lines']:.1f}"),
        _cell(row["gain"], f"{row['gain']:+.2f}{error}" if row["scored"] else "–"),
        _cell(row["gain_per_line"], f"{row['gain_per_line']:+.2f}" if row["scored"] else "–"),
        _cell(row["helps"], f"{100 * row['helps']:.0f} %" if row["scored"] else "–"),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any, html: str) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return f'<td data-value="{escape(text)}">{html}</td>'


def _opened(row: Mapping[str, Any]) -> str:
    """The text, and behind it the examples."""
    if not row["examples"]:
        return escape(row["text"])
    parts = []
    for example in row["examples"]:
        gain = "" if example["gain"] is None else f", gain {example['gain']:+.2f} nats"
        lines = example["lines"]
        indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
        code = "\n".join([f"{indent}# {example['text']}", *lines])
        parts.append(
            f'<p class="from">{escape(example["id"])}, line {example["t"] + 1}{gain}</p><pre>{escape(code)}</pre>'
        )
    return f"<details><summary>{escape(row['text'])}</summary>{''.join(parts)}</details>"
