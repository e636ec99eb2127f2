"""Each promise about a source alone: silence, return, fail, goodbye, one that never came, a replay, settings that change."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from .. import parts
from ..broker import Kafka
from ..index import load
from ..parts import Redis
from ..programs import eventually
from ..scenario import now_ms
from .monitor import Monitor, monitoring
from .scene import Scene, check_silence, scene, wait_for_state

LONG_S = 600
RULES = [{"match": "declared", "expected": True}]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis of this module's own: monitors watch every connector that a Redis knows."""
    with parts.redis_server(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, redis: Redis) -> Iterator[Scene]:
    """A connector that the tests of this module share; each takes sources of its own."""
    with (
        parts.heartbeat_worker(tmp_path_factory.mktemp("worker"), kafka) as worker,
        scene(worker, kafka, redis, rules=RULES) as watched,
    ):
        yield watched


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory, watched: Scene) -> Iterator[Monitor]:
    """The monitor that watches it."""
    watched.beat("first", ttl_s=LONG_S)
    watched.wait_until_proven()
    with monitoring(tmp_path_factory.mktemp("monitor"), watched.tables) as monitor:
        yield monitor


def test_a_source_that_stops_is_told_down_once_and_up_when_it_is_back_and_others_are_not_told(watched: Scene, monitor: Monitor) -> None:
    with load(watched.beats, ["stays"], every_s=0.3):
        watched.beat("stops")
        (down,) = watched.told("stops", "DOWN")
        check_silence(down, watched.beats.newest["stops"])
        assert wait_for_state(monitor, "stops", "DOWN")["incident"] == down.incident
        again_ms = now_ms()
        back_ms = watched.beat("stops", ttl_s=LONG_S)
        _, up = watched.told("stops", "DOWN", "UP")
        assert (up.incident, up.reason, up.deadline_ms) == (down.incident, "recovered", down.deadline_ms)
        assert again_ms <= up.at_ms <= back_ms
    assert not watched.receiver.of("stays")
    assert wait_for_state(monitor, "stops", "UP")["incident"] in (None, "")


def test_a_beat_that_is_delivered_again_is_no_recovery(watched: Scene, monitor: Monitor) -> None:
    stamp = now_ms()
    watched.beats.send(["replayed"], at_ms=stamp)
    watched.told("replayed", "DOWN")
    watched.beats.send(["replayed"], at_ms=stamp)
    watched.wait_until_proven()
    # Whoever beats after the replay is told down after it has been judged: nothing of it is still to come then.
    watched.beat("after-the-replay")
    watched.told("after-the-replay", "DOWN")
    assert [verdict.to for verdict in watched.receiver.of("replayed")] == ["DOWN"]
    assert monitor.state("replayed") == "DOWN"


def test_a_fail_is_down_at_once_with_its_message_and_once(watched: Scene, monitor: Monitor) -> None:
    watched.beat("fails", ttl_s=LONG_S)
    before_ms = now_ms()
    failed_ms = watched.beat("fails", ttl_s=LONG_S, status="fail", message="out of paper")
    (down,) = watched.told("fails", "DOWN")
    assert down.reason == "fail"
    assert "out of paper" in watched.receiver.text(down.key)
    assert before_ms <= down.at_ms <= failed_ms
    watched.beat("fails", ttl_s=LONG_S)
    _, up = watched.told("fails", "DOWN", "UP")
    assert up.incident == down.incident


def test_a_goodbye_is_told_to_nobody_and_ends_what_is_open(watched: Scene, monitor: Monitor) -> None:
    watched.beat("leaves", "goes-while-down")
    watched.beat("leaves", status="bye")
    (down,) = watched.told("goes-while-down", "DOWN")  # as long silent as the other one
    watched.beat("goes-while-down", status="bye")
    _, ended = watched.told("goes-while-down", "DOWN", "PAUSED")
    assert (ended.incident, ended.reason) == (down.incident, "bye")
    assert not watched.receiver.of("leaves")


def test_a_declared_source_that_never_came_is_down_until_it_comes(watched: Scene, monitor: Monitor) -> None:
    (down,) = watched.told("declared", "DOWN")
    assert (down.reason, down.from_, down.last_beat_ms) == ("never_seen", "NEW", None)
    watched.beat("declared", ttl_s=LONG_S)
    _, up = watched.told("declared", "DOWN", "UP")
    assert up.incident == down.incident


def test_a_broken_settings_file_changes_nothing_and_a_right_one_does(watched: Scene, monitor: Monitor) -> None:
    watched.beat("reloads", ttl_s=LONG_S)
    assert wait_for_state(monitor, "reloads", "UP")["grace_s"] == 1
    monitor.file.write_text(monitor.file.read_text().replace("grace_s", "grace_sec"))
    monitor.signal(signal.SIGHUP)
    eventually(lambda: "grace_sec" in monitor.log(), "the error is in the log")
    assert wait_for_state(monitor, "reloads", "UP")["grace_s"] == 1
    assert not watched.receiver.of("reloads")
    changed = {**watched.tables, "defaults": {**watched.tables["defaults"], "grace_s": 2.0}}
    monitor.write(changed)
    monitor.signal(signal.SIGHUP)
    eventually(lambda: monitor.sources()["reloads"]["grace_s"] == 2, "the new grace counts")
    monitor.write(watched.tables)
    monitor.signal(signal.SIGHUP)
    eventually(lambda: monitor.sources()["reloads"]["grace_s"] == 1, "the old grace counts again")
