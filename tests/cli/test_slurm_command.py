"""The options of `pepr sweep --engine slurm`: what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepr_mlops.cli import main


def _refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a refusal."""
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "--model", "resnet18d", "--dataset", "digits", *words])
    out, err = capfd.readouterr()
    assert (stopped.value.code, out) == (2, "")
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--partition", "gpu"], "partition: it is an option of Slurm; add --engine slurm"),
        (["--setup", "x", "--engine", "ray"], "setup: it is an option of Slurm; add"),
        (["--detach"], "detach: it is an option of Slurm; add --engine slurm"),
        (["--engine", "slurm", "--address", "auto"], "address: it is that of a Ray cluster"),
        (
            ["--engine", "slurm", "--detach", "--budget-wh", "5"],
            "detach: nothing would stop the jobs when the budget is used up; leave out",
        ),
        (
            ["--engine", "slurm", "--detach", "--strategy", "frugal"],
            "detach: a frugal search decides after each job what to train next; leave out",
        ),
        (["--engine", "slurm", "--time", "soon"], "slurm: time: 'soon' is not a time of Slurm"),
    ],
)
def test_options_that_do_not_fit_together_are_one_line(
    capfd: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert _refused(capfd, *words).startswith(f"pepr: {line}")


def test_the_table_of_the_sweep_file_is_checked(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "grid.toml"
    file.write_text("seed = [0, 1]\n[slurm]\npartitions = 'gpu'\n")
    line = _refused(capfd, str(file), "--engine", "slurm")
    assert line.startswith("pepr: slurm: partitions: no such option; did you mean 'partition'?")


def test_auto_is_refused_before_anything_is_submitted(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing to submit with
    words = ["--engine", "slurm", "--image-size", "32", "--no-pretrained", "--tracking-uri", store]
    words += ["--checkpoints", str(tmp_path / "checkpoints")]
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "--model", "test_resnet", "--dataset", "digits", *words])
    assert stopped.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "pepr: device: auto does not say what to request from Slurm; give --device"
    )
