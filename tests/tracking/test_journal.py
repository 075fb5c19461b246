"""The journal of a run, also as a kill or a full disk leaves it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from pepr_mlops.tracking import journal
from pepr_mlops.tracking.journal import Entry, Journal


def _lines(saved: Journal) -> list[tuple[int, str]]:
    return [(number, entry.kind) for number, entry in saved.entries()]


def test_what_was_sent_is_no_longer_pending() -> None:
    saved = Journal.create({"uri": "sqlite:///runs.db"})
    saved.add(1, Entry("metrics", {"step": 1, "values": {"loss": 0.1 + 0.2}}))
    saved.add(2, Entry("file", {"name": "spec.json"}, b"\x00\n{}"))
    saved.add(3, Entry("end", {"status": "FINISHED"}))
    assert list(saved.pending()) == [1, 2, 3]
    assert saved.pending()[1].data["values"] == {"loss": 0.30000000000000004}
    assert saved.pending()[2].content == b"\x00\n{}"
    saved.sent(2)
    assert {n: e.kind for n, e in saved.pending().items()} == {3: "end"}
    assert _lines(saved) == [(0, "begin"), (1, "metrics"), (2, "file"), (3, "end")]
    saved.discard()
    assert list(journal.home().iterdir()) == []


def test_a_journal_belongs_to_one_process_at_a_time() -> None:
    saved = Journal.create({"uri": "x"})
    assert list(journal.unsent()) == []
    saved.release()
    (found,) = journal.unsent()
    assert found.head["uri"] == "x"
    assert list(journal.unsent()) == []
    found.release()
    assert len(list(journal.unsent())) == 1


def test_no_other_user_can_read_a_journal() -> None:
    saved = Journal.create({"uri": "x"})
    saved.add(1, Entry("file", {"name": "a"}, b"1"))
    for path in [saved.folder, *saved.folder.glob("[!l]*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_line_that_was_cut_off_is_skipped_and_the_next_is_complete() -> None:
    saved = Journal.create({"uri": "x"})
    saved.add(1, Entry("tags", {"values": {"a": "1"}}))
    with (saved.folder / "entries.jsonl").open("ab") as file:
        file.write(b'{"number": 2, "kind": "tags", "da')
    saved.add(3, Entry("end", {"status": "FAILED"}))
    assert _lines(saved) == [(0, "begin"), (1, "tags"), (3, "end")]


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    saved = Journal.create({"uri": "x"})
    saved.add(1, Entry("tags", {"values": {"a": "1"}}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # stands in for the end of a disk
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            saved.add(2, Entry("tags", {"values": {"a": "x" * 1000}}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    saved.add(3, Entry("tags", {"values": {"a": "3"}}))
    assert _lines(saved) == [(0, "begin"), (1, "tags"), (3, "tags")]


def _write_until_killed(folder: Path, ready: object) -> None:
    os.environ["PEPR_JOURNAL"] = str(folder)
    saved = Journal.create({"uri": "x"})
    for number in range(1, 10**6):
        saved.add(number, Entry("metrics", {"step": number, "values": {"loss": 1 / number}}))
        if number == 20:
            ready.set()  # type: ignore[attr-defined]


def test_a_kill_at_any_moment_leaves_every_entry_but_the_last(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        ready = context.Event()
        writer = context.Process(target=_write_until_killed, args=(tmp_path / "journal", ready))
        writer.start()
        assert ready.wait(60)
        assert list(journal.unsent()) == []
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        (saved,) = journal.unsent()
        numbers = [number for number, _ in saved.entries()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 20
        assert all(e.data["values"]["loss"] == 1 / n for n, e in saved.pending().items())
        saved.discard()


def test_a_journal_whose_deletion_was_killed_counts_as_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = Journal.create({"uri": "x"})
    saved.add(1, Entry("metrics", {"step": 1, "values": {"loss": 0.5}}))

    def killed(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pepr_mlops.tracking.journal.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            saved.discard()
    saved.release()
    assert list(journal.unsent()) == []
    assert list(journal.home().iterdir()) == []


def test_without_a_folder_to_write_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPR_JOURNAL", str(tmp_path / "file" / "journal"))
    with pytest.raises(OSError, match="Not a directory"):
        Journal.create({"uri": "x"})
    assert list(journal.unsent()) == []
