#!/usr/bin/env bash
# MLflow's server over the runs of this checkout, on this machine only: http://127.0.0.1:5000 (MLFLOW_PORT for another).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
store="${RA3_ROOT:-$here/..}/mlflow"
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
exec "${PYTHON:-$here/../.venv/bin/python}" -m mlflow server \
    --backend-store-uri "sqlite:///$(realpath "$store")/mlflow.db" \
    --artifacts-destination "$store/artifacts" \
    --host 127.0.0.1 --port "${MLFLOW_PORT:-5000}" --workers 1
