"""Each promise about the pipeline alone: whatever goes blind is told once, by its stage; nothing is lost, and nothing told twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..broker import Kafka
from ..index import load
from ..parts import HeartbeatWorker, Redis
from ..programs import eventually
from ..scenario import now_ms, unique
from .monitor import monitoring
from .receiver import Answer
from .scene import Scene, check_silence, scene, wait_for_state

LONG_S = 600
LONG_AGO_MS = 3_600_000
"""Beyond the horizon: who beat then is not read again after a loss."""
OLD = ["old", "older"]


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _watched(worker: HeartbeatWorker, broker: Kafka, redis: Redis, **more: Any) -> Iterator[Scene]:
    """Yield a scene in which two sources were silent long ago, one has just beaten, and everything is proven."""
    with scene(worker, broker, redis, **more) as watched:
        watched.wait_until_proven()  # from now on everything is read, however old it is
        watched.beats.send(OLD, at_ms=now_ms() - LONG_AGO_MS)
        watched.beat("lives-long", ttl_s=LONG_S)
        watched.wait_until_proven()
        yield watched


def test_a_stopped_consumer_is_one_incident_and_its_sources_are_unknown_until_proof_settles_them(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path
) -> None:
    with _watched(worker, kafka, redis) as watched, monitoring(tmp_path, watched.tables) as monitor:
        wait_for_state(monitor, "lives-long", "UP")
        watched.beat("dies", "returns")
        watched.wait_until_proven()
        with load(watched.beats, ["returns"], every_s=0.3):
            with _stopped(worker.pid):
                blind = watched.blind("consumer", watched.beats.topic, "0")
                wait_for_state(monitor, "dies", "UNKNOWN")
                wait_for_state(monitor, "returns", "UNKNOWN")
                assert monitor.state("lives-long") == "UP"
                assert not watched.receiver.of("dies")
            watched.sighted(blind)
            (down,) = watched.told("dies", "DOWN")
            check_silence(down, watched.beats.newest["dies"])
            assert not watched.receiver.of("returns")


def test_a_pause_is_told_as_what_an_operator_did(worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    with _watched(worker, kafka, redis) as watched, monitoring(tmp_path, watched.tables) as monitor:
        wait_for_state(monitor, "lives-long", "UP")
        assert worker.rest("PUT", f"{watched.connector.path}/pause").status_code == 202
        watched.connector.wait_for("PAUSED", "PAUSED")
        watched.beat("waits")  # not read while it is paused: only so is there something that could not be proven
        blind = watched.blind("operator", "paused")
        assert worker.rest("PUT", f"{watched.connector.path}/resume").status_code == 202
        watched.sighted(blind)


def test_a_broker_that_is_away_is_told_as_the_broker(worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    with _watched(worker, kafka, redis) as watched:
        # A task misses the broker for two seconds before it says so; only after that can the stage be known.
        tables = {**watched.tables, "monitor": {**watched.tables["monitor"], "blind_after_s": 6.0}}
        with monitoring(tmp_path, tables) as monitor:
            wait_for_state(monitor, "lives-long", "UP")
            with _stopped(kafka.pid):
                blind = watched.blind("broker", "does not answer")
            watched.sighted(blind)


def test_a_redis_that_is_away_is_told_while_it_is_away(worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    with _watched(worker, kafka, redis) as watched, monitoring(tmp_path, watched.tables) as monitor:
        wait_for_state(monitor, "lives-long", "UP")
        eventually(lambda: watched.index.client.exists("hb:{}:channel:ops"), "somebody delivers")
        eventually(
            lambda: monitor.get("/api/v1/pipeline").json()["stages"]["redis"] is not None, "it has looked: else Redis was never there"
        )
        with _stopped(redis.pid):
            blind = watched.blind("redis")
        watched.sighted(blind)


def test_of_two_monitors_the_second_tells_what_the_first_could_not_and_nothing_twice(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path
) -> None:
    with _watched(worker, kafka, redis) as watched, ExitStack() as stack:
        first = stack.enter_context(monitoring(tmp_path / "first", watched.tables))
        eventually(lambda: watched.index.client.exists("hb:{}:channel:ops"), "the first one delivers")
        stack.enter_context(monitoring(tmp_path / "second", watched.tables))
        watched.receiver.choose = lambda: Answer.BROKEN
        watched.beat("dies")
        eventually(lambda: any(verdict.to == "DOWN" for verdict in watched.kept()), "the verdict is kept")
        first.kill9()
        assert not watched.receiver.told()
        watched.receiver.choose = lambda: Answer.OK
        (down,) = watched.told("dies", "DOWN")
        check_silence(down, watched.beats.newest["dies"])
        assert [verdict.key for verdict in watched.kept() if verdict.source == "dies"] == [down.key]


def test_incidents_return_from_kafka_after_a_flush_and_end_under_their_id(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path
) -> None:
    remembered = {"kafka": kafka.bootstrap, "flips_topic": unique("flips")}
    with _watched(worker, kafka, redis, **remembered) as watched, monitoring(tmp_path, watched.tables) as monitor:
        watched.beat("dies")
        (down,), (old,) = watched.told("dies", "DOWN"), watched.told("old", "DOWN")
        check_silence(down, watched.beats.newest["dies"])
        check_silence(old, watched.beats.newest["old"])
        _wait_until_recorded(watched, kafka, remembered["flips_topic"], {down.key, old.key})
        redis.cli("FLUSHALL")
        assert wait_for_state(monitor, "dies", "DOWN")["incident"] == down.incident
        assert wait_for_state(monitor, "old", "DOWN")["incident"] == old.incident
        watched.wait_until_proven()
        watched.beat("dies", "old", ttl_s=LONG_S)
        for source, opened in (("dies", down), ("old", old)):
            _, up = watched.told(source, "DOWN", "UP")
            assert up.incident == opened.incident


def test_without_kafka_one_message_says_how_many_are_forgotten(worker: HeartbeatWorker, kafka: Kafka, redis: Redis, tmp_path: Path) -> None:
    with _watched(worker, kafka, redis) as watched, monitoring(tmp_path, watched.tables) as monitor:
        for source in OLD:
            watched.told(source, "DOWN")
        eventually(lambda: monitor.get("/api/v1/pipeline").json()["connectors"][0]["sources"]["down"] == 2, "both are counted")
        redis.cli("FLUSHALL")

        def said() -> bool:
            texts = {attempt.message.text for attempt in watched.receiver.attempts if "forgotten" in attempt.message.text}
            assert len(texts) == 1, texts
            return "2 source" in texts.pop()

        eventually(said, "it is said that two sources are forgotten")
        watched.wait_until_proven()
        watched.beat("dies")  # told after everything that the flush has brought about
        watched.told("dies", "DOWN")
        assert said()


def _wait_until_recorded(watched: Scene, kafka: Kafka, topic: str, keys: set[str]) -> None:
    """Wait until the flips with these keys are in the topic."""
    channel = f"hb:{{}}:channel:kafka:{topic}"
    field = f"at:{watched.connector.name}"
    newest = max(stream for stream, _ in watched.index.client.xrange(watched.index.key("flips")))
    assert keys <= {verdict.key for verdict in watched.kept()}
    eventually(lambda: watched.index.client.hget(channel, field) == newest, f"{topic} has everything")
