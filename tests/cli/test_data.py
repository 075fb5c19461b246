"""`pepr data` as a person meets it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from made_data import fake_medmnist, offer

from pepr_mlops import cli


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `pepr data WORDS`."""
    with pytest.raises(SystemExit) as left:
        cli.main(["data", *words])
    captured = capfd.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def test_the_list_is_the_same_in_each_format(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "dermamnist_64.npz").touch()
    outputs = {}
    for form in ("table", "csv", "json"):
        status, outputs[form], _ = _run(
            capfd, "list", "--data-root", str(tmp_path), "--format", form
        )
        assert status == 0
    lines = outputs["table"].splitlines()
    assert len(lines) == 2 + 14
    (derma,) = [line.split() for line in lines if line.startswith("dermamnist")]
    assert derma[1:8] == ["derma", "multi-class", "7", "3", "7,007", "1,003", "2,005"]
    assert derma[8:] == ["28", "64", "128", "224", "CC", "BY-NC", "4.0", "64"]
    rows = list(csv.DictReader(io.StringIO(outputs["csv"])))
    entries = json.loads(outputs["json"])
    assert [row["name"] for row in rows] == [entry["name"] for entry in entries]
    built = [(row, entry) for row, entry in zip(rows, entries, strict=True) if row["train"]]
    assert {row["name"] for row in rows} - {row["name"] for row, _ in built} == {"lidc"}
    for row, entry in built:
        assert int(row["train"]) == entry["images"]["train"]
        assert int(row["classes"]) == len(entry["classes"])
    assert [row["on disk"] for row in rows if row["name"] == "dermamnist"] == ["64"]
    assert entries[0]["name"] == "digits"
    assert entries[0]["alias"] is None


def test_a_file_is_downloaded_once_and_its_path_is_printed(
    capfd: pytest.CaptureFixture[str],
    downloads: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(*downloads, monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    words = ["get", "derma", "--size", "28", "--data-root", str(root)]
    path = root / "dermamnist.npz"
    status, out, err = _run(capfd, *words)
    assert (status, out) == (0, f"{path}\n")
    assert "downloaded and verified" in err
    assert path.read_bytes() == (downloads[0] / "dermamnist.npz").read_bytes()
    shutil.rmtree(downloads[0])  # the second time nothing is fetched
    assert _run(capfd, *words) == (0, f"{path}\n", "already here and intact\n")
    path.write_bytes(path.read_bytes()[:-1])
    status, out, err = _run(capfd, *words)
    assert (status, out) == (2, "")
    assert f"{path} is not the file that MedMNIST publishes (MD5 " in err
    assert len(err.splitlines()) == 1


def test_offline_it_says_what_to_fetch_and_where_to_put_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, root = tmp_path / "served", tmp_path / "root"
    served.mkdir()
    root.mkdir()
    offer(served, "http://127.0.0.1:9", monkeypatch)
    status, out, err = _run(capfd, "get", "derma", "--size", "28", "--data-root", str(root))
    assert (status, out) == (1, "")
    assert "fetch http://127.0.0.1:9/dermamnist.npz elsewhere" in err
    assert f"put it at {root}/dermamnist.npz" in err


def test_digits_need_no_download(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run(capfd, "get", "digits")
    assert (status, out) == (0, "")
    assert "needs no download" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "dermaa"], "did you mean 'derma'"),
        (["get", "derma", "--size", "32"], "'32' is not one of"),
        (["get", "derma", "--data-root", "absent"], "data_root: there is no folder absent"),
        (["list", "--data-root", "absent"], "data_root: there is no folder absent"),
        (["check", "derma", "--data-root", "absent"], "data_root: there is no folder absent"),
        (["check", "derma", "--data-root", "."], "pepr data get derma --size 224"),
        (
            ["check", "absent.npz"],
            "neither a known name nor a folder, a table of images",
        ),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(capfd, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_check_fails_on_errors_and_shows_them(
    capfd: pytest.CaptureFixture[str], shapes: Path
) -> None:
    shutil.copy(shapes / "train/dark/00.png", shapes / "test/dark/leak.png")
    (shapes / "val" / "light" / "00.png").write_bytes(b"no image")
    status, out, err = _run(capfd, "check", str(shapes))
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == str(shapes)
    assert [line.split() for line in lines[4:10]] == [
        ["train", "dark", "16", "50.0"],
        ["train", "light", "16", "50.0"],
        ["val", "dark", "6", "50.0"],
        ["val", "light", "6", "50.0"],
        ["test", "dark", "9", "52.9"],
        ["test", "light", "8", "47.1"],
    ]
    assert "shapes: 60 of 20×20 grey" in lines
    at = lines.index("error: 1 of 61 files cannot be used; repair or remove them")
    assert lines[at + 1].startswith("    val/light/00.png cannot be read (UnidentifiedImageError)")
    assert lines[at + 2].startswith("error: 1 of 17 images of test are also in train")
    assert lines[at + 3] == "    test/dark/leak.png = train/dark/00.png"
    assert lines[-1] == "errors: 2, warnings: 2"  # few images in val and in test


def test_a_check_passes_with_warnings(capfd: pytest.CaptureFixture[str], shapes: Path) -> None:
    status, out, _ = _run(capfd, "check", str(shapes), "--format", "json")
    assert status == 0
    (found,) = json.loads(out)
    assert found["source"] == str(shapes)
    assert found["images"] == {"train": 32, "val": 12, "test": 16}
    assert found["counts"][0] == {"split": "train", "class": "dark", "images": 16, "share": 0.5}
    assert found["shapes"] == [{"height": 20, "width": 20, "colour": "grey", "images": 60}]
    assert [(f["severity"], f["kind"]) for f in found["findings"]] == [("warning", "few")] * 2
    assert found["findings"][0]["examples"] == ["dark (6)", "light (6)"]


def test_all_pairs_of_identical_images_are_in_a_file_and_in_json(
    capfd: pytest.CaptureFixture[str], shapes: Path, tmp_path: Path
) -> None:
    for i in range(6):
        shutil.copy(shapes / f"train/dark/{i:02d}.png", shapes / f"test/dark/copy{i}.png")
    shutil.copy(shapes / "val/dark/00.png", shapes / "val/light/=cmd.png")
    out = tmp_path / "pairs.csv"
    status, printed, err = _run(capfd, "check", str(shapes), "--out", str(out))
    assert (status, err) == (1, f"written to {out}\n")
    advice = "all 8 pairs of identical images: --out pairs.csv"
    assert advice not in printed
    assert advice in _run(capfd, "check", str(shapes))[1].splitlines()
    rows = list(csv.reader(out.open()))
    assert rows[0] == [
        *("source", "kind", "split", "path", "class"),
        *("other_split", "other_path", "other_class"),
    ]
    twice = ["val", "val/light/=cmd.png", "light", "val", "val/dark/00.png", "dark"]
    assert [row[1:] for row in rows[1:]] == [
        *(
            [
                *("leak", "test", f"test/dark/copy{i}.png", "dark"),
                *("train", f"train/dark/{i:02d}.png", "dark"),
            ]
            for i in range(6)
        ),
        ["conflict", *twice],
        ["repeat", *twice],
    ]
    assert {row[0] for row in rows[1:]} == {str(shapes)}
    _, printed, _ = _run(capfd, "check", str(shapes), "--format", "json")
    (found,) = json.loads(printed)
    assert [list(pair.values()) for pair in found["pairs"]] == [row[1:] for row in rows[1:]]
    assert list(found["pairs"][0]) == rows[0][1:]


def test_one_bad_file_in_a_folder_fails_the_check(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_medmnist(tmp_path, "breastmnist", 28, monkeypatch, n=20)
    assert _run(capfd, "check", str(tmp_path))[0] == 0
    (tmp_path / "mine.npz").write_bytes(b"x")
    status, out, _ = _run(capfd, "check", str(tmp_path))
    assert status == 1
    assert [line for line in out.splitlines() if line.startswith("errors")] == [
        "errors: 0, warnings: 0",
        "errors: 1, warnings: 0",
    ]
