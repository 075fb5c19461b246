"""The file of weights of each model in a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pepr_mlops.cli import main
from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.jobs import choose_weights, jobs
from pepr_mlops.sweep.search import check


def test_a_file_is_named_after_its_model_with_or_without_timms_tag() -> None:
    names = [
        *("resnet18d.ra2_in1k.safetensors", "resnet10t.pth", "notes.txt"),
        *("resnet50.a1_in1k.bin", "resnet50.tv_in1k.bin", "resnet34.gluon_in1k.safetensors"),
    ]
    models = ["resnet18d", "resnet10t", "resnet50.tv_in1k", "gluon_resnet34_v1b"]
    assert choose_weights(models, names, "/w") == {
        "resnet18d": "resnet18d.ra2_in1k.safetensors",
        "resnet10t": "resnet10t.pth",
        "resnet50.tv_in1k": "resnet50.tv_in1k.bin",
        "gluon_resnet34_v1b": "resnet34.gluon_in1k.safetensors",
    }


def test_models_without_a_file_are_named_with_the_valid_file_names() -> None:
    with pytest.raises(WrongUse) as refused:
        choose_weights(["a", "b", "c.x"], ["a.safetensors", "bc.pth", "c.pth"], "/w")
    message = str(refused.value)
    assert message.startswith("weights_dir: /w has no file for 2 of 3 models: b, c.x; add ")
    assert "b.safetensors or b.pth or b.bin or b.TAG.safetensors" in message
    assert "\n" not in message


def test_two_files_for_a_model_are_an_error() -> None:
    with pytest.raises(WrongUse, match=r"several files for a: a\.pth, a\.t\.bin; keep one"):
        choose_weights(["a"], ["a.t.bin", "a.pth"], "/w")


def test_a_hidden_file_is_no_file_of_weights() -> None:
    """macOS writes `._NAME` next to each file on a disk of another system."""
    names = [".bin", "._resnet18d.safetensors", "resnet18d.safetensors"]
    assert choose_weights(["resnet18d"], names, "/w") == {"resnet18d": "resnet18d.safetensors"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("resnet18d.safetensors", "resnet10t.c3_in1k.pth"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_jobs_are_those_of_a_file_given_for_each_model(folder: Path) -> None:
    models = {"resnet18d": "resnet18d.safetensors", "resnet10t": "resnet10t.c3_in1k.pth"}
    grid = {"model": list(models), "dataset": "digits", "seed": [0, 1]}
    found = jobs({**grid, "weights_dir": str(folder)})
    by_hand = [
        job
        for model, name in models.items()
        for job in jobs({**grid, "model": model, "weights": str(folder / name)})
    ]
    assert found == by_hand
    assert [job.fingerprint for job in found] == [job.fingerprint for job in by_hand]
    check([job for job in found if job.seed == 0], "E")  # one search takes models with own files


def test_a_country_without_a_known_grid_is_refused_before_the_first_job() -> None:
    with pytest.raises(WrongUse, match=r"country: no grid .*did you mean 'DNK'\?"):
        jobs({"model": "resnet18d", "dataset": "digits", "country": "DK"})


def test_jobs_that_differ_only_in_weights_cannot_be_searched(folder: Path) -> None:
    files = [str(path) for path in folder.iterdir()]
    with pytest.raises(WrongUse, match="differ in weights"):
        check(jobs({"model": "resnet18d", "dataset": "digits", "weights": files}), "E")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"pretrained": "false"}, "training from scratch takes no weights"),
        ({"weights": "x.pth"}, "give either weights_dir or weights, not both"),
        ({"weights_dir": "no/such"}, "no/such cannot be listed"),
        ({"weights_dir": ["a", "b"]}, "cannot be listed"),
        ({"model": ["resnet18d", "resnet26d"]}, "no file for 1 of 2 models: resnet26d;"),
    ],
)
def test_impossible_weights_are_refused_before_the_first_job(
    folder: Path, grid: dict[str, object], message: str
) -> None:
    full = {"model": "resnet18d", "dataset": "digits", "weights_dir": str(folder), **grid}
    with pytest.raises(WrongUse, match=message):
        jobs(full)


def test_a_dry_run_with_a_folder_of_weights_downloads_nothing(
    store: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "--model", "resnet18d,resnet10t", "--dataset", "digits", "--dry-run"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--weights-dir", str(folder)])
    out = capfd.readouterr().out
    assert not stopped.value.code
    heading = re.split(r" {2,}", out.splitlines()[0])
    assert heading == ["model", "state", "training energy", "training time", "forecast from"]
    (line,) = (line for line in out.splitlines() if line.startswith("download"))
    assert line.endswith("nothing")
