"""How much of a socket a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepr_mlops.costs import device
from pepr_mlops.costs.meters import sockets
from pepr_mlops.costs.meters.sockets import design_power_w, socket_cores, virtual_per_core


@pytest.mark.parametrize(
    ("name", "cores"),
    [
        ("AMD EPYC 7763 64-Core Processor", 64),
        ("AMD EPYC 7B12 64-Core Processor", 64),
        ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", 32),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", None),
        ("Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz", 14),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 20),
        ("Intel(R) Xeon(R) Platinum 8592+", 64),
        ("Intel(R) Xeon(R) Processor", None),
        ("AMD EPYC", None),  # as clouds hide it
        ("Apple M3", None),
    ],
)
def test_cores_of_a_socket_by_the_name_of_its_cpu(name: str, cores: int | None) -> None:
    assert socket_cores(name) == cores


def test_every_cpu_of_the_table_is_one_whose_power_codecarbon_knows() -> None:
    from codecarbon.input import DataSource

    known = set(DataSource().get_cpu_power_data()["Name"])
    table = sockets._server_cpus()
    assert len(table) > 100
    assert {f"Intel {name}" for name in table} <= known
    assert all(4 <= cores <= 128 for cores in table.values())


def test_a_machine_has_its_sockets_and_a_virtual_one_a_part() -> None:
    epyc = "AMD EPYC 7763 64-Core Processor"
    assert design_power_w(epyc, 280.0, 2, 256, None) == (560.0, "")
    power, about = design_power_w(epyc, 280.0, 1, 2, 2)
    assert power == pytest.approx(280 * 2 / 128)
    assert about == "2 threads; a socket of 280 W has 128"
    power, about = design_power_w(epyc, 280.0, 1, 2, 1)  # on clouds that give full cores
    assert power == pytest.approx(280 * 2 / 64)
    assert about == "2 cores; a socket of 280 W has 64"
    # all threads of two sockets, which it may see as any number of sockets
    assert design_power_w(epyc, 280.0, 1, 256, 2)[0] == 560.0
    assert design_power_w("Xeon of a cloud", 205.0, 1, 2, 2) == (
        205.0,
        "the virtual machine's share of the socket is not known",
    )


@pytest.mark.parametrize(
    ("cpuinfo", "per_core"),
    [
        ("model name\t: X\nflags\t\t: fpu vme hypervisor avx2\n", 2),
        ("siblings\t: 4\ncpu cores\t: 4\nflags\t\t: fpu hypervisor\n", 1),
        ("siblings\t: 4\ncpu cores\t: 2\nflags\t\t: fpu hypervisor\n", 2),
        ("siblings\t: 1\ncpu cores\t: 1\nflags\t\t: fpu hypervisor\n", 2),
        ("cpu cores\t: 4\nflags\t\t: fpu hypervisor\n", 2),
        ("siblings\t:\ncpu cores\t:\nflags\t\t: fpu hypervisor\n", 2),
        ("siblings\t: 4\ncpu cores\t: 2\nmodel name\t: hypervisor\nflags\t\t: fpu\n", None),
    ],
)
def test_a_virtual_machine_is_known_by_its_flags(
    cpuinfo: str, per_core: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    assert virtual_per_core() == per_core
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "none")
    assert virtual_per_core() is None
