"""The engine of a Ray cluster: one task at a time on each of its GPUs, or on each of its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pepr_mlops.errors import WorkFailed, WrongUse, one_line
from pepr_mlops.process import is_alive
from pepr_mlops.sweep.engine import Report, Task, Work

_CONNECT_S = 5.0


class RayEngine:
    """Runs `work` in fresh processes on the cluster's nodes; the driver runs on one of them.

    With `gpus` a task has a complete GPU. Without, it has a complete node, since the energy of a
    job on a CPU is that of its machine; None uses GPUs where the cluster has any. `address` is
    HOST:PORT of the head, `auto`, or None for a cluster that runs here or else one of this machine
    alone.

    Jobs get the settings of MLflow (`MLFLOW_*`) of this process. They are sent with the task, since
    Ray writes its `runtime_env` to its logs, passwords too.

    Raises `WrongUse` where Ray is not installed or no node can run a job, and `WorkFailed` where
    the cluster cannot be reached.
    """

    def __init__(self, work: Work, address: str | None = None, gpus: bool | None = None) -> None:
        self._ray = _connect(address)
        # Ray's own retries would start a task again unnoticed, and the sweep counts retries.
        self._begin = self._ray.remote(max_retries=0, max_calls=1)(_do)
        self._work = work
        self._running: dict[Any, tuple[Task, str]] = {}
        self._gone: set[str] = set()  # nodes that lost a task: the cluster notices later
        self._ended: list[Report] = []
        if gpus is None:
            gpus = any("GPU" in has for has in self._nodes().values())
        self._gpus = gpus
        self._settings = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")}
        self._settings.pop("MLFLOW_RUN_ID", None)  # the run of the sweep itself, under `mlflow run`
        if not self._gpus:  # Ray hides GPUs only from tasks that request some
            self._settings["CUDA_VISIBLE_DEVICES"] = ""
        if self.slots == 0:
            self.close()
            raise WrongUse(
                f"ray: no node of the cluster has a {'GPU' if self._gpus else 'CPU'} for a job; "
                + ("sweep with --device cpu, or " if self._gpus else "")
                + "add nodes with `ray start --address HOST:PORT`"
            )

    @property
    def slots(self) -> int:
        return sum(self._places(self._nodes()).values())

    def submit(self, task: Task) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = self._nodes()
        free = self._places(nodes)
        free.subtract(node for _, node in self._running.values())
        node = max(free, key=lambda node: free[node], default="")
        if free[node] < 1:
            self._ended.append(Report(task.spec, "lost", "no node is free"))
            return
        # All CPUs of the node, so that no other task of the cluster runs there meanwhile.
        needs = {"num_gpus": 1} if self._gpus else {"num_cpus": nodes[node]["CPU"]}
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        begun = self._begin.options(scheduling_strategy=strategy, **needs)
        self._running[begun.remote(self._work, task, self._settings)] = (task, node)

    is_alive = staticmethod(is_alive)

    def poll(self, timeout_s: float) -> list[Report]:
        reports, self._ended = self._ended, []
        if self._running:
            every = list(self._running)
            self._ray.wait(every, timeout=0 if reports else timeout_s)
            ended, _ = self._ray.wait(every, num_returns=len(every), timeout=0)
            reports += [self._report(ref, *self._running.pop(ref)) for ref in ended]
            nodes = self._nodes()  # Ray keeps waiting for a process that has lost its node
            for ref in [ref for ref, (_, node) in self._running.items() if node not in nodes]:
                task, _ = self._running.pop(ref)
                reports.append(Report(task.spec, "lost", "its node left the cluster"))
        return reports

    def stop(self) -> None:
        for running in self._running:
            self._ray.cancel(running, force=False)  # a KeyboardInterrupt in the task

    def close(self) -> None:
        self._running.clear()
        self._ray.shutdown()  # ends the tasks of this driver

    def _report(self, ref: Any, task: Task, node: str) -> Report:
        errors = self._ray.exceptions
        try:
            report: Report = self._ray.get(ref)
            return report
        except errors.TaskCancelledError:
            return Report(task.spec, "killed", "it received a signal to end")
        except errors.RayTaskError as error:
            return Report(task.spec, "crashed", one_line(error.cause))
        except errors.RayError as error:
            if isinstance(error, errors.NodeDiedError | errors.TaskUnschedulableError):
                self._gone.add(node)
            return Report(task.spec, "lost", one_line(error))

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Resources of each living node by its id; a node that comes back has a new id."""
        return {
            node["NodeID"]: node["Resources"]
            for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._gone
        }

    def _places(self, nodes: Mapping[str, Mapping[str, float]]) -> Counter[str]:
        """How many tasks each node can run at once; one without CPUs runs none."""
        places: Counter[str] = Counter()
        for node, has in nodes.items():
            gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
            places[node] = min(gpus, cpus) if self._gpus else min(1, cpus)
        return places


def _do(work: Work, task: Task, settings: Mapping[str, str]) -> Report:
    """The main function of the new process."""
    # A node that a script began with `&` ignores SIGINT, and Ray's cancelling with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]  # settings of the user who started the node
    os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it to the CPUs of the task, 1 with a GPU
    os.environ.update(settings)
    return work(task, lambda line: print(line, file=sys.stderr, flush=True))


def _connect(address: str | None) -> Any:
    """The module ray, connected and silent."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that starts here; Ray's is 15
    try:
        import ray
        from ray._private import services, worker
    except ImportError:
        raise WrongUse(
            "ray: it is not installed; run pip install -e '.[ray]', on every node"
        ) from None
    except Exception as error:  # amdsmi, which Zeus asks for, without AMD's driver
        raise WrongUse(
            f"ray: it cannot be imported ({one_line(error)}); without AMD GPUs run pip uninstall "
            "amdsmi, on every node"
        ) from error
    worker._worker_logs_enabled = False  # of raylets on lost tasks, and on standard output
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None and "://" in address:
            raise ValueError(f"{address!r} is neither auto nor HOST:PORT")
        head = services.canonicalize_bootstrap_address(address)  # type: ignore[arg-type]
        if head is not None:  # ray.init would try for a quarter of an hour
            host, _, port = head.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except Exception as error:
        raise WorkFailed(
            f"ray: cannot join the cluster at {address or 'this machine'} ({one_line(error)}); is "
            "this machine one of its nodes (`ray status`)?",
            reason="no_cluster",
        ) from error
    finally:  # ray.init puts its own
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return ray
