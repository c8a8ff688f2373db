"""The recipes in samples/ci: valid by their services' schemas, and their commands, run here in a fresh folder, work.

What only the services can do (to check out, to upload) is not run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from junitparser import JUnitXml
from ruamel.yaml import YAML

from tests.support.paths import ROOT

CI = ROOT / "samples" / "ci"


def load(name: str) -> dict[str, Any]:
    # YAML 1.2, as GitHub reads it: `on` is a word there, not true.
    return YAML(typ="safe").load((CI / name).read_text(encoding="utf-8"))


def vendored(name: str) -> dict[str, Any]:
    # Not imported: the package is a command line, and wants a newer click than qmigtool.
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "builtin_schemas" / "vendor" / name).read_text("utf-8"))


@pytest.mark.parametrize(
    ("recipe", "schema"), [("github.yml", "github-workflows.json"), ("gitlab-ci.yml", "gitlab-ci.json")]
)
def test_recipes_are_valid(recipe: str, schema: str) -> None:
    rules = vendored(schema)
    validator = jsonschema.validators.validator_for(rules)(rules)
    document = load(recipe)
    validator.validate(document)
    broken = {**document, next(iter(set(document) & {"jobs", "check-streams"})): {"stage": {"no": "text"}}}
    assert not validator.is_valid(broken)


class Runner:
    """A folder with a checkout, and a `python` whose pip puts what it installs into a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.checkout.mkdir()
        for name in ("pyproject.toml", "LICENSE", "README.md"):
            shutil.copy(ROOT / name, self.checkout)
        for name in ("qmigtool", "parsers"):
            shutil.copytree(
                ROOT / name, self.checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copytree(ROOT / "samples", self.checkout / "samples", ignore=shutil.ignore_patterns("packed"))
        programs, site = folder / "bin", folder / "site"
        programs.mkdir()
        (programs / "python").symlink_to(sys.executable)
        self.summary = folder / "summary.md"
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "QMIGTOOL"))
            },
            "PATH": f"{programs}:{site / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": f"{site}:{os.pathsep.join(path for path in sys.path if path.endswith('site-packages'))}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            # What it depends on is here already, and a test does not ask a registry.
            "PIP_TARGET": str(site),
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip turns the word round: isolation is what is 0
            "PIP_QUIET": "1",
        }

    def run(self, command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        # As both services start a shell: it ends with the first command that fails.
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.checkout,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("ci"))


@pytest.mark.slow
def test_github_commands(runner: Runner) -> None:
    (job,) = load("github.yml")["jobs"].values()
    variables = {name: str(value) for name, value in job["env"].items()}
    for step in job["steps"]:
        if "run" in step:
            done = runner.run(step["run"], variables)
            assert done.returncode == 0, (step["name"], done.stdout, done.stderr)
    assert runner.summary.read_text().startswith("```\nsamples/arm-7.2.mig: nothing found by")
    sarif = json.loads((runner.checkout / "qmigtool.sarif").read_text())
    assert [artifact["location"]["uri"] for artifact in sarif["runs"][0]["artifacts"]] == sorted(
        f"samples/{path.name}" for path in (ROOT / "samples").glob("*.mig")
    )
    uploads = [step["with"] for step in job["steps"] if "upload" in step.get("uses", "")]
    named = {name for upload in uploads for name in (upload.get("sarif_file") or upload["path"]).split()}
    assert all((runner.checkout / name).is_file() for name in named)


@pytest.mark.slow
def test_gitlab_commands(runner: Runner) -> None:
    job = load("gitlab-ci.yml")["check-streams"]
    done = runner.run("\n".join(job["script"]), job["variables"])
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "10 files" in done.stdout
    reports = job["artifacts"]["reports"]
    assert len(list(JUnitXml.fromfile(str(runner.checkout / reports["junit"])))) == 10
    assert len(json.loads((runner.checkout / reports["codequality"]).read_text())) == 2
    assert set(job["artifacts"]["paths"]) == {reports["junit"], reports["codequality"]}


@pytest.mark.slow  # needs the installation of the tests above
@pytest.mark.parametrize("recipe", ["github.yml", "gitlab-ci.yml"])
def test_a_finding_fails_the_job_and_leaves_the_reports(recipe: str, runner: Runner) -> None:
    document = load(recipe)
    job = next(iter(document["jobs"].values())) if "jobs" in document else document["check-streams"]
    commands = [step.get("run", "") for step in job["steps"]] if "steps" in job else job["script"]
    (command,) = [one for one in commands if "qmigtool check" in one]
    policy = '[rules.machine-type]\nallowed = ["pc-q35-*"]\n'
    (runner.checkout / "policy.toml").write_text(policy)
    for name in runner.checkout.glob("qmigtool.*"):
        if name.is_file():
            name.unlink()
    variables = {**{name: str(value) for name, value in (job.get("env") or job["variables"]).items()}}
    done = runner.run(command, {**variables, "OPTIONS": "--policy policy.toml"})
    assert done.returncode == 1
    assert JUnitXml.fromfile(str(runner.checkout / "qmigtool.xml")).failures == 9
    if recipe == "github.yml":
        assert done.stdout.count("\n::error file=samples/") == 8  # and the first line
