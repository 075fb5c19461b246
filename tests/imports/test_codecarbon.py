"""CodeCarbon's emissions.csv, as its own writer makes it, becomes runs."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from codecarbon.output_methods.emissions_data import EmissionsData
from codecarbon.output_methods.file import FileOutput

from pepr_mlops.comparison import Question, compare, inspect
from pepr_mlops.costs.carbon import Intensity, gco2e
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import codecarbon
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.tracking import finished, import_runs, read

# An hour at 250, 30 and 20 W after a PUE of 1.5, on a grid of 101 g/kWh.
ROW: dict[str, Any] = {
    "timestamp": "2026-05-04T10:00:00",
    "project_name": "unet",
    "run_id": "7a299f2a-c2a9-4df2-8138-3505dd3cd0cc",
    "experiment_id": "5b0fa12a-3dd7-45bb-9766-cc326314d9f1",
    "duration": 3600.0,
    "emissions": 0.0303,
    "emissions_rate": 0.0303 / 3600,
    "cpu_power": 30.0123456,
    "gpu_power": 250.0,
    "ram_power": 20.0,
    "cpu_energy": 0.03,
    "gpu_energy": 0.25,
    "ram_energy": 0.02,
    "energy_consumed": 0.3,
    "water_consumed": 0.0,
    "country_name": "Denmark",
    "country_iso_code": "DNK",
    "region": "capital",
    "cloud_provider": "",
    "cloud_region": "",
    "os": "Linux-6.18",
    "python_version": "3.11.7",
    "codecarbon_version": "3.3.2",
    "cpu_count": 32,
    "cpu_model": "AMD EPYC 9354",
    "gpu_count": 1,
    "gpu_model": "1 x NVIDIA A100",
    "longitude": -12.5,
    "latitude": 55.7,
    "ram_total_size": 64.0,
    "tracking_mode": "machine",
    "pue": 1.5,
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    """emissions.csv of these rows, which differ from `ROW`, by CodeCarbon's writer."""
    output = FileOutput("emissions.csv", str(folder))
    for row in rows:
        output.out(EmissionsData(**{**ROW, **row}), None)
    return folder / "emissions.csv"


def imported(folder: Path, *rows: dict[str, Any], **given: str) -> list[FinishedRun]:
    return codecarbon.read(written(folder, *rows), "seg", given)[0]


def test_the_columns_are_those_of_codecarbon() -> None:
    of_codecarbon = fields(EmissionsData)
    assert [f.name for f in of_codecarbon] == list(codecarbon.COLUMNS)
    assert {f.name for f in of_codecarbon if f.type is str} == set(codecarbon.TEXTS)


def test_a_row_becomes_a_run_in_our_units_without_the_pue(tmp_path: Path) -> None:
    (run,) = imported(tmp_path, {}, dataset="derma", epochs="10")
    values = {name: value for name, value, _ in run.points}
    assert values == pytest.approx(
        {
            "time/train_s": 3600.0,
            "energy/train_wh": 200.0,
            "energy/train_gpu_wh": 250 / 1.5,
            "energy/train_cpu_wh": 20.0,
            "energy/train_dram_wh": 20 / 1.5,
            "carbon/train_gco2e": 30.3,
        }
    )
    assert run.params == {"model": "unet", "dataset": "derma", "epochs": "10", "country": "DNK"}
    expected = {
        "pepr.energy_source": "estimated",
        "pepr.energy_components": "cpu=estimated,gpu=imported,dram=estimated",
        "pepr.energy_method": "CodeCarbon 3.3.2",
        "pepr.hardware": "1 x NVIDIA A100",
        "pepr.cpu": "AMD EPYC 9354",
        "pepr.cpu_count": "32",
        "pepr.gpu_count": "1",
        "pepr.ram_gb": "68.719476736",
        "pepr.pue": "1.5",
        "pepr.carbon_intensity_g_per_kwh": "101",
        "pepr.carbon_source": "Denmark, capital, by CodeCarbon",
        "codecarbon.tracking_mode": "machine",
    }
    assert {tag: run.tags[tag] for tag in expected} == expected
    assert "pepr.import_doubt" not in run.tags
    grid = Intensity(float(run.tags["pepr.carbon_intensity_g_per_kwh"]), "")
    assert gco2e(values["energy/train_wh"], grid, 1.5) == pytest.approx(30.3)


@pytest.mark.parametrize(
    ("row", "doubt"),
    [
        ({"tracking_mode": "process"}, "counted the process by its share of the load"),
        ({"cpu_power": 63.75}, "its CPU power of 42.5 W is a round number: a constant"),
        ({"cpu_energy": 0.06}, "its parts add up to 220 Wh and its total is 200 Wh"),
        (
            {"duration": 36.0},
            "its energy means 20,000 W over its training time, more than 10,000 W: check the unit",
        ),
    ],
)
def test_what_is_doubtful_is_flagged(
    store: str, tmp_path: Path, row: dict[str, Any], doubt: str
) -> None:
    import_runs(imported(tmp_path, row), store)
    judged, _ = inspect(read.load_runs("seg", tracking_uri=store), Question())
    (codes,), (flags,) = judged["codes"], judged["flags"]
    assert {"doubtful_import", "estimated"} <= set(codes)
    assert doubt in " ".join(flags)


def test_several_gpus_may_draw_what_one_cannot(store: str, tmp_path: Path) -> None:
    eight = {"gpu_energy": 4.0, "energy_consumed": 4.05, "pue": 1.0, "cpu_power": 30.001}
    runs = imported(
        tmp_path,
        {**eight, "run_id": "eight", "project_name": "eight", "gpu_count": 8},
        {**eight, "run_id": "one", "project_name": "one", "gpu_count": 1},
    )
    import_runs(runs, store)
    judged, _ = inspect(read.load_runs("seg", tracking_uri=store), Question())
    codes = dict(zip(judged["model"], judged["codes"], strict=True))
    assert "power" in codes["one"]
    assert "power" not in codes["eight"]


@pytest.mark.parametrize(
    ("row", "source", "energy_wh"),
    [
        ({"gpu_energy": 0.0, "energy_consumed": 0.05}, "lost", None),
        (
            {"gpu_count": 0, "gpu_energy": 0.0, "gpu_model": "", "energy_consumed": 0.05},
            "estimated",
            50 / 1.5,
        ),
        (
            {"gpu_count": 0, "gpu_energy": 0.0, "cpu_energy": 0.0, "energy_consumed": 0.02},
            "lost",
            None,
        ),
        (
            dict.fromkeys(["cpu_energy", "gpu_energy", "ram_energy", "energy_consumed"], 0.0),
            "none",
            None,
        ),
    ],
)
def test_what_was_not_read_is_missing_and_never_0(
    store: str, tmp_path: Path, row: dict[str, Any], source: str, energy_wh: float | None
) -> None:
    (run,) = imported(tmp_path, row)
    assert run.tags["pepr.energy_source"] == source
    assert all(value > 0 for _, value, _ in run.points)
    import_runs([run], store)
    (found,) = read.load_runs("seg", tracking_uri=store)["energy_wh"]
    assert found == pytest.approx(energy_wh) if energy_wh else found != found


def test_a_run_exists_once_and_counts_as_it_was_last(store: str, tmp_path: Path) -> None:
    """CodeCarbon's `flush` writes a row of what it counted so far."""
    half = {"duration": 1800.0, "energy_consumed": 0.15, "emissions": 0.01515}
    path = written(tmp_path, half, {}, {"run_id": "other", "project_name": "vit"})
    runs, notes = codecarbon.read(path, "seg", {})
    assert notes == ["left out: 1 earlier row of the same runs"]
    assert import_runs(runs, store) == 2
    assert import_runs(codecarbon.read(path, "seg", {})[0], store) == 0
    found = read.load_runs("seg", tracking_uri=store).set_index("model")
    assert found["energy_wh"].to_dict() == pytest.approx({"unet": 200.0, "vit": 200.0})
    assert set(found["imported_from"]) == {"CodeCarbon"}


def test_a_score_of_imported_and_completed_runs_is_flagged(store: str, tmp_path: Path) -> None:
    rows = [
        {"run_id": n, "project_name": n, "energy_consumed": 0.3 * (i + 1)}
        for i, n in enumerate("ab")
    ]
    import_runs(imported(tmp_path, *rows), store)
    runs = read.load_runs("seg", tracking_uri=store)
    judged, _ = inspect(runs, Question())
    assert judged["reasons"].tolist() == [["it has no performance"]] * 2
    for run_id, model in zip(runs["run_id"], runs["model"], strict=True):
        finished.write(run_id, {"performance": {"a": 0.8, "b": 0.9}[model]}, {}, store)
    found = compare(read.load_runs("seg", tracking_uri=store), Question(draws=50))
    scores = found.scores.set_index("model")
    assert scores["score"].to_dict() == {"a": 0.8, "b": 0.45}  # R is 0 and 1
    assert set(scores["energy_source"]) == {"estimated"}
    assert all("estimated" in codes for codes in scores["codes"])
    assert "energy and time are imported, not measured by pepr: CodeCarbon" in map(str, found.notes)


def test_the_model_is_named_by_the_project_or_by_the_user(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (run,) = imported(tmp_path / "own", {}, model="swin")
    assert (run.name, run.params["model"]) == ("swin", "swin")
    assert run.tags["codecarbon.project_name"] == "unet"
    with pytest.raises(WrongUse, match=r"row 3 of .* its project_name is 'codecarbon'; .*--model"):
        imported(tmp_path, {}, {"run_id": "b", "project_name": "codecarbon"})
    with pytest.raises(WrongUse, match=r"import: colour: no such parameter; .* Valid: model, dat"):
        imported(tmp_path / "own", {}, colour="red")


def test_a_file_of_an_earlier_version_has_fewer_columns(tmp_path: Path) -> None:
    columns = ["project_name", "run_id", "duration", "emissions", "energy_consumed"]
    with (tmp_path / "emissions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, [ROW[c] for c in columns]])
    ((run,), _) = codecarbon.read(tmp_path / "emissions.csv", "seg", {})
    assert ("energy/train_wh", 300.0, 0) in run.points
    assert run.tags["pepr.energy_components"] == "total=estimated"
    assert "pepr.pue" not in run.tags
    assert "pepr.hardware" not in run.tags


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"energy_consumed": float("nan")}, "row 2 of .* is incomplete; correct or delete the row"),
        (
            {"energy_consumed": float("inf")},
            "energy_consumed of row 2 of .* is 'inf', not a number",
        ),
        ({"cpu_energy": -1.0}, "cpu_energy of row 2 of .* is '-1.0', not a number from 0"),
        ({"duration": "an hour"}, "duration of row 2 of .* is 'an hour', not a number from 0"),
        ({"pue": 0.5}, "pue of row 2 of .* is '0.5', not a number from 1 to 10"),
        ({"run_id": ""}, "row 2 of .* is incomplete"),
    ],
)
def test_a_value_that_none_can_be_is_refused_with_its_row(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        imported(tmp_path, changed)


def test_two_rows_of_one_id_that_do_not_grow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"row 3 of .* has the run_id '7a29.* lower numbers"):
        imported(tmp_path, {}, {"duration": 10.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable CSV table"),
        (b"a,b\n1,2\n", "has no column run_id, duration, emissions, energy_consumed"),
        (b"run_id,duration,emissions,energy_consumed\n", "has no rows"),
        (
            b"task_name,run_id,duration,emissions,energy_consumed\nload,x,1,1,1\n",
            "has the tasks of one run; import emissions.csv instead",
        ),
        (b"run_id,duration,emissions,energy_consumed\nx,1,1,1,1\n", "more cells than its header"),
        ("run_id,project_name\nä,b\n".encode("latin-1"), "is not UTF-8 .*; save it as UTF-8"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "emissions.csv"
    path.write_bytes(content)
    with pytest.raises(WrongUse, match=message):
        codecarbon.read(path, "seg", {})
