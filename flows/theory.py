"""`ra3 theory`: the paper's bounds beside measurement, on finite decision processes. No torch, no Prefect."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from ra3core.errors import UserError
from ra3core.stage import StageLog
from ra3core.theory.page import tables, write
from ra3core.theory.study import study
from tasks.display import Display


def theory(out: Path, seed: int) -> None:
    """Measure, write the page to the folder `out`, print its tables. Raises UserError when `out` can be no folder."""
    if any(path.is_file() for path in (out, *out.parents)):
        raise UserError(f"--out {out}: a file is in the way, expected a folder or nothing yet")
    with Display() as display, display.stage("theory") as show:
        results = study(seed, StageLog(sink=show))
        write(results, out)
    console = Console(highlight=False, markup=False)
    for table in tables(results):
        view = Table(title=table.title, title_justify="left", caption=table.note, caption_justify="left", box=None)
        for index, column in enumerate(table.columns):
            view.add_column(column, justify="right" if index else "left")
        for row in table.rows:
            view.add_row(*row)
        console.print(view, "")
    console.print(f"Page, figures and all numbers: {out}", soft_wrap=True)
