"""`pepr measure` and `pepr log`: commands run as they would alone, and are logged as they ended."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pepr_mlops.cli import main
from pepr_mlops.costs.tree_memory import TreeMemory
from pepr_mlops.names import METRICS, TAGS

OPTIONS = ["measure", "--experiment", "seg", "--model", "unet", "--energy", "off"]


def _pepr(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        main(list(words))
    out, err = capfd.readouterr()
    return int(left.value.code or 0), out, err


def _runs() -> list[Any]:
    client = MlflowClient()
    found = client.get_experiment_by_name("seg")
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def _only() -> Any:
    (run,) = _runs()
    return run


def test_a_command_runs_unchanged_and_is_a_run_like_any_other(
    store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    more = ["--param", "seed=1", "--param", "dataset=ct", "--data", str(tmp_path / "images")]
    script = "import sys; print(sys.argv[1:])"
    words = [sys.executable, "-c", script, "--model", "none", "--dry-run", "true", "--", "x y"]
    status, out, err = _pepr(capfd, *OPTIONS, *more, "--", *words)
    assert (status, out) == (0, "['--model', 'none', '--dry-run', 'true', '--', 'x y']\n")
    run = _only()
    assert f"pepr log {run.info.run_id} performance=0.83" in err
    assert re.search(r"^peak memory, all processes +[1-9][0-9.]* MB$", err, flags=re.M)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model": "unet", "seed": "1", "dataset": "ct"}
    assert {"time/train_s", "memory/rss_gb"} <= set(run.data.metrics) <= set(METRICS)
    assert "performance" not in run.data.metrics
    tags = {name: text for name, text in run.data.tags.items() if name.startswith("pepr.")}
    assert set(tags) <= {*TAGS, *(name for name in tags if name.startswith("pepr.version."))}
    assert tags["pepr.energy_source"] == "none"
    assert tags["pepr.memory"] == "memory/rss_gb"
    assert len(tags["pepr.data_digest"]) > 10
    assert "pepr.threads" not in tags  # those of the command are not known


def test_the_energy_of_a_command_has_its_source(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*OPTIONS[:-1], "estimated", "--carbon-intensity", "100", "--", "sleep", "0.2"]
    assert _pepr(capfd, *words)[0] == 0
    run = _only()
    metrics = run.data.metrics
    assert run.data.tags["pepr.energy_components"] == "cpu=estimated,dram=estimated"
    parts = metrics["energy/train_cpu_wh"] + metrics["energy/train_dram_wh"]
    assert metrics["energy/train_wh"] == pytest.approx(parts)
    assert metrics["carbon/train_gco2e"] == pytest.approx(metrics["energy/train_wh"] / 10)
    assert 0.2 <= metrics["time/train_s"] < 2


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        ("exit 3", 3, "command: it ended with exit status 3"),
        ("kill -9 $$", 137, "command: it was killed by SIGKILL"),
    ],
)
def test_a_command_that_fails_is_a_failed_run_with_its_cost(
    store: str, capfd: pytest.CaptureFixture[str], command: str, status: int, error: str
) -> None:
    ended, _, err = _pepr(capfd, *OPTIONS, "--", "sh", "-c", f"sleep 0.2; {command}")
    assert ended == status
    assert f"the command ended with exit status {status}: comparisons leave it out" in err
    run = _only()
    assert run.info.status == "FAILED"
    assert (run.data.tags["pepr.reason"], run.data.tags["pepr.error"]) == ("crashed", error)
    assert run.data.metrics["time/train_s"] >= 0.2


def test_processes_that_a_command_leaves_are_named(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "(sleep 5 > /dev/null 2>&1 &) ; exit 0"
    status, _, err = _pepr(capfd, *OPTIONS, "--", "sh", "-c", script)
    assert status == 0
    assert "1 of its processes ran on after the command had ended" in err
    pid = _only().data.tags["pepr.left_running"].partition("(")[2].split()[0]
    os.kill(int(pid), signal.SIGKILL)


def test_helpers_that_end_a_little_later_are_not_named(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, err = _pepr(capfd, *OPTIONS, "--", "sh", "-c", "(sleep 0.4 &)")
    assert (status, "ran on" in err) == (0, False)
    assert "pepr.left_running" not in _only().data.tags


def test_time_ends_with_the_command_though_another_process_holds_its_output(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--performance-regex", r"p ([0-9.]+)", "--", "sh", "-c", "sleep 3 & echo p 0.5"]
    assert _pepr(capfd, *OPTIONS, *words)[0] == 0
    metrics = _only().data.metrics
    assert metrics["performance"] == 0.5
    assert metrics["time/train_s"] < 1.5  # seconds are waited for the rest of the output


def test_the_environment_of_a_command_is_unchanged(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import os; print(sorted(os.environ))"
    status, out, _ = _pepr(capfd, *OPTIONS, "--", sys.executable, "-c", script)
    assert (status, out.strip()) == (0, str(sorted(os.environ)))


def test_memory_is_that_of_the_command_not_of_the_process_before_it_is_one(
    store: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    sampled = TreeMemory.sampled

    def seen(memory: TreeMemory) -> AbstractContextManager[None]:
        begun.extend(process.cmdline() for process in memory.processes())
        return sampled(memory)

    monkeypatch.setattr(TreeMemory, "sampled", seen)
    assert _pepr(capfd, *OPTIONS, "--", "sleep", "0.5")[0] == 0
    assert begun == [["sleep", "0.5"]]
    assert 0 < _only().data.metrics["memory/rss_gb"] < 0.02


# P -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0.831", "83.1%"])
def test_p_is_the_last_match_in_either_stream(
    store: str, capfd: pytest.CaptureFixture[str], value: str
) -> None:
    options = ["--performance-regex", r"dice: ([0-9.]+%?)", "--performance", "test/dice"]
    script = f"echo dice: 0.2; echo dice: 0.4; sleep 0.2; printf '\\rdice: %s' {value} >&2"
    status, out, err = _pepr(capfd, *OPTIONS, *options, "--", "sh", "-c", script)
    assert (status, out) == (0, "dice: 0.2\ndice: 0.4\n")
    assert err.startswith(f"\rdice: {value}")
    run = _only()
    assert run.data.metrics["performance"] == run.data.metrics["test/dice"] == 0.831
    assert run.data.tags["pepr.performance"] == "test/dice"


def test_a_command_does_not_wait_for_a_full_disk(store: str) -> None:
    options = ["--performance-regex", r"p ([0-9.]+)", "--tracking-uri", store]
    script = "head -c 1000000 /dev/zero; echo; echo p 0.5"
    words = [sys.executable, "-m", "pepr_mlops", *OPTIONS, *options, "--", "sh", "-c", script]
    with open("/dev/full", "wb") as full:
        subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=True, timeout=120)
    assert _only().data.metrics["performance"] == 0.5


def test_the_command_still_writes_to_a_terminal(store: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = f"{sys.executable} -c 'import sys; print(sys.stdout.isatty(), 0.5)'"
    options = ["--performance-regex", r"True ([0-9.]+)", "--tracking-uri", store]
    words = [sys.executable, "-m", "pepr_mlops", *OPTIONS, *options, "--", "sh", "-c", script]
    subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, check=True)
    assert os.read(ours, 1000) == b"True 0.5\r\n"
    assert _only().data.metrics["performance"] == 0.5


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("a.1.dice", {"a": [{}, {"dice": 0.5}]}, None),
        ("a.2.dice", {"a": [{}, {"dice": 0.5}]}, "has no a.2; there it has"),
        ("b", {"a": 0.5}, "has no b; there it has a"),
        ("a", {"a": 83.1}, "83.1 is no number from 0 to 1; give a share, not per cent"),
        ("a", {"a": float("nan")}, "nan is no number from 0 to 1"),
        ("a", {"a": True}, "True is no number from 0 to 1"),
        ("a", None, "the command wrote no "),
    ],
)
def test_p_is_read_from_a_file_that_the_command_wrote(
    store: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    key: str,
    content: Any,
    message: str | None,
) -> None:
    (tmp_path / "new.json").write_text(json.dumps(content))
    script = "true" if content is None else f"cp {tmp_path}/new.json {tmp_path}/r.json"
    options = ["--performance-from", f"{tmp_path}/r.json:{key}"]
    status, _, err = _pepr(capfd, *OPTIONS, *options, "--", "sh", "-c", script)
    run = _only()
    assert run.info.status == "FINISHED"  # the command did its work
    assert "time/train_s" in run.data.metrics
    if message is None:
        assert status == 0
        assert run.data.metrics["performance"] == 0.5
    else:
        assert status == 1
        assert message in err.splitlines()[-1]
        assert "performance" not in run.data.metrics
        assert f"pepr log {run.info.run_id} performance=" in err


def test_a_file_from_before_is_no_result_of_the_command(
    store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text('{"a": 0.9}')
    status, _, err = _pepr(
        capfd, *OPTIONS, "--performance-from", f"{tmp_path}/r.json:a", "--", "true"
    )
    assert status == 1
    assert "the file is from before" in err
    assert "performance" not in _only().data.metrics


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "measure: it has no command; write one after --"),
        (["true"], "measure: write -- before the command"),
        (["--", "no-such-program"], "command: no-such-program is not a program that can be run"),
        (["--param", "seed", "--", "true"], "param: 'seed' is not NAME=VALUE"),
        (["--performance-from", "a.json", "--", "true"], "'a.json' names no key; write FILE:KEY"),
        (["--performance-regex", "(", "--", "true"], "performance_regex: '(' is wrong"),
        (["--performance-regex", "(a)(b)", "--", "true"], "has 2 groups; put one around"),
        (
            ["--performance-regex", "a", "--performance-from", "a:b", "--", "true"],
            "give --performance-from or --performance-regex, not both",
        ),
    ],
)
def test_wrong_use_is_refused_before_the_command_begins(
    store: str, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status, _, err = _pepr(capfd, *OPTIONS, *words)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert _runs() == []


# Signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 5), ("SIGINT", 0)])
def test_signals_reach_the_command_and_its_run_is_killed(
    store: str, tmp_path: Path, name: str, status: int
) -> None:
    number = getattr(signal, name)
    script = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal({number}, lambda n, f: (pathlib.Path('got').touch(), sys.exit({status})))\n"
        "pathlib.Path('ready').touch(); time.sleep(60)"
    )
    words = [sys.executable, "-m", "pepr_mlops", *OPTIONS, "--tracking-uri", store, "--"]
    measured = subprocess.Popen(
        [*words, sys.executable, "-c", script],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (tmp_path / "ready").exists():
        assert measured.poll() is None
        time.sleep(0.05)
    measured.send_signal(number)
    _, err = measured.communicate(timeout=60)
    assert measured.returncode == status  # the command's own
    assert f"was stopped by a signal and ended with exit status {status}".encode() in err
    assert b"pepr log" not in err
    assert (tmp_path / "got").exists()
    run = _only()
    assert run.info.status == "KILLED"
    assert run.data.metrics["time/train_s"] > 0


# `pepr log` --------------------------------------------------------------------------------------


def test_p_is_added_later_once(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _pepr(capfd, *OPTIONS, "--performance", "test/dice", "--", "true")[0] == 0
    run_id = _only().info.run_id
    status, out, _ = _pepr(capfd, "log", run_id, "test/dice=0.83", "test/hd_mm=4.5")
    assert (status, out.count("\n")) == (0, 1)
    metrics = _only().data.metrics
    assert (metrics["performance"], metrics["test/dice"], metrics["test/hd_mm"]) == (
        0.83,
        0.83,
        4.5,
    )
    (point,) = MlflowClient().get_metric_history(run_id, "performance")
    assert point.step == 1  # the last epoch
    assert _pepr(capfd, "log", run_id, "performance=0.83")[0] == 0  # the same
    status, _, err = _pepr(capfd, "log", run_id, "performance=0.9")
    assert status == 2
    assert "has 0.83, which stays; if it is wrong, add --replace" in err
    assert _pepr(capfd, "log", run_id, "performance=0.9", "--replace")[0] == 0
    metrics = _only().data.metrics
    assert (metrics["performance"], metrics["test/dice"]) == (0.9, 0.9)


def test_p_of_a_run_that_does_not_name_it_is_named(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    run_id = client.create_run(client.create_experiment("theirs")).info.run_id
    client.set_terminated(run_id)
    status, _, err = _pepr(capfd, "log", run_id, "test/dice=0.83")
    assert status == 0
    assert "still has no P; name the metric that is P, such as --performance test/dice" in err
    words = ["log", run_id, "test/dice=0.83", "--performance"]
    assert _pepr(capfd, *words, "test/dice")[0] == 0
    found = client.get_run(run_id).data
    assert found.metrics == {"test/dice": 0.83, "performance": 0.83}
    assert found.tags["pepr.performance"] == "test/dice"
    status, _, err = _pepr(capfd, "log", run_id, "val/dice=0.9", "--performance", "val/dice")
    assert status == 2
    assert "is test/dice, which stays" in err
    status, _, err = _pepr(capfd, *words, "dice")
    assert "dice is not among the metrics; add dice=…" in err


def test_p_has_one_value(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert _pepr(capfd, *OPTIONS, "--performance", "test/dice", "--", "true")[0] == 0
    run_id = _only().info.run_id
    status, _, err = _pepr(capfd, "log", run_id, "test/dice=0.8", "performance=0.9")
    assert status == 2
    assert "it is 0.9, and test/dice, which is P, is 0.8; give one of them" in err
    assert "performance" not in _only().data.metrics


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("energy/train_wh=1", "energy/train_wh: a cost is measured or imported, never added"),
        ("performance=83", "performance: 83 is not from 0 to 1; give a share, not per cent"),
        ("val/dice=nan", "val/dice: nan is not finite"),
        ("performance", "performance: it is not NAME=NUMBER"),
    ],
)
def test_impossible_metrics_are_refused(
    store: str, capfd: pytest.CaptureFixture[str], pair: str, message: str
) -> None:
    assert _pepr(capfd, *OPTIONS, "--", "true")[0] == 0
    status, _, err = _pepr(capfd, "log", _only().info.run_id, pair)
    assert status == 2
    assert message in err
    assert set(_only().data.metrics) & {"performance", "val/dice", "energy/train_wh"} == set()


def test_a_run_that_is_not_there_is_one_line(store: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = _pepr(capfd, "log", "0" * 32, "performance=0.5")
    assert status == 2
    assert f"run: the server has no {'0' * 32}; give the full id" in err
    assert len(err.splitlines()) == 1
