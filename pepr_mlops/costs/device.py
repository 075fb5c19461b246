"""The training device, and the machine a run used: names, limits and versions, as tags."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pepr_mlops.costs.gpus import driver
from pepr_mlops.errors import WrongUse
from pepr_mlops.names import memory_metric
from pepr_mlops.process import allowed_cpus, slurm_cpus, slurm_job

if TYPE_CHECKING:
    import torch

    from pepr_mlops.costs.memory import PeakMemory

_CPUINFO = Path("/proc/cpuinfo")
_VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")  # as Linux calls them
_PACKAGES = ("pepr_mlops", "torch", "timm", "mlflow", "zeus", "codecarbon", "medmnist", "numpy")


@dataclass(frozen=True)
class Device:
    """The device that a run computes on, by torch's name for it."""

    torch_device: torch.device

    def __str__(self) -> str:
        return str(self.torch_device)

    @property
    def kind(self) -> str:
        """`cuda`, as PyTorch calls AMD's GPUs too, `mps` or `cpu`."""
        return self.torch_device.type

    @property
    def gpu_names(self) -> list[str]:
        """The driver's names of the GPUs: torch's index need not be the driver's."""
        return [driver().identify(self.torch_device)] if self.kind == "cuda" else []

    @property
    def memory_metric(self) -> str:
        """The metric that is M."""
        return memory_metric(self.kind)

    def memory(self) -> PeakMemory:
        """What measures the peak memory of this process and the device."""
        from pepr_mlops.costs.memory import Memory

        return Memory(self.torch_device)

    def synchronize(self) -> None:
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.kind == "mps":
            torch.mps.synchronize()

    @classmethod
    def resolve(cls, name: str) -> Device:
        """The device for `auto`, `cuda`, `cuda:i`, `mps` or `cpu`; `auto` takes a GPU if any.

        Raises `WrongUse` for another name, and when this machine does not have it.
        """
        import torch

        if not re.fullmatch(r"auto|mps|cpu|cuda(:\d+)?", name):
            raise WrongUse(f"device: {name!r} is not one of auto, cuda, cuda:INDEX, mps, cpu")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if name == "auto":
            name = "cuda" if gpus else "mps" if torch.backends.mps.is_available() else "cpu"
        if name == "cuda" and gpus:
            name = f"cuda:{torch.cuda.current_device()}"
        kind, _, index = name.partition(":")
        if kind == "cuda" and not (index and int(index) < gpus):
            have = ", ".join(f"cuda:{i}" for i in range(gpus)) or "none"
            raise WrongUse(
                f"device: {name} was not found (CUDA devices visible to torch: {have}); choose one "
                f"of those, cpu, or check the driver and {driver().VISIBLE}"
            )
        if kind == "mps" and not torch.backends.mps.is_available():
            raise WrongUse("device: mps was not found; choose cpu")
        return cls(torch.device(name))

    def describe(self) -> dict[str, str]:
        """Tags that name device, CPU, memory, GPU (of a CUDA device), Slurm job and versions."""
        import torch

        gpu = gpu_tags(self.torch_device) if self.kind == "cuda" else {}
        tags = {
            "pepr.device": str(self),
            "pepr.cpu": cpu_model(),
            "pepr.cpu_count": str(os.cpu_count()),
            "pepr.cpus": f"{allowed_cpus():g}",
            "pepr.threads": str(torch.get_num_threads()),
            "pepr.ram_gb": f"{psutil.virtual_memory().total / 1e9:.1f}",
        }
        for name, version in versions().items():
            prefix = "pepr." if name in ("os", "git_commit") else "pepr.version."
            tags[prefix + name] = version
        hardware = gpu.get("pepr.gpu", tags["pepr.cpu"])
        return {**tags, **gpu, **slurm_tags(), "pepr.hardware": hardware}

    def other_processes(self) -> set[str] | None:
        """Other programs' processes on the GPU, as `PID name`: not this one and its children.

        None where there is no GPU or the driver does not report them. In a container it reports the
        host's process ids; then one with an unknown id is counted as this one.
        """
        if self.kind != "cuda":
            return None
        import torch

        torch.zeros(1, device=self.torch_device)  # so that the driver lists this process, too
        pids = driver().process_ids(self.torch_device)
        if pids is None:
            return None
        if os.getpid() in pids:
            children = psutil.Process().children(recursive=True)
            ours = {os.getpid(), *(child.pid for child in children)}
            pids = [pid for pid in pids if pid not in ours]
        else:
            unknown = [pid for pid in pids if not psutil.pid_exists(pid)]
            pids = [pid for pid in pids if pid not in unknown[:1]]
        return named(pids)

    def temperature_c(self) -> float | None:
        """Degrees Celsius of a GPU, else of the warmest part of the CPU; None if unknown."""
        if self.kind == "cuda":
            return driver().temperature_c(self.torch_device)
        if not hasattr(psutil, "sensors_temperatures"):
            return None
        read, names = psutil.sensors_temperatures(), ("coretemp", "k10temp", "cpu_thermal")
        return max((t.current for name in names for t in read.get(name, ())), default=None)


def named(pids: Iterable[int]) -> set[str]:
    """Processes as `PID name`, with ? for the name of one that this system does not know."""
    found = set()
    for pid in pids:
        name = "?"
        with suppress(psutil.Error):
            name = psutil.Process(pid).name()
        found.add(f"{pid} {name}")
    return found


def use_threads(threads: int | None) -> None:
    """Set the CPU threads of PyTorch in this process.

    None leaves its own choice, which follows OMP_NUM_THREADS or the affinity. Where Slurm gave
    fewer CPUs without binding the process to them, it is as many as these.
    """
    import torch

    given = None if "OMP_NUM_THREADS" in os.environ else slurm_cpus()
    if threads is None and given is not None:
        threads = min(torch.get_num_threads(), given)
    if threads is not None:
        torch.set_num_threads(threads)


def hardware_text(tags: Mapping[str, str]) -> str:
    """The tags of `Device.describe` that costs depend on: `AMD EPYC (avx2), 2 CPUs, 2 threads`."""
    texts = {
        "pepr.hardware": "{}",
        "pepr.cpus": "{} CPUs",
        "pepr.threads": "{} threads",
        "pepr.gpu_mig": "MIG {}",
        "pepr.gpu_power_limit_w": "power limit {} W",
        "pepr.gpu_clocks_mhz": "clocks {}",
    }
    return ", ".join(text.format(tags[name]) for name, text in texts.items() if name in tags)


def thread_caution(tags: Mapping[str, str]) -> str | None:
    """A sentence if there are more threads than CPUs."""
    threads, cpus = int(tags["pepr.threads"]), float(tags["pepr.cpus"])
    if threads <= max(1.0, cpus):
        return None
    return f"{threads} threads for {cpus:g} CPUs take turns; try --threads {max(1, int(cpus))}"


def load_torch() -> None:
    """Load torch's shared libraries before it is imported.

    Call it in a thread while another one imports: it takes half a second without Python's lock.
    """
    spec = util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libtorch_python.so"))


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that costs and scores depend on, by name."""
    found = {"python": platform.python_version(), "os": platform.platform()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # run from a checkout
            found[package] = metadata.version(package)
    commit = _git_commit()
    return found if commit is None else {**found, "git_commit": commit}


def slurm_tags() -> dict[str, str]:
    """Tags that name the Slurm job of this process; none outside of one."""
    job = slurm_job()
    if job is None:
        return {}
    variables = {
        "pepr.slurm_array_task": "SLURM_ARRAY_TASK_ID",
        "pepr.slurm_partition": "SLURM_JOB_PARTITION",
        "pepr.slurm_nodes": "SLURM_JOB_NODELIST",
        "pepr.slurm_account": "SLURM_JOB_ACCOUNT",
    }
    known = {tag: os.environ.get(name) for tag, name in variables.items()}
    return {"pepr.slurm_job_id": job, **{tag: text for tag, text in known.items() if text}}


def other_processes_tag(*seen: set[str] | None) -> dict[str, str]:
    """The processes that `Device.other_processes` found at several times, as a tag."""
    known = [processes for processes in seen if processes is not None]
    text = ", ".join(sorted(set().union(*known))) or "none"
    return {"pepr.gpu_other_processes": text} if known else {}


def gpu_tags(device: torch.device) -> dict[str, str]:
    """Tags that name a GPU, its driver and limits, or say why the driver does not report them."""
    import torch

    name = torch.cuda.get_device_name(device)
    if not name:  # ROCm's table of names may lack a card
        name = torch.cuda.get_device_properties(device).gcnArchName
    return {"pepr.gpu": name, **driver().tags(device)}


def _git_commit() -> str | None:
    """Commit of the checkout this package runs from, with `+` where files were changed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None  # installed; the version says it
    try:
        command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def cpu_info() -> dict[str, str]:
    """What Linux reports about a CPU of this machine, such as `flags`; empty on other systems."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


@functools.cache
def _brand() -> str | None:
    """The CPU's name where it is in no file, as on macOS and Windows; it takes a second."""
    import cpuinfo

    name: str | None = cpuinfo.get_cpu_info().get("brand_raw")
    return name


def cpu_model() -> str:
    """Name and widest vector instructions: clouds sell CPUs of unlike speed under one name."""
    fields = cpu_info()
    name = fields.get("model name") if fields else _brand()
    name = name or platform.processor() or platform.machine()
    vectors = next((v for v in _VECTORS if v in fields.get("flags", "").split()), None)
    return name if vectors is None else f"{name} ({vectors})"
