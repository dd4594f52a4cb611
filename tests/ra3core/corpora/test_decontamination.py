"""What gives an evaluation task away is removed, what does not stays, and the fast index equals a slow definition."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3core.corpora.decontamination import (
    EvaluationIndex,
    Finding,
    Report,
    clean,
    plans_of,
    recheck,
    tokens_of,
)
from ra3core.corpora.suite.programs import write_program
from ra3core.corpora.suite.skills import SKILLS

PROMPT = "def mean(values):\n    '''Average of the values after the largest and smallest were taken out, twice.'''"
WORDS = st.lists(st.sampled_from("abcdef"), max_size=25)


def index(*prompts: str, ngram: int = 5, max_overlap: float = 0.5, boilerplate: float = 0.05) -> EvaluationIndex:
    return EvaluationIndex({f"t{i}": p for i, p in enumerate(prompts)}, ngram, max_overlap, boilerplate)


def reasons(evaluation: EvaluationIndex, *texts: str) -> list[str | None]:
    return [finding.reason for finding in evaluation.check(texts)]


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = tokens_of(text)
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def by_definition(prompts: list[str], text: str, n: int, max_overlap: float, boilerplate: float) -> Finding:
    """The module's rules 1 and 3, word for word, for one document."""
    tokens = tokens_of(text)
    grams = [ngrams(prompt, n) for prompt in prompts]
    counts = {g: sum(g in other for other in grams) for own in grams for g in own}
    limit = max(2, boilerplate * len(prompts))
    overlap = 0.0
    exact = False
    for prompt, own in zip(prompts, grams, strict=True):
        informative = {g for g in own if counts[g] <= limit}
        if informative:
            overlap = max(overlap, len(informative & ngrams(text, n)) / len(informative))
        whole = tokens_of(prompt)
        starts = range(1) if len(whole) < n else range(len(tokens) - len(whole) + 1)
        exact |= bool(whole) and any(tokens[i : i + len(whole)] == whole for i in starts)
    return Finding("prompt" if exact else "overlap" if overlap > max_overlap else None, None, overlap, len(tokens))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(WORDS, min_size=1, max_size=6),
    st.lists(st.tuples(WORDS, st.integers(0, 5), WORDS), min_size=1, max_size=5),
    st.integers(1, 5),
    st.sampled_from((0.0, 0.3, 0.5, 1.0)),
    st.sampled_from((0.0, 0.4, 1.0)),
)
def test_index_equals_the_definition(prompts, documents, n, max_overlap, boilerplate) -> None:
    evaluation = [" ".join(p) for p in prompts]
    texts = [" ".join([*before, *prompts[i % len(prompts)][i:], *after]) for before, i, after in documents]
    found = index(*evaluation, ngram=n, max_overlap=max_overlap, boilerplate=boilerplate).check(texts)
    for text, finding in zip(texts, found, strict=True):
        expected = by_definition(evaluation, text, n, max_overlap, boilerplate)
        assert (finding.reason, finding.tokens) == (expected.reason, expected.tokens)
        assert finding.overlap == pytest.approx(expected.overlap)


def test_a_copied_prompt_is_found_anywhere_and_however_laid_out() -> None:
    evaluation = index(PROMPT, ngram=13, max_overlap=1.0)
    copy = "import math\n\n" + PROMPT.upper().replace("    ", "\t") + "\n    return 1\n"
    assert reasons(evaluation, PROMPT, copy, PROMPT.replace("twice", "once")) == ["prompt", "prompt", None]


def test_a_prompt_across_two_documents_is_none() -> None:
    words = PROMPT.split(" ")
    assert reasons(index(PROMPT, max_overlap=0.9), " ".join(words[:8]), " ".join(words[8:])) == [None, None]


def test_overlap_threshold() -> None:
    part = PROMPT[: len(PROMPT) * 2 // 3]
    assert reasons(index(PROMPT), part, "def unrelated(x):\n    return x") == ["overlap", None]
    assert reasons(index(PROMPT, max_overlap=0.9), part) == [None]


def test_boilerplate_does_not_count() -> None:
    header = "Write a function in the Python language that takes one list and returns what is asked for here: "
    tasks = [header + end for end in ("its sum", "its mean", "its median", "the largest")]
    document = header + "a story about a fox"
    assert reasons(index(*tasks), document) == [None]
    assert reasons(index(*tasks[:2]), document) == ["overlap"]  # two tasks are too few to call anything boilerplate
    assert reasons(index(*tasks), tasks[2] + " and a story") == ["prompt"]


def test_short_prompts_count_at_the_start_only() -> None:
    evaluation = index("def add(a, b):", ngram=13)
    assert reasons(evaluation, "def add(a,b):\n  return a + b", "x = 1\n\ndef add(a, b):\n  pass") == ["prompt", None]


def plan_document(rng: Random, *names: str) -> str:
    skills = {skill.name: i for i, skill in enumerate(SKILLS)}
    return write_program(tuple(skills[name] for name in names), rng).prompt


def test_plans_are_read_whatever_the_wording() -> None:
    for seed in range(60):
        assert plans_of(plan_document(Random(seed), "rising", "even", "total")) == [("rising", "even", "total")]
    own = "def g(xs):\n    '''Steps: B do this; A do\n    that. Let b be B, c be A.'''"
    assert plans_of(own) == [("do this", "do that")]
    assert plans_of("Steps: A one. Run A to b, B to c.") == []  # B is never defined
    assert plans_of(PROMPT) == []


def test_a_plan_is_recognised_in_other_words_and_inside_a_longer_one() -> None:
    rng = Random(0)
    evaluation = index(*(plan_document(rng, "rising", "even") for _ in range(3)), ngram=13, max_overlap=1.0)
    assert evaluation.plans == 1
    for _ in range(20):
        same = plan_document(rng, "rising", "even")
        longer = plan_document(rng, "double", "rising", "even", "tail")
        other = [plan_document(rng, *names) for names in (("even", "rising"), ("rising", "tail", "even"), ("even",))]
        found = reasons(evaluation, same, longer, *other)
        assert found[0] in ("plan", "prompt") and found[1:] == ["plan", None, None, None]


def test_clean_reports_and_recheck_enforces() -> None:
    documents = [f"story number {i} about nothing in particular, told again and again" for i in range(2_500)]
    documents[1_200] = PROMPT + "\n    pass"
    documents[2_400] = PROMPT[:90]
    evaluation = index(PROMPT)
    report = Report()
    kept = list(clean(documents, str, evaluation, report))
    assert kept == [d for i, d in enumerate(documents) if i not in (1_200, 2_400)]
    summary = report.as_dict()
    assert summary["removed"] == 2 and summary["removed_by"] == {"prompt": 1, "plan": 0, "overlap": 1}
    assert sum(summary["overlap_histogram"]) == summary["documents"] == 2_500
    assert [e["task"] for e in summary["examples"]] == ["t0", "t0"]
    assert summary["tokens_kept"] == sum(len(tokens_of(d)) for d in kept)
    recheck(kept, evaluation, report)
    assert report.rechecked == 2_498
    with pytest.raises(RuntimeError, match="gives t0 away"):
        recheck(documents, evaluation, report)


def test_nothing_to_compare() -> None:
    assert reasons(index(PROMPT), "", "x") == [None, None]
    assert reasons(index(), PROMPT) == [None]
    assert index(PROMPT).check([]) == []
