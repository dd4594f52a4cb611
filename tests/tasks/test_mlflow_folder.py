"""mlflow/: the compose file, as far as that can be judged without containers; the README names every setting."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from flows.environment import CHECKOUT

FOLDER = CHECKOUT / "mlflow"
COMPOSE = (FOLDER / "compose.yaml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(:[?-][^}]*)?\}")


def test_services_depend_on_services_and_volumes_that_exist() -> None:
    compose = yaml.safe_load(COMPOSE)
    services = compose["services"]
    assert set(services) == {"mlflow", "postgres", "objects", "bucket"}
    for service in services.values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"]
        if "build" in service:
            assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for name, condition in services["mlflow"]["depends_on"].items():
        assert condition["condition"] != "service_healthy" or "healthcheck" in services[name]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published == ["${MLFLOW_ADDRESS:-127.0.0.1}:${MLFLOW_PORT:-5000}:5000"]  # the stores are not reachable


def test_no_password_has_a_value_in_the_repository() -> None:
    settings = {name: rule or "" for name, rule in VARIABLE.findall(COMPOSE)}
    assert all(rule for rule in settings.values()), "a variable that is missing must fail or have a default"
    required = {name for name, rule in settings.items() if rule.startswith(":?")}
    assert {"POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= required
    lines = (FOLDER / "example.env").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {name for name, value in example.items() if not value} == required
    assert "/mlflow/.env" in (CHECKOUT / ".gitignore").read_text().splitlines()


def test_the_image_installs_what_the_project_pins(tmp_path: Path) -> None:
    docker = (FOLDER / "Dockerfile").read_text()
    (tmp_path / "pyproject.toml").write_text((CHECKOUT / "pyproject.toml").read_text())
    script = docker.split("<<'PY'")[1].split("\n", 1)[1].split("\nPY\n")[0]
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    mlflow = next(line for line in project["dependencies"] if line.startswith("mlflow"))
    assert set(done.stdout.split()) >= {mlflow, *project["optional-dependencies"]["server"]}
    locked = (CHECKOUT / "requirements.lock").read_text()
    for line in done.stdout.split():
        assert f"\n{re.split('[<>=]', line)[0]}==" in locked
    for copied in re.findall(r"mlflow/\S+", docker):
        assert (CHECKOUT / copied).is_file()


def test_the_readme_explains_every_setting() -> None:
    read = (FOLDER / "README.md").read_text()
    in_script = set(re.findall(r"\$\{(\w+):-", (FOLDER / "serve.sh").read_text())) - {"PYTHON"}
    for name in in_script | {name for name, _ in VARIABLE.findall(COMPOSE)}:
        assert f"`{name}`" in read, name
