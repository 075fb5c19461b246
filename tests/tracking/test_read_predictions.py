"""Logged predictions read from real stores: in place, downloaded, cached, missing and damaged."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from made import DIGEST, logged, run
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag

from pepr_mlops.cli import main
from pepr_mlops.comparison import judge
from pepr_mlops.comparison.predictions import PATIENT, OfSplit, Predictions
from pepr_mlops.errors import WorkFailed
from pepr_mlops.files import cache_folder
from pepr_mlops.tracking import read
from pepr_mlops.tracking.read import cache, predictions
from pepr_mlops.tracking.read import tables as sql

FILES = np.array(["a.png", "b.png", "c.png", "d.png"])
EARLIER = {
    "labels": np.array([0, 1, 1, 0]),
    "probabilities": np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], np.float32),
    "classes": np.array(["normal", "sick"]),
    "files": FILES,
}
SPLIT = OfSplit(
    EARLIER["labels"],
    EARLIER["probabilities"].astype(float),
    FILES,
    {PATIENT: np.array(["0", "0", "1", "2"])},
)
LATER = Predictions("binary-class", ("normal", "sick"), SPLIT, SPLIT, DIGEST).arrays()


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_read", {})


def _npz(arrays: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _with(uri: str, content: bytes | None, experiment: str, **changed: Any) -> str:
    """A run with this file; its id."""
    run_id = logged(uri, run(**{"performance": 0.75, **changed}), experiment)
    if content is not None:
        _put(uri, run_id, content)
    return run_id


def _put(uri: str, run_id: str, content: bytes) -> None:
    folder = Path("upload")
    folder.mkdir(exist_ok=True)
    (folder / "predictions.npz").write_bytes(content)
    MlflowClient(uri).log_artifact(run_id, str(folder / "predictions.npz"))
    shutil.rmtree(folder)


def _load(uri: str, experiment: str) -> dict[str, Predictions | str]:
    runs = read.load_runs(experiment, tracking_uri=uri)
    return read.load_predictions(runs, tracking_uri=uri)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_predictions_of_both_forms_by_run(anywhere: str) -> None:
    earlier = _with(anywhere, _npz(EARLIER), "both forms")
    later = _with(anywhere, _npz(LATER), "both forms")
    _with(anywhere, None, "both forms")
    found = _load(anywhere, "both forms")
    assert found.keys() == {earlier, later}
    for run_id, arrays in ((earlier, EARLIER), (later, LATER)):
        one = found[run_id]
        assert isinstance(one, Predictions)
        for name, values in arrays.items():
            assert one.arrays()[name].tolist() == values.tolist(), name


def test_only_finished_jobs_are_read(anywhere: str) -> None:
    own_loop = run()
    del own_loop["params"]["compile"]
    others = [
        run(status="RUNNING"),
        run(tags={"pepr.experiment": None}),
        run(tags={"pepr.imported_from": "pepr-paper"}),
        run(tags={"pepr.probe": "true"}),
        own_loop,
    ]
    for made in others:
        run_id = logged(anywhere, made, "only finished")
        _put(anywhere, run_id, _npz(EARLIER))
    mine = _with(anywhere, _npz(EARLIER), "only finished")
    assert _load(anywhere, "only finished").keys() == {mine}


def test_a_damaged_file_says_why(anywhere: str) -> None:
    intact = _npz(EARLIER)
    pickled = {**EARLIER, "classes": np.array(["a", None], dtype=object)}
    contents = {
        b"": "(BadZipFile: File is not a zip file)",
        intact[:-30]: "(BadZipFile: File is not a zip file)",
        intact.replace(b"labels.npy", b"labelz.npy"): "(KeyError: 'labels')",
        intact[:60] + b"\x00\x00" + intact[62:]: "(",
        _npz({"labels": np.arange(3)}): "(KeyError: 'classes')",
        _npz(pickled): "(ValueError: Object arrays cannot be loaded when allow_pickle=False)",
        _npz({**EARLIER, "task": np.array("\x1b")}): r"(ValueError: '\x1b' is no task)",
    }
    ids = [_with(anywhere, content, "damaged") for content in contents]
    found = _load(anywhere, "damaged")
    for run_id, why in zip(ids, contents.values(), strict=True):
        text = found[run_id]
        assert isinstance(text, str)
        assert text.startswith(f"its predictions cannot be read {why}")
    assert not list(cache_folder().glob("*.predictions"))
    _put(anywhere, ids[0], intact)
    assert isinstance(_load(anywhere, "damaged")[ids[0]], Predictions)


def test_both_readers_know_where_artifacts_are(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PAGE", 2)
    monkeypatch.setattr("pepr_mlops.tracking.read.api._BULK_RUNS", 2)
    ids = [_with(store, None, "places") for _ in range(5)]
    MlflowClient(store).delete_run(ids[0])
    by_tables = read._open(store).artifacts(ids)
    monkeypatch.setattr(sql, "KNOWN_SCHEMAS", set())
    by_api = read._open(store).artifacts(ids)
    assert type(read._open(store)) is not sql.Tables
    for found in (by_tables, by_api):
        assert dict(zip(found["run_id"], found["place"], strict=True)) == {
            i: MlflowClient(store).get_run(i).info.artifact_uri for i in ids[1:]
        }
    assert read._open(store).artifacts([]).empty


def test_both_readers_know_the_inputs_of_runs(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_PAGE", 1)
    ids = [_with(store, None, "inputs") for _ in range(3)]
    profile = json.dumps({"images": 7})
    of_train = Dataset("train", "d1", "local", json.dumps({"uri": "here"}), profile=profile)
    of_test = Dataset("test", "d2", "local", "{}")
    for run_id, context, dataset in (
        *((ids[0], "train", of_train), (ids[0], "test", of_test)),
        (ids[1], "train", of_train),
    ):
        tags = [InputTag("mlflow.data.context", context)]
        MlflowClient(store).log_inputs(run_id, [DatasetInput(dataset, tags)])
    expected = {
        ids[0]: {"train": read.Input("d1", "here", 7), "test": read.Input("d2", None, None)},
        ids[1]: {"train": read.Input("d1", "here", 7)},
        ids[2]: {},
    }
    assert read.load_inputs(ids, tracking_uri=store) == expected
    monkeypatch.setattr(sql, "KNOWN_SCHEMAS", set())
    assert read.load_inputs(ids, tracking_uri=store) == expected


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_artifacts_in_a_folder_are_read_in_place(store: str, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "of 50% #1 ö"
    place = str(folder) if form == "{}" else folder.as_uri()
    MlflowClient(store).create_experiment("placed", artifact_location=place)
    run_id = _with(store, _npz(EARLIER), "placed")
    assert isinstance(_load(store, "placed")[run_id], Predictions)
    assert not cache_folder().exists()


def test_a_file_is_parsed_once_and_runs_share_what_is_equal(
    anywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        _with(anywhere, _npz(LATER), "parsed once")
    first = _load(anywhere, "parsed once")
    a, b = first.values()
    assert isinstance(a, Predictions)
    assert isinstance(b, Predictions)
    assert a.test.images is b.test.images is a.val.images  # type: ignore[union-attr]
    assert a.test.groups[PATIENT] is b.test.groups[PATIENT]
    assert a.test.probabilities is not b.test.probabilities
    monkeypatch.setattr(predictions, "_parsed", None)
    again = _load(anywhere, "parsed once")
    assert all(again[run_id] is first[run_id] for run_id in first)


def test_few_are_remembered(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_MOST", 2)
    for _ in range(3):
        _with(anywhere, _npz(EARLIER), "few")
    assert len(_load(anywhere, "few")) == 3
    assert len(predictions._read) == 2
    files = list(cache_folder().glob("*.predictions"))
    assert len(files) == (2 if anywhere.startswith("http") else 0)


def test_a_download_is_cached_for_its_user_and_needs_no_server(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _with(server, _npz(LATER), "cached predictions")
    runs = read.load_runs("cached predictions", tracking_uri=server)
    first = read.load_predictions(runs, tracking_uri=server)
    (file,) = cache_folder().glob("*.predictions")
    assert file.stat().st_mode & 0o777 == 0o600
    assert run_id not in file.name
    predictions._read.clear()
    with monkeypatch.context() as patch:
        patch.setattr(read, "_open", None)
        again = read.load_predictions(runs, tracking_uri=server)
    assert again[run_id].arrays()["files"].tolist() == FILES.tolist()  # type: ignore[union-attr]
    intact = file.read_bytes()
    for damaged in (b"", intact[:-1], intact[:-9] + b"\x00" + intact[-8:]):
        file.write_bytes(damaged)
        predictions._read.clear()
        assert read.load_predictions(runs, tracking_uri=server).keys() == first.keys()
        assert file.read_bytes() == intact


def test_where_nothing_can_be_cached_it_is_downloaded(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_CACHE", str(tmp_path / "file" / "folder"))
    run_id = _with(server, _npz(EARLIER), "no cache")
    assert isinstance(_load(server, "no cache")[run_id], Predictions)


def test_a_server_that_does_not_answer_and_one_that_refuses(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with(server, _npz(EARLIER), "refused")
    runs = read.load_runs("refused", tracking_uri=server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(WorkFailed, match=r"http://127\.0\.0\.1:9 refused or did not answer"):
        read.load_predictions(runs, tracking_uri="http://127.0.0.1:9")
    gone = f"{urlsplit(server).scheme}://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/1"
    places = dict.fromkeys(runs["run_id"], gone)
    with pytest.raises(WorkFailed, match=f"{server} refused or did not answer"):
        predictions.load(server, list(places), lambda _: places)


def test_a_store_of_artifacts_that_this_machine_cannot_read_is_no_failure(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a bucket without its driver, or a server's own store read through the database."""
    client = MlflowClient(store)
    for name, place in (("bucket", "gs://bucket/a"), ("proxied", "mlflow-artifacts:/1")):
        client.create_experiment(name, artifact_location=place)
        _with(store, None, name)
        assert _load(store, name) == {}
        assert "predictions of some runs are not read" in caplog.text
        caplog.clear()


def test_artifacts_in_a_bucket(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    cloud = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    cloud.start()
    try:
        endpoint = "http://{}:{}".format(*cloud.get_host_and_port())
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "of the tests")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="artifacts")
        MlflowClient(store).create_experiment("s3", artifact_location="s3://artifacts/pepr")
        run_id = _with(store, _npz(EARLIER), "s3")
        _with(store, None, "s3")
        assert _load(store, "s3").keys() == {run_id}
    finally:
        cloud.stop()
    predictions._read.clear()
    runs = read.load_runs("s3", tracking_uri=store)
    assert read.load_predictions(runs, tracking_uri=store).keys() == {run_id}  # as cached


def test_evidence_has_them_also_of_runs_without_energy(anywhere: str) -> None:
    good = _with(anywhere, _npz(LATER), "evidence", energy_wh=None)
    wrong = _with(anywhere, _npz(LATER), "evidence", energy_wh=None, performance=0.5, seed=1)
    runs = read.load_runs("evidence", tracking_uri=anywhere)
    assert read.load_evidence(runs, tracking_uri=anywhere, predictions=False).predictions == {}
    found = read.load_evidence(runs, tracking_uri=anywhere)
    assert found.predictions.keys() == {good, wrong}
    chosen = runs.set_index("run_id", drop=False).loc[[good, wrong]]
    judged = judge(chosen, ["memory_gb"], strict=False, evidence=found)
    assert judged["codes"].tolist() == [[], ["predictions"]]


def test_pepr_runs_says_why_predictions_are_doubted(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _with(store, _npz(EARLIER), "derma", performance=0.5)
    with pytest.raises(SystemExit) as left:
        main(["runs", "--experiment", "derma", "--format", "json"])
    assert not left.value.code
    (row,) = json.loads(capsys.readouterr().out)
    assert row["codes"] == ["predictions"]
    assert row["reasons"] == [
        "its predictions give test/accuracy 0.75, and it logged 0.5",
    ]


def test_an_unchanged_database_is_not_read_for_where_files_are(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FEWEST", 1)
    monkeypatch.setattr(cache, "_SETTLED_S", 0.0)
    run_id = _with(store, _npz(EARLIER), "unchanged")
    first = _load(store, "unchanged")
    predictions._read.clear()
    monkeypatch.setattr(read, "_open", None)
    assert _load(store, "unchanged").keys() == first.keys() == {run_id}


def test_without_mlflow_where_files_are_on_this_disk(store: str) -> None:
    """Its import takes seconds."""
    _with(store, _npz(EARLIER), "quick")
    reading = (
        "import sys; from pepr_mlops.tracking import read; "
        f"runs = read.load_runs('quick', tracking_uri={store!r}); "
        f"print(len(read.load_predictions(runs, tracking_uri={store!r})), 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False"], done.stderr
