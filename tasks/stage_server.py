"""What the fork server of tasks/runner.py imports first, ahead of torch; for that process and its children only.

A fork server imports the heavy modules once and then forks a child for each stage, so that a stage starts in
milliseconds. What must be settled before those imports is settled here.
"""

import gc
import multiprocessing.spawn
import os
import warnings

os.environ.update(
    # OpenBLAS and OpenMP start no threads in the server: a fork would lose them. A child sets its own number.
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    PYTORCH_NVML_BASED_CUDA_CHECK="1",  # asking whether there is a GPU must not initialise CUDA ahead of a fork
    # Progress and warnings of libraries: a stage reports through its log.
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_NO_ADVISORY_WARNINGS="1",
    TRANSFORMERS_VERBOSITY="error",
)
warnings.simplefilter("ignore")
gc.disable()  # what is imported stays; a child looks for cycles in what it makes itself (tasks/runner.py)


def _leave_main_alone(main: str) -> None:
    """multiprocessing runs the parent's __main__ again in every child. A stage is an importable function and needs
    none of it, and it can cost seconds (a Prefect worker) or start the pipeline anew (a script without a guard)."""


multiprocessing.spawn._fixup_main_from_name = _leave_main_alone  # pyright: ignore[reportAttributeAccessIssue]
multiprocessing.spawn._fixup_main_from_path = _leave_main_alone  # pyright: ignore[reportAttributeAccessIssue]
