"""`pepr report` and `pepr-report`: the page, images and tables of stores."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made import logged, run

from pepr_mlops.cli import main


def _run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(words))
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


@pytest.fixture
def derma(store: str) -> str:
    for model, p, e in (("a", 0.6, 10.0), ("b", 0.8, 20.0), ("c", 0.9, 50.0)):
        points = [
            (name, value * step / 2, step)
            for step in (1, 2)
            for name, value in (("performance", p), ("energy/train_wh", e))
        ]
        made = run(model, performance=p, energy_wh=e)
        points += [(k, v, 2) for k, v in made["metrics"].items() if "energy" not in k]
        logged(store, {**made, "points": points})
    return store


def test_a_page_and_the_answer_as_select_gives_it(
    capfd: pytest.CaptureFixture[str], derma: str, tmp_path: Path
) -> None:
    terms = ["--margin", "0.15", "--decide-on", "test", "--confidence", "0.9"]
    status, out, _ = _run(capfd, "report", "--experiment", "derma", *terms)
    assert status == 0
    path, verdict, performance, *rest = out.strip().splitlines()
    assert path == "pepr-report-derma.html"
    assert verdict.startswith("b is good enough: with 90% confidence its accuracy is at most 15 ")
    assert performance.startswith("b reaches 80% accuracy on the test set (95%: ")
    assert performance.endswith(") for 20 Wh of training energy.")
    _, selected, _ = _run(capfd, "select", "--experiment", "derma", *terms)
    for line in (verdict, *rest):
        assert line in selected, line
    page = Path(path).read_text()
    assert f"pepr report --experiment derma {' '.join(terms)}" in page
    assert verdict in page
    assert 700_000 < len(page) < 1_200_000  # plotly.js is in it, compressed


def test_tables_and_plotly_are_written_next_to_the_page(
    capfd: pytest.CaptureFixture[str], derma: str, tmp_path: Path
) -> None:
    words = ["--format", "html,csv,latex,markdown", "--plotlyjs", "directory", "--out", "x/r.html"]
    status, _, _ = _run(capfd, "report", "--experiment", "derma", "--dashboard", "budget", *words)
    assert status == 0
    assert Path("x/r.html").stat().st_size < 300_000
    assert Path("x/plotly.min.js").stat().st_size > 1_400_000
    plane = pd.read_csv("x/r/01-plane.csv").set_index("label")
    assert plane["cost"].to_dict() == {"a": 10, "b": 20, "c": 50}
    ranking = pd.read_csv("x/r/02-ranking.csv").set_index("model")
    assert ranking.loc["b", "score"] == pytest.approx(0.8 / 1.25)
    latex = Path("x/r/02-ranking.tex").read_text()
    assert latex.startswith("\\begin{tabular}")
    assert "E (Wh)" in latex
    assert "| b " in Path("x/r/02-ranking.md").read_text()


def test_an_experiment_whose_name_is_no_file_name_is_reported(
    capfd: pytest.CaptureFixture[str], store: str, tmp_path: Path
) -> None:
    name = "../<script>alert(1)</script> ü"
    for model in ("a", "b"):
        logged(store, run(model, tags={"pepr.experiment": name}), name)
    status, out, _ = _run(capfd, "report", "--experiment", name)
    assert status == 0
    path = Path(out.splitlines()[0])
    assert path.parent == Path()
    assert path.name.startswith("pepr-report-")
    assert "<script>alert(1)" not in path.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "docx"], "format: 'docx' is not one of html, png, svg, pdf, csv"),
        (["--dashboard", "nope"], "dashboard: 'nope' is neither a file"),
        (["--out", "file/page.html"], "out: file/page.html cannot be written"),
        (["--publications", "nowhere"], "regions_papers_data_2013.csv"),
        (["--resource", "Z"], "Z: no run has such a number"),
        (["--margin", "2"], "margin: 2 is not between 0 and 1; write 0.01 for one point"),
        (["--decide-on", "val"], "3 of 3 runs have no val/accuracy on validation; choose"),
    ],
)
def test_mistakes_are_one_line(
    capfd: pytest.CaptureFixture[str], derma: str, words: list[str], message: str
) -> None:
    Path("file").write_text("in the way")
    status, out, err = _run(capfd, "report", "--experiment", "derma", *words)
    assert status in (1, 2)
    assert out == ""
    assert message in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_a_dashboard_may_show_other_experiments_and_resources(
    capfd: pytest.CaptureFixture[str], derma: str
) -> None:
    logged(derma, run("a", tags={"pepr.experiment": "old"}, status="FAILED"), "old")
    Path("own.toml").write_text(
        'resources = ["M"]\n[experiments.old]\n[experiments.absent]\n[[figure]]\nkind = "plane"\n'
    )
    status, out, err = _run(capfd, "report", "--experiment", "derma", "--dashboard", "own.toml")
    assert status == 0
    assert "PePR-M" in out
    assert "absent is not on this server, so it is not shown" in err
    assert "old is not shown: no run can be compared" in err
    _, out, _ = _run(
        capfd, "report", "--experiment", "derma", "--dashboard", "own.toml", "--resource", "E"
    )
    assert "PePR-E" in out


def test_runs_that_differ_are_groups_of_one_page(
    capfd: pytest.CaptureFixture[str], derma: str
) -> None:
    logged(derma, run("d", pretrained=False))
    status, out, err = _run(capfd, "report", "--experiment", "derma")
    assert status == 0
    assert "\nderma [pretrained=true]\nc is good enough: " in out
    assert "\nderma [pretrained=false]\n" in out
    assert out.index("[pretrained=true]") < out.index("[pretrained=false]")
    assert "note: The runs of derma differ in pretraining, so that each group" in err
    assert _run(capfd, "score", "--experiment", "derma")[0] == 2


def test_one_run_is_a_page(capfd: pytest.CaptureFixture[str], store: str) -> None:
    logged(store, run("a"))
    status, out, _ = _run(capfd, "report", "--experiment", "derma")
    assert status == 0
    assert out.startswith("pepr-report-derma.html\na is the only model, so there is nothing ")


def test_doubts_are_notes(capfd: pytest.CaptureFixture[str], store: str) -> None:
    for model, energy in (("a", 10.0), ("b", 20.0)):
        logged(store, run(model, energy_wh=energy, tags={"pepr.energy_source": "estimated"}))
    _, _, err = _run(capfd, "report", "--experiment", "derma")
    estimated = (
        "note: The training energy of both runs is estimated, off by up to 40% in a published"
    )
    assert estimated in err


def test_a_price_has_a_currency(capfd: pytest.CaptureFixture[str], derma: str) -> None:
    words = ["report", "--experiment", "derma", "--price-per-kwh"]
    assert _run(capfd, *words, "0.30€")[0] == 0
    assert '"price":0.3,"currency":"€"' in Path("pepr-report-derma.html").read_text()
    status, _, err = _run(capfd, *words, "0.30")
    assert status == 2
    assert "price_per_kwh: '0.30' is not a number and its currency, such as 0.30€" in err


def test_the_short_command_is_the_same(derma: str) -> None:
    script = shutil.which("pepr-report", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run(
        [script, "--experiment", "derma", "--tracking-uri", derma], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pepr-report-derma.html\nc is good enough: ")


def test_the_papers_dashboard_on_its_own_data(
    capfd: pytest.CaptureFixture[str], paper_store: str, paper_results: Path, tmp_path: Path
) -> None:
    words = ["--dashboard", "paper", "--publications", str(paper_results), "--format", "html,csv"]
    words += ["--tracking-uri", paper_store, "--out", str(tmp_path / "paper.html")]
    status, out, _ = _run(capfd, "report", "--experiment", "derma_pt", *words)
    assert status == 0
    assert "PePR-E ranks ghostnet_100 first" in out
    assert "edgenext_base, the model with the best accuracy, reaches 8" in out
    folder = tmp_path / "paper"
    kinds = [p.stem.split("-")[1] for p in sorted(folder.iterdir())]
    assert kinds == [
        *("publications", "plane", "curves", "space", "conditions", "conditions", "categories"),
        *("ranking", "sensitivity", "sizes", "categories", "energy"),
    ]
    table_1 = pd.read_csv(next(folder.glob("*-ranking.csv"))).head(5)
    assert table_1["score"].tolist() == pytest.approx(
        [0.8027, 0.7992, 0.7950, 0.7916, 0.7889], abs=1e-4
    )
    assert "imagenet is not on this server" in (tmp_path / "paper.html").read_text()
