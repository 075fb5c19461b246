"""Runs in the formats of others: read back by CodeCarbon's code, valid by BoAmps' schemas."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from codecarbon.output_methods.emissions_data import EmissionsData
from codecarbon.output_methods.file import FileOutput
from jsonschema import Draft4Validator
from made import frame, logged, run
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from pepr_mlops import cli
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import codecarbon, csv_table
from pepr_mlops.report.formats import boamps
from pepr_mlops.report.formats.codecarbon import rows
from pepr_mlops.tracking import import_runs, read

SCHEMAS = Path(__file__).parent / "boamps"
MADE = "2026-11-30 12:00:00"

OURS = run(
    "resnet18d",
    country="DNK",
    pue=1.2,
    epochs=3,
    energy_wh=20.0,
    train_time_s=360.0,
    metrics={
        "energy/train_gpu_wh": 15.0,
        "energy/train_cpu_wh": 5.0,
        "carbon/train_gco2e": 2.4,
    },
    tags={
        "pepr.energy_method": "Zeus 0.16.0",
        "pepr.gpu": "NVIDIA H100",
        "pepr.cpu": "AMD EPYC 9354",
        "pepr.cpu_count": "32",
        "pepr.ram_gb": "64.0",
        "pepr.os": "Linux-6.18",
        "pepr.version.python": "3.11.7",
        "pepr.version.torch": "2.15.0",
        "pepr.carbon_intensity_g_per_kwh": "100",
        "pepr.carbon_source": "Denmark 2024",
        "pepr.pue": "1.2",
    },
)
# An hour of which CodeCarbon read 250, 30 and 20 W after a PUE of 1.5.
THEIRS = EmissionsData(
    timestamp="2026-05-04T10:00:00",
    project_name="unet",
    run_id="7a299f2a-c2a9-4df2-8138-3505dd3cd0cc",
    experiment_id="5b0fa12a-3dd7-45bb-9766-cc326314d9f1",
    duration=3600.5,
    emissions=0.0303,
    emissions_rate=0.0303 / 3600.5,
    cpu_power=30.0123456,
    gpu_power=250.0,
    ram_power=20.0,
    cpu_energy=0.03,
    gpu_energy=0.25,
    ram_energy=0.02,
    energy_consumed=0.3,
    water_consumed=0.125,
    country_name="Denmark",
    country_iso_code="DNK",
    region="capital",
    cloud_provider="aws",
    cloud_region="eu-north-1",
    os="Linux-6.18",
    python_version="3.11.7",
    codecarbon_version="3.3.2",
    cpu_count=32,
    cpu_model="AMD EPYC 9354",
    gpu_count=1,
    gpu_model="1 x NVIDIA A100",
    longitude=-12.5,
    latitude=55.7,
    ram_total_size=23.540584564208984,
    tracking_mode="machine",
    cpu_utilization_percent=49.9,
    gpu_utilization_percent=80.0,
    ram_utilization_percent=9.399999999999999,
    ram_used_gb=2.2121505737304688,
    on_cloud="Y",
    pue=1.5,
    wue=1.25,
)


def _pepr(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pepr WORDS`."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    captured = capfd.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def _read_back(path: Path) -> list[EmissionsData]:
    """The rows of a file as CodeCarbon's own data; numbers as numbers, None where empty."""
    assert FileOutput(path.name, str(path.parent)).has_valid_headers(THEIRS)
    numbers = {f.name for f in fields(EmissionsData) if f.type is not str}
    with path.open(newline="") as file:
        return [
            EmissionsData(
                **{k: float(v) if k in numbers and v else v or None for k, v in row.items()}  # type: ignore[arg-type]
            )
            for row in csv.DictReader(file)
        ]


def test_a_run_of_ours_as_a_row_of_codecarbon() -> None:
    (row,) = rows(frame([OURS]))
    assert list(row) == [f.name for f in fields(EmissionsData)]
    known = {column: value for column, value in row.items() if value is not None}
    assert known == pytest.approx(
        {
            "project_name": "resnet18d",
            "run_id": "run0",
            "duration": 360.0,
            "emissions": 0.0024,
            "emissions_rate": 0.0024 / 360,
            "cpu_energy": 0.006,  # kWh, with the PUE
            "gpu_energy": 0.018,
            "energy_consumed": 0.024,
            "country_iso_code": "DNK",
            "os": "Linux-6.18",
            "python_version": "3.11.7",
            "cpu_count": 32.0,
            "cpu_model": "AMD EPYC 9354",
            "gpu_model": "NVIDIA H100",
            "ram_total_size": 64e9 / 2**30,
            "pue": 1.2,
        }
    )


def test_codecarbon_names_its_version_only_where_its_model_made_the_numbers() -> None:
    method = "CodeCarbon 3.3.2 model: CPU AMD, 8 W at full load"
    tags = {"pepr.energy_source": "estimated", "pepr.energy_method": method}
    (row,) = rows(frame([run(tags=tags)]))
    assert row["codecarbon_version"] == "3.3.2"


def test_an_energy_that_was_lost_is_empty() -> None:
    (row,) = rows(frame([run(tags={"pepr.energy_source": "lost"})]))
    assert row["energy_consumed"] is None
    assert row["duration"] == 360.0


def test_from_codecarbon_and_back_nothing_is_lost(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    FileOutput("emissions.csv", str(tmp_path)).out(THEIRS, None)
    status, out, _ = _pepr(
        capfd, "import", "codecarbon", str(tmp_path / "emissions.csv"), "--experiment", "seg"
    )
    assert (status, out) == (0, "1 runs imported, 0 existed; experiments: seg\n")
    back = tmp_path / "back.csv"
    words = ("--experiment", "seg", "--format", "codecarbon", "--out", str(back))
    assert _pepr(capfd, "runs", *words)[0] == 0
    (found,) = _read_back(back)
    for name, value in THEIRS.values.items():
        is_text = isinstance(value, str)
        same = value if is_text else pytest.approx(value, rel=1e-14)
        assert getattr(found, name) == same, name
    # CodeCarbon itself appends to the file, as to its own
    FileOutput("back.csv", str(tmp_path)).out(THEIRS, None)
    assert len(pd.read_csv(back)) == 2
    assert os.listdir(tmp_path).count("back.csv.bak") == 0


def test_a_run_of_ours_to_codecarbon_and_back_loses_nothing(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = logged(store, OURS)
    path = tmp_path / "emissions.csv"
    words = ("--experiment", "derma", "--format", "codecarbon", "--out", str(path))
    assert _pepr(capfd, "runs", *words)[0] == 0
    (row,) = _read_back(path)
    assert (row.run_id, row.timestamp) == (run_id, "2026-09-21T14:13:20")
    import_runs(codecarbon.read(path, "again", {"dataset": "derma"})[0], store)
    ours = read.load_runs("derma", tracking_uri=store).iloc[0]
    again = read.load_runs("again", tracking_uri=store).iloc[0]
    numbers = [
        *("energy_wh", "carbon_gco2e", "train_time_s", "pue", "carbon_intensity_g_per_kwh"),
        *("metrics.energy/train_gpu_wh", "metrics.energy/train_cpu_wh", "cpu_count"),
    ]
    assert again[numbers].to_dict() == pytest.approx(ours[numbers].to_dict(), rel=1e-9)
    texts = ["model", "country", "hardware", "tags.pepr.cpu", "tags.pepr.os", "tags.pepr.gpu"]
    assert again[texts].to_dict() == ours[texts].to_dict()
    assert float(again["tags.pepr.ram_gb"]) == pytest.approx(64.0)
    # it was measured; the file cannot say so
    assert (ours["energy_source"], again["energy_source"]) == ("measured", "estimated")


def test_a_table_written_by_us_and_read_again_loses_nothing(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import_runs(
        csv_table.read(
            _table(tmp_path, "m,acc,e,t,g,s\na,81.25,0.5,2,A100,3\n"),
            "first",
            {"dataset": "derma", "epochs": "10"},
            [
                *("model=m", "seed=s", "hardware=g", "test/accuracy=acc:%"),
                *("energy_wh=e:kWh", "train_time_s=t:h"),
            ],
        )[0],
        store,
    )
    names = ["model", "dataset", "epochs", "seed", "hardware", "energy_wh", "train_time_s"]
    first = read.load_runs("first", tracking_uri=store)
    text = first[[*names, "metrics.test/accuracy"]].to_csv(index=False)
    words = [f"{name}={name}" for name in names] + ["test/accuracy=metrics.test/accuracy"]
    import_runs(csv_table.read(_table(tmp_path, text), "second", {}, words)[0], store)
    second = read.load_runs("second", tracking_uri=store)
    columns = [*names, "performance", "performance_metric", "energy_source", "energy_components"]
    pd.testing.assert_frame_equal(first[columns], second[columns])


def _table(folder: Path, text: str) -> Path:
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def _errors(report: dict[str, Any]) -> list[str]:
    """What the schemas of BoAmps say against a report."""
    schemas = [json.loads(path.read_text()) for path in SCHEMAS.glob("*_schema.json")]
    resources = [(s["id"], Resource(contents=s, specification=DRAFT4)) for s in schemas]
    main = next(s for s in schemas if s["title"] == "report")
    validator = Draft4Validator(main, registry=Registry().with_resources(resources))
    return [error.message for error in validator.iter_errors(report)]


def _report(made: dict[str, Any], **given: str) -> dict[str, Any]:
    found, notes = boamps.reports(frame([made]), {"infraType": "onPremise", **given}, MADE)
    assert notes == []
    report = json.loads(json.dumps(found["run0"], default=float))
    assert _errors(report) == []
    return dict(report)


def test_the_schemas_refuse_what_lacks_a_required_field() -> None:
    report = _report(OURS)
    del report["measures"][0]["powerConsumption"]
    report["infrastructure"]["infraType"] = "attic"
    assert len(_errors(report)) == 2


def test_a_run_of_ours_as_a_report_of_boamps() -> None:
    report = _report(OURS)
    assert report == {
        "header": {
            "formatVersionSpecificationUri": "https://github.com/Boavizta/BoAmps/tree/main/model",
            "reportId": "run0",
            "reportDatetime": MADE,
        },
        "task": {
            "taskStage": "finetuning",
            "taskFamily": "image classification",
            "algorithms": [
                {
                    "trainingType": "supervisedLearning",
                    "algorithmType": "neural network",
                    "algorithmName": "resnet18d",
                    "parametersNumber": pytest.approx(0.011708744),
                    "framework": "pytorch",
                    "frameworkVersion": "2.15.0",
                    "epochsNumber": 3,
                    "optimizer": "adam",
                    "quantization": "fp32",
                }
            ],
            "dataset": [{"dataUsage": "input", "dataType": "image"}],
            "measuredAccuracy": 0.8,
            "taskDescription": "Training of resnet18d on derma. The energy is that of the machine "
            "in training, without evaluation and without the PUE of 1.2; it is measured.",
        },
        "measures": [
            {
                "measurementMethod": "Zeus 0.16.0 (measured)",
                "cpuTrackingMode": "measured",
                "gpuTrackingMode": "measured",
                "powerConsumption": pytest.approx(0.02),
                "measurementDuration": 360.0,
                "measurementDateTime": "2026-09-21 14:13:20",
            }
        ],
        "system": {"os": "Linux-6.18"},
        "software": {"language": "python", "version": "3.11.7"},
        "infrastructure": {
            "infraType": "onPremise",
            "components": [
                {"componentName": "NVIDIA H100", "componentType": "gpu", "nbComponent": 1},
                {"componentName": "AMD EPYC 9354", "componentType": "cpu", "nbComponent": 32},
                {"componentType": "ram", "nbComponent": 1, "memorySize": 64.0},
            ],
        },
        "environment": {"country": "DNK", "powerSourceCarbonIntensity": 100.0},
        "quality": "high",
    }


def test_an_estimate_says_so_and_what_is_not_known_is_left_out() -> None:
    tags = {"pepr.energy_source": "estimated", "pepr.energy_components": "cpu=estimated"}
    report = _report(run(pretrained=False, tags=tags))
    assert report["task"]["taskStage"] == "training"
    (measure,) = report["measures"]
    assert measure["cpuTrackingMode"] == "estimated"
    assert measure["measurementMethod"] == "not known (estimated)"
    assert report["quality"] == "low"
    assert "environment" not in report
    assert "system" not in report


def test_epochs_are_those_that_were_trained() -> None:
    early = "validation loss did not fall for 3 epochs: 7 of 10 epochs trained"
    for tags, epochs in ({"pepr.early_stop": early}, 7), ({"pepr.stopped": "in epoch 2"}, None):
        (algorithm,) = _report(run(epochs=10, tags=tags))["task"]["algorithms"]
        assert algorithm.get("epochsNumber") == epochs


def test_a_run_without_energy_has_no_report() -> None:
    two = frame([OURS, run(energy_wh=None)])
    found, notes = boamps.reports(two, {"infraType": "onPremise"}, MADE)
    assert list(found) == ["run0"]
    assert notes == ["1 of 2 runs have no report: it requires an energy and the hardware"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "run run0 does not say its infraType, .* add --boamps infraType=onPremise"),
        ({"infraType": "onpremise"}, "infraType cannot be 'onpremise'; did you mean 'onPremise'"),
        ({"infra": "other"}, r"'infra' is not one.* Valid: infraType, taskFamily, dataType"),
        ({"infraType": "other", "taskFamily": ""}, "taskFamily cannot be ''"),
    ],
)
def test_what_a_run_cannot_know_is_to_be_given(given: dict[str, str], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        boamps.reports(frame([OURS]), given, MADE)


def test_reports_of_imported_runs_are_valid_too(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    FileOutput("emissions.csv", str(tmp_path)).out(THEIRS, None)
    import_runs(codecarbon.read(tmp_path / "emissions.csv", "seg", {})[0], store)
    words = ["runs", "--experiment", "seg", "--format", "boamps", "--boamps", "infraType=other"]
    status, _, err = _pepr(capfd, *words)
    assert status == 2
    assert "does not say its taskFamily, which BoAmps requires; add --boamps taskFamily=" in err
    words += ["--boamps", "taskFamily=image segmentation", "--boamps", "dataType=image"]
    status, out, _ = _pepr(capfd, *words)
    assert status == 0
    (report,) = json.loads(out)
    assert _errors(report) == []
    assert report["measures"][0] == {
        "measurementMethod": "CodeCarbon 3.3.2 (estimated)",
        "cpuTrackingMode": "estimated",
        "gpuTrackingMode": "imported",
        "powerConsumption": pytest.approx(0.2),
        "measurementDuration": 3600.5,
    }
    assert report["environment"]["powerSourceCarbonIntensity"] == pytest.approx(101.0)
    assert _pepr(capfd, *words, "--out", str(tmp_path / "reports"))[0] == 0
    (path,) = (tmp_path / "reports").iterdir()
    assert json.loads(path.read_text())["measures"] == report["measures"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--boamps", "infraType=other"], 2, "boamps: it describes reports; add --format boamps"),
        (["--format", "codecarbon", "--country", "DNK"], 2, "has the CO2e that was logged"),
        (["--format", "boamps", "--boamps", "other"], 2, "boamps: 'other' is not NAME=VALUE"),
        (["--format", "codecarbon", "--strict"], 1, "runs: none is left to write"),
    ],
)
def test_wrong_use_is_one_line(
    store: str,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    message: str,
) -> None:
    logged(store, run(tags={"pepr.energy_source": "estimated"}))
    found, out, err = _pepr(capfd, "runs", "--experiment", "derma", *words)
    assert (found, out) == (status, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
