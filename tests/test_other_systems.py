"""The main work on a system without fork, most signals, `fcntl`, `resource` and `/proc`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pepr_mlops
from pepr_mlops import files

STAND_IN = Path(__file__).parent / "other_system"
TINY = (
    *("--dataset", "digits", "--image-size", "32", "--epochs", "1", "--fraction", "0.1"),
    *("--no-pretrained", "--device", "cpu", "--energy", "estimated"),
)


@pytest.fixture
def elsewhere(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store, and the environment of such a system for new processes, which print no UTF-8."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store


def _python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, encoding="cp1252", check=False, timeout=300)


def _pepr(*words: str) -> str:
    done = _python("-m", "pepr_mlops", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_stand_in_takes_from_the_package_what_it_says(elsewhere: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, fcntl, resource  # which a script has\n"
        "from pepr_mlops import process\n"
        "from pepr_mlops.costs import device, memory\n"
        "from pepr_mlops.costs.meters import stopwatch\n"
        "from pepr_mlops.sweep import local_engine\n"
        "print(process.CAN_FORK, process.CAN_SIGNAL, process.signals('SIGHUP', 'SIGUSR1'))\n"
        "print(stopwatch.resource, memory.can_list_pages(), memory._peak_rss())\n"
        "print(device.cpu_info(), process._cgroup('cpu', 'cpu.max'), bool(device.cpu_model()))\n"
        "machine, pid, started = process.this_process().split()\n"
        "print(machine.count('/'), int(pid) == os.getpid(), process.is_alive(f'{machine} 1 0'))\n"
    )
    done = _python(script)
    assert done.stdout.splitlines() == [
        "False False []",
        "None False None",
        "{} [] True",
        "0 True False",
    ], done.stderr


def test_models_are_trained_alone_and_by_a_sweep_and_scored(elsewhere: str, tmp_path: Path) -> None:
    trained = _pepr("train", "--model", "test_resnet", *TINY)
    assert "memory           not known" in trained
    models = ("--model", "test_resnet,test_efficientnet")
    checkpoints = ("--checkpoints", str(tmp_path / "checkpoints"))
    rows = json.loads(_pepr("sweep", *models, *TINY, *checkpoints, "--format", "json"))
    both = {"test_resnet": "done", "test_efficientnet": "done"}
    assert {row["model"]: row["state"] for row in rows} == both
    assert len([*(tmp_path / "checkpoints" / "logs").iterdir()]) == 1  # one had been trained
    scored = _pepr("score", "--experiment", "digits").splitlines()
    assert {line.split()[1] for line in scored if line.split()[:1] in (["1"], ["2"])} == {*both}
    runs = pepr_mlops.load_runs("digits").set_index("model")
    assert runs["energy_wh"].between(0, 1, inclusive="neither").all()
    assert runs["memory_gb"].isna().all()  # which no spawned process could read either


def test_a_result_is_printed_also_with_letters_that_the_terminal_lacks(elsewhere: str) -> None:
    program = "from pepr_mlops import cli; cli.run_command(lambda: cli.say('–α'), is_program=True)"
    done = _python("-c", program)
    assert (done.returncode, done.stdout) == (0, "–\\u03b1\n")


def test_jobs_end_in_order_without_signals_between_processes(
    elsewhere: str, tmp_path: Path
) -> None:
    """By a message of the sweep that stops, and when the sweep is gone."""
    script = tmp_path / "engine.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pepr_mlops.process import this_process\n"
        "from pepr_mlops.spec import Job\n"
        "from pepr_mlops.sweep import worker\n"
        "from pepr_mlops.sweep.engine import NOTE, Report, Task\n"
        "from pepr_mlops.sweep.local_engine import LocalEngine\n"
        "def work(task, say):\n"
        "    try:\n"
        "        worker._end_with(task.spec.experiment)\n"
        "        say('begun')\n"
        "        for _ in range(600):\n"
        "            time.sleep(0.1)\n"
        "    except SystemExit as end:\n"
        "        return Report(task.spec, 'killed', str(end.code))\n"
        "if __name__ == '__main__':\n"
        "    machine = this_process().split()[0]\n"
        "    owners = {'stopped': this_process(), 'orphaned': f'{machine} 1 0'}\n"
        "    engine = LocalEngine(work, [{}, {}], Path(sys.argv[1]), ['pepr_mlops.sweep.worker'])\n"
        "    for name, owner in owners.items():\n"
        "        engine.submit(Task(Job(model=name, experiment=owner, data_digest='0')))\n"
        "    ended = {}\n"
        "    while len(ended) < 2:\n"
        "        for report in engine.poll(1):\n"
        "            if report.reason != NOTE:\n"
        "                ended[report.spec.model] = f'{report.reason} {report.error}'\n"
        "            elif report.spec.model == 'stopped':\n"
        "                engine.stop()\n"
        "    engine.close()\n"
        "    print(sorted(ended.items()))\n"
    )
    done = _python(script, tmp_path / "logs")
    ends = [("orphaned", "killed 143"), ("stopped", "killed 143")]  # 128 and SIGTERM, 15
    assert done.stdout.strip() == str(ends), done.stderr


def test_an_engine_that_such_a_system_lacks_is_refused_in_a_line(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    words = ("--model", "test_resnet", "--dataset", "digits", "--no-pretrained", "--device", "cpu")
    done = _python("-m", "pepr_mlops", "sweep", *words, "--engine", "slurm")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "pepr: slurm: there is no sbatch on the PATH; run the sweep on a login node of the "
        "cluster, or use --engine local or ray"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("lacks", [(), ("preadv", "pwrite")])
def test_bytes_are_read_and_written_at_any_place(
    lacks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in lacks:
        monkeypatch.delattr(os, name)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | files.BINARY)
    try:
        files.write_at(file, b"world\n", 6)
        files.write_at(file, b"hello ", 0)
        part = memoryview(bytearray(5))
        assert files.read_at(file, part, 6) == 5
        assert bytes(part) == b"world"
        assert files.read_at(file, part, 9) == 3
        assert bytes(part[:3]) == b"ld\n"
    finally:
        os.close(file)
