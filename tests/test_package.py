"""The wheel and the source distribution: all that the package needs, and the wheel works alone."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGE = ROOT / "pepr_mlops"


def _uv() -> str:
    """uv, which the README installs into the environment of the tests."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, "needs uv: pip install uv"
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [_uv(), "build", "--quiet", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, cwd=folder)
    return folder


def test_the_wheel_has_all_files_of_the_package_and_no_others(built: Path) -> None:
    (path,) = built.glob("*.whl")
    assert path.name == f"pepr_mlops-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(path).namelist())
    info = f"pepr_mlops-{VERSION}.dist-info/"
    files = {
        str(file.relative_to(ROOT))
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    dashboards = {f"pepr_mlops/{p.relative_to(ROOT)}" for p in (ROOT / "dashboards").glob("*.toml")}
    assert len(dashboards) == 3
    assert {name for name in names if not name.startswith(info)} == files | dashboards
    assert {
        *("pepr_mlops/models.csv", "pepr_mlops/sweep/prior.json"),
        *("pepr_mlops/report/energy_reference.json", "pepr_mlops/report/assets/main.html"),
        *("pepr_mlops/report/plotlyjs/plotly-cartesian.min.js.gz", "pepr_mlops/report/card.md"),
        *("pepr_mlops/costs/meters/server_cpus.csv", "pepr_mlops/dashboards/default.toml"),
        f"{info}licenses/LICENSE",
    } <= names


def test_the_source_has_what_builds_and_cites_it(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {
        *("pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"),
        *("constraints.txt", "MLproject", "pepr_mlops/sweep/prior.json", "dashboards/paper.toml"),
        *("tests/conftest.py", ".ci/run"),
    } <= names
    assert not {name for name in names if ".venv" in name or name.endswith((".db", ".pyc"))}


@pytest.mark.slow
def test_the_wheel_alone_trains_scores_and_reports(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    programs = tmp_path / "environment" / "bin"
    uv = _uv()
    subprocess.run([uv, "venv", "-q", "-p", sys.executable, programs.parent], check=True)
    install = [uv, "pip", "install", "-q", "-p", programs / "python", wheel]
    subprocess.run([*install, "-c", ROOT / "constraints.txt"], check=True, timeout=1200)
    empty = tmp_path / "empty"
    empty.mkdir()
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "MLFLOW_TRACKING_URI")
    environment = {name: text for name, text in os.environ.items() if name not in hidden}

    def pepr(*words: str) -> str:
        command = [programs / "pepr", *words]
        done = subprocess.run(
            command, cwd=empty, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    tiny = ("--dataset", "digits", "--image-size", "32", "--epochs", "1", "--no-pretrained")
    experiment = ("--experiment", "tiny")
    for model in ("test_resnet", "test_byobnet"):
        assert "training energy" in pepr("train", "--model", model, *tiny, *experiment)
    rows = list(csv.DictReader(io.StringIO(pepr("score", *experiment, "--format", "csv"))))
    assert {row["model"] for row in rows} == {"test_resnet", "test_byobnet"}
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    pepr("report", *experiment, "--out", "page.html")
    page = (empty / "page.html").read_text()
    assert "test_byobnet" in page
    assert len(page) > 500_000  # with plotly.js
