"""ra3core without analysis, learning, lm and two modules of evaluation is imported without torch (bench/startup.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft", "prefect", "mlflow", "dvc", "dvc_data")


def test_most_of_ra3core_needs_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, 'bench'); from startup import light_modules\n"
        "import importlib\n"
        "modules = light_modules()\n"
        "for module in modules: importlib.import_module(module)\n"
        f"print(len(modules), *(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    number, *heavy = done.stdout.split()
    assert not heavy
    assert int(number) > 50
