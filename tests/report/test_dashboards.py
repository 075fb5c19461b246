"""Dashboards as code: how they are read, and why a wrong one is refused."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from pepr_mlops.errors import WrongUse
from pepr_mlops.report import dashboards
from pepr_mlops.report.figures import KINDS


def test_the_shipped_ones_are_three_and_every_kind_is_shown_by_one() -> None:
    assert list(dashboards.shipped()) == ["budget", "default", "paper"]
    shown = {f.kind for name in dashboards.shipped() for f in dashboards.load(name).figures}
    assert shown == set(KINDS)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'title = "Ours"\nresources = ["M", "E"]\nnormalisation = "robust"\n'
        "[experiments.derma]\n[experiments.imagenet]\n"
        'resources = ["inference/gmacs"]\nmixed = "stratify"\n'
        '[[figure]]\nkind = "plane"\naxis = "cost"\ntitle = "What it costs"\n'
    )
    found = dashboards.load(str(path))
    assert (found.title, found.resources, found.normalisation) == ("Ours", ("M", "E"), "robust")
    assert found.experiments["imagenet"] == dashboards.Companion(("inference/gmacs",), "stratify")
    (figure,) = found.figures
    assert (figure.kind, figure.title, figure.options.axis) == ("plane", "What it costs", "cost")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('titel = "x"', r"titel: no such key; did you mean 'title'\? Valid: title, resources"),
        ("", "has no \\[\\[figure\\]\\]; valid kinds: ranking, plane"),
        (
            '[[figure]]\nkind = "plain"',
            r"figure 1: kind: 'plain' is not one of .*; did you mean 'plane'",
        ),
        (
            '[[figure]]\nkind = "plane"\naxs = "R"',
            r"figure 1 \(plane\): axs: no such key; did you mean 'axis'\? Valid: axis, paths",
        ),
        ('[[figure]]\nkind = "plane"\naxis = "Wh"', r"axis: 'Wh' is not one of R, cost"),
        ('[[figure]]\nkind = "plane"\npaths = 1', "paths: 1 is not true or false"),
        ('[[figure]]\nkind = "ranking"\ntop = true', "top: True is not a whole number"),
        ('[[figure]]\nkind = "curves"\nmodels = "a"', "models: 'a' is not a list"),
        (
            '[[figure]]\nkind = "plane"\n[experiments.x]\nmixed = 1',
            "experiments.x: mixed: 1 is not one of refuse, stratify, allow",
        ),
        (
            'normalisation = "reference"\n[[figure]]\nkind = "plane"',
            "'reference' is not one of minmax, zero, robust",
        ),
        ("title = ", "is not TOML"),
    ],
)
def test_a_wrong_key_is_named_with_the_file_and_the_valid_ones(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(WrongUse, match=message) as error:
        dashboards.load(str(path))
    assert "own.toml" in str(error.value)


def test_neither_a_name_nor_a_file() -> None:
    with pytest.raises(WrongUse, match="one of budget, default, paper; did you mean 'paper'"):
        dashboards.load("papier")


def test_a_wheel_carries_the_dashboards_and_the_page(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"pepr_mlops/dashboards/{n}.toml" for n in dashboards.shipped()} <= names
    assert {f"pepr_mlops/report/assets/page.{kind}" for kind in ("html", "css", "js")} <= names
