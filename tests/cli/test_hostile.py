"""Whatever runs are called, what is printed and written of them is only text."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from made import logged, run

from pepr_mlops.cli import main

EXPERIMENT = "../x'<b> `id` \x1b]0;owned\x07"
SHOWN = r"../x'<b> `id` \x1b]0;owned\x07"
NAMES = {  # as they are logged and as they are shown
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    '=HYPERLINK("http://e")': '=HYPERLINK("http://e")',
    r"\input{/etc/passwd}": r"\input{/etc/passwd}",
    "[9cm] | [x](javascript:y)": "[9cm] | [x](javascript:y)",
    "a\nb\x1b[2J\x9b": r"a\nb\x1b[2J\x9b",
    "\u202egnp.exe\u2028": r"\u202egnp.exe\u2028",
}
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(store: str) -> str:
    for i, name in enumerate(NAMES):
        tags = {"pepr.experiment": EXPERIMENT, "pepr.gpu_other_processes": name}
        logged(
            store, run(name, performance=0.6 + i / 20, energy_wh=10.0 + i, tags=tags), EXPERIMENT
        )
    return store


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--experiment", EXPERIMENT])
    assert exit_.value.code in (0, None)
    out, err = capfd.readouterr()
    assert not STEERING.search(out + err)
    return out, err


def test_nothing_that_is_printed_steers_a_terminal(
    capfd: pytest.CaptureFixture[str], hostile: str
) -> None:
    _run(capfd, "select", "--max", "energy_wh=99")
    table, _ = _run(capfd, "runs", "--all")
    assert SHOWN in table
    assert r"\u202egnp.exe" in table
    assert len(table.splitlines()) == 2 + len(NAMES)
    with pytest.raises(SystemExit):
        main(["score", "--experiment", EXPERIMENT[:-1]])
    printed = capfd.readouterr().err
    assert SHOWN in printed  # among the valid names
    assert not STEERING.search(printed)


def test_a_name_is_unchanged_in_every_format(
    capfd: pytest.CaptureFixture[str], hostile: str
) -> None:
    found = json.loads(_run(capfd, "score", "--format", "json")[0])
    assert {row["model"] for row in found} == set(NAMES.values())
    rows = list(csv.DictReader(io.StringIO(_run(capfd, "score", "--format", "csv")[0])))
    assert {row["model"] for row in rows} == {
        "'" + name if name.startswith("=") else name for name in NAMES.values()
    }
    latex, _ = _run(capfd, "score", "--format", "latex")
    assert r"\textbackslash{}input\{/etc/passwd\}" in latex
    assert "\\input" not in latex
    assert latex.startswith("% ../x")
    markdown, _ = _run(capfd, "score", "--format", "markdown")
    assert r"\[9cm\] \| \[x\](javascript:y)" in markdown
    assert "<script" not in markdown
    assert markdown.startswith(r"../x'&lt;b&gt; \`id\` \\x1b\]0;owned")


def test_files_of_a_report_stay_in_their_folder(
    capfd: pytest.CaptureFixture[str], hostile: str, tmp_path: Path
) -> None:
    _run(capfd, "report", "--format", "html,csv,latex,markdown", "--plotlyjs", "directory")
    written = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    page = Path("pepr-report-x_b_id_0_owned.html")
    assert page in written
    assert {p.parts[0] for p in written} == {
        "mlflow.db", str(page), "plotly.min.js", page.stem}  # fmt: skip
    for path in written - {Path("mlflow.db"), Path("plotly.min.js")}:
        text = path.read_text(encoding="utf-8")
        assert not STEERING.search(text), path
        if path.suffix == ".csv":
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [c for c in cells if c.startswith(("=", "+", "@"))], path
    ranking = (tmp_path / page.stem / "01-ranking.tex").read_text()
    assert "\\input" not in ranking
    assert not re.search(r"(?m)^\s*\[", (tmp_path / page.stem / "02-plane.tex").read_text())
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "x'<b>" not in text


def test_a_folder_of_images_cannot_write_its_own_verdict(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        for name in ("a\nerrors: 0, warnings: 0\x1b]0;owned\x07", "\u202eb"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            (folder / "1\x1b[2J.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", str(tmp_path / "images")])
    assert exit_.value.code == 1
    out, err = capfd.readouterr()
    assert not STEERING.search(out + err)
    assert "errors: 0, warnings: 0" not in out.splitlines()
    assert r"train/a\nerrors: 0, warnings: 0\x1b]0;owned\x07/1\x1b[2J.png" in out
