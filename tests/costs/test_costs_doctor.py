"""What `pepr doctor` says of the devices and the energy sensors of a machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pepr_mlops.costs import device, doctor


def test_the_remedy_for_the_counters_of_the_cpu_fits_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2 hypervisor\n")
    (tmp_path / "container").write_text("")
    monkeypatch.setattr(doctor, "_RAPL", tmp_path)
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(doctor, "_CONTAINER", (tmp_path / "container",))
    assert "virtual machine" in doctor.cpu_remedy()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "platform", "win32")
        assert doctor.cpu_remedy().startswith("counters of CPUs are read on Linux")
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2\n")
    assert f"-v {tmp_path}:/zeus_sys/class/powercap:ro" in doctor.cpu_remedy()
    (tmp_path / "container").unlink()
    assert "modprobe intel_rapl_msr" in doctor.cpu_remedy()
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read anything
    assert "sudo chmod a+r" in doctor.cpu_remedy()
