"""Why a task proves nothing: found by its partition that is furthest behind, said while it lasts, and taken back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest
from tests.beats.parts import P0, P1, TTL

from heartbeat.beats.clock import Clock
from heartbeat.beats.doubts import Doubt, Doubts, doubt
from heartbeat.beats.partitions import Partitions
from heartbeat.beats.proof import Sample, Sight
from heartbeat.connect.api import TopicPartition

NOW = 1_755_138_687_438


@dataclass(frozen=True, slots=True)
class Known:
    sight: Sight
    opened_ms: int = NOW - 60_000


def seen(age_ms: int, *, asked_ms: int | None = None, behind: int = 0, opened_ms: int = NOW - 60_000) -> Known:
    """Proven this long ago, by an end asked for ``asked_ms`` ago (or then), with so much that is not applied."""
    taken = NOW - (age_ms if asked_ms is None else asked_ms)
    held = Sample(NOW - age_ms + 600, 10 + behind) if behind else None
    return Known(Sight(10, NOW - 90_000, NOW - age_ms, 1, taken, held=held), opened_ms)


def fresh(opened_ms: int, *, asked_ms: int | None = None, behind: int = 0) -> Known:
    """Claimed this long ago, and never proven."""
    held = None if asked_ms is None else Sample(NOW - opened_ms, 10 + behind)
    taken = None if asked_ms is None else NOW - asked_ms
    return Known(Sight(10, taken_ms=taken, held=held), NOW - opened_ms)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (seen(0), None),
        (seen(2_000), None),
        (seen(2_001), Doubt("broker", 0)),
        (seen(2_001, asked_ms=2_000), Doubt("lag", 0)),
        (seen(60_000, asked_ms=600, behind=7), Doubt("lag", 7)),
        (seen(60_000, asked_ms=2_001, behind=7), Doubt("broker", 7)),
        (seen(3_600_000, opened_ms=NOW - 2_000), None),
        (seen(3_600_000, opened_ms=NOW - 2_001), Doubt("broker", 0)),
        (fresh(2_000), None),
        (fresh(2_001), Doubt("broker", 0)),
        (fresh(2_001, asked_ms=600, behind=5), Doubt("lag", 5)),
        (seen(-5_000), None),
    ],
)
def test_what_holds_a_partition_back_is_said_after_two_seconds(known: Known, why: Doubt | None) -> None:
    assert doubt({P0: known}, NOW, agree=True, paused=False) == why
    as_paused = why and why._replace(why="paused") if why and why.why == "lag" else why
    assert doubt({P0: known}, NOW, agree=True, paused=True) == as_paused, "an operator's pause holds back what waits, and no broker"


def test_clocks_that_disagree_are_said_at_once() -> None:
    assert doubt({P0: seen(0)}, NOW, agree=False, paused=True) == Doubt("clocks", 0)


def test_a_task_without_partitions_has_nothing_to_prove() -> None:
    assert doubt({}, NOW, agree=False, paused=True) is None
    assert doubt({}, NOW, agree=True, paused=False, answered_ms=NOW - 2_000) is None


def test_who_has_lost_all_its_partitions_says_that_kafka_does_not_answer() -> None:
    assert doubt({}, NOW, agree=True, paused=False, answered_ms=NOW - 2_001) == Doubt("broker", 0)


def test_of_several_partitions_the_furthest_behind_gives_the_reason_and_all_are_counted() -> None:
    held = {P0: seen(3_000), P1: seen(4_000, asked_ms=0, behind=3)}
    assert doubt(held, NOW, agree=True, paused=False) == Doubt("lag", 3)
    held = {P0: seen(5_000), P1: seen(4_000, asked_ms=0, behind=3)}
    assert doubt(held, NOW, agree=True, paused=False) == Doubt("broker", 3)


@dataclass
class Scene:
    """A task's doubts, with clocks that a test moves."""

    partitions: Partitions
    seconds: float = 1_000.0
    held: dict[TopicPartition, Known] = field(default_factory=lambda: {P0: seen(0)})

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: NOW)
        self.doubts = Doubts(self.partitions, 3, self.clock)

    def turn(self, after_s: float = 1.0) -> None:
        self.seconds += after_s
        self.doubts.turn(self.held, None, self.seconds)

    def said(self) -> dict[str, object] | None:
        text = self.partitions._connection.call("HGET", self.partitions.keys.proof, "tasks/3")
        return None if text is None else msgspec.json.decode(text)

    def take(self) -> None:
        self.partitions._connection.call("HDEL", self.partitions.keys.proof, "tasks/3")


@pytest.fixture
def scene(partitions: Partitions) -> Scene:
    partitions.claim("x", TTL, "me", [P0])
    return Scene(partitions)


def test_a_doubt_is_said_by_the_clock_of_redis_and_taken_back_when_it_is_over(scene: Scene) -> None:
    scene.clock.redis_ahead_ms = 1_500
    scene.turn()
    assert scene.said() is None
    scene.held = {P0: seen(4_000, asked_ms=0, behind=7)}
    scene.turn()
    assert scene.said() == {"at_ms": NOW + 1_500, "why": "lag", "behind": 7}
    scene.held = {P0: seen(0)}
    scene.turn()
    assert scene.said() is None


def test_it_is_said_again_every_two_seconds(scene: Scene) -> None:
    scene.held = {P0: seen(4_000)}
    scene.turn()
    scene.take()
    scene.turn(1.9)
    assert scene.said() is None
    scene.turn(0.1)
    assert scene.said() is None, "looked at most twice a second"
    scene.turn(0.5)
    assert scene.said() is not None


def test_what_the_task_said_before_it_was_restarted_is_taken_back(scene: Scene) -> None:
    scene.partitions.say(3, NOW, "broker", 0)
    scene.turn()
    assert scene.said() is None


def test_a_sight_that_moves_asks_redis_nothing(scene: Scene) -> None:
    scene.turn()
    scene.partitions._connection.call("CONFIG", "RESETSTAT")
    for _ in range(10):
        scene.turn()
    stats = scene.partitions._connection.call("INFO", "commandstats")
    assert b"cmdstat_hdel" not in stats
    assert b"cmdstat_eval" not in stats


def test_nothing_is_said_of_a_connector_that_was_deleted(scene: Scene) -> None:
    scene.partitions.forget()
    scene.held = {P0: replace(seen(4_000))}
    scene.turn()
    assert scene.partitions._connection.call("EXISTS", scene.partitions.keys.proof) == 0
