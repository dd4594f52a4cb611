"""A model's folder in the form that MLflow loads (`mlflow.transformers.load_model`).

`package` runs in a stage's child process, which has transformers in memory already; the flow's own process, which
imports this module for `PackageConfig`, needs neither it nor torch.
"""

from __future__ import annotations

import logging
import shutil
from importlib.metadata import version

from ra3core.config import Section
from ra3core.stage import Context, Metrics

TASK = "text-generation"
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "accelerate")
"""What loading needs, pinned to the versions here; left to find out by itself, MLflow asks the hub."""


class PackageConfig(Section):
    """name: what MLmodel says the model is called. card: README.md. results: results.json. licence: LICENSE.txt."""

    name: str
    card: str
    results: str
    licence: str


def package(config: PackageConfig, context: Context) -> Metrics:
    """Fill context.out with inputs["model"]/model as an MLflow model, the card, and the results.

    model/ in it is the very folder that was trained, so that transformers loads it without MLflow, too.
    Raises UserError for a model that cannot be loaded.
    """
    from huggingface_hub import ModelCard
    from mlflow import transformers  # pyright: ignore[reportPrivateImportUsage]
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    from ra3core.lm.models import load_model, load_tokenizer

    logging.getLogger(transformers.__name__).setLevel(logging.ERROR)  # it warns of a licence that it lacks: it is ours
    folder = (context.inputs["model"] / "model").resolve()
    transformers.save_model(
        {"model": load_model(folder, precision="auto"), "tokenizer": load_tokenizer(folder)},
        str(context.out),
        task=TASK,
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        model_card=ModelCard(config.card),
    )
    shutil.rmtree(context.out / "model")  # as MLflow writes it, without the tokenizer
    shutil.copytree(folder, context.out / "model")
    described = Model.load(str(context.out))
    described.flavors["transformers"]["source_model_name"] = config.name  # where it lay here means nothing elsewhere
    described.save(str(context.out / MLMODEL_FILE_NAME))
    (context.out / "README.md").write_text(config.card)
    (context.out / "results.json").write_text(config.results)
    (context.out / "LICENSE.txt").write_text(config.licence)
    for copy in ("model_card.md", "model_card_data.yaml"):  # MLflow's names for what README.md holds
        (context.out / copy).unlink(missing_ok=True)
    return {}
