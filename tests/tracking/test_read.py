"""Reading runs from real tracking servers, compared with MLflow's own answers."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from conftest import ROOT
from databases import Postgres
from made import logged, run
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_latest_schema_revision

from pepr_mlops import tracking
from pepr_mlops.comparison import judge
from pepr_mlops.comparison.conditions import NOT_KNOWN, conditions
from pepr_mlops.comparison.spread import ASSUMED
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.spec import LATER
from pepr_mlops.tracking import read as query
from pepr_mlops.tracking.read import tables as sql
from pepr_mlops.tracking.read.api import Server
from pepr_mlops.tracking.read.frames import raw_frame

ODD = ["O'Brien's \"set\" with spaces", "Röntgen Lunge 肺", "50% {of} it, `a`; --b"]


def test_the_installed_mlflow_has_a_schema_we_know() -> None:
    """When this fails after an update: compare the tables' columns, then add the revision."""
    assert _get_latest_schema_revision() in sql.KNOWN_SCHEMAS


def test_one_row_per_run_typed_and_named(anywhere: str) -> None:
    made = run("dla46_c", seed=3, lr=1e-3, pretrained=False, performance=0.91, energy_wh=12.5)
    made["params"]["lr"] = "1e-3"  # as `mlflow run` logs it
    run_id = logged(anywhere, made, "typed")
    (row,) = query.load_runs("typed", tracking_uri=anywhere).to_dict("records")
    expected = {
        "run_id": run_id,
        "status": "FINISHED",
        "experiment": "typed",
        "mlflow_experiment": "typed",
        "model": "dla46_c",
        "seed": 3,
        "lr": 0.001,
        "pretrained": False,
        "performance": 0.91,
        "performance_metric": "test/accuracy",
        "energy_wh": 12.5,
        "memory_gb": 4.0,
        "train_time_s": 360.0,
        "energy_source": "measured",
        "hardware": "NVIDIA H100",
        "parameters": 11708744,
        "metrics.test/accuracy": 0.91,
        "params.lr": "1e-3",
    }
    assert {k: row[k] for k in expected} == expected
    assert np.isnan(row["carbon_gco2e"])
    assert row["start_time"] == pd.Timestamp(made["start"], unit="ms", tz="UTC")
    assert row["end_time"] == pd.Timestamp(made["start"] + 9, unit="ms", tz="UTC")


def test_a_run_older_than_an_option_has_its_former_default(store: str) -> None:
    for name, without in (("old", [*LATER]), ("new", []), ("theirs", [*LATER, "compile"])):
        made = run(name, launch="graph", folds=5, fold=2, warmup=3, axis=0)
        made["params"] = {k: v for k, v in made["params"].items() if k not in without}
        logged(store, made, "launched")
    found = query.load_runs("launched").set_index("model")
    columns = ["launch", "warmup", "axis", "weight_decay", "allow_leak", "tune"]
    assert found.loc["old", columns].tolist() == ["kernels", 0, 2, 0.0, False, "all"]
    assert found.loc["new", columns].tolist() == ["graph", 3, 0, 0.0, False, "all"]
    assert found.loc["theirs", columns].isna().all()
    assert found.loc["new", ["folds", "fold"]].tolist() == [5, 2]
    shown = conditions(found, ["folds", "patience", "threads"])
    assert shown.loc["old"].tolist() == ["none", "none", NOT_KNOWN]
    assert shown.loc["theirs"].tolist() == [NOT_KNOWN] * 3


def test_the_frame_agrees_with_mlflows_own(anywhere: str) -> None:
    """The same columns as `mlflow.search_runs`, with the same values."""
    for i in range(7):
        made = run(f"m{i}", seed=i, performance=0.5 + i / 100)
        if i % 2:
            made["tags"]["mlflow.note.content"] = f"note {i}"
            made["metrics"]["extra metric"] = i / 7
        if i == 3:
            made["status"] = "RUNNING"
        logged(anywhere, made, "agrees")
    deleted = logged(anywhere, run("gone"), "agrees")
    MlflowClient(anywhere).delete_run(deleted)
    ours = query.load_runs("agrees", tracking_uri=anywhere).set_index("run_id").sort_index()
    mlflow.set_tracking_uri(anywhere)
    theirs = mlflow.search_runs(experiment_names=["agrees"]).set_index("run_id").sort_index()
    assert len(theirs) == 7
    raw = [c for c in theirs if c.startswith(("metrics.", "params.", "tags."))]
    assert sorted(raw) == sorted(c for c in ours if c.startswith(("metrics.", "params.", "tags.")))
    for column in [*raw, "status", "start_time"]:
        mine = ours[column].astype(object).where(ours[column].notna(), None)
        own = theirs[column].astype(object).where(theirs[column].notna(), None)
        assert mine.tolist() == own.tolist(), column


def test_an_experiment_is_a_tag_wherever_it_is_logged_and_mlflows_own(anywhere: str) -> None:
    tag = {"pepr.experiment": "both"}
    ids = {
        logged(anywhere, run("a", tags=tag), "Default"),  # as `mlflow run .` does
        logged(anywhere, run("b", tags=tag), "both"),
        logged(anywhere, run("c", tags={"pepr.experiment": "another"}), "both"),
    }
    logged(anywhere, run("d", tags={"pepr.experiment": "another"}), "Default")
    found = query.load_runs("both", tracking_uri=anywhere)
    assert set(found["run_id"]) == ids
    assert set(found["experiment"]) == {"both"}
    assert set(found["mlflow_experiment"]) == {"both", "Default"}


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_found_to_the_letter(anywhere: str, name: str) -> None:
    one = logged(anywhere, run("a", tags={"pepr.experiment": name}), "elsewhere")
    logged(anywhere, run("a", tags={"pepr.experiment": name.replace("'", "x")}), "elsewhere2")
    two = logged(anywhere, run("b", tags={"pepr.experiment": name}), name)
    assert set(query.load_runs(name, tracking_uri=anywhere)["run_id"]) >= {one, two}
    models = query.load_runs(name, tracking_uri=anywhere)["experiment"]
    assert set(models) == {name}


def test_a_quote_matches_only_itself(anywhere: str) -> None:
    logged(anywhere, run(tags={"pepr.experiment": "it_s"}), "quotes")
    mine = logged(anywhere, run(tags={"pepr.experiment": "it's"}), "quotes")
    assert query.load_runs("it's", tracking_uri=anywhere)["run_id"].tolist() == [mine]


def test_an_unknown_experiment_names_the_nearest(anywhere: str) -> None:
    logged(anywhere, run(tags={"pepr.experiment": "pneumonia"}), "Default")
    logged(anywhere, run(tags={"pepr.experiment": "x"}), "dermatology")
    with pytest.raises(WrongUse, match=r"'pneumonja' is neither .*did you mean 'pneumonia'"):
        query.load_runs("pneumonja", tracking_uri=anywhere)
    with pytest.raises(WrongUse, match="did you mean 'dermatology'"):
        query.load_runs("dermatolgy", tracking_uri=anywhere)


def test_an_empty_experiment_has_no_runs(anywhere: str) -> None:
    MlflowClient(anywhere).create_experiment("empty")
    found = query.load_runs("empty", tracking_uri=anywhere)
    assert found.empty
    assert {"model", "performance", "energy_wh"} <= set(found.columns)


def test_a_deleted_experiment_is_not_read(store: str) -> None:
    logged(store, run(tags={"pepr.experiment": "gone"}), "gone")
    client = MlflowClient(store)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    logged(store, run(tags={"pepr.experiment": "here"}), "here")
    deleted = logged(store, run(tags={"pepr.experiment": "gome"}), "here")
    client.delete_run(deleted)
    with pytest.raises(WrongUse, match=r"'gone' is neither .*There are: Default, here$"):
        query.load_runs("gone", tracking_uri=store)
    assert query.load_runs(tracking_uri=store)["experiment"].tolist() == ["here"]


def test_several_experiments_and_all(store: str) -> None:
    logged(store, run("a", tags={"pepr.experiment": "one"}), "x")
    logged(store, run("b", tags={"pepr.experiment": "two"}), "x")
    logged(store, {**run("c"), "tags": {}}, "three")
    both = query.load_runs(["one", "two", "one"], tracking_uri=store)
    assert both[["experiment", "model"]].to_numpy().tolist() == [["one", "a"], ["two", "b"]]
    everything = query.load_runs(tracking_uri=store).set_index("model")
    assert everything["experiment"].to_dict() == {"a": "one", "b": "two", "c": "three"}
    assert everything["logged_by_pepr"].to_dict() == {"a": True, "b": True, "c": False}


def test_numbers_that_are_none_stay_apart_from_missing_ones(anywhere: str) -> None:
    made = run("a", energy_wh=None, metrics={"test/auc": float("nan"), "big": float("inf")})
    logged(anywhere, made, "numbers")
    (row,) = query.load_runs("numbers", tracking_uri=anywhere).to_dict("records")
    assert np.isnan(row["energy_wh"])  # never logged
    assert row["metrics.test/auc"] == np.inf  # logged, and no number
    assert row["metrics.big"] == np.inf


def test_energy_that_was_lost_on_the_way_is_missing(anywhere: str) -> None:
    lost = {"pepr.energy_source": "lost", "pepr.energy_missing": "gpu (train): epoch 2: gone"}
    made = run("a", tags=lost, metrics={"carbon/train_gco2e": 3.0, "energy/eval_wh": 1.0})
    logged(anywhere, made, "lost")
    (row,) = query.load_runs("lost", tracking_uri=anywhere).to_dict("records")
    assert np.isnan(row["energy_wh"])
    assert np.isnan(row["carbon_gco2e"])
    assert np.isnan(row["metrics.energy/train_wh"])
    assert row["metrics.energy/eval_wh"] == 1.0
    assert row["train_time_s"] == 360.0


def test_of_a_trial_whose_energy_was_lost_no_part_is_passed_off(anywhere: str) -> None:
    lost = {"pepr.energy_missing": "cpu (trial): trial: gone"}
    logged(anywhere, run("a", tags=lost, metrics={"energy/trial_gpu_wh": 0.5}), "trial")
    (row,) = query.load_runs("trial", tracking_uri=anywhere).to_dict("records")
    assert np.isnan(row["metrics.energy/trial_gpu_wh"])
    assert row["energy_wh"] == 20.0


def test_pages_do_not_lose_or_repeat_runs(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepr_mlops.tracking.read.tables._PAGE", 3)
    monkeypatch.setattr("pepr_mlops.tracking.read.api._PAGE", 3)
    ids = [logged(anywhere, run(f"m{i}", start=1000 + i // 2), "paged") for i in range(10)]
    found = query.load_runs("paged", tracking_uri=anywhere)
    assert sorted(found["run_id"]) == sorted(ids)
    assert found["start_time"].is_monotonic_decreasing


# Histories ---------------------------------------------------------------------------------------


def _with_history(model: str) -> dict[str, object]:
    made = run(model)
    made["points"] = [
        *(("test/accuracy", 0.5 + e / 10, e) for e in (1, 2, 3)),
        *(("energy/train_wh", 2.0 * e, e) for e in (1, 2, 3)),
        ("time/setup_s", 7.0, 1),
    ]
    return made


def test_one_row_per_run_and_epoch(anywhere: str) -> None:
    ids = [logged(anywhere, _with_history(m), "epochs") for m in ("a", "b")]
    logged(anywhere, _with_history("other"), "epochs")
    found = query.load_epochs(ids, tracking_uri=anywhere)
    assert sorted(found.columns) == [
        "energy/train_wh",
        "run_id",
        "step",
        "test/accuracy",
        "time/setup_s",
    ]
    assert set(found["run_id"]) == set(ids)
    one = found[found["run_id"] == ids[0]].sort_values("step")
    assert one["step"].tolist() == [1, 2, 3]
    assert one["test/accuracy"].tolist() == pytest.approx([0.6, 0.7, 0.8])
    assert one["time/setup_s"].tolist() == pytest.approx([7.0, np.nan, np.nan], nan_ok=True)
    some = query.load_epochs(ids, ["energy/train_wh"], tracking_uri=anywhere)
    assert list(some.columns) == ["run_id", "step", "energy/train_wh"]
    assert len(some) == 6


def test_the_last_of_several_points_counts(anywhere: str) -> None:
    made = run("a")
    made["points"] = [("loss", 0.5, 1)]
    run_id = logged(anywhere, made, "twice")
    MlflowClient(anywhere).log_metric(run_id, "loss", 0.4, made["start"] + 50, step=1)
    MlflowClient(anywhere).log_metric(run_id, "loss", 0.9, made["start"] - 50, step=1)
    found = query.load_epochs([run_id], tracking_uri=anywhere)
    assert found["loss"].tolist() == [0.4]


def test_of_points_at_one_time_the_greatest_counts_as_in_mlflow(anywhere: str) -> None:
    made = run("a")
    run_id = logged(anywhere, made, "ties")
    for value in (9.0, 4.0):
        MlflowClient(anywhere).log_metric(run_id, "loss", value, made["start"], step=1)
    latest = MlflowClient(anywhere).get_run(run_id).data.metrics["loss"]
    found = query.load_epochs([run_id], ["loss", "nobody has it"], tracking_uri=anywhere)
    assert found["loss"].tolist() == [latest] == [9.0]
    assert found["nobody has it"].isna().all()


def test_runs_without_history_have_no_rows(anywhere: str) -> None:
    found = query.load_epochs([], tracking_uri=anywhere)
    assert found.empty
    assert list(found.columns) == ["run_id", "step"]


def test_histories_come_in_bulk_over_http(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [logged(server, _with_history(f"m{i}"), "bulk") for i in range(5)]
    expected = query.load_epochs(ids, tracking_uri=server)

    def one_by_one(*_: object) -> None:
        raise AssertionError("requested one run's history")

    monkeypatch.setattr(MlflowClient, "get_metric_history", one_by_one)
    pd.testing.assert_frame_equal(query.load_epochs(ids, tracking_uri=server), expected)
    # cut off after four points, it requests fewer runs at a time
    request = Server._request
    monkeypatch.setattr("pepr_mlops.tracking.read.api._BULK_POINTS", 4)

    def cut(self: Server, method: str, endpoint: str, **content: object) -> object:
        answer = request(self, method, endpoint, **content)
        if "bulk" in endpoint:
            answer["metrics"] = answer["metrics"][:4]
        return answer

    monkeypatch.setattr(Server, "_request", cut)
    again = query.load_epochs(ids, tracking_uri=server).sort_values(["run_id", "step"])
    order = expected.sort_values(["run_id", "step"])
    pd.testing.assert_frame_equal(again.reset_index(drop=True), order.reset_index(drop=True))


def test_the_documented_example_runs(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "docs" / "examples" / "compare.py"
    assert f"```python\n{path.read_text()}```" in (ROOT / "docs" / "comparing.md").read_text()
    made = run("a", tags={"pepr.experiment": "digits"})
    # scores 0.5 / 1.25, 0.8 / 1.5 and 0.9 / 2: the second epoch is the best
    made["points"] = [
        point
        for epoch, p, wh in ((1, 0.5, 5.0), (2, 0.8, 10.0), (3, 0.9, 20.0))
        for point in (("performance", p, epoch), ("energy/train_wh", wh, epoch))
    ] + [("time/train_s", 360.0, 3)]
    logged(store, made, "digits")
    runpy.run_path(str(path))
    out = capsys.readouterr().out
    assert "Peak(resource=0.5, performance=0.8, score=0.5333333333333333)" in out


# Evidence ----------------------------------------------------------------------------------------


def test_energies_that_are_no_numbers_are_no_evidence(anywhere: str) -> None:
    for energy_wh in (float("nan"), float("inf"), 27.18281828):
        logged(anywhere, run("a", energy_wh=energy_wh), "odd energies")
    runs = query.load_runs("odd energies", tracking_uri=anywhere)
    found = query.load_evidence(runs, tracking_uri=anywhere)
    assert found.energies is not None
    assert found.energies["energy_wh"].tolist() == [27.18281828]


def test_evidence_comes_from_all_runs_of_the_server(anywhere: str) -> None:
    mine = logged(anywhere, run("a", energy_wh=31.415926), "mine")
    far = {"pepr.experiment": "evidence-far"}
    other = logged(anywhere, run("a", energy_wh=31.415926, tags=far), "far")
    logged(anywhere, run("b", energy_wh=99.0), "far")
    runs = query.load_runs("mine", tracking_uri=anywhere)
    found = query.load_evidence(runs, tracking_uri=anywhere)
    assert found.energies is not None
    rows = found.energies.set_index("run_id")
    assert rows.loc[other, ["model", "experiment", "energy_wh"]].tolist() == [
        "a",
        "evidence-far",
        31.415926,
    ]
    assert (rows["energy_wh"] == 31.415926).all()
    assert found.epochs is not None
    assert found.epochs.to_numpy().tolist() == [[mine, 1, 31.415926]]
    assert found.twins is not None
    assert found.twins["run_id"].tolist() == [mine, other]
    judged = judge(runs, ["energy_wh"], strict=False, evidence=found)
    assert judged["codes"].tolist() == [["same_numbers", "same_energy"]]


def test_two_experiments_read_together_know_of_each_other(anywhere: str) -> None:
    names = ["shared energy 1", "shared energy 2"]
    ids = [logged(anywhere, run("a", energy_wh=16.18033988), name) for name in names]
    runs = query.load_runs(names, tracking_uri=anywhere)
    evidence = query.load_evidence(runs, tracking_uri=anywhere)
    assert evidence.energies is not None
    assert sorted(evidence.energies["run_id"]) == sorted(ids)  # each once
    judged = judge(runs, ["energy_wh"], strict=False, evidence=evidence)
    assert [codes.count("same_energy") for codes in judged["codes"]] == [1, 1]


def test_runs_without_repetitions_borrow_the_spread_of_other_experiments(
    anywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = {"pepr.performance": "test/o'borrowed"}

    def made(model: str, seed: int, p: float, experiment: str, **changed: object) -> str:
        tags = {**tag, "pepr.experiment": experiment}
        return logged(anywhere, run(model, seed, performance=p, tags=tags, **changed), experiment)

    made("a", 0, 0.9, "once")
    for seed, p in enumerate([0.80, 0.82]):
        made("a", seed, p, "repeated elsewhere", start=1_700_000_000_000 + seed)
    for change in ({"status": "FAILED"}, {"tags": {"pepr.performance": "test/oxborrowed"}}):
        logged(anywhere, run("a", 2, performance=0.1, **change), "repeated elsewhere")
    runs = query.load_runs("once", tracking_uri=anywhere)
    found = query.load_evidence(runs, tracking_uri=anywhere, predictions=False).spread
    assert found.sd == pytest.approx(0.01 * np.sqrt(2))
    assert (found.freedom, found.metric) == (1, tag["pepr.performance"])
    assert found.source == "pooled over 2 runs of 1 model in repeated elsewhere"
    # of the newest alone, and not at all where a model is repeated
    monkeypatch.setattr(query, "_NEWEST", 1)
    found = query.load_evidence(runs, tracking_uri=anywhere, predictions=False).spread
    assert found == ASSUMED
    made("a", 1, 0.8, "once")
    runs = query.load_runs("once", tracking_uri=anywhere)
    monkeypatch.setattr(type(query._open(anywhere)), "newest", None)
    found = query.load_evidence(runs, tracking_uri=anywhere, predictions=False).spread
    assert found == ASSUMED


def test_the_newest_runs_are_the_same_from_tables_and_mlflow(store: str) -> None:
    for i in range(6):
        logged(store, run("a", i, start=1_700_000_000_000 + i // 2), "first" if i % 2 else "second")
    logged(store, run("a", 9, status="RUNNING"), "first")
    logged(store, run("a", 9, tags={"pepr.performance": "test/auc"}), "first")
    tables = query._open(store)
    assert isinstance(tables, sql.Tables)
    server = Server(MlflowClient(store), store, tables.experiments)
    for ids in (list(tables.experiments), list(tables.experiments)[:1], []):
        for most in (3, 10):
            pages = [r.newest(ids, "test/accuracy", most) for r in (tables, server)]
            one, two = (raw_frame([page], tables.experiments) for page in pages)
            pd.testing.assert_frame_equal(one, two, check_like=True)
    assert len(one) == 0
    assert len(tables.newest(list(tables.experiments), "test/accuracy", 10).info) == 6


# Servers -----------------------------------------------------------------------------------------


def test_a_server_that_requires_a_login(
    guarded_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # who checks passwords takes a while
    with pytest.raises(WorkFailed, match="refused or did not answer"):
        query.load_runs("derma", tracking_uri=guarded_server)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "only-for-tests")
    run_id = logged(guarded_server, _with_history("a"), "guarded")
    found = query.load_runs("guarded", tracking_uri=guarded_server)
    assert found["run_id"].tolist() == [run_id]
    assert len(query.load_epochs([run_id], tracking_uri=guarded_server)) == 3


def test_the_password_in_an_address_works_and_is_stored_nowhere(
    guarded_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    password = "only-for-tests"
    uri = guarded_server.replace("://", f"://admin:{password}@")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    begun: list[tracking.Run] = []

    def work() -> None:
        with tracking.active("credentials", "made") as run:
            begun.append(run)
            run.params({"model": "a"})
            run.spec({"model": "a"})
            raise ValueError(f"cannot reach {uri}")

    try:
        with pytest.raises(ValueError, match="cannot reach"):
            work()
    finally:
        mlflow.set_tracking_uri(before)
    (failed,) = begun
    client = MlflowClient(uri)
    stored = client.get_run(failed.run_id)
    assert stored.data.tags["pepr.error"] == f"ValueError: cannot reach {guarded_server}"
    artifact = client.download_artifacts(failed.run_id, "spec.json")
    seen = [
        str(stored),
        Path(artifact).read_text(),
        tracking.address_of(failed),
        *capfd.readouterr(),
    ]
    assert not [text for text in seen if password in text]
    assert tracking.address_of(failed).startswith(f"{guarded_server}/#/experiments/")
    assert query.run_page(uri) == f"{guarded_server}/#/runs/"
    with pytest.raises(WrongUse) as refused:
        query.load_runs("no such", tracking_uri=uri)
    assert f"on {guarded_server}. There" in str(refused.value)


def test_a_server_that_is_down_and_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"http://127\.0\.0\.1:9 refused or did not answer"):
        query.load_runs("derma", tracking_uri="http://127.0.0.1:9")
    missing = tmp_path / "no.db"
    with pytest.raises(WrongUse, match=f"there is no store {missing}"):
        query.load_runs("derma", tracking_uri=f"sqlite:///{missing}")
    assert not missing.exists()


def test_a_store_that_goes_while_it_is_opened_is_not_made_again(
    anywhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes it just after the reader has found it there sees no new file."""
    if not anywhere.startswith("sqlite"):
        pytest.skip("no file")
    logged(anywhere, run("a"), "derma")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    found = sql.check_exists

    def gone(uri: str) -> None:
        found(uri)
        store.unlink()

    readers = [
        lambda uri: query.load_runs("derma", tracking_uri=uri),
        lambda uri: query.load_epochs(["a"], tracking_uri=uri),
        lambda uri: query.load_inputs(["a"], tracking_uri=uri),
        lambda uri: query.overview(tracking_uri=uri),
        lambda uri: query.running(tracking_uri=uri),
        lambda uri: query.stamp(tracking_uri=uri),
    ]
    for i, read in enumerate(readers):
        folder = tmp_path / f"with space {i}"
        folder.mkdir()
        store = folder / "mlflow.db"
        shutil.copy(tmp_path / "mlflow.db", store)
        with monkeypatch.context() as patch:
            patch.setattr(sql, "check_exists", gone)
            with pytest.raises(WrongUse, match=f"there is no store {store}"):
                read(f"sqlite:///{store}")
        assert not list(folder.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        f"with space {i}" for i in range(len(readers))
    ]
    assert query.load_runs("derma", tracking_uri=anywhere)["model"].tolist() == ["a"]


def test_runs_under_way_say_which_epoch_they_logged_last(anywhere: str) -> None:
    name, start = f"going {time.time_ns()}", 1_790_000_000_000
    points = [("time/train_s", 60.0 * epoch, epoch) for epoch in (1, 2, 3)]
    made = run("a", status="RUNNING", start=start, tags={"pepr.experiment": name})
    begun = logged(anywhere, {**made, "points": points}, name)
    before = logged(anywhere, {**made, "metrics": {}, "start": start + 1}, name)
    logged(anywhere, run("b", start=start, tags={"pepr.experiment": name}), name)
    found = query.running(tracking_uri=anywhere)
    found = found[found["experiment"] == name].set_index("run_id")
    assert list(found.index) == [before, begun]  # the newest first
    assert found.loc[begun, "epoch"] == 3
    assert found.loc[begun, "epoch_time"] == pd.Timestamp(start + 3, unit="ms", tz="UTC")
    assert found.loc[begun, "train_time_s"] == 180
    assert found.loc[before, ["epoch", "epoch_time"]].isna().all()
    MlflowClient(anywhere).set_terminated(begun)
    assert begun not in set(query.running(tracking_uri=anywhere)["run_id"])


def test_experiments_are_counted_under_both_names_and_the_newest_is_first(anywhere: str) -> None:
    here, tagged = f"here {time.time_ns()}", f"tagged {time.time_ns()}"
    for i, tag in enumerate((here, here, tagged)):
        logged(anywhere, run(start=1_890_000_000_000 + i, tags={"pepr.experiment": tag}), here)
    found = query.overview(tracking_uri=anywhere).set_index("name")
    assert list(found.index[:2]) == [here, tagged]  # both have the newest run
    assert found.loc[here, "runs"] == 3 == len(query.load_runs(here, tracking_uri=anywhere))
    assert found.loc[tagged, "runs"] == 1 == len(query.load_runs(tagged, tracking_uri=anywhere))
    assert found.loc[tagged, "newest"] == pd.Timestamp(1_890_000_000_002, unit="ms", tz="UTC")


def test_a_server_of_more_runs_than_a_request_returns_has_no_counts(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        logged(server, run())
    monkeypatch.setattr("pepr_mlops.tracking.read.api._PAGE", 1)
    found = query.overview(tracking_uri=server).set_index("name")
    assert found["runs"].isna().all()
    assert "derma" in found.index


def test_an_experiment_that_is_not_there_is_refused_with_the_nearest(anywhere: str) -> None:
    logged(anywhere, run(tags={"pepr.experiment": "brainmri"}), "derma")
    query.require(["derma", "brainmri"], tracking_uri=anywhere)
    with pytest.raises(WrongUse, match=r"'brainmir' is neither .* did you mean 'brainmri'"):
        query.require(["derma", "brainmir"], tracking_uri=anywhere)


def test_experiments_are_those_of_mlflow_in_its_order(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store)
    ids = {name: client.create_experiment(name) for name in ("one", "two", "gone", "three")}
    client.delete_experiment(ids["gone"])
    with sa.create_engine(store).begin() as connection:
        made = {"one": 3000, "two": 1000, "three": 3000, "Default": None}
        for name, at in made.items():
            order = sa.text("UPDATE experiments SET creation_time = :at WHERE name = :name")
            connection.execute(order, {"at": at, "name": name})
    theirs = [(e.experiment_id, e.name) for e in client.search_experiments()]
    assert [name for _, name in theirs] == ["one", "three", "two", "Default"]
    tables = query._open(store)
    assert isinstance(tables, sql.Tables)
    assert list(tables.experiments.items()) == theirs
    monkeypatch.setattr(sql, "KNOWN_SCHEMAS", set())
    assert list(query._open(store).experiments.items()) == theirs


def test_experiments_of_workspaces_are_left_to_mlflow(store: str) -> None:
    assert sql.open_tables(store) is not None
    MlflowClient(store).create_experiment("theirs")
    with sa.create_engine(store).begin() as connection:
        connection.execute(sa.text("UPDATE experiments SET workspace = 'w' WHERE name = 'theirs'"))
    assert sql.open_tables(store) is None
    with pytest.raises(WorkFailed, match="Cannot disable workspaces"):
        query.load_runs("theirs", tracking_uri=store)


# What nobody names, in which working folders, and what the address ends with.
_ADDRESSES = [
    (None, [], "/w%20%C3%B6/mlflow.db"),
    ("", [], "/w%20%C3%B6/mlflow.db"),
    ("http://127.0.0.1:9", [], "http://127.0.0.1:9"),
    ("sqlite:///some.db", ["mlruns/0/meta.yaml"], "sqlite:///some.db"),
    (None, ["mlruns/0/meta.yaml"], "/w%20%C3%B6/mlruns"),
    (None, ["mlruns/0/other.yaml", "mlruns/1"], "/w%20%C3%B6/mlflow.db"),
    (None, ["mlruns/models/meta.yaml", "mlruns/a1/meta.yaml"], "/w%20%C3%B6/mlflow.db"),
    (None, ["mlruns"], "/w%20%C3%B6/mlflow.db"),
]
_BOTH = """
import json, os, sys
from pepr_mlops.tracking.server import resolved

def all_of(address):
    for folder, named in json.loads(sys.argv[1]):
        os.chdir(folder)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named
        yield address()

ours = list(all_of(lambda: resolved(None)))
assert "mlflow" not in sys.modules
import mlflow
print(json.dumps([ours, list(all_of(mlflow.get_tracking_uri))]))
mlflow.set_tracking_uri("sqlite:///set.db")
assert resolved(None) == "sqlite:///set.db"
"""


def test_the_address_is_mlflows_without_its_import(tmp_path: Path) -> None:
    cases = []
    for i, (named, made, _) in enumerate(_ADDRESSES):
        folder = tmp_path / str(i) / "w ö"
        folder.mkdir(parents=True)
        for path in made:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        cases.append((str(folder), named))
    command = [sys.executable, "-c", _BOTH, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = json.loads(done.stdout)
    assert ours == theirs
    assert [uri.endswith(end) for uri, (*_, end) in zip(ours, _ADDRESSES, strict=True)] == [
        True
    ] * len(_ADDRESSES)


@pytest.mark.parametrize("revision", ["dc11669786a5", "f4a9b2c7d1e6"])
def test_schemas_of_mlflow_3_17_and_3_18_are_read_by_their_tables(
    store: str, revision: str
) -> None:
    """The two differ in tables that are not read: skills, issues and versions of MCP servers."""
    run_id = logged(store, _with_history("a"), "known")
    with sa.create_engine(store).begin() as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    assert isinstance(query._open(store), sql.Tables)
    assert query.load_runs("known", tracking_uri=store)["run_id"].tolist() == [run_id]
    assert sql.version(store) == f"schema {revision}, read through its tables"


def test_another_schema_is_read_through_mlflow(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(store, run("a"), "known")
    assert isinstance(query._open(store), sql.Tables)
    with sa.create_engine(store).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))
    assert sql.open_tables(store) is None


def test_postgresql(database: Postgres) -> None:
    postgres = database.create("read")
    name = ODD[0]
    made = {**_with_history("a"), "tags": {**run()["tags"], "pepr.experiment": name}}
    made["points"].append(("nan", float("nan"), 1))  # type: ignore[attr-defined]
    run_id = logged(postgres, made, "Default")
    assert isinstance(query._open(postgres), sql.Tables)
    (row,) = query.load_runs(name, tracking_uri=postgres).to_dict("records")
    assert (row["run_id"], row["model"], row["energy_wh"]) == (run_id, "a", 6.0)
    assert row["metrics.nan"] == np.inf
    epochs = query.load_epochs([run_id], ["energy/train_wh"], tracking_uri=postgres)
    assert epochs["energy/train_wh"].tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(WrongUse, match="neither an MLflow experiment"):
        query.load_runs("nothing", tracking_uri=postgres)
