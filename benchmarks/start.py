"""How long until help is there, until a training takes its first step, and until a job is over?

    python benchmarks/start.py --repeats 5 --data DIR

Help: from the start of the process to its end, each command. First step: from the start of
`pepr train` to when its first epoch begins.
Job: what a job of one epoch takes besides training and evaluation, from the start of its process
to its end, as a task of a sweep and under `mlflow run`; the arms take turns. A sweep forks its jobs
from one process, which takes `sweep_begins_s` to start. Nothing else
should run meanwhile.
Readers, with `--data` or PEPR_PAPER, the folder of the paper's results: what their import takes,
and commands that read its 1,048 runs against `import mlflow`, which took its turn just before
them. `--only readers` measures nothing else, and leaves the rest of the file as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import click
from common import machine, write

from pepr_mlops import data
from pepr_mlops.spec import RunSpec
from pepr_mlops.sweep.engine import Task
from pepr_mlops.sweep.local_engine import LocalEngine
from pepr_mlops.sweep.worker import Worker

_ROOT = Path(__file__).parents[1]
_PEPR = [sys.executable, "-m", "pepr_mlops"]
_REPORT = [sys.executable, "-c", "from pepr_mlops.cli.report import main; main()"]
_AT = "first step at "
# `pepr` that prints when its first epoch begins, just before the first step.
_TIMED = f"""
import sys, time
from pepr_mlops.train import progress

class Timed(progress.Printed):
    def start_epoch(self, epoch, steps):
        print("{_AT}" + str(time.time()), file=sys.stderr)
        super().start_epoch(epoch, steps)

progress.Printed = Timed
from pepr_mlops.cli import main
main()
"""
# Readers, and the times of `import mlflow` that they may take.
_AT_MOST = {
    **dict.fromkeys(("pepr score", "pepr select", "pepr runs", "pepr stats"), 1.0),
    "pepr-report": 2.0,
}
_IMPORT_S = 15.0
_WHICH = ["--experiment", "derma_pt"]
_JOB = {
    "model": "resnet18d",
    "dataset": "digits",
    "image_size": 32,
    "pretrained": False,
    "epochs": 1,
    "fraction": 0.2,
}


@click.command()
@click.option("--repeats", default=5)
@click.option(
    "--data",
    "results",
    type=click.Path(path_type=Path),
    envvar="PEPR_PAPER",
    help="of all_results.csv; also by PEPR_PAPER",
)
@click.option("--only", type=click.Choice(["readers"]))
@click.option("--out", type=click.Path(path_type=Path))
def main(repeats: int, results: Path | None, only: str | None, out: Path | None) -> None:
    readers = {} if results is None else {"readers": {**machine(), **_readers(results, repeats)}}
    if only is not None:
        before = json.loads(out.read_text()) if out is not None and out.exists() else {}
        write({**before, **readers}, out)
        return
    helps = {name: median(_wall_s(command) for _ in range(repeats)) for name, command in _helps()}
    with tempfile.TemporaryDirectory() as folder:
        first = {store: _first_steps(Path(folder), store, repeats) for store in ("new", "existing")}
        jobs = _jobs(Path(folder), repeats)
    write(
        {
            **machine(),
            "repeats": repeats,
            "help_s": helps,
            "help_slowest_s": max(helps.values()),
            "first_step_s": {store: median(seconds) for store, seconds in first.items()},
            "first_step_all_s": first,
            **jobs,
            **readers,
        },
        out,
    )


def _helps() -> Iterator[tuple[str, list[str]]]:
    """Every command that has a help, by the words one types for it."""
    from pepr_mlops.cli import pepr

    def below(command: click.Command, words: list[str]) -> Iterator[list[str]]:
        yield words
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from below(found, [*words, name])

    for words in below(pepr, []):
        yield " ".join(["pepr", *words]), [*_PEPR, *words, "--help"]
    yield "pepr-report", [*_REPORT, "--help"]


def _readers(results: Path, repeats: int) -> dict[str, Any]:
    """Seconds of the import and of each reader, and the latter over those of `import mlflow`."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/paper.db"
        environment = {"MLFLOW_TRACKING_URI": uri, "PEPR_CACHE": f"{folder}/cache"}
        import_s = _wall_s([*_PEPR, "import", "pepr-paper", str(results)], **environment)
        commands = {name: [*_PEPR, *name.split()[1:], *_WHICH] for name in _AT_MOST}
        commands["pepr-report"] = [*_REPORT, *_WHICH, "--out", f"{folder}/report.html"]
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        ratios: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats + 1):
            for name, command in commands.items():
                mlflow_s = _wall_s([sys.executable, "-c", "import mlflow"])
                seconds[name].append(_wall_s(command, **environment))
                ratios[name].append(seconds[name][-1] / mlflow_s)
    found = {name: median(of[1:]) for name, of in ratios.items()}  # the first writes bytecode
    return {
        "import_s": import_s,
        "import_at_most_s": _IMPORT_S,
        "import_reached": import_s <= _IMPORT_S,
        "seconds": {name: median(of[1:]) for name, of in seconds.items()},
        "ratio": found,
        "ratio_all": ratios,
        "at_most": _AT_MOST,
        "reached": {name: found[name] <= limit for name, limit in _AT_MOST.items()},
    }


def _wall_s(command: list[str], **environment: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        cwd=_ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def _train(seed: int) -> list[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in _JOB.items() if value]
    return [*_PEPR, "train", *words, "--no-pretrained", f"--seed={seed}"]


def _first_steps(folder: Path, store: str, repeats: int) -> list[float]:
    """Seconds from the start of `pepr train` to the first step, on stores of this kind."""
    seconds = []
    for i in range(repeats):
        uri = f"sqlite:///{folder}/{store}{i if store == 'new' else ''}.db"
        if store == "existing":
            _ = _last_run(uri)  # makes the store
        words = [sys.executable, "-c", _TIMED, *_train(i)[len(_PEPR) :]]
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
        started = time.time()
        done = subprocess.run(
            words, check=True, cwd=_ROOT, env=environment, capture_output=True, text=True
        )
        line = next(line for line in done.stderr.splitlines() if line.startswith(_AT))
        seconds.append(float(line.removeprefix(_AT)) - started)
    return seconds


def _jobs(folder: Path, repeats: int) -> dict[str, Any]:
    """What a job takes besides its training and evaluation, and its peak memory, by arm."""
    uri = f"sqlite:///{folder}/jobs.db"
    _ = _last_run(uri)  # makes the store
    engine, begins_s = _sweep(uri, folder)
    arms: dict[str, Callable[[int], float]] = {
        "sweep": lambda seed: _sweep_job(engine, seed),
        "mlflow_run": lambda seed: _mlflow_run(uri, seed),
        "train": lambda seed: _wall_s(_train(seed), MLFLOW_TRACKING_URI=uri),
    }
    fixed: dict[str, list[float]] = {arm: [] for arm in arms}
    rss: dict[str, list[float]] = {arm: [] for arm in arms}
    for i in range(repeats):
        for j, arm in enumerate(arms if i % 2 else reversed(arms)):
            wall_s = arms[arm](10 * i + j)
            run = _last_run(uri)
            fixed[arm].append(wall_s - _worked_s(run))
            rss[arm].append(run.data.metrics["memory/rss_gb"])
    engine.close()
    pairs = zip(fixed["sweep"], fixed["mlflow_run"], strict=True)
    return {
        "sweep_begins_s": begins_s,
        "job_fixed_s": {arm: median(seconds) for arm, seconds in fixed.items()},
        "job_fixed_all_s": fixed,
        "job_ratio_sweep_to_mlflow_run": median(ours / theirs for ours, theirs in pairs),
        "job_rss_gb": {arm: median(peaks) for arm, peaks in rss.items()},
        "job_rss_all_gb": rss,
    }


def _sweep(uri: str, folder: Path) -> tuple[LocalEngine, float]:
    """The engine of a sweep on this machine, and the seconds until its first job has begun."""
    from pepr_mlops.sweep.sweep import preloaded

    started = time.perf_counter()
    worker = Worker(uri, folder / "checkpoints")
    engine = LocalEngine(worker, [{}], folder / "logs", preloaded(uri))
    engine.submit(_task(10**6))
    begins_s = time.perf_counter() - started
    _finished(engine)
    return engine, begins_s


def _finished(engine: LocalEngine) -> None:
    (report,) = engine.poll(600)
    if report.reason != "finished":
        raise click.ClickException(f"the task of a sweep {report.reason}: {report.error}")


def _task(seed: int) -> Task:
    return Task(data.identify(RunSpec(**_JOB, seed=seed)))  # type: ignore[arg-type]


def _sweep_job(engine: LocalEngine, seed: int) -> float:
    """Wall seconds of a task of the sweep."""
    started = time.perf_counter()
    engine.submit(_task(seed))
    _finished(engine)
    return time.perf_counter() - started


def _mlflow_run(uri: str, seed: int) -> float:
    words = [f"-P{name}={str(value).lower()}" for name, value in {**_JOB, "seed": seed}.items()]
    here = Path(sys.executable).parent
    return _wall_s(
        [str(here / "mlflow"), "run", str(_ROOT), "--env-manager", "local", *words],
        MLFLOW_TRACKING_URI=uri,
        PATH=f"{here}{os.pathsep}{os.environ['PATH']}",
    )


def _last_run(uri: str) -> Any:
    """The run of the store that was begun last, None where there is none."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    ids = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return runs[0] if runs else None


def _worked_s(run: Any) -> float:
    return float(run.data.metrics["time/train_s"] + run.data.metrics["time/eval_s"])


if __name__ == "__main__":
    main()
