"""The premise of the method, on the kept base model: a rationale helps because of what it says."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from ra3core.corpora.demonstrations import annotate
from ra3core.corpora.suite.programs import Program, write_program
from ra3core.corpora.suite.skills import KNOWN
from ra3core.lm.likelihood import line_log_likelihoods
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, load_tokenizer

BASE = Path(__file__).resolve().parents[3] / "configs" / "base" / "0" / "model"


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    """Programs of three known skills in the labelled wording, where a block needs serial look-ups."""
    rng = Random(11)
    drawn = [write_program(tuple(rng.sample(KNOWN, 3)), rng) for _ in range(160)]
    return [program for program in drawn if "Return" not in program.prompt]


def code_nats(programs: list[Program], rationales: list[list[str]]) -> float:
    """Mean nats of the expert's lines per program, rationale lines left out; more is likelier."""
    model, lines = load_model(BASE), LineTokenizer(load_tokenizer(BASE))
    annotated = []
    for program, texts in zip(programs, rationales, strict=True):
        one = program.demonstration("d")
        annotated.append(annotate(one, dict(zip(sorted(one.reference), texts, strict=False))))
    pieces = [list(lines.program(one.demonstration.prompt, one.body)) for one in annotated]
    total = 0.0
    for one, nats in zip(annotated, line_log_likelihoods(model, pieces), strict=True):
        total += sum(value for i, value in enumerate(nats) if i not in one.rationale_lines)
    return total / len(programs)


def test_shuffled_rationales_help_less_than_real_ones(programs: list[Program]) -> None:
    real = [list(program.rationales) for program in programs]
    own_shuffled = [[*texts[1:], texts[0]] for texts in real]  # right sentences, each ahead of the wrong block
    others = [*real[1:], real[0]]  # another program's
    right, shuffled, foreign = (code_nats(programs, r) for r in (real, own_shuffled, others))
    assert right > shuffled + 2
    assert right > foreign + 2
