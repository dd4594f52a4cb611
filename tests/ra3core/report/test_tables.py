"""Tables carry the numbers of the artifacts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ra3core.report import costs, tables
from ra3core.report.blocks import Picture, Table, match_rationales
from ra3core.report.inputs import Curve, load
from ra3core.report.page import highlight
from ra3core.report.scores import Average, Contender, Scores
from ra3core.report.training import training

Inputs = dict[str, Path]


def row(table: Table, name: str) -> list[str]:
    (found,) = [[cell.text for cell in row.cells] for row in table.rows if row.cells[0].text == name]
    return found


def test_results_are_the_mean_over_seeds_tasks_and_samples(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1))
    table = tables.results(Scores(load(inputs), 200), 1)
    assert table.columns == ("Arm", "2 steps", "3 steps", "4 steps", "5 steps", "all tasks")
    for arm, label in (("ra3", "RA3"), ("ntp_rlvr", "NTP, then RLVR")):
        counts = {}
        for seed in (0, 1):
            results = json.loads((inputs[f"evaluate_{arm}/{seed}"] / "results.json").read_text())
            counts |= {(seed, task): c / n for task, (n, c) in results["per_task"]["free"].items()}
        expected = [
            100 * np.mean([rate for (_, task), rate in counts.items() if steps is None or f"eval-{steps}-" in task])
            for steps in (2, 3, 4, 5, None)
        ]
        assert row(table, label)[1:] == [f"{value:.1f}" for value in expected]


def test_marks_say_which_side_of_ntp(artifacts: Callable[..., Inputs]) -> None:
    rates = {"base": (0.1,) * 3, "ntp": (0.4,) * 3, "ntp_compute": (0.4,) * 3, "ra3": (0.9,) * 3}
    table = tables.results(Scores(load(artifacts(rates=rates)), 200), 1)
    marks = {one.cells[0].text: one.cells[-1].mark for one in table.rows}
    assert marks == {"Base model": "▼", "NTP, data-matched": "", "NTP, compute-matched": "", "RA3": "▲"}


def test_differences_over_fewer_seeds_than_the_scores_say_so(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(rates={"ntp": (0.2,) * 3, "ra3": (0.9,) * 3})
    del inputs["evaluate_ntp/1"]
    run = load(inputs)
    (ra3,) = [one for one in tables.results(Scores(run, 200), 1).rows if one.cells[0].text == "RA3"]
    assert ra3.cells[-1].mark == "▲" and ra3.cells[-1].detail.endswith("] ▲ of 2 seeds")
    ntp, ra3 = tables.paper(run, Average.of(run, 200)).rows
    assert [ntp.cells[1].text, ra3.cells[1].text] == ["2", "3"]
    assert ra3.cells[2].detail.endswith("]") and ra3.cells[-2].detail.endswith("] of 2 seeds")


def test_pass_at_k_is_not_below_pass_at_1(artifacts: Callable[..., Inputs]) -> None:
    scores = Scores(load(artifacts(seeds=(0,))), 200)
    assert scores.ks == (1, 4)
    one, four = (scores.score(Contender("ntp"), k) for k in (1, 4))
    assert one is not None and four is not None and four.value > one.value


def test_one_group_of_tasks_has_one_column(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), rates={"base": (0.4, 0.4, 0.4)})
    path = inputs["evaluate_base/0"] / "samples.jsonl"
    rows = [json.loads(line) | {"steps": 0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tables.results(Scores(load(inputs), 200), 1).columns == ("Arm", "all tasks")


def test_decoding_counts_comments(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0,)))
    table = tables.decoding(run, Scores(run, 200), ["free", "banned", "forced"])
    assert row(table, "RA3")[-1] == "1.00"
    assert row(table, "Base model")[-1] == "0.00"


def test_endings_add_up(artifacts: Callable[..., Inputs]) -> None:
    table = tables.endings(load(artifacts(seeds=(0,))))
    assert set(table.columns[1:]) == {"passed", "wrong answer", "error", "syntax"}
    for one in table.rows:
        assert sum(float(cell.text) for cell in one.cells[1:]) == pytest.approx(100, abs=0.3)


def test_cost_is_the_mean_over_seeds(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0, 2), rates={}))
    table = costs.cost(run)
    assert row(table, "M-step: NTP, data-matched") == [
        "M-step: NTP, data-matched",
        "42.0",
        "812 k",
        "812 k",
        "19,333",
        "742",
    ]
    total = sum(one.manifest.seconds for runs in run.stages.values() for one in runs.values())
    assert table.rows[-1].cells[1].text == f"{total / 2:,.1f}"
    assert f"{total / 60:,.1f} minutes" in table.caption


def test_compute_match_says_the_ratio(artifacts: Callable[..., Inputs]) -> None:
    sentence = costs.compute_match(load(artifacts(seeds=(0,), tasks=5)))
    assert sentence is not None and "2.64 M" in sentence and "2.61 M" in sentence and "0.99 times" in sentence
    assert "do not match" not in sentence


def test_compute_match_leaves_out_what_curves_needed(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), tasks=5)
    path = inputs["m_step_1/0"] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"]["evaluation_tokens"] = 80_000
    path.write_text(json.dumps(manifest))
    del inputs["ntp_compute/1"]  # a seed without both is not compared
    sentence = costs.compute_match(load(inputs))
    assert sentence is not None and "2.56 M" in sentence and "1.02 times" in sentence


def test_two_rounds(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0, 1), rounds=2, tasks=5))
    assert run.stage_of("ra3") == "m_step_2"
    sentence = costs.compute_match(run)
    assert sentence is not None and "5.28 M" in sentence and "0.49 times" in sentence
    assert "do not match" in sentence
    curve = run.rounds_curve("e_step", "reward")
    assert curve is not None
    assert curve.values.shape == (2, 200) and curve.starts == (100,)
    assert (np.diff(curve.steps) > 0).all()
    assert [len(one.steps) for one in curve.rounds()] == [100, 100]


def test_rounds_are_those_of_the_seeds_that_have_all(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1, 2), rounds=2, tasks=5)
    del inputs["e_step_2/1"]
    curve = load(inputs).rounds_curve("e_step", "reward")
    assert curve is not None and curve.values.shape == (2, 200) and curve.starts == (100,)
    caption = next(b.caption for b in training(load(inputs), Average({}, 50), [], {}, ()) if isinstance(b, Picture))
    assert "Curves of the seeds alone that have all these rounds, 2 of 3. 2 seeds." in caption
    assert "; 3 seeds)." in caption  # the rise, of the first round
    del inputs["e_step_2/0"], inputs["e_step_2/2"]
    curve = load(inputs).rounds_curve("e_step", "reward")
    assert curve is not None and curve.values.shape == (3, 100) and not curve.starts
    for seed in (0, 1, 2):
        inputs[f"e_step_2/{seed}"] = inputs.pop(f"e_step_1/{seed}")
    assert load(inputs).rounds_curve("e_step", "reward") is None  # the second round is not drawn as the first


def test_smoothing_does_not_cross_rounds() -> None:
    curve = Curve(np.arange(200), np.repeat([[0.0, 1.0]], 100, axis=1), (100,)).smooth()
    assert curve.values[0, :100].tolist() == [0.0] * 100
    assert curve.values[0, 100:].tolist() == [1.0] * 100


def test_elbo_before_and_after_every_round(artifacts: Callable[..., Inputs]) -> None:
    table = tables.elbo(load(artifacts(seeds=(0, 1), rounds=2, tasks=5)))
    assert table is not None
    assert [one.cells[0].text for one in table.rows] == [
        "Round 1, before",
        "Round 1, after",
        "Round 2, before",
        "Round 2, after",
    ]
    assert row(table, "Round 1, after")[1:4] == ["−28.22", "−27.50", "0.72"]


def test_annotation_with_and_without_rl(artifacts: Callable[..., Inputs]) -> None:
    table = tables.annotation(load(artifacts(seeds=(0, 1), tasks=5)))
    assert table is not None
    gain = table.columns.index("gain (nats)")
    assert row(table, "RA3: Bootstrap")[gain] == "1.40"
    assert row(table, "Bootstrap by the base policy")[gain] == "0.90"
    assert row(table, "RA3: Bootstrap")[1] == "19.00"


def test_decontamination_has_a_row_for_every_corpus(artifacts: Callable[..., Inputs]) -> None:
    table = tables.decontamination(load(artifacts(seeds=(0, 1), tasks=5)))
    assert table is not None
    assert [one.cells[0].text for one in table.rows] == [
        "Web-like corpus: web",
        "Web-like corpus: outlines",
        "Demonstrations",
        "RLVR tasks",
    ]
    assert row(table, "Demonstrations")[1:] == ["24,000", "41", "1", "30", "10", "0.40"]


def test_settings_show_every_value() -> None:
    table = tables.settings({"name": "demo", "e_step": {"think_penalty": 0.3, "lora": {"rank": 16}}})
    assert [[cell.text for cell in one.cells] for one in table.rows] == [
        ["`run`", 'name **"demo"**'],
        ["`e_step`", "think_penalty **0.3**"],
        ["`e_step.lora`", "rank **16**"],
    ]


def test_artifacts_lists_every_digest(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0, 1), tasks=5))
    listed = {one.cells[1].text.strip("`") for one in tables.artifacts(run, {}).rows}
    assert listed == {one.manifest.digest for runs in run.stages.values() for one in runs.values()}


def test_curve_mean_and_standard_error() -> None:
    curve = Curve(np.array([1, 2]), np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]]))
    assert curve.mean.tolist() == [3.0, 2.0]
    assert curve.standard_error == pytest.approx([2 / np.sqrt(3), 0.0])


def test_smoothing_keeps_a_constant_and_its_length() -> None:
    curve = Curve(np.arange(100), np.full((2, 100), 3.0)).smooth()
    assert curve.values == pytest.approx(np.full((2, 100), 3.0))


def test_rationales_are_the_lines_put_in() -> None:
    assert match_rationales(["a", "# b", "c"], ["# z", "a", "# b", "# y", "c"]) == {0, 3}
    with pytest.raises(ValueError, match="line 2 is missing"):
        match_rationales(["a", "b"], ["a", "B"])


def test_highlighting_changes_no_text() -> None:
    source = (
        'def f(x):\n    """Doc\n    & more"""\n    s = "#no" + \'it\\\'s\'  # yes < 1\n    return x if x > 10 else None'
    )
    lines = highlight(source)
    assert [html.unescape(re.sub(r"<[^>]+>", "", line)) for line in lines] == source.split("\n")
    assert '<span class="c"># yes &lt; 1</span>' in lines[3]


def test_decoding_leaves_out_arms_that_were_only_decoded_freely(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    path = inputs["evaluate_ntp_rlvr/0"] / "results.json"
    path.write_text(json.dumps({"per_task": {"free": json.loads(path.read_text())["per_task"]["free"]}}))
    run = load(inputs)
    table = tables.decoding(run, Scores(run, 200), ["free", "banned", "forced"])
    assert [one.cells[0].text for one in table.rows if "RLVR" in one.cells[0].text] == ["RA3, then RLVR"]
