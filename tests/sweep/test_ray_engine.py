"""The Ray engine, on clusters of several nodes on this machine."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from made import job, logging
from mlflow import MlflowClient

from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.sweep import sweep
from pepr_mlops.sweep.engine import Report, Task, Work
from pepr_mlops.sweep.jobs import jobs
from pepr_mlops.sweep.ray_engine import RayEngine

JOBS = [Task(job(seed=seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of one node, on which the tests are; they add others."""
    folder = tmp_path_factory.mktemp("without_amd")
    (folder / "amdsmi.py").write_text("raise ImportError('no AMD GPU')")  # or ray fails on it
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "amdsmi", None)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setenv("MLFLOW_RUN_ID", "of who started the node")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else all other processes run before the tests
        patch.setenv("OMP_WAIT_POLICY", "passive")  # else idle threads spin
        from ray import cloudpickle
        from ray.cluster_utils import Cluster

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes need not find it
        # A node that is gone refuses at once; Ray would try it five times in 15 s.
        often = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": often}
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a node begun with `&`
        try:
            cluster = Cluster(True, head_node_args=head)
        finally:
            signal.signal(signal.SIGINT, handler)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def engine(cluster: Any) -> Iterator[Callable[..., RayEngine]]:
    """Makes an engine of the cluster, once the cluster knows which nodes were removed."""
    made: list[RayEngine] = []

    def make(work: Work, gpus: bool | None = False) -> RayEngine:
        made.append(RayEngine(work, cluster.address, gpus))
        here = {node.node_id for node in cluster.list_all_nodes()}
        until(lambda: set(made[-1]._nodes()) == here)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def add_node(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Adds a node, which the test may remove."""
    added = []

    def add(**options: Any) -> Any:
        added.append(cluster.add_node(num_cpus=1, **options))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def ended(engine: RayEngine, n: int, within_s: float = 60.0) -> list[Report]:
    """The next `n` reports."""
    reports: list[Report] = []
    deadline = time.monotonic() + within_s
    while len(reports) < n and time.monotonic() < deadline:
        reports += engine.poll(1.0)
    assert len(reports) == n
    return reports


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def report_surroundings(task: Task, say: Callable[[str], None]) -> Report:
    """Takes a second and reports where and how it ran."""
    import ray

    began = time.time()
    time.sleep(1.0)
    seen = ("MLFLOW_", "CUDA_VISIBLE", "OMP_NUM")
    found = {
        "node": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "began": began,
        "ended": time.time(),
        "settings": {k: v for k, v in os.environ.items() if k.startswith(seen)},
    }
    return Report(task.spec, "finished", json.dumps(found))


def raises(task: Task, say: Callable[[str], None]) -> Report:
    raise ValueError("no use\nat all")


class Lasting:
    """Work that runs until it is stopped, and writes its progress to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: Task, say: Callable[[str], None]) -> Report:
        import ray

        begun = self.folder / f"{task.spec.seed}"
        begun.with_suffix(".new").write_text(
            f"{os.getpid()} {ray.get_runtime_context().get_node_id()}"
        )
        begun.with_suffix(".new").replace(begun)
        try:
            while True:
                time.sleep(0.05)
        finally:
            begun.with_suffix(".tidied").touch()

    def began(self, task: Task) -> tuple[int, str]:
        """Its process and its node, once."""
        path = self.folder / f"{task.spec.seed}"
        until(path.exists)
        pid, node = path.read_text().split()
        path.unlink()
        return int(pid), node

    def tidied(self, task: Task) -> bool:
        return (self.folder / f"{task.spec.seed}.tidied").exists()


def test_each_node_runs_one_task_at_a_time_in_a_new_process(
    engine: Callable[..., RayEngine],
    add_node: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_node()
    monkeypatch.setenv("MLFLOW_RUN_ID", "of the sweep")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "only-for-tests")
    before = signal.getsignal(signal.SIGTERM)
    two = engine(report_surroundings)
    assert signal.getsignal(signal.SIGTERM) is before
    assert two.slots == 2
    two.submit(JOBS[0])
    two.submit(JOBS[1])
    reports = ended(two, 1)
    two.submit(JOBS[2])
    reports += ended(two, 3 - len(reports))
    assert {(r.spec, r.reason) for r in reports} == {(j.spec, "finished") for j in JOBS[:3]}
    ran = sorted((json.loads(r.error or "") for r in reports), key=lambda one: one["began"])
    assert len({one["pid"] for one in ran}) == 3
    first, second, third = ran
    assert first["node"] != second["node"]
    (on_the_same,) = (one for one in (first, second) if one["node"] == third["node"])
    assert third["began"] > on_the_same["ended"]
    for one in ran:
        assert one["settings"] == {
            "MLFLOW_TRACKING_PASSWORD": "only-for-tests",
            "CUDA_VISIBLE_DEVICES": "",
        }


def test_work_that_raises_is_reported(engine: Callable[..., RayEngine]) -> None:
    one = engine(raises)
    one.submit(JOBS[0])
    assert ended(one, 1) == [Report(JOBS[0].spec, "crashed", "ValueError: no use")]
    assert one.poll(0) == []


def test_a_task_whose_node_or_process_vanishes_is_lost_and_can_run_elsewhere(
    cluster: Any,
    engine: Callable[..., RayEngine],
    add_node: Callable[..., Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    node = add_node()
    work = Lasting(tmp_path)
    two = engine(work)
    two.submit(JOBS[0])
    two.submit(JOBS[1])
    places = {job: work.began(job) for job in JOBS[:2]}
    (moved,) = (job for job in JOBS[:2] if places[job][1] == node.node_id)
    (stays,) = {*JOBS[:2]} - {moved}

    capfd.readouterr()
    cluster.remove_node(node, allow_graceful=False)
    (report,) = ended(two, 1, within_s=30.0)
    assert (report.spec, report.reason) == (moved.spec, "lost")
    assert two.slots == 1  # though the cluster may not know it yet
    two.submit(JOBS[2])
    assert two.poll(0) == [Report(JOBS[2].spec, "lost", "no node is free")]

    pid, other = places[stays]
    os.kill(pid, signal.SIGKILL)
    (report,) = ended(two, 1)
    assert (report.spec, report.reason) == (stays.spec, "lost")
    assert not work.tidied(stays)
    assert "\n" not in str(report.error)

    two.submit(moved)
    assert work.began(moved)[1] == other
    assert capfd.readouterr().out == ""  # a sweep's may be JSON


def test_stop_lets_a_task_tidy_up_and_close_ends_it(
    engine: Callable[..., RayEngine], tmp_path: Path
) -> None:
    work = Lasting(tmp_path)
    one = engine(work)
    one.submit(JOBS[0])
    work.began(JOBS[0])
    one.stop()
    assert ended(one, 1) == [Report(JOBS[0].spec, "killed", "it received a signal to end")]
    assert work.tidied(JOBS[0])
    one.submit(JOBS[1])
    pid, _ = work.began(JOBS[1])
    one.close()
    until(lambda: not psutil.pid_exists(pid), within_s=20.0)


def test_a_task_has_one_gpu_where_there_are_any(
    engine: Callable[..., RayEngine], add_node: Callable[..., Any]
) -> None:
    with pytest.raises(WrongUse, match=r"no node of the cluster has a GPU .* --device cpu"):
        engine(report_surroundings, gpus=True)
    node = add_node(num_gpus=1)
    one = engine(report_surroundings, gpus=None)
    assert one.slots == 1
    for task in JOBS[:2]:
        one.submit(task)
        (report,) = ended(one, 1)
        ran = json.loads(report.error or "")
        assert ran["node"] == node.node_id
        assert ran["settings"] == {"CUDA_VISIBLE_DEVICES": "0"}


def test_a_cluster_that_cannot_be_joined_is_an_error_of_one_line(
    cluster: Any, engine: Callable[..., RayEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:10001", "here"):
        with pytest.raises(WorkFailed, match=f"ray: cannot join the cluster at {address} "):
            RayEngine(raises, address)
    assert time.monotonic() - began < 20
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WrongUse, match=r"pip install -e '\.\[ray\]'"):
        RayEngine(raises)


def test_a_job_resumes_on_another_node_when_its_node_vanishes(
    cluster: Any,
    add_node: Callable[..., Any],
    store: str,
    shapes: Path,
    tmp_path: Path,
) -> None:
    """Two real jobs on two nodes, one of which is removed once its job has logged an epoch."""
    (tmp_path / "locks").mkdir()  # else the two take turns, since they are on one machine
    node = add_node(env_vars={"TMPDIR": str(tmp_path / "locks")})
    (raylet,) = (started.process.pid for started in node.all_processes["raylet"])
    grid = {
        "model": "resnet10t",
        "dataset": str(shapes),
        "seed": [0, 1],
        "image_size": 32,
        "epochs": 5,
        "batch_size": 8,
        "pretrained": False,
        "device": "cpu",
    }
    specs = jobs(grid)
    removed: list[str] = []
    reports: list[Report] = []
    over = threading.Event()

    def remove() -> None:
        """The node with the process of the first job that has logged an epoch there."""
        while not removed and not over.wait(0.05):
            for run_id, pid in logging(tmp_path / "mlflow.db"):
                if not removed and psutil.Process(pid).ppid() == raylet:
                    os.kill(pid, signal.SIGSTOP)  # it ends no sooner than its node
                    removed.append(run_id)
                    cluster.remove_node(node, allow_graceful=False)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    remover = threading.Thread(target=remove)
    remover.start()
    settings = sweep.Settings(
        store, tmp_path / "checkpoints", engine="ray", address=cluster.address
    )
    try:
        done = sweep.run(specs, settings, lambda _: None, reports.append)
    finally:
        over.set()
        remover.join()
    assert list(done.jobs["state"]) == ["done", "done"]
    assert "lost" in {report.reason for report in reports}
    runs = MlflowClient().search_runs(["1"])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    attempts = {run.info.run_id: run.data.tags["pepr.attempts"] for run in runs}
    assert {run_id for run_id, n in attempts.items() if n == "2"} == {*removed}
    for run_id in attempts:
        for cost in ("energy/train_wh", "time/train_s"):
            points = sorted(MlflowClient().get_metric_history(run_id, cost), key=lambda m: m.step)
            assert [point.step for point in points] == list(range(1, 6))
            values = [point.value for point in points]
            assert all(a < b for a, b in itertools.pairwise(values))
