"""Analysis: what mid-training did to one model, measured (docs/analysis.md). A stage of its own for every arm.

The paper argues with two quantities that it does not report for its own models: how few actions are left, and how long
they last. Measured here, as far as the inputs allow:

    always                        effective action-set size at the boundaries of held-out demonstrations (actions.py)
    before                        its change since another model's analysis, such as the base model's
    annotated + likelihood        the rationales, their lines and gains, and a page of them (abstractions.py, page.py)
    policy + likelihood           gain at every boundary, and what think penalty to choose (gains.py, calibration.py)
    annotated, rlvr               durations, gamma-bar, predicted iterations beside the measured (planning.py)
    e_step_1, e_step_2, ..        the temporal ELBO, round by round (elbo.py)

Held out are the demonstrations that no M-step trains on (`ra3core.learning.m_step.split`), the same for every arm. The
E-step's policy may have met them: what it is rewarded for there are lines that the likelihood model has not seen.

Alone:  analysis(AnalysisConfig(), Context(inputs={"model": ..., "demonstrations": ...}, out=..., scratch=...))
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from ra3core.analysis.abstractions import abstraction_table, flat, occurrences, score_occurrences
from ra3core.analysis.actions import change, measure_actions, summarise
from ra3core.analysis.calibration import gain_curve
from ra3core.analysis.elbo import elbo_by_round
from ra3core.analysis.gains import measure_gains
from ra3core.analysis.page import render
from ra3core.analysis.planning import durations, iterations_needed
from ra3core.config import AnalysisConfig
from ra3core.corpora.demonstrations import Annotated, Demonstration, read_annotated, read_rows, write_rows
from ra3core.errors import UserError
from ra3core.learning.annotation import RationaleSampler
from ra3core.learning.m_step import read_demonstration_folder, split
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.stage import METRICS_FILE, Context, Metrics, read_metrics

RESULTS = "analysis.json"
ACTIONS = "actions.parquet"
PAGE = "abstractions.html"
TABLE = "abstractions.parquet"


def analysis(config: AnalysisConfig, context: Context) -> Metrics:
    """Measure; writes analysis.json (everything, plain data) and the tables behind it as parquet.

    Inputs: model (folder with model/) and demonstrations; and as above, each of which may be absent. annotated and
    policy need likelihood. Returns the headline figures. Raises UserError for unusable inputs.
    """
    torch.set_num_threads(context.threads)
    context.out.mkdir(parents=True, exist_ok=True)
    inputs = context.inputs
    for role in ("annotated", "policy"):
        if role in inputs and "likelihood" not in inputs:
            raise UserError(
                f"analysis: input {role} needs input likelihood, the model that its gains are measured with"
            )
    held_out = held_out_demonstrations(inputs["demonstrations"], config)
    found: dict[str, Any] = {"actions": _actions(config, context, held_out)}
    annotated = read_annotated(inputs["annotated"] / "annotated.parquet") if "annotated" in inputs else []
    if "annotated" in inputs:
        found["abstractions"] = abstractions(config, context, annotated)
    if "policy" in inputs:
        found["gains"] = gains(config, context, held_out)
    found["planning"] = durations(annotated, config.gamma, config.epsilon)
    if "rlvr" in inputs:
        found["planning"]["rlvr"] = iterations_needed(read_metrics(inputs["rlvr"] / METRICS_FILE), config.levels)
    rounds = {int(m[1]): folder for name, folder in inputs.items() if (m := re.fullmatch(r"e_step_(\d+)", name))}
    if rounds:
        found["elbo"] = elbo_by_round(rounds)
    (context.out / RESULTS).write_text(json.dumps(found, indent=1) + "\n")
    return _headline(found)


def held_out_demonstrations(folder: Path, config: AnalysisConfig) -> list[Demonstration]:
    """Some of the demonstrations that no M-step trains on, with a boundary at least. UserError when there are none."""
    _, apart = split(read_demonstration_folder(folder), config.held_out)
    found = [one.demonstration for one in apart if one.demonstration.boundaries][: config.demonstrations]
    if not found:
        raise UserError(
            f"{folder}: no held-out demonstration with a line that a comment may stand ahead of, expected "
            "m_step.held_out above 0"
        )
    return found


def abstractions(config: AnalysisConfig, context: Context, annotated: list[Annotated]) -> dict[str, Any]:
    """rationales.parquet (a row an occurrence), abstractions.parquet (a row an abstraction), and the page of them."""
    model, lines = _load(config, context, "likelihood")
    found = occurrences(annotated)
    scored = min(config.scored, len(found))
    with context.log.progress("abstractions", scored) as advance:
        score_occurrences(found, model, lines, config.scored, context.seed, advance)
    rows = abstraction_table(found, config.examples)
    write_rows([one.row() for one in found], context.out / "rationales.parquet")
    write_rows([flat(row) for row in rows], context.out / TABLE)
    facts = (
        f"{len(found)} rationales in {sum(bool(a.rationales) for a in annotated)} of {len(annotated)} demonstrations; "
        f"gains measured on {scored} of them."
    )
    (context.out / PAGE).write_text(render(rows, "Discovered abstractions", facts))
    gained = [one.gain for one in found if one.gain is not None]
    return {
        "rationales": len(found),
        "abstractions": len(rows),
        "demonstrations": len(annotated),
        "scored": scored,
        "gain": sum(gained) / len(gained) if gained else None,
        "helps": sum(gain > 0 for gain in gained) / len(gained) if gained else None,
        "half_of_all": _needed([row["count"] for row in rows], 0.5),
        "nine_tenths_of_all": _needed([row["count"] for row in rows], 0.9),
        "first": [{name: row[name] for name in _SHOWN} for row in rows[:20]],
    }


_SHOWN = ("text", "count", "share", "lines", "scored", "gain", "gain_se", "gain_per_line", "helps")


def gains(config: AnalysisConfig, context: Context, demonstrations: list[Demonstration]) -> dict[str, Any]:
    """gains.parquet (a row a boundary), and `gain_curve` over them."""
    policy, lines = _load(config, context, "policy")
    likelihood, _ = _load(config, context, "likelihood")
    vocabulary: int = policy.config.vocab_size
    if likelihood.config.vocab_size != vocabulary:
        raise UserError("analysis: policy and likelihood model have different vocabularies, expected one tokenizer")
    programs = _programs(lines, demonstrations)
    sampler = RationaleSampler(
        lines, vocabulary, config.e_step.temperature, config.e_step.rationale_tokens, context.device
    )
    with context.log.progress("gains", len(programs)) as advance:
        found = measure_gains(policy, likelihood, programs, sampler, config.e_step, context.seed, advance)
    write_rows([vars(gain) for gain in found], context.out / "gains.parquet")
    own = {program.demonstration.id: len(program.tokens()) for program in programs}
    return gain_curve(found, own, config.think_rate, config.resamples, context.seed)


def _actions(config: AnalysisConfig, context: Context, demonstrations: list[Demonstration]) -> dict[str, Any]:
    """actions.parquet (a row a boundary), and their summary."""
    model, lines = _load(config, context, "model")
    programs = _programs(lines, demonstrations)
    total = min(config.boundaries, sum(len(program.boundaries) for program in programs))
    with context.log.progress("action sets", total) as advance:
        rows = measure_actions(model, programs, lines, config, context.seed, advance)
    write_rows(rows, context.out / ACTIONS)
    found = {"mass": config.nucleus, **summarise(rows, config.resamples, context.seed)}
    if "before" in context.inputs:
        file = context.inputs["before"] / ACTIONS
        try:
            found["change"] = change(read_rows(file), rows, config.resamples, context.seed)
        except ValueError as error:
            raise UserError(f"{file}: {error}") from error
    return found


def _load(config: AnalysisConfig, context: Context, role: str) -> tuple[Any, LineTokenizer]:
    folder = context.inputs[role] / "model"
    return load_model(folder, context.device, config.precision), LineTokenizer(load_tokenizer(folder))


def _programs(lines: LineTokenizer, demonstrations: list[Demonstration]) -> list[TokenizedDemonstration]:
    """Tokenised, those with a decision; UserError when the tokenizer leaves none."""
    found = [program for program in map(lines.demonstration, demonstrations) if program.boundaries]
    if not found:
        raise UserError("analysis: the tokenizer cannot tell think from act at any line of the demonstrations")
    return found


def _needed(counts: list[int], share: float) -> int:
    """How many of the most frequent make up that share of all."""
    held, total = 0, sum(counts)
    for needed, count in enumerate(counts, start=1):
        held += count
        if held >= share * total:
            return needed
    return 0


def _headline(found: dict[str, Any]) -> Metrics:
    actions, planning = found["actions"], found["planning"]
    metrics: Metrics = {
        "token_perplexity": actions["token"]["perplexity"]["value"],
        "line_perplexity": actions["lines"]["all"]["perplexity"]["value"],
        "line_act_perplexity": actions["lines"]["act"]["perplexity"]["value"],
        "line_given_intent_perplexity": actions["lines"]["given_intent"]["perplexity"]["value"],
        "think_rate": actions["think"]["value"],
        "expert_covered": actions["expert"]["covered"]["value"],
        "iterations_primitive": planning["primitive"]["iterations"],
    }
    if "intents" in planning:
        metrics |= {
            "intent_lines": planning["intents"]["lines"],
            "gamma_bar": planning["intents"]["mean"]["gamma_bar"],
            "iterations_intents": planning["intents"]["mean"]["iterations"],
        }
    if "abstractions" in found:
        metrics["abstractions"] = found["abstractions"]["abstractions"]
    if "gains" in found:
        metrics |= {
            "gain": found["gains"]["gain"]["value"],
            "proposed_think_penalty": found["gains"]["proposed"]["c"],
        }
    if "elbo" in found:
        metrics["elbo"] = found["elbo"][-1]["after"]["elbo"]
    return metrics
