"""The tutorial is a notebook whose cells run, and print what the page shows."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT
from markdown_it import MarkdownIt
from nbclient import NotebookClient

PAGE = ROOT / "docs" / "tutorial.md"


def test_the_tutorial_runs_from_images_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder, as a newcomer; a minute on one core."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where other jobs of this machine have no lock
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("PEPR_CHECKPOINTS", "PEPR_MODELS", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = jupytext.read(PAGE)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    described, trained, _, selected, reported, *_ = (
        "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell.source.startswith("%%bash\n")
    )

    # What depends on no processor is as on the page.
    fences = [token for token in MarkdownIt().parse(PAGE.read_text()) if token.type == "fence"]
    shown = next(fence.content for fence in fences if not fence.info)
    assert described == shown
    assert trained.count(" done ") == 3

    # The chosen model is the one that is exported.
    chosen = re.search(r"^(test_\w+) is good enough", selected, re.MULTILINE)
    assert chosen, selected
    assert json.loads((folder / "exported" / "model.json").read_text())["model"] == chosen[1]
    assert f"{chosen[1]} is good enough" in reported
    assert (folder / "report.html").stat().st_size > 500_000  # with plotly.js

    # Scikit-learn has 183 images of the digit 3; a good model knows most of them.
    with (folder / "predictions.csv").open() as file:
        classes = Counter(row["class"] for row in csv.DictReader(file))
    assert classes.total() == 183
    assert classes["3"] > 0.8 * 183
