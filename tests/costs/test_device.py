"""What machine it was."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pepr_mlops.costs import device as hardware
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.gpus import nvidia
from pepr_mlops.errors import WrongUse
from pepr_mlops.process import allowed_cpus

ROOT = Path(__file__).parents[2]


def test_cpu_is_always_there_and_absent_devices_are_refused() -> None:
    assert Device.resolve("cpu") == Device(torch.device("cpu"))
    with pytest.raises(WrongUse, match="cuda:55 was not found"):
        Device.resolve("cuda:55")
    for name in ("gpu9", "cuda:x", "cpu:one", ""):
        with pytest.raises(
            WrongUse, match=f"^device: '{name}' is not one of auto, cuda, cuda:INDEX"
        ):
            Device.resolve(name)


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert Device.resolve("auto") == Device(torch.device("cuda:0"))
    assert Device.resolve("cuda") == Device(torch.device("cuda:0"))
    assert Device.resolve("cuda:1") == Device(torch.device("cuda:1"))
    with pytest.raises(WrongUse, match="visible to torch: cuda:0, cuda:1"):
        Device.resolve("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert Device.resolve("auto") == Device(torch.device("cpu"))


def test_the_machine_is_named() -> None:
    tags = Device(torch.device("cpu")).describe()
    assert tags["pepr.hardware"] == tags["pepr.cpu"]
    assert tags["pepr.cpu_count"] == str(os.cpu_count())
    assert float(tags["pepr.cpus"]) == allowed_cpus()
    assert tags["pepr.threads"] == str(torch.get_num_threads())
    assert hardware.hardware_text(tags) == (
        f"{tags['pepr.hardware']}, {tags['pepr.cpus']} CPUs, {tags['pepr.threads']} threads"
    )
    assert float(tags["pepr.ram_gb"]) == pytest.approx(
        psutil.virtual_memory().total / 1e9, abs=0.06
    )
    assert tags["pepr.version.torch"] == torch.__version__.split("+")[0]
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert tags["pepr.git_commit"].rstrip("+") == commit.stdout.strip()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu fma avx avx2\n\n", "AMD EPYC (avx2)"),
        (
            "model name\t: AMD EPYC\nflags\t: avx avx2 avx512f avx512_bf16\n",
            "AMD EPYC (avx512_bf16)",
        ),
        ("model name\t: ARM Neoverse: N1\nFeatures\t: asimd\n", "ARM Neoverse: N1"),
    ],
)
def test_cpus_of_one_name_are_distinguished(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    assert hardware.cpu_model() == name


def test_a_cpu_is_named_also_where_no_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Mac Python itself says `arm` of all of them."""
    import cpuinfo

    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: {"brand_raw": "Apple M2 Pro"})
    hardware._brand.cache_clear()
    try:
        assert hardware.cpu_model() == "Apple M2 Pro"
    finally:
        hardware._brand.cache_clear()


@pytest.mark.parametrize(
    ("threads", "cpus", "caution"),
    [
        ("2", "2", None),
        ("1", "0.5", None),
        ("64", "2", "64 threads for 2 CPUs take turns; try --threads 2"),
        ("2", "1.5", "2 threads for 1.5 CPUs take turns; try --threads 1"),
    ],
)
def test_more_threads_than_cpus_are_cautioned(threads: str, cpus: str, caution: str | None) -> None:
    assert hardware.thread_caution({"pepr.threads": threads, "pepr.cpus": cpus}) == caution


def test_threads_are_those_requested_or_else_pytorchs_own() -> None:
    before = torch.get_num_threads()
    try:
        hardware.use_threads(None)
        assert torch.get_num_threads() == before
        hardware.use_threads(3)
        assert Device(torch.device("cpu")).describe()["pepr.threads"] == "3"
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_described_by_what_it_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a half of an H100 whose applications clock was lowered would report itself."""
    import pynvml

    _gpu_with(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 MIG 3g.40gb")
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetEnforcedPowerLimit", lambda handle: 300_000)
    highest = {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMaxClockInfo", lambda h, kind: highest[kind])

    def set_to(handle: str, kind: int) -> int:
        if kind == pynvml.NVML_CLOCK_MEM:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 1410

    monkeypatch.setattr(pynvml, "nvmlDeviceGetApplicationsClock", set_to)
    tags = Device(torch.device("cuda:0")).describe()
    assert tags["pepr.gpu_mig"] == "3g.40gb"
    assert tags["pepr.gpu_power_limit_w"] == "300"
    assert tags["pepr.gpu_clocks_mhz"] == "SM 1410 of 1980, memory 2619"
    assert hardware.hardware_text(tags).endswith(
        "MIG 3g.40gb, power limit 300 W, clocks SM 1410 of 1980, memory 2619"
    )


@pytest.mark.parametrize(
    ("visible", "slots"),
    [
        (None, ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("GPU-b4131884-cb52", ["GPU-b4131884-cb52"]),  # as Kubernetes and Slurm may set it
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),  # Slurm's, where a job asked for none
    ],
)
def test_each_gpu_that_may_be_used_is_a_slot(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, slots: list[str]
) -> None:
    monkeypatch.setattr(nvidia, "count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in nvidia.slots()] == slots
    monkeypatch.setattr(nvidia, "count", lambda: 0)
    assert nvidia.slots() == []


def test_the_gpus_of_a_slurm_job_are_slots_where_nothing_hides_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvidia, "count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "1,2")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in nvidia.slots()] == ["1", "2"]
    monkeypatch.setenv("SLURM_STEP_GPUS", "2")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in nvidia.slots()] == ["2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as Slurm counts where it hides them
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in nvidia.slots()] == ["0"]


def test_pytorch_uses_no_more_threads_than_slurm_gave_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    try:
        for own, requested, used in ((3, None, 2), (1, None, 1), (3, 4, 4)):
            torch.set_num_threads(own)
            hardware.use_threads(requested)
            assert torch.get_num_threads() == used
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        torch.set_num_threads(3)
        hardware.use_threads(None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_slurm_job_is_named_by_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.slurm_tags() == {}
    for name, value in {
        "SLURMD_NODENAME": "n2",
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_NODELIST": "n[2-3]",
    }.items():
        monkeypatch.setenv(name, value)
    tags = Device(torch.device("cpu")).describe()
    assert {name: tags[name] for name in tags if "slurm" in name} == {
        "pepr.slurm_job_id": "7_3",
        "pepr.slurm_array_task": "3",
        "pepr.slurm_partition": "gpu",
        "pepr.slurm_nodes": "n[2-3]",
    }


def _gpu_with(monkeypatch: pytest.MonkeyPatch, *pids: int) -> None:
    import pynvml

    running = [SimpleNamespace(pid=pid) for pid in pids]
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: "handle")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: running)
    monkeypatch.setattr(nvidia, "identify", lambda device: "GPU-a")
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: None)


def test_other_processes_on_the_gpu_are_distinguished_from_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = Device(torch.device("cuda:0"))
    parent = os.getppid()
    _gpu_with(monkeypatch, os.getpid(), parent)
    assert gpu.other_processes() == {f"{parent} {psutil.Process(parent).name()}"}
    _gpu_with(monkeypatch, os.getpid())
    assert gpu.other_processes() == set()
    child = subprocess.Popen(["sleep", "60"])  # a loader of data, say
    try:
        _gpu_with(monkeypatch, os.getpid(), child.pid)
        assert gpu.other_processes() == set()
    finally:
        child.kill()
        child.wait()
    # in a container the driver's ids are the host's: one unknown id is this process itself
    _gpu_with(monkeypatch, 2**22 + 1)
    assert gpu.other_processes() == set()
    _gpu_with(monkeypatch, 2**22 + 1, 2**22 + 2)
    assert gpu.other_processes() == {f"{2**22 + 2} ?"}
    assert Device(torch.device("cpu")).other_processes() is None


def test_processes_seen_at_any_time_are_reported() -> None:
    assert hardware.other_processes_tag(None, None) == {}
    assert hardware.other_processes_tag(set(), None) == {"pepr.gpu_other_processes": "none"}
    assert hardware.other_processes_tag({"1 a"}, {"2 b"}) == {
        "pepr.gpu_other_processes": "1 a, 2 b"
    }
