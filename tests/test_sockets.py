"""How much of a socket a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepr_mlops.meter import sockets
from pepr_mlops.meter.sockets import design_power_w, is_virtual, socket_threads


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        ("AMD EPYC 7763 64-Core Processor", 128),
        ("AMD EPYC 7B12 64-Core Processor", 128),
        ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", 64),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", None),
        ("Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz", 28),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 40),
        ("Intel(R) Xeon(R) Platinum 8592+", 128),
        ("Intel(R) Xeon(R) Processor", None),
        ("AMD EPYC", None),  # as clouds hide it
        ("Apple M3", None),
    ],
)
def test_threads_of_a_socket_by_the_name_of_its_cpu(name: str, threads: int | None) -> None:
    assert socket_threads(name) == threads


def test_every_cpu_of_the_table_is_one_whose_power_codecarbon_knows() -> None:
    from codecarbon.input import DataSource

    known = set(DataSource().get_cpu_power_data()["Name"])
    table = sockets._server_cpus()
    assert len(table) > 100
    assert {f"Intel {name}" for name in table} <= known
    assert all(4 <= cores <= 128 for cores in table.values())


def test_a_machine_has_its_sockets_and_a_virtual_one_a_part() -> None:
    epyc = "AMD EPYC 7763 64-Core Processor"
    assert design_power_w(epyc, 280.0, 2, 256, virtual=False) == (560.0, "")
    power, about = design_power_w(epyc, 280.0, 1, 2, virtual=True)
    assert power == pytest.approx(280 * 2 / 128)
    assert about == "2 of the 128 threads of a socket of 280 W"
    # all threads of two sockets, which it may see as any number of sockets
    assert design_power_w(epyc, 280.0, 1, 256, virtual=True)[0] == 560.0
    assert design_power_w("Xeon of a cloud", 205.0, 1, 2, virtual=True) == (
        205.0,
        "the virtual machine's share of the socket is not known",
    )


@pytest.mark.parametrize(
    ("told", "virtual"),
    [
        ("model name\t: X\nflags\t\t: fpu vme hypervisor avx2\n", True),
        ("model name\t: hypervisor\nflags\t\t: fpu vme avx2\n", False),
    ],
)
def test_a_virtual_machine_is_known_by_its_flags(
    told: str, virtual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(sockets, "_CPUINFO", tmp_path / "cpuinfo")
    assert is_virtual() == virtual
    monkeypatch.setattr(sockets, "_CPUINFO", tmp_path / "none")
    assert is_virtual() is False
