"""The skills of the embedded suite: small operations on a list of integers.

Each skill has two phrasings and two implementations of several lines ({a} is the list read, {b} the list written; the
loop variables are always x, i, t, so that a block can be read on its own). `NOVEL` skills never occur in code of the
web-like corpus: the base model has read about them (outlines) and meets their code in demonstrations only, so that
mid-training has something to teach (docs/data.md).
"""

from __future__ import annotations

from dataclasses import dataclass

INDENT = "    "


@dataclass(frozen=True)
class Skill:
    """One operation; `code` holds alternative implementations, each a block of lines at indentation zero."""

    name: str
    phrasings: tuple[str, ...]
    code: tuple[str, ...]

    def block(self, implementation: int, source: str, target: str) -> list[str]:
        """The lines of one implementation inside a function body: reads list `source`, writes list `target`."""
        text = self.code[implementation].format(a=source, b=target)
        return [INDENT + line for line in text.split("\n")]


def _filter(name: str, phrasings: tuple[str, str], condition: str) -> Skill:
    """Keep the elements x that satisfy `condition`."""
    return Skill(
        name,
        phrasings,
        (
            "{b} = []\nfor x in {a}:\n    if " + condition + ":\n        {b}.append(x)",
            "{b} = []\ni = 0\nwhile i < len({a}):\n    x = {a}[i]\n    if "
            + condition
            + ":\n        {b} += [x]\n    i += 1",
        ),
    )


def _map(name: str, phrasings: tuple[str, str], expression: str) -> Skill:
    """Replace every element x by `expression`."""
    return Skill(
        name,
        phrasings,
        (
            "{b} = []\nfor x in {a}:\n    {b}.append(" + expression + ")",
            "{b} = list({a})\nfor i in range(len({b})):\n    x = {b}[i]\n    {b}[i] = " + expression,
        ),
    )


SKILLS: tuple[Skill, ...] = (
    _filter("positive", ("keep positive", "select positives"), "x > 0"),
    _filter("even", ("keep even", "discard odd"), "x % 2 == 0"),
    _filter("below", ("keep small", "discard large"), "x < 6"),
    _filter("nonzero", ("drop zeros", "remove zeros"), "x != 0"),
    _map("double", ("double each", "times two"), "x * 2"),
    _map("negate", ("negate each", "flip signs"), "-x"),
    _map("increment", ("add three", "plus three"), "x + 3"),
    _map("remainder", ("modulo five", "take remainders"), "x % 5"),
    Skill(
        "rising",
        ("sort rising", "order ascending"),
        (
            "{b} = list({a})\n{b}.sort()",
            "{b} = []\nfor x in sorted({a}):\n    {b}.append(x)",
        ),
    ),
    Skill(
        "reverse",
        ("reverse list", "turn around"),
        (
            "{b} = []\nfor x in {a}:\n    {b}.insert(0, x)",
            "{b} = list({a})\n{b}.reverse()",
        ),
    ),
    Skill(
        "sums",
        ("running sums", "cumulative totals"),
        (
            "{b} = []\nt = 0\nfor x in {a}:\n    t += x\n    {b}.append(t)",
            "{b} = list({a})\nfor i in range(1, len({b})):\n    {b}[i] += {b}[i - 1]",
        ),
    ),
    Skill(
        "unique",
        ("drop repeats", "keep unique"),
        (
            "{b} = []\nfor x in {a}:\n    if x not in {b}:\n        {b}.append(x)",
            "{b} = []\ni = 0\nwhile i < len({a}):\n    if {a}[i] not in {a}[:i]:\n        {b} += [{a}[i]]\n    i += 1",
        ),
    ),
    Skill(
        "tail",
        ("drop first", "skip opening"),
        (
            "{b} = []\nfor i in range(1, len({a})):\n    {b}.append({a}[i])",
            "{b} = list({a})\nif {b}:\n    {b}.pop(0)",
        ),
    ),
    Skill(
        "twice",
        ("repeat twice", "duplicate each"),
        (
            "{b} = []\nfor x in {a}:\n    {b}.append(x)\n    {b}.append(x)",
            "{b} = []\ni = 0\nwhile i < len({a}):\n    {b} += [{a}[i], {a}[i]]\n    i += 1",
        ),
    ),
    Skill(
        "total",
        ("append sum", "attach total"),
        (
            "{b} = list({a})\n{b}.append(sum({a}))",
            "{b} = []\nt = 0\nfor x in {a}:\n    t += x\n    {b}.append(x)\n{b} += [t]",
        ),
    ),
    Skill(
        "alternate",
        ("every second", "skip alternate"),
        (
            "{b} = []\nfor i in range(0, len({a}), 2):\n    {b}.append({a}[i])",
            "{b} = []\ni = 0\nwhile i < len({a}):\n    {b} += [{a}[i]]\n    i += 2",
        ),
    ),
    # novel ones
    _filter("odd", ("keep odd", "discard even"), "x % 2 == 1"),
    _map("square", ("square each", "raise squared"), "x * x"),
    _map("absolute", ("absolute values", "remove signs"), "abs(x)"),
    Skill(
        "falling",
        ("sort falling", "order descending"),
        (
            "{b} = list({a})\n{b}.sort()\n{b}.reverse()",
            "{b} = []\nfor x in sorted({a}):\n    {b}.insert(0, x)",
        ),
    ),
    Skill(
        "peaks",
        ("running maximum", "cumulative peaks"),
        (
            "{b} = []\nfor x in {a}:\n    if {b} and {b}[-1] > x:\n        x = {b}[-1]\n    {b}.append(x)",
            "{b} = list({a})\nfor i in range(1, len({b})):\n    {b}[i] = max({b}[i], {b}[i - 1])",
        ),
    ),
    Skill(
        "rotate",
        ("rotate left", "cycle front"),
        (
            "{b} = []\nfor i in range(1, len({a})):\n    {b}.append({a}[i])\n{b} += {a}[:1]",
            "{b} = list({a})\nif {b}:\n    x = {b}.pop(0)\n    {b}.append(x)",
        ),
    ),
    Skill(
        "head",
        ("drop last", "skip closing"),
        (
            "{b} = []\nfor i in range(len({a}) - 1):\n    {b}.append({a}[i])",
            "{b} = list({a})\nif {b}:\n    {b}.pop()",
        ),
    ),
    Skill(
        "count",
        ("append length", "attach count"),
        (
            "{b} = list({a})\n{b}.append(len({a}))",
            "{b} = []\nt = 0\nfor x in {a}:\n    t += 1\n    {b}.append(x)\n{b} += [t]",
        ),
    ),
)

NOVEL: tuple[int, ...] = tuple(range(16, 24))
KNOWN: tuple[int, ...] = tuple(range(16))
