"""The command line as a person meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from mlflow import MlflowClient

from pepr_mlops import cli
from pepr_mlops.cli.output import table
from pepr_mlops.cli.train import summary

PROGRAM = [sys.executable, "-m", "pepr_mlops"]
TINY = ("--model", "test_resnet", "--image-size", "32", "--no-pretrained")


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pepr WORDS`."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    captured = capfd.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def _words_of_every_command() -> list[list[str]]:
    """Those of `pepr` itself, of its commands and of the commands in a group of them."""
    words: list[list[str]] = [[]]
    for name in cli._COMMANDS:
        command = cli.pepr.get_command(click.Context(cli.pepr), name)
        words += [[name], *([name, sub] for sub in getattr(command, "commands", ()))]
    return words


@pytest.mark.parametrize("words", _words_of_every_command(), ids=" ".join)
def test_every_command_has_a_runnable_example(
    capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, out, _ = _run(capfd, *words, "--help")
    assert status == 0
    assert "\n  Examples:\n    pepr " in out
    examples = re.findall(r"^ +pepr (.+)$", out, flags=re.M)
    assert examples
    for example in examples:
        names = re.findall(r"--[a-z-]+", example)
        command = example.split()[:2]
        if command not in _words_of_every_command():
            command = command[:1]
        _, help_text, _ = _run(capfd, *command, "--help")
        assert all(name in help_text for name in names), example


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from pepr_mlops.cli import pepr;"
        f"[CliRunner().invoke(pepr, [*c, '--help']) for c in {_words_of_every_command()}];"
        "print(*sorted({'torch', 'timm', 'mlflow', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "--modle", "x"], "No such option '--modle'"),
        (["train", "--lr", "fast"], "lr: 'fast' is not a number"),
        (["train", "--model", "resnet18dd"], "did you mean 'resnet18d'"),
        (["train", "--dataset", "dermaa"], "did you mean 'derma'"),
        (["train", "--device", "cuda:77"], "device: cuda:77 was not found"),
        (["models", "--kind", "RNN"], "'RNN' is not one of"),
        (["sweep", "--seed", "0,,1"], "seed: '0,,1' has an empty value"),
        (["sweep", "--epochs", "1,ten", "--dataset", "digits"], "epochs: 'ten' is not a whole"),
        (
            ["sweep", "--dataset", "digits", "--budget-wh", "0"],
            "budget_wh: 0 is not above 0",
        ),
        (["sweep", "nowhere.toml"], "sweep: nowhere.toml cannot be read"),
        (["sweep", "--dataset", "digits", "--device", "cuda:1"], "a sweep assigns the GPUs"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    capfd: pytest.CaptureFixture[str], store: str, words: list[str], message: str
) -> None:
    status, out, err = _run(capfd, *words)
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_failed_work_is_one_line_and_status_1(
    capfd: pytest.CaptureFixture[str], store: str, shapes: Path
) -> None:
    status, out, err = _run(capfd, "train", "--dataset", str(shapes), "--image-size", "32")
    assert status == 1
    assert out == ""
    assert "could not be fetched" in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_training_prints_a_table_with_the_source_of_the_energy(
    capfd: pytest.CaptureFixture[str], store: str, shapes: Path
) -> None:
    words = [*TINY, "--dataset", str(shapes), "--epochs", "2"]
    status, out, err = _run(capfd, "train", *words)
    assert status == 0
    (experiment,) = [e for e in MlflowClient().search_experiments() if e.name == "shapes"]
    (run,) = MlflowClient().search_runs([experiment.experiment_id])
    accuracy = run.data.metrics["test/accuracy"]
    energy = run.data.metrics["energy/train_wh"]
    source = run.data.tags["pepr.energy_source"]
    assert re.search(rf"^test accuracy +{accuracy:.4f}$", out, flags=re.M)
    constant = r"(, \d+% of it at any load)?"
    line = rf"^training energy +{re.escape(f'{energy:.4g}')} Wh \({source}{constant}\)$"
    assert re.search(line, out, flags=re.M)
    assert f"mlflow ui --backend-store-uri {store}" in out
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert all(f"Wh ({source}) so far" in line for line in lines)
    assert "; forecast of 2 epochs: training " in lines[0]
    assert "forecast" not in lines[1]  # it is what it came to


def test_another_tracking_server_can_be_named(
    capfd: pytest.CaptureFixture[str], store: str, server: str, shapes: Path
) -> None:
    words = [*TINY, "--dataset", str(shapes), "--epochs", "1"]
    status, out, _ = _run(capfd, "train", *words, "--tracking-uri", server)
    assert status == 0
    assert f"{server}/#/experiments/" in out
    assert MlflowClient(server).get_experiment_by_name("shapes") is not None


_JOBS = """
import json, os, signal, sys, timm
import mlflow.store.tracking.sqlalchemy_store
import pepr_mlops.train.job
from pepr_mlops.cli import main

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a child inherits what nohup ignores
signal.signal(signal.SIGINT, signal.default_int_handler)
jobs = {}
for seed in sys.argv[2].split(","):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(f"{sys.argv[1]}/{seed}", os.O_CREAT | os.O_WRONLY), 2)
        sys.argv = ["pepr", "train", *sys.argv[3:], "--seed", seed]
        main()
    jobs[seed] = pid
print(json.dumps(jobs), flush=True)
ended = {seed: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for seed, pid in jobs.items()}
print(json.dumps(ended))
"""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_job_that_a_signal_stops_is_killed_in_mlflow(
    store: str, shapes: Path, tmp_path: Path
) -> None:
    """Three programs, forked from one that has imported what takes long; each has its own seed."""
    stops = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    words = [*TINY, "--dataset", str(shapes), "--epochs", "10000", "--tracking-uri", store]
    words += ["--checkpoints", str(tmp_path / "checkpoints")]
    seeds = ",".join(str(stop.value) for stop in stops)
    command = [sys.executable, "-c", _JOBS, str(tmp_path), seeds, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as programs:
        assert programs.stdout is not None
        jobs = json.loads(programs.stdout.readline())
        try:
            for seed, pid in jobs.items():
                deadline = time.monotonic() + 120
                while "epoch 2/" not in _text(tmp_path / seed) and time.monotonic() < deadline:
                    time.sleep(0.1)
                os.kill(pid, int(seed))
            ended = json.loads(programs.stdout.readline())
        except BaseException:
            for pid in jobs.values():
                os.kill(pid, signal.SIGKILL)
            raise
    assert ended == {str(stop.value): 128 + stop.value for stop in stops}
    for seed in jobs:
        assert "the same command resumes after the last complete epoch" in _text(tmp_path / seed)
    (experiment,) = [e for e in MlflowClient().search_experiments() if e.name == "shapes"]
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert {run.data.params["seed"] for run in runs} == {*jobs}
    for run in runs:
        assert run.info.status == "KILLED"
        assert run.data.tags["pepr.reason"] == "killed"
        assert run.data.metrics["time/train_s"] > 0


def test_the_summary_says_what_disturbed_the_run() -> None:
    outcome: Any = SimpleNamespace(
        run=SimpleNamespace(run_id=""),
        result=SimpleNamespace(
            metrics={
                **{"test/accuracy": 0.9, "time/train_s": 36.0, "memory/rss_gb": 1.0},
                "energy/train_wh": 0.26,  # 26 W
            },
            stopped=None,
            patience=None,
        ),
        energy_source="estimated",
        constant_w=20.8,
        memory_metric="memory/rss_gb",
        cautions=("other programs used 1.5 of 2 CPUs: time and energy are overstated",),
    )
    assert "training energy  0.26 Wh (estimated, 80% of it at any load)" in summary(outcome)
    assert summary(outcome).splitlines()[-1] == (
        "caution: other programs used 1.5 of 2 CPUs: time and energy are overstated"
    )


# Models ----------------------------------------------------------------------------------------


def test_models_lists_the_papers_131(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run(capfd, "models")
    assert status == 0
    assert len(out.strip().splitlines()) == 2 + 131
    assert "131 of 131 models" in err
    assert re.search(r"^resnet18d +11,708,744 +CNN +no +small +(yes|no)$", out, flags=re.M)


def test_models_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--kind", "Other", "--size", "large", "--not-efficient"]
    _, out, _ = _run(capfd, "models", *words, "--format", "json")
    rows = json.loads(out)
    assert all(r["kind"] == "Other" and r["parameters"] > 24_671_464 for r in rows)
    _, out, _ = _run(capfd, "models", *words, "--format", "csv")
    table_rows = list(csv.DictReader(io.StringIO(out)))
    assert [r["model"] for r in table_rows] == [r["model"] for r in rows]
    assert [int(r["parameters"]) for r in table_rows] == [r["parameters"] for r in rows]


def test_tables_align() -> None:
    text = table([["a", "1,000"], ["longer", "20"]], ["name", "n"])
    assert text.splitlines() == ["name        n", "------  -----", "a       1,000", "longer     20"]


def test_output_that_nobody_reads_is_no_traceback() -> None:
    command = f"{' '.join(PROGRAM)} models --format json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert "Traceback" not in done.stderr


def test_an_interrupt_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as left:
        cli.run_command(interrupted)
    assert left.value.code == 130
    assert capfd.readouterr().err == "pepr: interrupted\n"


# Sweeps ----------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_jobs_of_a_file_and_changes_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(
        'model = ["resnet18d", "dla46x_c"]\ndataset = "digits"\nseed = [0, 1, 2]\n'
        "pretrained = false\n"
    )
    uri = f"sqlite:///{tmp_path}/none.db"
    words = ["sweep", "grid.toml", "--seed", "7,8", "--dry-run", "--tracking-uri", uri]
    status, out, _ = _run(capfd, *words)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["model", "seed", "state"]
    shown = {tuple(line.split()[:4]) for line in lines[2:6]}
    assert shown == {(m, s, "to", "do") for m in ("resnet18d", "dla46x_c") for s in ("7", "8")}
    assert re.search(r"^jobs +4: 4 to do$", out, flags=re.M)
    assert re.search(r"^energy of training alone to come +not known", out, flags=re.M)
    assert re.search(r"^download +nothing$", out, flags=re.M)
    assert not Path("none.db").exists()
    _, out, _ = _run(capfd, *words, "--format", "json")
    rows = json.loads(out)
    states = {(r["model"], r["seed"], r["state"]) for r in rows}
    assert states == {(m, s, "pending") for m, s, *_ in shown}
    assert all(r["forecast_wh"] is None for r in rows)
    assert len({r["spec"] for r in rows}) == 4
