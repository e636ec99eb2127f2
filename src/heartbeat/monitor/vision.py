"""What the proof says of a connector: until when all is proven, and if that is too long ago, at which stage sight was lost. Pure.

The way of a beat is broker, consumer (the worker's task), Redis, detection, delivery. Only the first three can blind a connector:
the last two are the monitor's own, and told by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from heartbeat.beats.clock import MOST_SKEW_MS
from heartbeat.beats.partitions import TARGET, TASKS, Said, Target

BROKER: Final = "broker"
CONSUMER: Final = "consumer"
REDIS: Final = "redis"

_REPORT_FRESH_MS: Final = 6_000
"""A task that proves nothing says so every two seconds."""


class Part(NamedTuple):
    """What is proven of one partition; None where nothing is."""

    topic: str
    partition: int
    since_ms: int | None
    until_ms: int | None
    canary_ms: int | None


class Blindness(msgspec.Struct, frozen=True):
    """Where sight was lost, and since when. ``topic`` and ``partition`` name the one that is furthest behind, if it is one.

    ``incident`` is of the incident that was opened for it, if one was.
    """

    stage: str
    message: str
    since_ms: int
    topic: str = ""
    partition: int = -1
    incident: str = ""

    @classmethod
    def parse(cls, kept: bytes) -> Blindness:
        """Read it as it is kept while its incident is open."""
        try:
            return msgspec.json.decode(kept, type=Blindness)
        except msgspec.MsgspecError:
            return cls("", "", 0)


@dataclass(frozen=True, slots=True)
class Vision:
    """A connector's proof, read. ``paused`` is ``PAUSED`` or ``STOPPED`` where an operator wants that."""

    parts: tuple[Part, ...]
    asked_ms: int | None
    takes_canaries: bool
    tasks: tuple[Said, ...]
    paused: str = ""

    def proven_ms(self, redis_ms: int, own_ms: int, *, canaries: bool) -> int | None:
        """Return the time by which everything committed has been applied, over all partitions; None where nothing is proven.

        It is no later than the partition set was asked for: of a partition that came after that nothing is known.
        """
        if not self.parts or self.asked_ms is None or self.asked_ms > redis_ms or abs(redis_ms - own_ms) > MOST_SKEW_MS:
            return None
        ends = [_end_ms(part, redis_ms, canaries=canaries) for part in self.parts]
        return None if None in ends else min(self.asked_ms, *(end for end in ends if end is not None))

    def worst(self, redis_ms: int, *, canaries: bool) -> Part | None:
        """Return the partition that is furthest behind, None where no partition is known."""
        return min(self.parts, key=lambda part: _end_ms(part, redis_ms, canaries=canaries) or -1, default=None)


def read(proof: Mapping[str, str]) -> Vision:
    """Read the proof's fields; those that cannot be read prove nothing."""
    counts: dict[str, int] = _json(proof.get("partitions", ""), dict[str, int]) or {}
    parts = tuple(
        Part(topic, number, *(_integer(proof.get(f"{topic}/{number}/{field}")) for field in ("since", "until", "canary")))
        for topic, count in sorted(counts.items())
        for number in range(count)
    )
    tasks = [_json(text, Said) for name, text in proof.items() if name.startswith(TASKS)]
    paused = Target.parse(proof.get(TARGET, "").encode()).state
    return Vision(
        parts,
        _integer(proof.get("partitions_at")),
        proof.get("canaries") == "1",
        tuple(task for task in tasks if task is not None),
        paused if paused in ("PAUSED", "STOPPED") else "",
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """The time by both clocks, what counts as too old, and since when nothing has been proven if nothing ever was.

    ``broker_ms`` is when the broker last answered us ourselves, None if we do not ask it.
    """

    redis_ms: int
    own_ms: int
    blind_after_ms: int
    unproven_since_ms: int
    canaries: bool = False
    broker_ms: int | None = None

    @property
    def clocks_agree(self) -> bool:
        """Tell whether Redis's clock and ours are so close that both may be believed."""
        return abs(self.redis_ms - self.own_ms) <= MOST_SKEW_MS


def blindness(vision: Vision, moment: Moment) -> Blindness | None:
    """Return where sight was lost, None while everything is proven freshly."""
    now_ms = min(moment.redis_ms, moment.own_ms)
    ahead_ms = moment.redis_ms - moment.own_ms
    worst = vision.worst(moment.redis_ms, canaries=moment.canaries)
    proven_ms = vision.proven_ms(moment.redis_ms, moment.own_ms, canaries=moment.canaries)
    since_ms = moment.unproven_since_ms if proven_ms is None else proven_ms
    if now_ms - since_ms <= moment.blind_after_ms:
        return None
    if not moment.clocks_agree:
        return Blindness(REDIS, f"the clocks of Redis and of this monitor are {ahead_ms / 1000:+.1f} s apart", since_ms)
    if worst is None:
        return Blindness(CONSUMER, "Redis holds no proof of any partition: it has lost its data, or no worker runs", since_ms)
    stage, message = _stage(vision, worst, moment, now_ms)
    return Blindness(stage, message, since_ms, worst.topic, worst.partition)


def _stage(vision: Vision, worst: Part, moment: Moment, now_ms: int) -> tuple[str, str]:
    where = f"{worst.topic}-{worst.partition}"
    if vision.paused:
        did = "paused" if vision.paused == "PAUSED" else "stopped"
        return CONSUMER, f"an operator {did} the connector ({where} is not read); resume it to see again"
    fresh = (task for task in vision.tasks if now_ms - task.at_ms <= _REPORT_FRESH_MS)
    whys = {task.why: task for task in sorted(fresh, key=lambda task: task.behind)}
    if "broker" in whys:
        return BROKER, f"Kafka does not answer the worker ({where} is the furthest behind)"
    if "paused" in whys:
        return CONSUMER, f"the connector is paused ({where} is not read); resume it to see again"
    if "clocks" in whys:
        return REDIS, "the clocks of Redis and of the worker disagree"
    if "lag" in whys:
        return CONSUMER, f"the worker is {whys['lag'].behind} records behind ({where} is the furthest behind)"
    if moment.broker_ms is not None and now_ms - moment.broker_ms > moment.blind_after_ms:
        return BROKER, f"Kafka does not answer, and no worker reports ({where} is the furthest behind)"
    reads = worst.until_ms is not None and now_ms - worst.until_ms <= moment.blind_after_ms
    if reads and vision.asked_ms is not None and now_ms - vision.asked_ms > moment.blind_after_ms:
        return BROKER, "Kafka does not tell the worker which partitions there are: there may be some that it does not read"
    if reads:
        return BROKER, f"canaries sent to {where} do not arrive, though what Kafka shows is read: it holds records back"
    may_be = "it is gone, cannot reach Redis, has failed, or waits for the group to give up one that was killed"
    return CONSUMER, f"no worker reports on {where}: {may_be}; look at the connector's status"


def _end_ms(part: Part, redis_ms: int, *, canaries: bool) -> int | None:
    """Return until when a partition is proven. A time to come can only be proven by a wrong clock."""
    if part.since_ms is None or part.until_ms is None or part.until_ms > redis_ms:
        return None
    if not canaries:
        return part.until_ms
    return None if part.canary_ms is None else min(part.until_ms, part.canary_ms)


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else None


def _json(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
