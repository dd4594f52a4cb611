"""A document as Markdown; its pictures are PNG files beside it."""

from __future__ import annotations

from ra3core.report.blocks import Block, Document, Example, Heading, Paragraph, Picture, Statements, Table


def render(document: Document) -> str:
    """The same content as the page, in the same order."""
    numbers = {"Table": 0, "Figure": 0}
    head = [
        f"# {document.title}",
        document.subtitle,
        "\n".join(f"- {name}: {value}" for name, value in document.facts),
    ]
    return "\n\n".join([*head, *(_block(block, numbers) for block in document.blocks)]) + "\n"


def _block(block: Block, numbers: dict[str, int]) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Statements):
        return "\n".join(f"- **{item.label}.** {item.text}" for item in block.items)
    if isinstance(block, Table):
        numbers["Table"] += 1
        return f"**Table {numbers['Table']}.** {block.caption}\n\n{table(block)}"
    if isinstance(block, Picture):
        numbers["Figure"] += 1
        caption = f"**Figure {numbers['Figure']}.** {block.caption}"
        return f"![{block.alt}]({block.name}.png)\n\n{caption}"
    return _example(block)


def table(block: Table) -> str:
    """A pipe table."""
    text = {0, *block.text_columns}
    rule = [":--" if i in text else "--:" for i in range(len(block.columns))]
    rows = [[cell.plain for cell in row.cells] for row in block.rows]
    lines = [list(block.columns), rule, *rows]
    return "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in line) + " |" for line in lines)


def _example(example: Example) -> str:
    before = "\n".join(example.before)
    after = "\n".join(example.after)
    return f"{example.title}\n\nBefore:\n\n```python\n{before}\n```\n\nAfter:\n\n```python\n{after}\n```"
