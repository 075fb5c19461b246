"""What survives when a job, its tracking server or a disk fails? A table of faults.

    python benchmarks/fault_matrix.py --out benchmarks/results/fault_matrix.json

Each fault is done to real processes as a user would meet it: `pepr train` and `mlflow run`
on scikit-learn's digits, an `mlflow server`, and a proxy before it that fails as each fault says.
Then `pepr sync`, and the store is read: does it hold every epoch that was reported, and is the
status true?
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import psutil
from common import machine, write
from mlflow import MlflowClient
from proxy import Proxy
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
EXPERIMENT = "faults"
EPOCHS = 4
JOB = {
    "model": "test_resnet",
    "dataset": "digits",
    "image_size": "32",
    "fraction": "0.5",
    "epochs": str(EPOCHS),
    "pretrained": "false",
    "deterministic": "true",
    "energy": "estimated",
    "device": "cpu",
    "experiment": EXPERIMENT,
}


@dataclass(frozen=True)
class Row:
    """What came of a fault.

    `reported` epochs were shown as done by the process before it ended and `stored` epochs are in
    MLflow in the end, after `pepr sync`. `ok`: nothing that was reported is missing, and the status
    is what happened.
    """

    fault: str
    status: str
    reported: int
    stored: int
    ok: bool
    note: str = ""


@functools.cache
def _tables() -> Path:
    """A store without runs; to make its tables takes seconds."""
    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


class Place:
    """A folder with a store, journals and checkpoints, and the processes that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/mlflow.db"
        shutil.copy(_tables(), folder / "mlflow.db")
        self.uri = self.store
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
            "PEPR_JOURNAL": str(folder / "journal"),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # ten processes that nobody needs here
        }
        self.count = 0

    def pepr(self, *words: str, **options: Any) -> Process:
        return self.start([sys.executable, "-m", "pepr_mlops", *words], **options)

    def train(self, *words: str, uri: str | None = None, **options: Any) -> Process:
        given = ["--tracking-uri", uri or self.uri, *words]
        return self.pepr("train", *_as_options(JOB), *given, **options)

    def start(self, command: Sequence[str], **options: Any) -> Process:
        self.count += 1
        return Process(command, self.folder / f"log{self.count}", self.environment, **options)

    def sync(self) -> str:
        return self.pepr("sync").wait()

    def runs(self) -> list[Any]:
        client = MlflowClient(self.store)
        found = client.get_experiment_by_name(EXPERIMENT)
        ids = ["0"] if found is None else ["0", found.experiment_id]
        return list(client.search_runs(ids, order_by=["attributes.start_time ASC"]))

    def epochs(self, run: Any) -> list[int]:
        history = MlflowClient(self.store).get_metric_history(run.info.run_id, "performance")
        return sorted(point.step for point in history)

    def row(self, fault: str, reported: int, expected: str, note: str = "") -> Row:
        """The row of the only run here."""
        runs = self.runs()
        if len(runs) != 1:
            return Row(fault, f"{len(runs)} runs", reported, 0, False, note)
        status, steps = runs[0].info.status, self.epochs(runs[0])
        complete = steps == list(range(1, len(steps) + 1)) and len(steps) >= reported
        if status == "FINISHED":
            complete = complete and len(steps) == EPOCHS
        ok = complete and status in expected.split("|") and not list(self.journals())
        return Row(fault, status, reported, len(steps), ok, note)

    def journals(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from (self.folder / "journal").iterdir()


class Process:
    """A program whose output goes to a file; `limit_bytes` is the largest file it may write."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        limit_bytes: int | None = None,
    ) -> None:
        self.log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=dict(environment),
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=partial(_prepare, limit_bytes),
            )

    def text(self) -> str:
        return self.log.read_text()

    def reported(self) -> int:
        return len(re.findall(r"^epoch \d+/", self.text(), re.MULTILINE))

    def until(self, done: Callable[[], bool], timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while not done() and self.popen.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come to that:\n{self.text()[-2000:]}")
            time.sleep(0.002)

    def until_epoch(self, epoch: int) -> None:
        self.until(lambda: self.reported() >= epoch)

    def wait(self, timeout_s: float = 300) -> str:
        try:
            self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise TimeoutError(f"it did not end:\n{self.text()[-2000:]}") from None
        if "Traceback" in self.text():
            raise AssertionError(f"a traceback:\n{self.text()[-3000:]}")
        return self.text()

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.popen.pid, number)


def _prepare(limit_bytes: int | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))


def _as_options(fields: Mapping[str, str]) -> list[str]:
    words = []
    for key, value in fields.items():
        flag = key.replace("_", "-")
        if value in ("true", "false"):
            words.append(f"--{flag}" if value == "true" else f"--no-{flag}")
        else:
            words += [f"--{flag}", value]
    return words


@contextmanager
def served(place: Place) -> Iterator[tuple[Proxy, Process]]:
    """An `mlflow server` on the place's store, and the proxy that the place's jobs go through."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", place.store]
    command += ["--artifacts-destination", str(place.folder / "artifacts")]
    server = place.start(command)
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            if time.monotonic() > deadline or server.popen.poll() is not None:
                raise
            time.sleep(0.2)
    proxy = Proxy(f"http://127.0.0.1:{port}")
    place.uri = proxy.address
    try:
        yield proxy, server
    finally:
        proxy.close()
        os.killpg(server.popen.pid, signal.SIGKILL)
        server.popen.wait()


# A job that is ended ------------------------------------------------------------------------------


def ended(place: Place, fault: str, number: signal.Signals, moment: str) -> Row:
    """One of three signals, at a moment of the job."""
    with served(place) as (proxy, _):
        job = place.train("--checkpoints", str(place.folder / "checkpoints"))
        seen = [0]

        def strike(path: str, ending: str, after: int) -> None:
            if path.endswith(ending):
                seen[0] += 1
                if seen[0] == after + 1:
                    job.send(number)
                    time.sleep(0.3)  # the request is under way while the process is struck

        on = {
            "starting": ("runs/create", 0),
            "setting up": ("runs/log-inputs", 0),
            "logging": ("runs/log-batch", 5),
            "ending": ("runs/update", 0),
        }
        if moment in on:
            proxy.on_request = partial(lambda w, n, p: strike(p, w, n), *on[moment])
        elif moment == "training":
            job.until_epoch(2)
            time.sleep(0.1)
            job.send(number)
        elif moment == "checkpointing":
            job.until_epoch(1)
            job.until(lambda: any((place.folder / "checkpoints").glob("*/*.new")))
            job.send(number)
        job.popen.wait(300)
        proxy.on_request = lambda path: None
        reported, code = job.reported(), job.popen.returncode
        place.sync()
        if moment == "starting" and not place.runs():
            return Row(fault, "none", reported, 0, not list(place.journals()), f"exit {code}")
        status = "FAILED" if number == signal.SIGKILL else "KILLED"
        return place.row(fault, reported, f"{status}|FINISHED", f"exit status {code}")


def under_mlflow(place: Place, fault: str, number: signal.Signals, group: bool) -> Row:
    """`mlflow run` whose job, or all of it, is ended."""
    command = [str(Path(sys.executable).parent / "mlflow"), "run", str(ROOT)]
    command += ["--env-manager", "local"]
    command += [word for k, v in JOB.items() for word in ("-P", f"{k}={v}")]
    place.environment["MLFLOW_TRACKING_URI"] = place.store
    run = place.start(command)
    run.until_epoch(2)
    inside = psutil.Process(run.popen.pid).children(recursive=True)
    jobs = [p for p in inside if "-m pepr_mlops train" in " ".join(p.cmdline()[:4])]
    if group:
        os.killpg(run.popen.pid, number)
        for process in inside:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    else:
        jobs[0].send_signal(number)
    run.popen.wait(300)
    psutil.wait_procs(inside, 60)
    reported = run.reported()
    place.sync()
    return place.row(fault, reported, "FAILED|KILLED")


def resumed(place: Place, fault: str) -> Row:
    """A job that is killed twice and resumed has the numbers of one that is not killed."""
    (place.folder / "uninterrupted").mkdir()
    other = Place(place.folder / "uninterrupted")
    other.train().wait()
    words = ["--checkpoints", str(place.folder / "checkpoints")]
    reported = 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        job = place.train(*words)
        job.until_epoch(1)
        time.sleep(0.1)
        job.send(number)
        job.popen.wait(300)
        reported += job.reported()
    last = place.train(*words)
    last.wait()
    row = place.row(fault, EPOCHS, "FINISHED")
    (broken,), (unbroken,) = place.runs(), other.runs()
    equal = [_curves(place, broken, m) == _curves(other, unbroken, m) for m in _SAME]
    spent = [run.data.metrics["energy/train_wh"] for run in (broken, unbroken)]
    note = f"{sum(equal)} of {len(equal)} metrics equal to the last digit in every epoch; "
    note += f"{reported} + {last.reported()} epochs reported in three attempts, energy "
    note += f"{spent[0]:.4f} Wh, against {spent[1]:.4f} uninterrupted"
    return Row(**{**asdict(row), "ok": row.ok and all(equal), "note": note})


_SAME = [f"{s}/{m}" for s in ("val", "test") for m in ("loss", "accuracy", "auc", "macro_f1")]
_SAME += ["train/loss", "performance"]


def _curves(place: Place, run: Any, metric: str) -> list[tuple[int, float]]:
    points = MlflowClient(place.store).get_metric_history(run.info.run_id, metric)
    return sorted({(point.step, point.value) for point in points})


# A server that fails ------------------------------------------------------------------------------


def down_at_start(place: Place, fault: str) -> Row:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    return _no_start(place, fault, uri)


def hangs_at_start(place: Place, fault: str) -> Row:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        return _no_start(place, fault, f"http://127.0.0.1:{deaf.getsockname()[1]}")


def _no_start(place: Place, fault: str, uri: str) -> Row:
    began = time.monotonic()
    job = place.train(uri=uri)
    text = job.wait()
    took_s = time.monotonic() - began
    clear = len(text.strip().splitlines()) == 1 and uri in text and job.popen.returncode == 1
    return Row(fault, "none", 0, 0, clear, f"one line, exit status 1, after {took_s:.1f} s")


def offline(place: Place, fault: str) -> Row:
    """No server at all until `pepr sync`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    job = place.train("--offline", uri=nobody)
    job.wait()
    place.pepr("sync", "--tracking-uri", place.store).wait()
    return place.row(fault, job.reported(), "FINISHED")


def away(place: Place, fault: str, mode: str, seconds: float) -> Row:
    """A server that fails while the job trains, and is back before it ends or after."""
    with served(place) as (proxy, _):
        epochs = 4 if seconds < 60 else 2 + int(seconds)  # an epoch takes about a second
        job = place.train("--epochs", str(epochs))
        job.until_epoch(1)
        _fail(proxy, mode)
        began, before = time.monotonic(), job.reported()
        job.until(lambda: time.monotonic() - began > seconds, seconds + 60)
        meanwhile = job.reported() - before
        _restore(proxy, mode)
        job.wait(600 + 5 * seconds)
        place.sync()
        reported = job.reported()
        row = place.row(fault, reported, "FINISHED")
        stored = row.stored == reported == epochs
        note = f"{meanwhile} epochs trained meanwhile"
        return Row(**{**asdict(row), "ok": stored and row.status == "FINISHED", "note": note})


def away_at_the_end(place: Place, fault: str) -> Row:
    """A server that is still away when the job ends."""
    with served(place) as (proxy, _):
        job = place.train()
        job.until_epoch(1)
        proxy.down()
        job.wait()
        began = place.runs()[0].info.status
        proxy.up()
        place.sync()
        return place.row(fault, job.reported(), "FINISHED", f"{began} until `pepr sync`")


def _fail(proxy: Proxy, mode: str) -> None:
    if mode == "down":
        proxy.down()
    else:
        proxy.mode = mode


def _restore(proxy: Proxy, mode: str) -> None:
    if mode == "down":
        proxy.up()
    proxy.mode = "pass"


# Disks that are full ------------------------------------------------------------------------


def full_there(place: Place, fault: str) -> Row:
    """The disk of the server's store, which has room again before the job ends."""
    with served(place) as (_, server):
        job = place.train("--epochs", "8")
        job.until_epoch(1)
        inside = [psutil.Process(server.popen.pid)]
        inside += inside[0].children(recursive=True)
        _limit(inside, 4096)
        job.until_epoch(4)
        _limit(inside, resource.RLIM_INFINITY)
        text = job.wait(600)
        place.sync()
        row = place.row(fault, job.reported(), "FINISHED")
        noticed = "does not answer" in text
        note = "reported as away meanwhile" if noticed else "never noticed"
        ok = noticed and row.stored == row.reported == 8 and row.status == "FINISHED"
        return Row(**{**asdict(row), "ok": ok, "note": note})


def _limit(processes: Sequence[psutil.Process], size: int) -> None:
    for process in processes:
        process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full_here(place: Place, fault: str) -> Row:
    """The disk of journal and checkpoints."""
    with served(place):
        job = place.train("--checkpoints", str(place.folder / "checkpoints"), limit_bytes=10_000)
        text = job.wait()
        reported = (
            "journal: " in text and "checkpoint: epoch" in text and "cannot be stored" in text
        )
        place.sync()
        row = place.row(
            fault,
            job.reported(),
            "FINISHED",
            "each reported, with the files it loses" if reported else "not reported",
        )
        return Row(**{**asdict(row), "ok": row.ok and reported})


# Many at once ------------------------------------------------------------------------


def several_on_a_fresh_store(place: Place, fault: str, jobs: int = 8) -> Row:
    (place.folder / "mlflow.db").unlink()
    started = [place.train("--seed", str(seed), "--epochs", "1") for seed in range(jobs)]
    for job in started:
        job.wait(600)
    runs = place.runs()
    complete = sum(r.info.status == "FINISHED" and place.epochs(r) == [1] for r in runs)
    return Row(fault, f"{complete} FINISHED", jobs, complete, complete == jobs == len(runs))


def _write_a_run(uri: str, number: int) -> None:
    from pepr_mlops import tracking

    with tracking.start(
        EXPERIMENT, EXPERIMENT, str(number), uri, tracking.Attempt(str(number))
    ) as run:
        run.params({f"p{i}": str(i) for i in range(30)})
        for epoch in range(1, 11):
            run.log({f"m{i}": number + epoch / 10 for i in range(20)}, epoch)
        run.tag({f"t{i}": str(i) for i in range(30)})
        run.spec({"number": number})


def many_writers(place: Place, fault: str, writers: int = 50) -> Row:
    """Processes that each log a run of 30 parameters, 20 metrics and 10 epochs at once."""
    os.environ["PEPR_JOURNAL"] = str(place.folder / "journal")
    with served(place):
        context = multiprocessing.get_context("fork")
        began = time.monotonic()
        processes = [
            context.Process(target=_write_a_run, args=(place.uri, i)) for i in range(writers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(600)
        took_s = time.monotonic() - began
        place.sync()
        client, there = MlflowClient(place.store), MlflowClient(place.uri)
        complete = 0
        for run in place.runs():
            number = int(run.info.run_name)
            history = client.get_metric_history(run.info.run_id, "m19")
            points = sorted((p.step, p.value) for p in history)
            complete += (
                run.info.status == "FINISHED"
                and points == [(e, number + e / 10) for e in range(1, 11)]
                and len(run.data.params) == 30
                and run.data.tags["t29"] == "29"
                and [f.path for f in there.list_artifacts(run.info.run_id)] == ["spec.json"]
            )
        failed = sum(process.exitcode != 0 for process in processes)
        note = f"{took_s:.0f} s; {failed} processes failed"
        return Row(fault, f"{complete} FINISHED", writers, complete, complete == writers, note)


Fault = Callable[[Place, str], Row]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
_MOMENTS = ("starting", "setting up", "training", "logging", "checkpointing", "ending")


def faults(outage_s: float) -> dict[str, Fault]:
    """Every fault by its name; the server is away for `outage_s` in the long one."""
    found: dict[str, Fault] = {
        f"{number.name} while {moment}": partial(ended, number=number, moment=moment)
        for moment in _MOMENTS
        for number in _SIGNALS
    }
    found["SIGKILL of the job under mlflow run"] = partial(
        under_mlflow, number=signal.SIGKILL, group=False
    )
    for number in _SIGNALS:
        found[f"{number.name} of all of mlflow run"] = partial(
            under_mlflow, number=number, group=True
        )
    return found | {
        "killed and gone on with, twice": resumed,
        "server down at the start": down_at_start,
        "server that hangs at the start": hangs_at_start,
        "no server: --offline, then pepr sync": offline,
        f"server down for {outage_s:g} s": partial(away, mode="down", seconds=outage_s),
        "server hangs for 5 s": partial(away, mode="hang", seconds=5),
        "server answers 500 for 5 s": partial(away, mode="error", seconds=5),
        "server slow by 2 s a request": partial(away, mode="slow", seconds=5),
        "answers lost for 5 s": partial(away, mode="lose", seconds=5),
        "server down at the end": away_at_the_end,
        "disk of the server full for a while": full_there,
        "disk of journal and checkpoints full": full_here,
        "eight jobs on a fresh SQLite file": several_on_a_fresh_store,
        "fifty writers on one server": many_writers,
    }


def inject(name: str, fault: Fault) -> Row:
    """Do it in a folder of its own; a row also where the trial itself fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fault(Place(Path(folder)), name)
        except Exception as error:
            traceback.print_exc()
            return Row(name, "?", 0, 0, False, f"{type(error).__name__}: {error}"[:300])


def _shown(name: str, fault: Fault) -> Row:
    began = time.monotonic()
    row = inject(name, fault)
    took_s = time.monotonic() - began
    print(f"{took_s:5.0f} s  {json.dumps(asdict(row))}", file=sys.stderr, flush=True)
    return row


@click.command()
@click.option("--only", default="", help="faults whose name matches this regular expression")
@click.option("--outage-s", default=300.0, show_default=True, help="of the long outage")
@click.option("--out", type=click.Path(path_type=Path))
def main(only: str, outage_s: float, out: Path | None) -> None:
    chosen = {name: f for name, f in faults(outage_s).items() if re.search(only, name)}
    long = next((name for name in chosen if name.startswith("server down for")), None)
    with ThreadPoolExecutor(1) as pool:  # it mostly waits
        waiting = {long: pool.submit(_shown, long, chosen[long])} if long else {}
        found = {name: _shown(name, f) for name, f in chosen.items() if name != long}
        found |= {name: future.result() for name, future in waiting.items()}
    rows = [found[name] for name in chosen]
    print(tabulate([asdict(row) for row in rows], headers="keys"), file=sys.stderr)
    fell_short = [row.fault for row in rows if not row.ok]
    result = {"faults": len(rows), "survived": len(rows) - len(fell_short)}
    write({**machine(), **result, "fell_short": fell_short, "rows": [asdict(r) for r in rows]}, out)
    sys.exit(bool(fell_short))


if __name__ == "__main__":
    main()
