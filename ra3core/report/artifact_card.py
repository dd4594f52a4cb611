"""The card of a model whose run is not on record: what its own manifest says."""

from __future__ import annotations

import yaml

from ra3core.artifacts import Artifact
from ra3core.report.card import CITATION, PAPER, PLAIN_USE, UNKNOWN


def artifact_card(model: Artifact) -> str:
    """README.md of a model of which nothing is known but its manifest: no run, so no results."""
    manifest = model.manifest
    values = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": "other", "tags": ["ra3"]}
    settings = yaml.safe_dump({"stage": manifest.stage, "seed": manifest.seed, **manifest.config}, sort_keys=False)
    inputs = "\n".join(f"- {role}: `{digest}`" for role, digest in manifest.inputs.items())
    return (
        f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n\n# {manifest.stage} {model.key[:8]}\n\n"
        f"A causal language model for Python functions, made by the stage `{manifest.stage}` of an open implementation "
        f"of RA3 ([paper]({PAPER})). It has not been evaluated as part of a run that is on record.\n\n{PLAIN_USE}\n\n"
        f"## Settings\n\n```yaml\n{settings}```\n\n## Lineage\n\nArtifact `{model.digest}`, made from\n\n{inputs}\n\n"
        f"Licences of its parts: {UNKNOWN}.\n\n## Citation\n\n```bibtex\n{CITATION}\n```\n"
    )
