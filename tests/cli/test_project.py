"""The MLflow Project: its files agree with the code, and `mlflow run` does the job."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from made import logged, run
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException
from packaging.requirements import Requirement

from pepr_mlops.cli import main
from pepr_mlops.spec import RunSpec

ROOT = Path(__file__).parents[2]


def _project() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
    return loaded


def _pins() -> dict[str, str]:
    """Versions of constraints.txt that apply to this Python and system."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def test_every_field_of_the_spec_is_a_parameter_with_its_default() -> None:
    main = _project()["entry_points"]["main"]
    assert list(main["parameters"]) == [f.name for f in fields(RunSpec)]
    given = {name: str(entry["default"]) for name, entry in main["parameters"].items()}
    assert RunSpec.parse(given) == RunSpec()
    assert re.findall(r"--(\w+) \{(\w+)\}", main["command"]) == [
        (f.name, f.name) for f in fields(RunSpec)
    ]


def test_conda_and_pip_install_what_pyproject_requires() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip[0] == "-c constraints.txt"
    pinned = {r.name: r for r in map(Requirement, pip[1:])}
    assert set(pinned) == {Requirement(text).name for text in required}
    pins = _pins()
    for text in required:
        requirement = Requirement(text)
        version = str(pinned[requirement.name].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), text
        if sys.version_info[:2] == (3, 11):  # the Python of conda.yaml
            assert version == pins[requirement.name]


def test_this_environment_is_the_pinned_one() -> None:
    installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
    for name, version in _pins().items():
        if name in installed:
            assert installed[name] == version, name


def test_no_file_names_a_registrys_host() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    hosts = re.compile(r"pypi\.org|pythonhosted|conda\.anaconda\.org|/simple/|registry\.npmjs")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in (".npz", ".png") or path == Path(__file__) or not path.exists():
            continue
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        assert not hosts.search(text.decode()), name


def _mlflow_run(store: str, *parameters: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    for parameter in parameters:
        command += ["-P", parameter]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_mlflow_run_trains_and_logs(store: str, shapes: Path) -> None:
    tiny = ("model=test_resnet", "image_size=32", "epochs=1", "pretrained=false")
    done = _mlflow_run(store, f"dataset={shapes}", *tiny, "lr=5e-4")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "5e-4"  # as typed; MLflow logged it first
    assert set(run.data.params) == {f.name for f in fields(RunSpec)}
    assert run.data.tags["pepr.experiment"] == "shapes"
    assert run.data.metrics["energy/train_wh"] > 0


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (
            "modle=resnet18d",
            "No such option '--modle'. (Did you mean one of: '--compile', '--model', ",
        ),
        ("epochs=none", "epochs: 'none' is not a whole number"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_a_failed_run(
    store: str,
    parameter: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As `mlflow run` calls it, for whose command MLflow would be imported once more."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    name, _, value = parameter.partition("=")
    given = {"dataset": "digits", name: value}
    with pytest.raises(ExecutionException, match="failed"):
        mlflow.projects.run(str(ROOT), parameters=given, env_manager="local")
    printed = capfd.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"
    assert words in run.data.tags["pepr.error"]
    assert run.data.tags["pepr.reason"] == "wrong_use"


def _pepr(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status and all output of `pepr WORDS`."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0), "".join(capfd.readouterr())


def test_options_of_a_sweep_are_parameters(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    given = {"model": "resnet18d", "dataset": "digits", "image_size": "32", "tracking_uri": store}
    words = ["sweep", "none", *(w for k, v in given.items() for w in (f"--{k}", v))]
    assert "1: 1 to do" in _pepr(capfd, *words, "--dry_run", "true")[1]
    for option, value in (("stale_after", "60"), ("format", "json"), ("strict", "false")):
        status, text = _pepr(capfd, *words, "--dry_run", "1", f"--{option}", value)
        assert status == 0
    assert "1: 1 to do" in text
    status, text = _pepr(capfd, *words, "--modle", "resnet18d")
    assert status == 2
    assert "No such option '--modle'" in text
    assert "'--model'" in text
    assert _project()["entry_points"]["sweep"]["command"].endswith("sweep {file}")


def test_flags_take_a_value_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Of each the first error that is met shows how it was read."""
    words = ["train", "--compile", "true", "--precision", "auto"]
    assert "compile: a trial of precision" in _pepr(capfd, *words)[1]
    words = ["train", "--compile", "false", "--offline", "yes", "--lr", "x"]
    assert "pepr: lr: " in _pepr(capfd, *words)[1]
    for option, value in (("compile", "yess"), ("compile", "none"), ("strict", "yess")):
        wrong = f"{option}: {value!r} is not true or false"
        assert wrong in _pepr(capfd, "train", f"--{option}", value)[1]


def test_mlflow_run_writes_a_report(store: str, tmp_path: Path) -> None:
    logged(store, run("a"), "known")
    out = tmp_path / "page.html"
    command = ["mlflow", "run", str(ROOT), "--env-manager", "local", "-e", "report"]
    subprocess.run(
        [*command, "-P", "experiment=known", "-P", f"out={out}"],
        check=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": store},
    )
    assert "known" in out.read_text()


@pytest.mark.slow
def test_mlflow_run_in_an_environment_of_its_own(store: str, shapes: Path) -> None:
    assert shutil.which("uv"), "needs uv"
    command = ["mlflow", "run", str(ROOT), "--env-manager", "uv"]
    for parameter in (f"dataset={shapes}", "image_size=32", "epochs=1", "pretrained=false"):
        command += ["-P", parameter]
    uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_ENV_ROOT": str(Path.cwd())}
    subprocess.run([sys.executable, "-m", *command], check=True, env=environment, timeout=1200)
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--budget_wh", "none", "--top", ""], {"budget_wh": None, "top": None}),
        (["--dry_run", "none"], {"dry_run": False}),
        (["--dry_run", "true"], {"dry_run": True}),
        (["--checkpoints", "none"], {"checkpoints": None}),
        (["--threads", "none", "--weights", "none"], {"threads": "none", "weights": "none"}),
    ],
)
def test_none_means_not_given_except_for_a_field_of_the_spec(
    words: list[str], given: dict[str, object]
) -> None:
    from pepr_mlops.cli.sweep import command

    context = command.make_context("sweep", ["--model", "resnet18d", "--dataset", "digits", *words])
    assert given.items() <= context.params.items()
