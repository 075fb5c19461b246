"""The files by which the project is found, cited, checked and contributed to."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_software_and_the_paper_can_be_cited() -> None:
    """Required keys and types are those of the schema of the Citation File Format 1.2.0."""
    cited = _yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert (cited["title"], cited["version"]) == (PROJECT["name"], PROJECT["version"])
    assert cited["license"] == PROJECT["license"]
    assert cited["type"] == "software"
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= set(paper)
    for author in [*cited["authors"], *paper["authors"]]:
        assert set(author) in ({"name"}, {"family-names", "given-names"})
    names = [f"{a['given-names']} {a['family-names']}" for a in paper["authors"]]
    assert names == [
        *("Raghavendra Selvan", "Bob Pepin", "Christian Igel", "Gabrielle Samuel", "Erik B Dam")
    ]
    assert paper["title"].startswith("PePR: Performance Per Resource Unit as a Metric to Promote")
    assert [one["value"] for one in paper["identifiers"]] == ["arXiv:2403.12562"]


def test_the_workflow_runs_the_gate_without_data() -> None:
    (job,) = _yaml(".github/workflows/ci.yml")["jobs"].values()
    assert job["env"] == {"PEPR_TEST_DATA": "none"}
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_hooks_use_the_linters_of_the_environment() -> None:
    (repo,) = _yaml(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    commands = {hook["entry"].removesuffix(" --force-exclude") for hook in repo["hooks"]}
    assert commands == {"ruff check", "ruff format", "mypy"}


def test_these_files_are_committed() -> None:
    names = ["CITATION.cff", "CONTRIBUTING.md", ".pre-commit-config.yaml"]
    names += [".github/workflows/ci.yml", ".ci/run"]
    ignored = subprocess.run(
        ["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert (ignored.stdout, ignored.returncode) == ("", 1)
    assert all((ROOT / name).is_file() for name in names)


def test_ci_without_data_skips_what_needs_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PEPR_TEST_DATA", "none")
    with pytest.raises(pytest.skip.Exception, match="needs some images at "):
        needs(tmp_path / "images.npz", "some images")
    with pytest.raises(pytest.fail.Exception, match="needs a browser at /usr/bin/no-browser"):
        needs(Path("/usr/bin/no-browser"), "a browser")
    monkeypatch.setenv("PEPR_TEST_DATA", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="needs some images at "):
        needs(tmp_path / "images.npz", "some images")


@pytest.mark.parametrize("data", ["none", "."])
def test_the_gate_says_that_it_skips_the_xrays(tmp_path: Path, data: str) -> None:
    """With commands that only print how they were called: the real ones take half an hour."""
    for path in (".ci/run", "README.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
    programs = tmp_path / "bin"
    programs.mkdir()
    called = ("apt-get", "mlflow", "mypy", "pepr", "pip", "pytest", "python3", "ruff", "uv")
    for name in (*called, "sphinx-build"):
        (programs / name).write_text(f'#!/bin/sh\necho "called: {name} $* $PYTEST_ADDOPTS"\n')
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    gate = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PEPR_TEST_DATA": data},
        capture_output=True,
        text=True,
        check=True,
    )
    trained, skipped = "called: pepr train" in gate.stdout, "X-rays: skipped" in gate.stdout
    assert (trained, skipped) == (data != "none", data == "none")
    assert ("called: pytest  -rs" in gate.stdout) == (data == "none")
    assert "called: mlflow run" in gate.stdout
    assert "called: mypy" in gate.stdout
    assert "called: sphinx-build -q -W --keep-going docs " in gate.stdout
