"""Reading and drawing once for all pages, and outliving the server's troubles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from made import logged, run

from pepr_mlops.errors import WrongUse
from pepr_mlops.live.view import View
from pepr_mlops.live.watch import Shown, Watch
from pepr_mlops.report import sources
from pepr_mlops.report.dashboards import parse
from pepr_mlops.tracking import read

BOARD = parse({"figure": [{"kind": "plane"}]}, "test")
DERMA = View(("derma",))


@pytest.fixture
def filled(store: str) -> str:
    for i, model in enumerate(("resnet18d", "ghostnet_100")):
        logged(store, run(model, energy_wh=10.0 + i, performance=0.7 + i / 10, start=1000 + i))
    return store


def _shown(watch: Watch, view: View = DERMA) -> Shown:
    """What a page shows after a round; the watch has no thread of its own."""
    watch.news(view)
    watch.round()
    shown = watch.news(view).shown
    assert shown is not None
    return shown


def _models(shown: Shown) -> set[str]:
    return {row["label"] for group in shown.content.data["groups"] for row in group["rows"]}


def test_a_stamp_changes_with_a_run_that_begins_and_one_that_ends(filled: str) -> None:
    first = read.stamp(tracking_uri=filled)
    assert read.stamp(tracking_uri=filled) == first
    made = run("begun", start=2000, status="RUNNING")
    run_id = logged(filled, made)
    second = read.stamp(tracking_uri=filled)
    from mlflow import MlflowClient

    MlflowClient(filled).set_terminated(run_id, end_time=3000)
    third = read.stamp(tracking_uri=filled)
    MlflowClient(filled).create_experiment("new")
    assert len({first, second, third, read.stamp(tracking_uri=filled)}) == 4


def test_two_pages_of_one_experiment_read_it_once(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("read", "material"):
        real = getattr(sources, name)

        def counted(*given: Any, name: str = name, real: Any = real, **named: Any) -> Any:
            done.append(name)
            return real(*given, **named)

        monkeypatch.setattr(sources, name, counted)
    watch = Watch(BOARD, filled)
    wide = View(("derma",), (("margin", 0.2),))
    for view in (DERMA, wide):
        watch.news(view)
    watch.round()
    assert done == ["read", "material", "material"]
    watch.round()
    assert len(done) == 3
    watch.report(DERMA, "pepr report")
    assert done[3:] == ["material"]
    assert watch.news(wide).shown.content.data["groups"][0]["margin"] == 0.2


def test_a_page_waits_for_no_server(filled: str) -> None:
    news = Watch(BOARD, filled).news(DERMA)
    assert news.shown is None
    assert news.doing == "Waiting for the server"


def test_a_page_shows_its_own_progress_and_not_another_ones(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    real, wide = sources.material, View(("derma",), (("margin", 0.2),))
    watch = Watch(BOARD, filled)

    def comparing(*given: Any, **named: Any) -> Any:
        seen.append((watch.news(DERMA).doing, watch.news(wide).doing))
        return real(*given, **named)

    monkeypatch.setattr(sources, "material", comparing)
    for view in (DERMA, wide):
        watch.news(view)
    watch.round()
    # The page that was opened last is drawn first.
    assert seen == [("Waiting for the server", "Comparing 2 runs"), ("Comparing 2 runs", "")]


def test_a_new_run_is_news_and_another_experiments_is_none(filled: str) -> None:
    watch = Watch(BOARD, filled)
    first = _shown(watch)
    assert _models(first) == {"resnet18d", "ghostnet_100"}
    assert _shown(watch) is first
    logged(filled, run("newcomer", start=5000, tags={"pepr.experiment": "other"}), "other")
    assert _shown(watch).version == first.version
    logged(filled, run("newcomer", start=6000))
    later = _shown(watch)
    assert later.version != first.version
    assert "newcomer" in _models(later)


def test_a_store_may_disappear_and_return(filled: str, tmp_path: Path) -> None:
    watch = Watch(BOARD, filled)
    first = _shown(watch)
    path = tmp_path / "mlflow.db"
    shutil.move(path, tmp_path / "away.db")
    assert _shown(watch) is first  # what was read stays
    trouble = watch.news(DERMA).trouble
    assert trouble is not None
    assert "there is no store" in trouble.text
    assert "\n" not in trouble.text
    other = _shown(watch, View(("mri",)))
    assert "there is no store" in other.content.main
    watch.round()
    assert watch.news(DERMA).trouble == trouble  # since the first time
    shutil.move(tmp_path / "away.db", path)
    assert _shown(watch) is first
    assert watch.news(DERMA).trouble is None
    assert "There is no experiment mri" in _shown(watch, View(("mri",))).content.main


def test_a_store_that_nobody_has_made_yet_is_waited_for_and_not_made(
    store: str, tmp_path: Path
) -> None:
    path, empty = tmp_path / "mlflow.db", tmp_path / "empty.db"
    path.rename(empty)
    watch = Watch(BOARD, store)
    for view in (View(), DERMA):
        main = _shown(watch, view).content.main
        assert "There are no experiments yet" in main
        assert f"<span>--tracking-uri</span> <span>{store}</span>" in main
        assert watch.news(view).trouble is None
    assert not path.exists()
    empty.rename(path)
    logged(store, run("first"))
    assert _models(_shown(watch)) == {"first"}
    path.unlink()
    assert _models(_shown(watch)) == {"first"}
    assert watch.news(DERMA).trouble is not None


def test_whatever_the_server_answers_is_one_line(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> str:
        raise KeyError("runs")

    watch = Watch(BOARD, filled)
    with monkeypatch.context() as patch:
        patch.setattr(read, "stamp", broken)
        assert "KeyError" in _shown(watch).content.main
    assert _models(_shown(watch)) == {"resnet18d", "ghostnet_100"}
    with monkeypatch.context() as patch:
        patch.setattr(sources, "material", broken)
        logged(filled, run("newcomer", start=6000))
        shown = _shown(watch)
        assert _models(shown) == {"resnet18d", "ghostnet_100"}
        trouble = watch.news(DERMA).trouble
        assert trouble is not None
        assert "TypeError" in trouble.text or "KeyError" in trouble.text
    assert "newcomer" in _models(_shown(watch))


def test_runs_that_differ_are_groups_and_no_error(filled: str) -> None:
    for i, model in enumerate(("a", "b", "c")):
        logged(filled, run(model, start=5000 + i, pretrained=False))
    groups = _shown(Watch(BOARD, filled)).content.data["groups"]
    assert [(g["name"], len(g["rows"])) for g in groups] == [
        ("derma [pretrained=false]", 3),
        ("derma [pretrained=true]", 2),
    ]


def test_an_experiment_that_failed_does_not_hide_another(filled: str) -> None:
    failed = run("a", status="FAILED", tags={"pepr.experiment": "mri", "pepr.reason": "crashed"})
    logged(filled, failed, "mri")
    watch = Watch(BOARD, filled)
    shown = _shown(watch, View(("mri", "derma")))
    assert _models(shown) == {"resnet18d", "ghostnet_100"}
    assert "mri is not shown" in shown.content.main
    assert "Nothing finished" in _shown(watch, View(("mri",))).content.main
    with pytest.raises(WrongUse, match="choose one"):
        watch.report(View(), "")


def test_runs_under_way_are_news_at_once(filled: str) -> None:
    watch = Watch(BOARD, filled)
    _shown(watch)
    assert watch.news(DERMA).running == []
    logged(filled, run("coming", status="RUNNING", start=7000, epochs=10))
    _shown(watch)
    news = watch.news(DERMA)
    (coming,) = news.running
    assert news.shown is not None
    assert news.shown.finished == 2
    assert (coming["model"], coming["of"]) == ("coming", 10)
    assert watch.news(View(("mri",))).running == []


def test_what_no_page_shows_is_forgotten(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepr_mlops.live.watch._MOST_VIEWS", 1)
    watch = Watch(BOARD, filled)
    first = _shown(watch)
    _shown(watch, View())
    assert watch.news(DERMA).shown is None
    assert _shown(watch).version == first.version
