"""The weights of a run: stored with it, fetched, checked and deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import logged, run
from mlflow import MlflowClient
from proxy import Proxy

from pepr_mlops import tracking
from pepr_mlops.errors import WorkFailed, WrongUse
from pepr_mlops.files import digest_of
from pepr_mlops.tracking import journal, outbox
from pepr_mlops.tracking.drop_weights import drop_weights
from pepr_mlops.tracking.read import weights

CONTENT = b"of the last epoch"


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEPR_MODELS", str(tmp_path / "models"))


def _fill(folder: Path) -> tuple[list[str], dict[str, str]]:
    (folder / "last.safetensors").write_bytes(CONTENT)
    last = digest_of(folder / "last.safetensors")
    described = {"weights": {"last": {"file": "last.safetensors", "digest": last}}}
    (folder / "model.json").write_text(json.dumps(described))
    model = digest_of(folder / "model.json")
    return ["last.safetensors", "model.json"], {"pepr.model": f"last={last},model={model}"}


def _run(uri: str) -> str:
    with tracking.start("weights", "weights", "n", uri) as begun:
        begun.params({"model": "resnet18d", "dataset": "digits", "seed": "3", "compile": "false"})
        begun.folder("model", _fill)
    return begun.run_id


@pytest.fixture(params=["store", "server"])
def uri(request: pytest.FixtureRequest, store: str) -> str:
    return str(request.getfixturevalue(request.param))


def test_weights_are_stored_and_fetched(uri: str) -> None:
    run_id = _run(uri)
    found = weights.fetch(run_id, tracking_uri=uri)
    assert (found.folder / "last.safetensors").read_bytes() == CONTENT
    assert not list(journal.home().iterdir())  # nothing of it is left on this disk


def test_dropped_weights_are_gone_and_the_run_says_why(uri: str) -> None:
    run_id = _run(uri)
    assert drop_weights([run_id, run_id], "dropped by a test", uri) == 1
    assert MlflowClient(uri).list_artifacts(run_id, "model") == []
    with pytest.raises(
        WrongUse, match=r"has none \(dropped by a test\); train it again: `pepr "
    ) as e:
        weights.fetch(run_id, tracking_uri=uri)
    assert "`pepr train --model resnet18d --dataset digits --seed 3`" in str(e.value)


def test_a_damaged_download_is_repeated(store: str, server: str) -> None:
    run_id = _run(server)
    path = weights.fetch(run_id, tracking_uri=server).folder / "last.safetensors"
    path.write_bytes(CONTENT[:5])
    assert weights.fetch(run_id, tracking_uri=server).folder == path.parent
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.safetensors", "model.json"]


def test_a_changed_description_is_refused(uri: str) -> None:
    run_id, client = _run(uri), MlflowClient(uri)
    client.log_text(run_id, '{"weights": {}}', "model/model.json")
    with pytest.raises(WrongUse, match=r"is not the file that run .* logged"):
        weights.fetch(run_id, tracking_uri=uri)


def test_files_that_are_not_where_the_run_put_them(uri: str) -> None:
    run_id = _run(uri)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = MlflowClient(uri).get_run(run_id).info.artifact_uri
    get_artifact_repository(place, tracking_uri=uri).delete_artifacts("model")
    with pytest.raises(
        WrongUse, match=r"weights: .*model\.json .*put the artifacts of run .* back"
    ):
        weights.fetch(run_id, tracking_uri=uri)


def test_a_run_that_does_not_exist(uri: str) -> None:
    with pytest.raises(WrongUse, match="has no run 'nothing'; `pepr runs"):
        weights.fetch("nothing", tracking_uri=uri)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (
            run(tags={"pepr.imported_from": "a paper"}),
            "was imported, .* name a run of `pepr train`",
        ),
        (run(keep="none"), "kept no weights; train it again: `pepr train --model resnet18d"),
        (run(), "`pepr sync` on the machine that trained it"),
        (
            run(tags={"pepr.model_missing": "last: full"}),
            r"has none \(last: full\); train it again",
        ),
        (
            run(tags={"pepr.model": "last=1,model=2"}),
            "has no best weights, only the last; .*--keep",
        ),
    ],
)
def test_a_run_without_weights_says_how_to_get_them(store: str, made: dict, text: str) -> None:  # type: ignore[type-arg]
    run_id = logged(store, made)
    which = "best" if "pepr.model" in made["tags"] else None
    with pytest.raises(WrongUse, match=text):
        weights.fetch(run_id, which, tracking_uri=store)


def test_a_full_disk_stores_no_download_and_the_error_names_the_folder(
    store: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _run(server)

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkFailed, match=r"cannot be written .*PEPR_MODELS"):
        weights.fetch(run_id, tracking_uri=server)


@pytest.mark.parametrize("place", ["file", "file/models", "/proc/models"])
def test_a_folder_of_models_that_cannot_be_made_is_named(
    store: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run_id = _run(server)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_MODELS", str(tmp_path / place))
    with pytest.raises(
        WorkFailed, match=r"^weights: .* cannot be written \(.*set PEPR_MODELS to"
    ) as e:
        weights.fetch(run_id, tracking_uri=server)
    assert e.value.reason != "tracking"


def test_weights_have_one_of_two_names(uri: str) -> None:
    with pytest.raises(WrongUse, match=r"^which: 'first' is not one of last, best$"):
        weights.fetch(_run(uri), "first", tracking_uri=uri)


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(outbox, "_PAUSES_S", (0.1,))
    monkeypatch.setattr(outbox, "_WAIT_S", 0.5)
    monkeypatch.setattr("pepr_mlops.tracking.run._PATIENCE_S", 0.2)
    between = Proxy(server)
    yield between
    between.close()


def test_weights_logged_while_the_server_is_away_are_sent_later(
    store: str, server: str, proxy: Proxy
) -> None:
    with tracking.start("weights", "weights", "n", proxy.address) as begun:
        proxy.down()
        begun.folder("model", _fill)
    (left,) = journal.home().glob("*/model.files/last.safetensors")
    assert left.read_bytes() == CONTENT
    assert "pepr.model" not in MlflowClient(server).get_run(begun.run_id).data.tags
    proxy.up()
    (synced,) = tracking.sync()
    assert synced.problem is None
    assert not list(journal.home().iterdir())
    fetched = weights.fetch(begun.run_id, tracking_uri=server)
    assert (fetched.folder / "last.safetensors").read_bytes() == CONTENT


def test_a_store_that_refuses_weights_claims_none(store: str) -> None:
    notes: list[str] = []
    with tracking.start("weights", "weights", "n", store, note=notes.append) as begun:
        place = Path(MlflowClient(store).get_run(begun.run_id).info.artifact_uri)
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
        begun.params({"model": "resnet18d", "compile": "false"})
        begun.folder("model", _fill)
    tags = MlflowClient(store).get_run(begun.run_id).data.tags
    assert "pepr.model" not in tags
    assert tags["pepr.not_stored"].startswith("model (")
    assert notes[0].startswith("tracking: model cannot be stored")
    with pytest.raises(WrongUse, match="none on the server and may not have sent them"):
        weights.fetch(begun.run_id, tracking_uri=store)
    place.unlink()
    (synced,) = tracking.sync()
    assert (synced.problem, synced.status) == (None, "FINISHED")
    assert weights.fetch(begun.run_id, tracking_uri=store).digests.keys() == {"last", "model"}


def test_without_a_journal_files_wait_in_a_temporary_folder(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_JOURNAL", str(tmp_path / "file" / "journal"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    run_id = _run(store)
    assert weights.fetch(run_id, tracking_uri=store).digests.keys() == {"last", "model"}
    assert not [p for p in (tmp_path / "tmp").iterdir() if p.is_dir()]


def test_what_cannot_be_written_is_not_logged(store: str) -> None:
    def full(folder: Path) -> tuple[list[str], dict[str, str]]:
        (folder / "part").write_bytes(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with tracking.start("weights", "weights", "n", store) as begun:
        with pytest.raises(OSError, match="No space left"):
            begun.folder("model", full)
        assert not list(begun.outbox.room("model").parent.glob("*/part"))
        shutil.rmtree(begun.outbox.room("model"))
    assert MlflowClient(store).list_artifacts(begun.run_id) == []


def test_weights_for_which_the_journal_has_no_room_cost_nothing_else(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = journal.Journal.add

    def full(self: journal.Journal, number: int, entry: journal.Entry) -> None:
        if entry.kind == journal.FOLDER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, number, entry)

    monkeypatch.setattr(journal.Journal, "add", full)
    with tracking.start("weights", "weights", "n", store, offline=True) as begun:
        begun.log({"test/accuracy": 0.75}, 1)
        with pytest.raises(OSError, match="No space left"):
            begun.folder("model", _fill)
        begun.tag({"pepr.model_missing": "last: No space left on device"})
    assert not list(journal.home().glob("*/model.files"))
    (synced,) = tracking.sync()
    found = MlflowClient(store).get_run(synced.run_id or "")
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"test/accuracy": 0.75})
    assert "pepr.model" not in found.data.tags
    assert found.data.tags["pepr.model_missing"] == "last: No space left on device"


def test_weights_that_the_store_does_not_delete_stay_those_of_the_run(store: str) -> None:
    first, second = _run(store), _run(store)
    client = MlflowClient(store)
    client.set_tag(second, "pepr.model_missing", "best: full")
    before = [client.get_run(run_id).data.tags for run_id in (first, second)]
    for run_id in (first, second):
        place = Path(client.get_run(run_id).info.artifact_uri)
        (place / "model").rename(place / "elsewhere")
        (place / "model").symlink_to("elsewhere")  # MLflow deletes no link to a folder
        with pytest.raises(WorkFailed):
            drop_weights([run_id], "dropped by a test", store)
        (place / "model").unlink()
        (place / "elsewhere").rename(place / "model")
    assert [client.get_run(run_id).data.tags for run_id in (first, second)] == before
    assert drop_weights([first, second], "dropped by a test", store) == 2
    assert client.list_artifacts(second, "model") == []
