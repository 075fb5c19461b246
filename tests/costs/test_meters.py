"""Energy read through Zeus' own replay monitor, and through monitors that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from zeus.device.cpu.common import ZeusCPUInitError
from zeus.monitor import Measurement
from zeus.utils.testing import ReplayZeusMonitor

from pepr_mlops.costs import meters
from pepr_mlops.costs.meters import EstimateMeter, ZeusMeter, codecarbon, idle_tags, open_meter
from pepr_mlops.costs.meters import zeus as sensors
from pepr_mlops.costs.meters.meter import Meter
from pepr_mlops.costs.totals import Window
from pepr_mlops.errors import WrongUse

RECORDED = """start_time,window_name,elapsed_time,gpu0_energy
1.0,train,10.0,2500.0
2.0,eval,1.0,100.0
3.0,train,10.0,0.0
"""


def _wait() -> None:
    """Nothing to wait for."""


def _device(kind: str, *uuids: str) -> Any:
    """A device of that kind, with these GPUs."""
    return SimpleNamespace(kind=kind, gpu_names=list(uuids), synchronize=_wait)


@pytest.fixture
def long_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every window were long enough for a counter to have moved."""
    monkeypatch.setattr(sensors, "_STILL_S", 0.0)


@pytest.fixture
def replay(tmp_path: Path) -> ReplayZeusMonitor:
    log = tmp_path / "recorded.csv"
    log.write_text(RECORDED)
    return ReplayZeusMonitor(log_file=log, ignore_sync_execution=True)


class _Monitor:
    """Gives out measurements in turn, or raises them."""

    def __init__(self, *measurements: Measurement | Exception) -> None:
        self._left = list(measurements)
        self.calls: list[tuple[str, str]] = []

    def begin_window(self, key: str, **_: Any) -> None:
        self.calls.append(("begin", key))

    def end_window(self, key: str, **_: Any) -> Measurement:
        self.calls.append(("end", key))
        found = self._left.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


def test_an_interruption_while_a_counter_is_read_loses_no_energy(long_windows: None) -> None:
    monitor = _Monitor(KeyboardInterrupt(), Measurement(time=1, gpu_energy={0: 1000.0}))
    meter = ZeusMeter(monitor, ("gpu",), _wait, {})
    meter.begin("train")
    with pytest.raises(KeyboardInterrupt):
        meter.spent_j()
    assert meter.end().joules == {"gpu": 1000.0}  # of the part that began with the window
    assert monitor.calls[-1] == ("end", "train")


def test_recorded_joules_are_replayed_and_a_still_counter_is_missing(
    replay: ReplayZeusMonitor, long_windows: None
) -> None:
    meter = ZeusMeter(replay, ("gpu",), _wait, {})
    windows = []
    for name in ("train", "eval", "train"):
        meter.begin(name)
        windows.append(meter.end())
    assert windows[0].joules == {"gpu": 2500.0}
    assert windows[1].joules == {"gpu": 100.0}
    assert windows[2].joules == {}
    assert "counter did not advance" in windows[2].missing["gpu"]
    assert set(meter.sources.values()) == {"measured"}


def test_components_are_separate_and_packages_added_up() -> None:
    measurement = Measurement(
        time=1.0,
        gpu_energy={0: 100.0},
        cpu_energy={0: 30.0, 1: 20.0},
        dram_energy={0: 4.0, 1: 3.0},
    )
    meter = ZeusMeter(_Monitor(measurement), ("gpu", "cpu", "dram"), _wait, {})
    meter.begin("train")
    assert meter.end().joules == {"gpu": 100.0, "cpu": 50.0, "dram": 7.0}


def test_an_soc_counts_its_parts_once() -> None:
    apple = SimpleNamespace(
        cpu_total_mj=3000,
        efficiency_cores_mj=[1000, 500],
        performance_cores_mj=[1500],
        gpu_mj=2000,
        gpu_sram_mj=100,
        dram_mj=400,
        ane_mj=None,
    )
    jetson = SimpleNamespace(total_energy_mj=9000.0, cpu_energy_mj=4000.0, gpu_energy_mj=5000.0)
    for soc, joules in ((apple, 5.5), (jetson, 9.0)):
        measurement = Measurement(time=1.0, gpu_energy={}, soc_energy=soc)
        meter = ZeusMeter(_Monitor(measurement), ("soc",), _wait, {})
        meter.begin("train")
        assert meter.end().joules == {"soc": joules}


def test_a_still_package_leaves_the_cpu_out(long_windows: None) -> None:
    measurement = Measurement(time=1.0, gpu_energy={0: 9.0}, cpu_energy={1: 0.0})
    meter = ZeusMeter(_Monitor(measurement), ("gpu", "cpu"), _wait, {})
    meter.begin("train")
    window = meter.end()
    assert window.joules == {"gpu": 9.0}
    assert "did not advance" in window.missing["cpu"]


def test_a_sensor_that_vanishes_is_missing_with_its_reason() -> None:
    meter = ZeusMeter(_Monitor(RuntimeError("GPU is lost\nmore")), ("gpu",), _wait, {})
    meter.begin("train")
    window = meter.end()
    assert window.joules == {}
    assert window.missing == {"gpu": "RuntimeError: GPU is lost"}
    assert window.time_s >= 0


def test_a_counter_that_runs_backwards_is_missing() -> None:
    meter = ZeusMeter(_Monitor(Measurement(time=1, gpu_energy={0: -5.0})), ("gpu",), _wait, {})
    meter.begin("train")
    assert meter.end().missing == {"gpu": "counter ran backwards by 5 J"}


def test_a_counter_that_wraps_between_two_readings_makes_up_for_it() -> None:
    """Zeus notices that RAPL wrapped around up to a second late."""
    parts = [Measurement(time=1, gpu_energy={}, cpu_energy={0: j}) for j in (10, -90, 105)]
    meter = ZeusMeter(_Monitor(*parts), ("cpu",), _wait, {})
    meter.begin("train")
    assert meter.spent_j() == 10
    assert meter.spent_j() == 0  # not negative, and not given up
    assert meter.end().joules == {"cpu": 25}


def test_a_window_opened_while_rapl_wraps_is_no_measurement() -> None:
    wrapped = Measurement(time=1, gpu_energy={}, cpu_energy={0: 262_143.0 + 100})
    meter = ZeusMeter(_Monitor(wrapped), ("cpu",), _wait, {})
    meter.begin("train")
    assert "more than a socket can take" in meter.end().missing["cpu"]


def test_a_counter_that_ran_on_while_the_process_was_stopped_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 s at 250 W, in 39 of which the process stood still."""
    meter = ZeusMeter(
        _Monitor(Measurement(time=1, gpu_energy={}, cpu_energy={0: 10_000.0})), ("cpu",), _wait, {}
    )
    meter.begin("train")
    meter._stop()
    monkeypatch.setattr(meter, "_stop", lambda: (1.0, 39.0))
    assert meter.end() == Window(1.0, {"cpu": 10_000.0}, {}, 39.0)


def test_idle_power_is_over_all_the_time_that_the_counter_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pepr_mlops.costs.meters.IDLE_S", 0.0)
    meter = ZeusMeter(_Monitor(Measurement(time=1, gpu_energy={0: 1000.0})), ("gpu",), _wait, {})
    real = meter._stop
    monkeypatch.setattr(meter, "_stop", lambda: (real() and 3.0, 7.0))
    assert idle_tags(meter, required=True) == {"pepr.idle_power_w": "100"}


def test_a_window_shorter_than_the_counters_tick_may_be_zero() -> None:
    meter = ZeusMeter(_Monitor(Measurement(time=0, gpu_energy={0: 0.0})), ("gpu",), _wait, {})
    meter.begin("train")
    window = meter.end()
    assert window.joules == {"gpu": 0.0}
    assert window.missing == {}


def test_reading_the_energy_during_a_window_loses_nothing() -> None:
    parts = [Measurement(time=1, gpu_energy={0: joules}) for joules in (10.0, 0.0, 7.0)]
    monitor = _Monitor(*parts)
    meter = ZeusMeter(monitor, ("gpu",), _wait, {})
    meter.begin("train")
    assert meter.spent_j() == 10.0
    assert meter.spent_j() == 10.0  # a counter may not tick between two readings
    assert meter.end().joules == {"gpu": 17.0}
    assert monitor.calls[:3] == [("begin", "train"), ("begin", "train+1"), ("end", "train")]


def test_spent_energy_is_unknown_once_a_component_is_lost() -> None:
    meter = ZeusMeter(_Monitor(RuntimeError("lost")), ("gpu",), _wait, {})
    meter.begin("train")
    assert meter.spent_j() is None


def test_both_readings_wait_for_the_device() -> None:
    events: list[str] = []
    monitor = _Monitor(Measurement(time=1, gpu_energy={0: 1.0}))
    begin, end = monitor.begin_window, monitor.end_window
    monitor.begin_window = lambda key, **_: events.append("begin") or begin(key)  # type: ignore
    monitor.end_window = lambda key, **_: events.append("end") or end(key)  # type: ignore
    meter = ZeusMeter(monitor, ("gpu",), lambda: events.append("wait"), {})
    meter.begin("train")
    meter.end()
    assert events == ["wait", "begin", "wait", "end"]


def test_an_estimate_is_power_times_time_within_the_models_bounds() -> None:
    meter = EstimateMeter(_wait, "no RAPL here")
    meter.begin("train")
    total = 0
    while meter.spent_j() < 2:  # type: ignore[operator]
        total += sum(range(10_000))
    window = meter.end()
    full_w = meter._cpu._tdp
    assert 0.1 * full_w * window.time_s <= window.joules["cpu"] <= 1.001 * full_w * window.time_s
    assert window.joules["dram"] == pytest.approx(meter._dram_w * window.time_s)
    assert set(meter.sources.values()) == {"estimated"}
    assert "CodeCarbon" in meter.method


def test_an_estimate_leaves_no_thread_behind() -> None:
    before = {*threading.enumerate()}
    meter = EstimateMeter(_wait, "no RAPL here")
    for _ in range(3):
        meter.begin("train")
        assert len({*threading.enumerate()} - before) == 2  # samples, and the stopwatch
        meter.end()
    assert {*threading.enumerate()} <= before


def test_a_signal_while_a_window_closes_waits_until_it_is_closed() -> None:
    """Between two of Python's instructions it would leave a lock held, and what ends the job would
    wait for that for ever."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        meter = EstimateMeter(_wait, "no RAPL here")
        meter.begin("train")
        sampler, event = meter._sampler, meter._halted
        assert sampler is not None
        halt = event.set
        event.set = lambda: signal.raise_signal(signal.SIGTERM) or halt()  # type: ignore
        with pytest.raises(SystemExit):
            meter.end()
        assert not sampler.is_alive()
        event.set = halt  # type: ignore[method-assign]
        assert meter.end().time_s > 0
    finally:
        signal.signal(signal.SIGTERM, before)


# Choosing the meter ----------------------------------------------------------------------------


def _zeus_reads(*components: str) -> Callable[..., Any]:
    notes = {} if components else {"cpu": "no RAPL here"}
    return lambda uuids, host: (_Monitor(), components, notes)


@pytest.mark.parametrize(
    ("energy", "accelerator", "components", "kind"),
    [
        ("off", "cuda", ("gpu",), Meter),
        ("auto", "cuda", ("gpu", "cpu"), ZeusMeter),
        ("auto", "cuda", ("cpu",), Meter),  # a part is not reported as the total
        ("measured", "cuda", ("gpu",), ZeusMeter),
        ("auto", "cpu", ("cpu", "dram"), ZeusMeter),
        ("auto", "cpu", (), EstimateMeter),
        ("estimated", "cpu", ("cpu",), EstimateMeter),
        ("auto", "mps", ("soc",), ZeusMeter),
        ("auto", "mps", (), Meter),
        ("measured", "cpu", ("soc",), ZeusMeter),
    ],
)
def test_the_meter_fits_the_option_and_the_sensors(
    monkeypatch: pytest.MonkeyPatch,
    energy: str,
    accelerator: str,
    components: tuple[str, ...],
    kind: type,
) -> None:
    monkeypatch.setattr(meters, "find_sensors", _zeus_reads(*components))
    assert type(open_meter(energy, _device(accelerator))) is kind


@pytest.mark.parametrize(
    ("energy", "accelerator", "components", "words"),
    [
        ("measured", "cpu", (), "no RAPL here"),
        ("measured", "cuda", ("cpu",), "no sensor for the gpu"),
        ("estimated", "cuda", ("gpu",), "works for CPU and memory only"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    energy: str,
    accelerator: str,
    components: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setattr(meters, "find_sensors", _zeus_reads(*components))
    with pytest.raises(WrongUse, match=words):
        open_meter(energy, _device(accelerator))


def _rapl(root: Path, zones: dict[str, str]) -> None:
    for zone, name in zones.items():
        folder = root / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")


def test_an_estimate_names_its_assumptions(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon.core import cpu
    from codecarbon.core.util import count_cpus

    monkeypatch.setattr(cpu.TDP, "_main", lambda self: ("Some CPU", 4 * count_cpus()))
    assert "(unknown CPU, 4 W a thread)" in EstimateMeter(_wait, "").method
    monkeypatch.setattr(cpu.TDP, "_main", lambda self: ("Known CPU", 125.0))
    monkeypatch.setattr(codecarbon, "virtual_per_core", lambda: None)
    method = EstimateMeter(_wait, "no RAPL here").method
    assert "Known CPU, 125 W at full load;" in method
    assert method.endswith("not measured: no RAPL here")


def test_an_estimate_of_a_virtual_machine_takes_its_share_of_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from codecarbon.core import cpu

    monkeypatch.setattr(codecarbon, "virtual_per_core", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    epyc = "AMD EPYC 7763 64-Core Processor"
    monkeypatch.setattr(cpu.TDP, "_main", lambda self: (epyc, 280.0))
    meter = EstimateMeter(_wait, "")
    assert "4.38 W at full load (2 threads; a socket of 280 W has 128)" in meter.method
    assert meter.details["pepr.energy_model"].startswith("cpu 4.38 W, ")
    monkeypatch.setattr(cpu.TDP, "_main", lambda self: ("Intel Xeon Platinum 9999", 205.0))
    assert "(the virtual machine's share of the socket is not known)" in (
        EstimateMeter(_wait, "").method
    )


def test_an_estimate_drops_the_load_during_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 s at full load, and 8 s of a stop in which the machine was idle."""
    monkeypatch.setattr(codecarbon, "_EVERY_S", 60.0)  # samples are taken here
    clock_s = [100.0]
    monkeypatch.setattr(codecarbon, "time", SimpleNamespace(perf_counter=lambda: clock_s[0]))
    meter = EstimateMeter(_wait, "")
    loads = iter([100.0, 11.0, 100.0, 100.0])
    meter._cpu._cpu_load_meter = SimpleNamespace(percent=loads.__next__, reset=lambda: None)
    meter.begin("train")
    meter._stop()
    monkeypatch.setattr(codecarbon, "_EVERY_S", 1.0)
    monkeypatch.setattr(meter, "_stop", lambda: (3.0, 8.0))
    for clock_s[0], elapsed_s in ((101.0, 1.0), (110.0, 2.0)):
        meter._sample_load(elapsed_s)
    clock_s[0] = 111.0
    window = meter.end()
    assert window.joules["cpu"] == pytest.approx(3 * meter._cpu._tdp)
    assert window.joules["dram"] == pytest.approx(3 * meter._dram_w)


def test_an_estimate_counts_the_memory_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of 8 GiB on a host of 1 TiB: two modules of 5 W, as CodeCarbon has it."""
    from codecarbon.external.hardware import B_TO_GB
    from codecarbon.external.ram import RAM

    host, container = 1024 * B_TO_GB, 8 * B_TO_GB
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=host))
    monkeypatch.setattr(codecarbon, "allowed_memory", lambda: container)
    meter = EstimateMeter(_wait, "")
    assert meter._dram_w == 10.0
    assert pytest.approx(38.0) == RAM().total_power().W  # of the host
    assert "memory 10 W (8.59 GB)" in meter.method


def test_an_estimate_counts_a_constant_power_at_any_load() -> None:
    """The memory, and what CodeCarbon's model takes for a CPU that does nothing."""
    meter = EstimateMeter(_wait, "")
    meter._cpu._cpu_load_meter = SimpleNamespace(percent=lambda: 0.0)
    idle_w = meter._cpu._get_power_from_cpu_load().W + meter._dram_w
    assert float(meter.details["pepr.energy_constant_w"]) == pytest.approx(idle_w, rel=1e-3)


def test_where_the_model_does_not_apply_there_is_no_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CodeCarbon asks Slurm's scontrol for the memory, which a container does not have."""
    from codecarbon.external.ram import RAM

    def no_scontrol(self: RAM) -> None:
        raise FileNotFoundError("scontrol")

    monkeypatch.setattr(RAM, "total_power", no_scontrol)
    monkeypatch.setattr(meters, "find_sensors", _zeus_reads())
    meter = open_meter("auto", _device("cpu"))
    assert type(meter) is Meter
    assert "scontrol" in meter.notes["cpu"]
    with pytest.raises(WrongUse, match="estimated is not possible here"):
        open_meter("estimated", _device("cpu"))


def test_only_the_cpu_packages_of_rapl_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`psys` lists as a top zone and holds the package a second time; `core` lies inside it."""
    import zeus.device.cpu as zeus_cpu
    from zeus.device.cpu import rapl

    _rapl(
        tmp_path,
        {
            "intel-rapl:0": "package-0",
            "intel-rapl:0/intel-rapl:0:0": "core",
            "intel-rapl:0/intel-rapl:0:1": "dram",
            "intel-rapl:1": "psys",
        },
    )
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path))
    monkeypatch.setattr(zeus_cpu, "rapl_is_available", lambda: True)
    monkeypatch.setattr(rapl, "rapl_is_available", lambda: True)
    monkeypatch.setattr(
        rapl.RAPLFile, "wraparound_tracker", SimpleNamespace(get_num_wraparounds=int)
    )
    monkeypatch.setattr(zeus_cpu, "_cpus", None)
    meter = open_meter("measured", _device("cpu"))
    assert list(meter.sources) == ["cpu", "dram"]
    meter.begin("train")
    for zone, microjoules in (("", 6_000_000), ("/intel-rapl:0:1", 3_000_000)):
        (tmp_path / f"intel-rapl:0{zone}" / "energy_uj").write_text(f"{microjoules}\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("99000000\n")
    assert meter.end().joules == pytest.approx({"cpu": 5.0, "dram": 2.0})
    _, components, notes = sensors.find_sensors([], host=False)
    assert components == ()
    assert notes["cpu"] == "jobs on other GPUs of this machine share it"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ZeusCPUInitError("RAPL unvailable"), "no RAPL counters"),
        (PermissionError(13, "Permission denied"), "RAPL counters are closed to this user"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
    ],
)
def test_the_reason_for_not_reading_rapl_is_reported(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zeus.device

    def fails() -> None:
        raise error

    monkeypatch.setattr(zeus.device, "get_cpus", fails)
    assert sensors.find_sensors([]) == (None, (), {"cpu": why})


def test_measuring_rapl_does_not_run_a_script_a_second_time(tmp_path: Path) -> None:
    """Zeus watches RAPL from spawned processes, which import the main module again."""
    _rapl(tmp_path / "rapl", {"intel-rapl:0": "package-0"})
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"""
from pathlib import Path
with open({str(tmp_path / "runs")!r}, "a") as file:
    file.write("run\\n")
import zeus.device.cpu, zeus.device.cpu.rapl as rapl
rapl.RAPL_DIR = {str(tmp_path / "rapl")!r}
zeus.device.cpu.rapl_is_available = rapl.rapl_is_available = lambda: True
from pepr_mlops.costs.device import Device
from pepr_mlops.costs.meters import open_meter
meter = open_meter("measured", Device.resolve("cpu"))
meter.begin("train")
print(list(meter.sources))
"""
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "['cpu']", done.stderr
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_gpu_is_found_by_its_uuid_and_refused_if_divided_by_mig(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pynvml
    import zeus.device

    uuids = {"handle a": "GPU-a", "handle b": "GPU-b"}
    gpus = SimpleNamespace(
        gpus=[SimpleNamespace(handle="handle b"), SimpleNamespace(handle="handle a")],
        supports_get_total_energy_consumption=lambda index: True,
        get_total_energy_consumption=lambda index: 1,
    )
    monkeypatch.setattr(zeus.device, "get_gpus", lambda: gpus)
    handles = {uuid: handle for handle, uuid in uuids.items()}
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: handles.get(uuid, "c"))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", uuids.__getitem__)
    divided = {"handle a": [0, 0], "handle b": [1, 1], "c": [0, 0]}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", divided.__getitem__)
    assert sensors._zeus_index("GPU-a") == 1
    with pytest.raises(LookupError, match="divided by MIG"):
        sensors._zeus_index("GPU-b")
    with pytest.raises(LookupError, match="does not see GPU-c"):
        sensors._zeus_index("GPU-c")

    def unknown(uuid: str) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", unknown)
    with pytest.raises(LookupError, match="NVML does not report GPU-d: Not Found"):
        sensors._zeus_index("GPU-d")


def test_a_mac_without_zeus_package_for_its_chip_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    meter = open_meter("auto", _device("mps"))
    assert type(meter) is Meter
    assert meter.notes["soc"].endswith("pip install 'zeus[apple]'")


@pytest.mark.parametrize("visible", ["2", "GPU-2", "2,0"])
def test_zeus_finds_the_gpu_however_cuda_visible_devices_names_it(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """Zeus itself reads numbers only, and as NVML's where CUDA may count otherwise."""
    import pynvml
    import zeus.device.gpu
    import zeus.monitor.energy

    joules = {0: 10.0, 1: 20.0, 2: 30.0}
    fakes: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda i: i,
        "nvmlDeviceGetC2cModeInfoV": lambda h: SimpleNamespace(isC2cEnabled=False),
        "nvmlDeviceGetUUID": lambda h: f"GPU-{h}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: int(uuid.removeprefix("GPU-")),
        "nvmlDeviceGetName": lambda h: "some GPU",
        "nvmlDeviceGetArchitecture": lambda h: pynvml.NVML_DEVICE_ARCH_HOPPER,
        "nvmlDeviceGetMigMode": lambda h: [0, 0],
        "nvmlDeviceGetTotalEnergyConsumption": lambda h: joules[h] * 1000,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    monkeypatch.setattr(zeus.device.gpu, "_gpus", None)
    monkeypatch.setattr(zeus.device.gpu, "nvml_is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = open_meter("measured", _device("cuda", "GPU-2"), host=False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    meter.begin("train")
    joules |= {0: 11.0, 1: 22.0, 2: 34.0}
    assert meter.end().joules == {"gpu": 4.0}


def test_idle_power_is_energy_over_time(replay: ReplayZeusMonitor, tmp_path: Path) -> None:
    log = tmp_path / "idle.csv"
    log.write_text(RECORDED.splitlines()[0] + "\n1.0,idle,1.0,5.0\n")
    monitor = ReplayZeusMonitor(log_file=log, ignore_sync_execution=True)
    tags = meters.idle_tags(ZeusMeter(monitor, ("gpu",), _wait, {}), required=True)
    assert 20 < float(tags["pepr.idle_power_w"]) <= 5.0 / 0.05


def test_a_still_sensor_is_refused_when_measuring_is_required(long_windows: None) -> None:
    still = Measurement(time=1, gpu_energy={0: 0.0})
    with pytest.raises(WrongUse, match="a sensor returns nothing"):
        meters.idle_tags(ZeusMeter(_Monitor(still), ("gpu",), _wait, {}), required=True)
    assert meters.idle_tags(ZeusMeter(_Monitor(still), ("gpu",), _wait, {}), False) == {}
