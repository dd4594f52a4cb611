"""What cutting programs into pieces does to the tokens that a model's tokenizer gives the whole program.

    python bench/tokenization.py MODEL... [--python FOLDER] [--functions 2000]

MODEL: folders or hub names with a tokenizer. The programs are functions of a folder of Python (default: the standard
library of the Python that runs this), cut as for a run.

    line break   the line that its line break belongs to: the one that it begins, or the one that it ends
    other        tokens of the whole text that the pieces do not have, per thousand tokens of the whole text
    same         share of programs whose pieces are the tokens of the whole text
    left out     share of boundaries where no single token tells think from act
"""

from __future__ import annotations

import argparse
import sysconfig
from collections import Counter
from itertools import islice
from pathlib import Path

from ra3core.corpora.demonstrations import Demonstration
from ra3core.corpora.python_source import Cutter
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_tokenizer


def functions(folder: Path, count: int) -> list[Demonstration]:
    """The first functions of the folder's files, in order of their names."""
    cutter = Cutter(40)
    files = sorted(folder.glob("*.py"))
    found = (one for file in files for one in cutter.source(file.read_text(errors="replace"), file.name))
    return list(islice(found, count))


def row(lines: LineTokenizer, programs: list[Demonstration]) -> str:
    """A line of the table."""
    whole_tokens = other = same = boundaries = decided = 0
    for program in programs:
        pieces = lines.demonstration(program)
        tokens = pieces.tokens()[: -len(pieces.end)]
        whole = lines.text(program.text if lines.break_last else program.text[:-1])
        whole_tokens += len(whole)
        other += (Counter(whole) - Counter(tokens)).total()
        same += tuple(tokens) == whole
        boundaries += len(program.boundaries)
        decided += len(pieces.boundaries)
    side = "ends" if lines.break_last else "begins"
    left_out = 1 - decided / boundaries
    return f"{side:>10}  {1000 * other / whole_tokens:6.2f}  {same / len(programs):6.1%}  {left_out:8.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--python", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--functions", type=int, default=2_000)
    options = parser.parse_args()
    programs = functions(options.python, options.functions)
    print(f"{len(programs)} functions\n{'tokenizer':<24}  line break   other    same  left out")
    for model in options.models:
        print(f"{Path(model).name:<24}  {row(LineTokenizer(load_tokenizer(model)), programs)}", flush=True)


if __name__ == "__main__":
    main()
