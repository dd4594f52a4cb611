#!/usr/bin/env bash
# MLflow's server: by default over the runs of this checkout, for this machine only, at http://127.0.0.1:5000.
# Every setting is an environment variable, explained in README.md of this folder.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
store="${RA3_ROOT:-$here/..}/mlflow"
mkdir -p "$store"
# Read by `mlflow server` itself: on its command line every user of the machine could read a database's password.
export MLFLOW_BACKEND_STORE_URI="${MLFLOW_BACKEND_STORE_URI:-sqlite:///$(realpath "$store")/mlflow.db}"
export MLFLOW_ARTIFACTS_DESTINATION="${MLFLOW_ARTIFACTS_DESTINATION:-$(realpath "$store")/artifacts}"
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
unset MLFLOW_TRACKING_URI # the server asks no other server
exec "${PYTHON:-$here/../.venv/bin/python}" -m mlflow server \
    --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-1}"
