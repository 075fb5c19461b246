"""What a sweep asks Slurm for: options, arguments of sbatch and the script of the jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pepr_mlops.errors import WrongUse
from pepr_mlops.sweep.slurm import options
from pepr_mlops.sweep.slurm.options import Options, arguments, parse, script


def test_the_command_line_overrides_the_file() -> None:
    table = {"partition": "gpu", "cpus": 4, "mem": "8G", "setup": "module load cuda", "time": 90}
    found = parse({"partition": "long", "cpus": None, "setup": ()}, table)
    assert found == Options(
        partition="long", cpus=4, mem="8G", time="90", setup=("module load cuda",)
    )


def test_nodes_without_network_are_a_property_of_the_cluster_or_the_call() -> None:
    assert not parse({"offline": None}, {}).offline
    assert parse({"offline": None}, {"offline": True}).offline
    assert parse({"offline": True}, {}).offline


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"partiton": "x"}, "slurm: partiton: no such option; did you mean 'partition'? Valid: "),
        ({"cpus": "many"}, "slurm: cpus: 'many' is not a whole number"),
        ({"cpus": 0}, "slurm: cpus: 0 is not 1 or more"),
        ({"mem": ["1G"]}, "slurm: mem: ['1G'] is not one printable value"),
        ({"account": "a\nb"}, "slurm: account: 'a\\nb' is not one printable value"),
        ({"setup": [1]}, "slurm: setup: [1] is not a text or a list of texts"),
        (
            {"time": "an hour"},
            "slurm: time: 'an hour' is not a time of Slurm, such as 90 (minutes)",
        ),
        ({"sbatch": ["gpu"]}, "slurm: sbatch: 'gpu' is not an option of sbatch"),
        ({"sbatch": "--array=0-9"}, "slurm: sbatch: --array is set by the sweep; leave it out"),
        ({"sbatch": ["-Jname"]}, "slurm: sbatch: -J is set by the sweep; leave it out"),
    ],
)
def test_wrong_options_are_one_line(table: dict[str, Any], text: str) -> None:
    with pytest.raises(WrongUse) as error:
        parse({}, table)
    assert str(error.value).startswith(text)


def test_a_table_that_is_none_is_one_line() -> None:
    with pytest.raises(WrongUse, match=r"slurm: 'gpu' is not a table; write \[slurm\]"):
        parse({}, "gpu")


def test_a_job_on_a_cpu_has_its_node_and_one_on_a_gpu_its_gpu() -> None:
    on_cpu, on_gpu = arguments(Options(), "cpu"), arguments(Options(), "cuda")
    assert "--exclusive" in on_cpu
    assert not [word for word in on_cpu if "gpu" in word]
    assert "--gres=gpu:1" in on_gpu
    assert "--exclusive" not in on_gpu
    named = arguments(Options(gpus_per_task="a100:1"), "cuda")
    assert "--gpus-per-task=a100:1" in named
    assert "--gres=gpu:1" not in named
    assert "--gres=gpu:v100:1" in arguments(Options(gres="gpu:v100:1"), "cuda")


def test_a_device_that_nobody_named_is_refused_with_both_remedies() -> None:
    with pytest.raises(WrongUse, match=r"--device cuda for a GPU, or --device cpu for a"):
        arguments(Options(gres="gpu:1"), "auto")


def test_every_option_reaches_sbatch_as_one_argument() -> None:
    wants = Options(
        partition="a b", account="$(id)", qos="q", cpus=2, mem="4G", time="2:00:00",
        constraint="a100|h100", sbatch=("--reservation=x y",),
    )  # fmt: skip
    assert {
        *("--partition=a b", "--account=$(id)", "--qos=q", "--cpus-per-task=2", "--mem=4G"),
        *("--time=2:00:00", "--constraint=a100|h100", "--reservation=x y"),
        *("--nodes=1", "--ntasks=1", "--requeue", "--signal=B:USR1@120"),
    } <= {*arguments(wants, "cuda")}


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        *(("90", 5400.0), ("1:30", 90.0), ("2:00:00", 7200.0), ("1-2", 93600.0)),
        *(("1-0:30", 88200.0), ("1-01:01:01", 90061.0), ("UNLIMITED", None)),
    ],
)
def test_times_are_those_of_slurm(time: str, seconds: float | None) -> None:
    assert options.seconds(time) == seconds


def test_the_warning_comes_no_earlier_than_the_last_quarter() -> None:
    assert "--signal=B:USR1@60" in arguments(Options(time="4"), "cuda")
    assert "--signal=B:USR1@15" in arguments(Options(time="1"), "cuda")


def test_the_script_runs_setup_as_shell_and_no_name_as_shell(tmp_path: Path) -> None:
    """Run for real, with a Python that prints its arguments."""
    folder = tmp_path / "it's $(touch hacked)\n%a \\x"
    folder.mkdir()
    show = tmp_path / "show arguments"
    show.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint([os.environ['SET'], *sys.argv[1:]])\n"
    )
    show.chmod(0o700)
    wants = Options(setup=("export SET=$((1 + 1))",), python=f"'{show}' --nv 'a b'")
    (tmp_path / "script").write_text(script(wants, str(folder)))
    subprocess.run(
        ["bash", str(tmp_path / "script")],
        check=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "7"},
    )
    expected = ["2", "--nv", "a b", "-P", "-m", "pepr_mlops.sweep.slurm.node", str(folder), "7"]
    assert (folder / "7.log").read_text() == f"{expected}\n"
    assert not (tmp_path / "hacked").exists()


def test_the_name_of_a_job_is_safe_and_leads_to_its_batch() -> None:
    name = options.job_name("skin $(id)/é-1", "20260102abc")
    assert name == "pepr-skin___id____1-20260102abc"
    assert options.batch_of(name) == "20260102abc"
    assert options.batch_of("someone-20260102abc") is None


def test_indices_are_short() -> None:
    assert options.indices([3, 0, 1, 2, 7, 9, 10]) == "0-3,7,9-10"
