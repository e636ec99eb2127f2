"""The file that remembers connectors: what a crash, a wrong file or a wrong directory does to it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heartbeat.connect.store import ConnectorRecord, FileStore, Store, TargetState
from heartbeat.errors import StartError

NOBODY = 65534
RECORDS = [
    ConnectorRecord("a", {"name": "a", "redis.password": "pässwörd\n\"'"}, TargetState.PAUSED, ({"x": "1"}, {"x": "1"})),
    ConnectorRecord("name / with % and ü", {}, TargetState.STOPPED),
    ConnectorRecord("b", {"empty": "", "many": "m" * 100_000}, TargetState.STARTED, ({},)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "connectors.json"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user whom permissions bind: root is not bound by any."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A directory in which nobody may create files."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o555)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


def test_configs_target_states_and_task_sets_survive(path: Path) -> None:
    store = FileStore(path)
    for record in RECORDS:
        store.put(record)
    assert FileStore(path).records == {record.name: record for record in RECORDS}


def test_a_deleted_connector_stays_deleted(path: Path) -> None:
    store = FileStore(path)
    for record in RECORDS:
        store.put(record)
    store.delete("a")
    assert FileStore(path).records.keys() == {"name / with % and ü", "b"}


def test_a_missing_file_is_an_empty_one_and_is_not_made_before_there_is_something_to_keep(path: Path) -> None:
    assert FileStore(path).records == {}
    assert not path.exists()


def test_only_the_owner_may_read_the_file(path: Path) -> None:
    FileStore(path).put(RECORDS[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_leftover_that_others_may_read_does_not_open_the_file_to_them(path: Path) -> None:
    leftover = path.with_name(path.name + ".new")
    leftover.write_text("{half a fi")
    leftover.chmod(0o644)
    FileStore(path).put(RECORDS[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_crash_between_writing_and_renaming_leaves_what_was_there(path: Path) -> None:
    store = FileStore(path)
    store.put(RECORDS[0])
    path.with_name(path.name + ".new").write_text('{"connectors": {"half')
    assert FileStore(path).records == {"a": RECORDS[0]}
    again = FileStore(path)
    again.put(RECORDS[2])
    assert FileStore(path).records.keys() == {"a", "b"}


def test_a_write_that_fails_changes_neither_the_file_nor_what_is_in_memory(path: Path) -> None:
    store = FileStore(path)
    store.put(RECORDS[0])
    before = path.read_bytes()
    path.with_name(path.name + ".new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        store.put(RECORDS[2])
    assert store.records == {"a": RECORDS[0]}
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"connectors": {"a": {}}}',
        b'{"connectors": {"a": {"config": {"k": 1}}}}',
        b'{"connectors": {"a": {"config": {}, "target_state": "ASLEEP"}}}',
        b'{"conectors": {}}',
        b"\xff\xfe{",
        b'{"connectors": {"a": {"config": {"k": "\xff"}}}}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_not_ours_stops_the_start_and_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StartError, match="cannot be used") as caught:
        FileStore(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_directory_in_place_of_the_file_stops_the_start(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StartError):
        FileStore(path)


def test_a_missing_directory_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="missing or not writable"):
        FileStore(tmp_path / "nowhere" / "connectors.json")


def test_a_directory_that_cannot_be_written_stops_the_start(locked: Path) -> None:
    with as_nobody(), pytest.raises(StartError, match="not writable"):
        FileStore(locked / "connectors.json")


def test_a_file_that_could_be_read_and_never_replaced_stops_the_start(locked: Path) -> None:
    locked.chmod(0o755)
    file = locked / "connectors.json"
    file.write_text("{}")
    file.chmod(0o644)
    locked.chmod(0o555)
    with as_nobody(), pytest.raises(StartError, match="not writable"):
        FileStore(file)


def test_a_file_that_may_not_be_read_stops_the_start(locked: Path) -> None:
    locked.chmod(0o755)
    file = locked / "connectors.json"
    file.write_text("{}")
    file.chmod(0o000)
    with as_nobody(), pytest.raises(StartError, match="cannot be used"):
        FileStore(file)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_reader_keeps_the_records_it_has_taken(path: Path, kind: str) -> None:
    store = Store() if kind == "memory" else FileStore(path)
    store.put(RECORDS[0])
    taken = store.records
    store.put(RECORDS[2])
    store.delete("a")
    assert taken == {"a": RECORDS[0]}
    assert store.records == {"b": RECORDS[2]}


def test_deleting_what_is_not_there_changes_nothing(path: Path) -> None:
    store = FileStore(path)
    store.put(RECORDS[0])
    store.delete("nobody")
    assert store.records.keys() == {"a"}
