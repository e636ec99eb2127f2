"""What our worker keeps in Redis besides the public keys, read to see that a run was right and not only fast (``docs/keyspace.md``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from bench.workloads import TTL_S, Backlog

FRESH_S = 1.2
"""How old a sight may be."""
_SIGHT_PATIENCE_S = 5.0
_EVERY_S = 0.02
_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Index:
    """The index of one connector that has one backlog as its topic."""

    redis: redis.Redis
    connector: str
    backlog: Backlog

    def offsets(self) -> list[int]:
        """Return the applied offset of every partition, -1 where there is none."""
        return self._proof("offset")

    def ages_s(self) -> list[float]:
        """Return how old the sight of every partition is; infinite where there is none."""
        untils, now_ms = self._proof("until"), time.time() * 1000
        return [(now_ms - until) / 1000 if until >= 0 else float("inf") for until in untils]

    def applied(self) -> bool:
        """Tell whether everything in the topic has been applied."""
        return self.offsets() == self.backlog.next_offsets()

    def sources(self) -> int:
        """Return how many sources have a deadline."""
        return int(self.redis.zcard(self._key("deadlines")))

    def wait_for_sight(self) -> float:
        """Wait until the sight of every partition is fresh; return for how many seconds.

        Raises:
            RuntimeError: it stays older than that, with the ages.
        """
        started = time.monotonic()
        while max(ages := self.ages_s()) > FRESH_S:
            if time.monotonic() - started > _SIGHT_PATIENCE_S:
                raise RuntimeError(f"a sight is older than {FRESH_S} s: {ages}")
            time.sleep(_EVERY_S)
        return time.monotonic() - started

    def check(self, key: str) -> None:
        """See that the proof names the ends of the log, that every source has the right deadline, and none is there besides.

        Raises:
            RuntimeError: something is wrong.
        """
        if not self.applied():
            raise RuntimeError(f"proven offsets are {self.offsets()}, the log ends at {self.backlog.next_offsets()}")
        expected = self.backlog.newest(key)
        found: dict[bytes, float] = dict(cast(Any, self.redis.zrange(self._key("deadlines"), 0, -1, withscores=True)))
        wrong = [source for source, beat in expected.items() if found.get(source) != beat + TTL_S * 1000]
        if wrong or len(found) != len(expected):
            examples = {source: (found.get(source), expected[source] + TTL_S * 1000) for source in wrong[:3]}
            raise RuntimeError(f"{len(found)} deadlines, not {len(expected)}; {len(wrong)} are wrong, as {examples} (found, expected)")
        self._check_keys(expected)

    def _check_keys(self, expected: dict[bytes, int]) -> None:
        """See that public keys say the same: so many of them as take no time, evenly spread."""
        sources: Sequence[bytes] = list(expected)[:: max(1, len(expected) // _LOOKED_AT)]
        with self.redis.pipeline(transaction=False) as pipeline:
            for source in sources:
                pipeline.get(source)
                pipeline.pexpiretime(source.decode())
            replies = pipeline.execute()
        for number, source in enumerate(sources):
            beat = expected[source]
            if replies[2 * number : 2 * number + 2] != [b"%d" % beat, beat + TTL_S * 1000]:
                raise RuntimeError(f"{source!r} is {replies[2 * number : 2 * number + 2]}, its last beat was at {beat}")

    def _proof(self, what: str) -> list[int]:
        topic, partitions = self.backlog.topic, self.backlog.workload.partitions
        fields = [f"{topic}/{partition}/{what}" for partition in range(partitions)]
        return [-1 if value is None else int(value) for value in self.redis.hmget(self._key("proof"), fields)]

    def _key(self, name: str) -> str:
        return f"hb:{{{self.connector}}}:{name}"
