"""Anyone's table becomes runs, by a mapping of our names to its columns and their units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pepr_mlops import cli
from pepr_mlops.comparison import Question, compare, inspect
from pepr_mlops.errors import WrongUse
from pepr_mlops.imports import csv_table
from pepr_mlops.imports.files import FinishedRun
from pepr_mlops.tracking import import_runs, read

TABLE = """Model,acc,dice,Energy,time: h,Memory,GPU,Seed
unet,80,0.8,0.5,2,16,A100,0
swin,90,,1.5,3,32,A100,0
vit,57,0.7,,1,8,A100,1
"""
WORDS = (
    *("model=Model", "test/accuracy=acc:%", "energy_wh=Energy:kWh", "train_time_s=time: h:h"),
    *("memory/reserved_gb=Memory:GiB", "hardware=GPU", "seed=Seed"),
)


def imported(
    folder: Path, words: Sequence[str] = WORDS, text: str = TABLE, **given: str
) -> list[FinishedRun]:
    (folder / "results.csv").write_text(text)
    return csv_table.read(folder / "results.csv", "seg", given, words)[0]


def test_columns_become_our_names_in_our_units(tmp_path: Path) -> None:
    unet, _, vit = imported(tmp_path, dataset="derma")
    assert {name: value for name, value, _ in unet.points} == {
        "test/accuracy": 0.8,
        "performance": 0.8,
        "energy/train_wh": 500.0,
        "time/train_s": 7200.0,
        "memory/reserved_gb": 17.179869184,
    }
    assert unet.params == {"model": "unet", "seed": "0", "dataset": "derma"}
    assert unet.tags == {
        "pepr.experiment": "seg",
        "pepr.performance": "test/accuracy",
        "pepr.memory": "memory/reserved_gb",
        "pepr.energy_source": "imported",
        "pepr.energy_components": "total=imported",
        "pepr.hardware": "A100",
    }
    assert unet.source == "table results.csv"
    assert vit.tags["pepr.energy_source"] == "none"
    assert "energy/train_wh" not in {name for name, *_ in vit.points}


def test_they_are_scored_and_flagged_with_others(store: str, tmp_path: Path) -> None:
    runs = imported(tmp_path, text=TABLE.replace("0.5,2", "0.5,0.001"))
    assert import_runs(runs, store) == 3
    assert import_runs(imported(tmp_path, text=TABLE.replace("0.5,2", "0.5,0.001")), store) == 0
    found = read.load_runs("seg", tracking_uri=store)
    scores = compare(found, Question(draws=50)).scores.set_index("model")
    assert scores["score"].to_dict() == {"unet": 0.8, "swin": 0.45}
    assert scores["codes"].to_dict() == {"unet": ["doubtful_import"], "swin": []}
    judged, _ = inspect(found, Question())
    texts = dict(zip(judged["model"], judged["reasons"] + judged["flags"], strict=True))
    assert texts["vit"] == ["it has no energy_wh"]
    assert "its energy means 500,000 W over its training time" in texts["unet"][0]


def test_a_performance_that_we_have_no_name_for_is_performance(tmp_path: Path) -> None:
    runs = imported(tmp_path, ("model=Model", "performance=dice", "train_time_s=time: h:h"))
    assert [{n: v for n, v, _ in r.points}.get("performance") for r in runs] == [
        0.8,
        None,
        0.7,
    ]
    assert runs[0].tags["pepr.performance"] == "performance"


def test_parts_of_the_energy_are_its_components(tmp_path: Path) -> None:
    text = "m,gpu,cpu\na,3600,1800\n"
    words = ("model=m", "energy/train_gpu_wh=gpu:J", "energy/train_cpu_wh=cpu:J")
    (run,) = imported(tmp_path, words, text)
    assert run.points == (("energy/train_gpu_wh", 1.0, 0), ("energy/train_cpu_wh", 0.5, 0))
    assert run.tags["pepr.energy_source"] == "none"  # the sum is not known
    assert run.tags["pepr.energy_components"] == "gpu=imported,cpu=imported"


def test_an_id_separates_equal_rows_and_stays_when_a_table_grows(
    store: str, tmp_path: Path
) -> None:
    text, words = "m,e,n\na,1,x\na,1,y\n", ("model=m", "energy_wh=e", "id=n")
    assert import_runs(imported(tmp_path, words, text), store) == 2
    assert import_runs(imported(tmp_path, words, text + "a,1,z\n"), store) == 1
    with pytest.raises(WrongUse, match=r"row 3 of .* is the same run as row 2; map a column"):
        imported(tmp_path, words[:2], text)
    with pytest.raises(WrongUse, match=r"row 3 of .* is the same run as row 2"):
        imported(tmp_path, words, text.replace("y", "x"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model",), "map: 'model' is not NAME=COLUMN or NAME=COLUMN:UNIT"),
        (("modl=Model",), r"map: 'modl' is not a name of ours; did you mean 'model'\? Valid: id, "),
        (("model=Modl",), r"has no column 'Modl'; did you mean 'Model'\? It has: Model, acc, dice"),
        (("model=Model", "energy_wh=Energy:kW"), "unit: 'kW' is none of Wh; did you mean 'kWh'"),
        (("model=Model", "energy_wh=Energy:h"), "unit: 'h' is none of Wh"),
        (("model=Model:kWh",), "map: model has no unit; leave out 'kWh'"),
        (("energy_wh=Energy",), "no column is the model; add --map model=COLUMN or --model NAME"),
        (("model=Model", "energy_wh=Energy", "energy/train_wh=acc"), "train_wh is mapped twice"),
        (
            ("model=Model", "test/accuracy=acc"),
            r"acc of row 2 .* is '80', not a number from 0 to 1",
        ),
        (("model=Model", "test/accuracy=acc"), "if it is in per cent, --map test/accuracy=acc:%"),
        (("model=Model", "test/accuracy=dice:%"), "no dice of .* is above 1%; .*accuracy=dice:1"),
        (("model=Model", "compile=Seed"), "'compile' is not a name of ours"),
        (("model=Model", "energy_wh=GPU:kWh"), "GPU of row 2 of .* is 'A100', not a number"),
        (("model=Model", "epochs=GPU"), "import: row 2 of .*: epochs: .*'A100'"),
    ],
)
def test_wrong_mappings_name_what_is_valid(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        imported(tmp_path, words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,e\n,1\n", "row 2 of .* has no model; name it, or delete the row"),
        ("m,e\na,\n", "row 2 of .* has no number of what is mapped; delete the row"),
        ("m,e\na,0\n", "e of row 2 of .* is '0', not a number from 1e-12.*leave the cell empty"),
        ("m,e\na,1\nb,-1\n", "e of row 3 of .* is '-1', not a number"),
        ("m,e\na,nan\n", "e of row 2 of .* is 'nan', not a number"),
        ("m,e\na,inf\n", "e of row 2 of .* is 'inf', not a number"),
        ('m,e\na,"1,234"\n', "e of row 2 of .* is '1,234', not a number"),  # German for 1.234
        ("m,e,e\na,1,2\n", "has two columns 'e'; rename or delete one"),
        ("m,e\na,much\n", "e of row 2 of .* is 'much', not a number"),
        ("m,e\na,0,5\n", "the rows of .* have more cells than its header"),
        ("m,e\n", "has no rows"),
        ("", "is not a readable CSV table"),
        ("m;e\na;1\n", "has no column 'm'.* It has: m;e"),
    ],
)
def test_bad_rows_are_refused_with_their_number(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        imported(tmp_path, ("model=m", "energy_wh=e"), text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"there is no none.csv in"):
        csv_table.read(tmp_path / "none.csv", "seg", {}, ("model=m",))


def test_the_command_imports_a_table_once(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.csv").write_text(TABLE)
    words = ["import", "csv", str(tmp_path / "results.csv"), "--experiment", "seg"]
    words += ["--param", "dataset=derma", *(part for word in WORDS for part in ("--map", word))]
    for line in ("3 runs imported, 0 existed", "0 runs imported, 3 existed"):
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
        assert capfd.readouterr().out == f"{line}; experiments: seg\n"
    assert set(read.load_runs("seg", tracking_uri=store)["dataset"]) == {"derma"}
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--param", "derma"])
    assert "param: 'derma' is not NAME=VALUE, such as dataset=derma" in capfd.readouterr().err
