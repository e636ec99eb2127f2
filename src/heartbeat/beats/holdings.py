"""The partitions a task holds: taken over by a claim, watched by samples, advanced behind the data.

What Redis says of a partition (token, offset, sight) is repeated here only to tell whether it is still so: every advance
names the offset it expects, and Redis refuses where it does not find it. Then the partition is claimed again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from heartbeat import logs
from heartbeat.beats.canaries import NONE, Canaries
from heartbeat.beats.clock import MOST_SKEW_MS, Clock
from heartbeat.beats.partitions import Advanced, Claimed, Partitions, Row, Stored
from heartbeat.beats.proof import LONGEST_GAP_MS, Answer, Sight
from heartbeat.beats.settings import Rules
from heartbeat.connect.api import Committed, Logs, Survey, TopicPartition
from heartbeat.errors import ConnectError, Reclaim, RetriableError

log = logging.getLogger(__name__)

_ASK_EVERY_MS: Final = 600
"""Below a second, because an answer waits for the next turn: sight must not be older than 1.2 s on an idle topic."""
_SKEW_LOG_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """One partition: our token, what Redis holds of it as far as we know, what we can see, and in which log."""

    token: str
    stored: Stored
    sight: Sight
    log: str = ""
    opened_ms: int = 0

    def row(self, partition: TopicPartition, canary_ms: int | None = None) -> Row | None:
        """Return what Redis does not know yet, if anything; ``canary_ms`` is of the newest canary that has come through by now."""
        stored, sight = self.stored, self.sight
        proven = sight.since_ms is not None and sight.until_ms != stored.until_ms
        if not proven and sight.applied == stored.offset and canary_ms is None:
            return None
        seen = (sight.since_ms, sight.until_ms, sight.epoch) if proven else (None, None, None)
        return Row(partition, self.token, stored.offset or 0, sight.applied, *seen, self.log, canary_ms)


@dataclass(frozen=True, slots=True)
class _Question:
    time_ms: int
    reached: Mapping[TopicPartition, int]


class Holdings:
    """What one task holds. Its thread's alone; ``held`` is replaced, never changed, so that others may read it."""

    def __init__(self, partitions: Partitions, asking: Logs, clock: Clock, rules: Rules) -> None:
        self.held: Mapping[TopicPartition, Held] = {}
        self.claims: dict[str, int] = {}
        self.canaries = 0
        self.previous_ttl_ms = rules.ttl_ms
        self._partitions = partitions
        self._logs = asking
        self._clock = clock
        self._rules = rules
        self._topics: dict[str, int] = {}
        self._made_anew: set[TopicPartition] = set()
        self._until_before_ms: dict[TopicPartition, int] = {}
        self._run_id = ""
        self._since_agreed_ms = -1
        self._topics_new: tuple[dict[str, int], int] | None = None
        self._asked_ms = 0
        self.answered_ms: int | None = None
        self._skew_log = logs.Every(_SKEW_LOG_S)

    # Claim

    def open(self, committed: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
        """Take partitions over and return where each one starts.

        Raises:
            RetriableError: Redis or Kafka did not answer, or somebody else claimed meanwhile.
            ConnectError: nothing says where to start, and the connector's configuration forbids to choose.
        """
        token = secrets.token_hex(8)
        partitions = sorted(committed)
        claimed = self._partitions.claim(self._rules.config, self._rules.ttl_ms, token, partitions)
        self._clock.told(claimed.redis_ms)
        self._run_id = claimed.run_id
        if claimed.previous_ttl_ms != self._rules.ttl_ms:
            self.previous_ttl_ms = claimed.previous_ttl_ms
        if claimed.dropped:
            log.warning(
                "Topics or redis.key are others than before: the index is built anew, from the last %d s", self._rules.horizon_ms // 1000
            )
        self._topics = dict(claimed.topics) if self._rules.pattern else {}
        self._made_anew |= self._in_other_logs(claimed)
        starts, proven = self._starts(committed, claimed)
        if not self._partitions.begin(token, starts, proven):
            raise RetriableError("another task has claimed the same partitions meanwhile")
        self._made_anew.difference_update(partitions)
        taken = {p: _taken(token, starts[p], claimed.partitions[p], proven=p in proven) for p in partitions}
        now_ms = self._clock.earlier_ms()
        self.held = {**self.held, **{p: replace(held, opened_ms=now_ms) for p, held in taken.items()}}
        return starts

    def _in_other_logs(self, claimed: Claimed) -> set[TopicPartition]:
        """Return the partitions whose stored offset is one of a topic that was made anew since: asked before a record is read."""
        stored = {partition: found.log for partition, found in claimed.partitions.items() if found.log}
        ids = self._logs.topic_ids({partition.topic for partition in stored}) if stored else {}
        return {partition for partition, log_id in stored.items() if ids.get(partition.topic, log_id) != log_id}

    def until_ms(self, partition: TopicPartition) -> int | None:
        """Return until when a held partition is proven; while that is being built anew, until when it was before."""
        held = self.held.get(partition)
        return None if held is None else held.stored.until_ms or self._until_before_ms.get(partition)

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Let go of partitions."""
        self.held = {partition: held for partition, held in self.held.items() if partition not in partitions}

    def _starts(
        self, committed: Mapping[TopicPartition, Committed | None], claimed: Claimed
    ) -> tuple[dict[TopicPartition, int], set[TopicPartition]]:
        """Return where each partition starts, and of which ones what was proven stays so."""
        bounds = self._logs.bounds(list(committed))
        starts: dict[TopicPartition, int] = {}
        proven: set[TopicPartition] = set()
        lost: dict[TopicPartition, int] = {}
        latest_ms = max(self._clock.now_ms(), claimed.redis_ms) + MOST_SKEW_MS  # what was proven beyond was proven by a wrong clock
        for partition, known in committed.items():
            first, end = bounds[partition]
            stored = claimed.partitions[partition]
            self._until_before_ms.pop(partition, None)
            if known is not None and known.metadata.isascii() and known.metadata.isdigit():
                self._until_before_ms[partition] = int(known.metadata)
            wanted = None if partition in self._made_anew else self._wanted(stored, known)
            if wanted is not None and first <= wanted <= end:
                starts[partition] = wanted
                self._count("resumed")
                if self._rules.replays and (stored.until_ms or 0) <= latest_ms:
                    proven.add(partition)
            elif wanted is not None and wanted < first:
                starts[partition] = first
                self._count("log_start")
                log.warning(
                    "%s-%d: Kafka no longer has the records from offset %d to %d, which were never seen: incomplete since then",
                    *partition,
                    wanted,
                    first,
                )
            elif stored.offset is None and known is None and self._rules.offset_reset is not None:
                starts[partition] = self._reset(partition, first, end)
                self._count("first_start")
            elif not self._rules.replays:
                starts[partition] = end
                self._count("end")
            else:
                now_ms = self._clock.now_ms()
                lost[partition] = min(self._until_before_ms.get(partition, now_ms), now_ms) - self._rules.horizon_ms
                reason = "first_start" if stored.offset is None and known is None else "rebuild"
                self._count("made_anew" if partition in self._made_anew else reason)
        for partition, offset in self._horizon(lost, bounds).items():
            known = committed[partition]
            # Never beyond what is committed: what was not applied anywhere yet is read, however old it is.
            starts[partition] = offset if known is None else max(bounds[partition][0], min(offset, known.offset))
        return starts, proven

    def _wanted(self, stored: Stored, known: Committed | None) -> int | None:
        if not self._rules.replays:
            return None if known is None else known.offset
        if stored.offset is None:
            return None
        return stored.offset if known is None else min(stored.offset, known.offset)

    def _reset(self, partition: TopicPartition, first: int, end: int) -> int:
        if self._rules.offset_reset in ("earliest", "latest"):
            return first if self._rules.offset_reset == "earliest" else end
        raise ConnectError(
            f"{partition.topic}-{partition.partition} has no offset to start from, and auto.offset.reset is {self._rules.offset_reset}"
        )

    def _horizon(
        self, times_ms: Mapping[TopicPartition, int], bounds: Mapping[TopicPartition, tuple[int, int]]
    ) -> dict[TopicPartition, int]:
        if not times_ms:
            return {}
        found: dict[TopicPartition, int] = {}
        for partition, offset in self._logs.offsets_at(times_ms).items():
            first, end = bounds[partition]
            found[partition] = end if offset is None else max(first, min(offset, end))
            if 0 < first == offset:
                log.warning(
                    "%s-%d: Kafka keeps less than the last %d s: incomplete since before offset %d, who was silent since is unknown",
                    *partition, self._rules.horizon_ms // 1000, first,
                )  # fmt: skip
        return found

    def _count(self, reason: str, many: int = 1) -> None:
        self.claims = {**self.claims, reason: self.claims.get(reason, 0) + many}

    # Sight

    def look(self, delivered: Mapping[TopicPartition, int]) -> None:
        """Take the answer to the last question if it has come, and ask the next if it is time.

        ``delivered`` is how far the batch at hand reaches: so far the logs go at least.

        Raises:
            Reclaim: the log of a partition is not the one we have applied, or the clocks were set back.
        """
        survey = self._logs.answer()
        if survey is not None:
            self._answered(survey)
        if not self._clock.agree:
            self._say_skew()
            self.held = {p: replace(held, sight=held.sight.interrupted()) for p, held in self.held.items()}
            self._since_agreed_ms = self._clock.earlier_ms()
            return
        now_ms = self._clock.earlier_ms()
        ahead = {p for p, held in self.held.items() if (held.sight.taken_ms or 0) - now_ms > LONGEST_GAP_MS}
        if ahead:
            raise Reclaim("the clocks were set back: what was proven reaches into the future", ahead)
        if not self._logs.asking and not 0 <= now_ms - self._asked_ms < _ASK_EVERY_MS:
            # Also of no partition: who has lost them all because the brokers are away is the one to say so.
            self._asked_ms = now_ms
            self.answered_ms = now_ms if self.answered_ms is None else self.answered_ms
            reached = {p: max(held.sight.reached, delivered.get(p, 0)) for p, held in self.held.items()}
            self._logs.ask(_Question(now_ms, reached), list(self.held), {*self._logs.topics, *self._topics})

    def _answered(self, survey: Survey) -> None:
        asked: _Question = survey.asked
        if survey.topics or survey.ends:
            self.answered_ms = asked.time_ms
        if asked.time_ms <= self._since_agreed_ms or not self.held:
            return  # asked for by a clock that we do not believe, or of nothing
        held = dict(self.held)
        made_anew: set[TopicPartition] = set()
        for partition, end in survey.ends.items():
            topic, known = survey.topics.get(partition.topic), held.get(partition)
            if known is None or partition not in asked.reached or (topic is None and known.log):
                continue  # without a word on which log this is, it is no proof of the one we know
            log_id = topic.id if topic is not None else ""
            if end.offset < asked.reached[partition] or (log_id and known.log not in ("", log_id)):
                made_anew.add(partition)
            sight = known.sight.answered(Answer(asked.time_ms, asked.reached[partition], end.offset, end.epoch))
            held[partition] = replace(known, sight=sight, log=known.log or log_id)
        self.held = held
        topics = {topic: known.partitions for topic, known in survey.topics.items() if known is not None}
        if topics and not {*self._logs.topics, *self._topics} - survey.topics.keys():
            self._topics = topics if self._rules.pattern else {}
            # A broker that has just started may not know a topic yet: what is held is not gone.
            gone = {topic for topic, known in survey.topics.items() if known is None} - {partition.topic for partition in held}
            waiting = self._topics_new[0] if self._topics_new else {}
            self._topics_new = waiting | topics | dict.fromkeys(gone, 0), asked.time_ms
        if made_anew:
            self._made_anew |= made_anew  # until their claim holds: by the next attempt the new log may have outgrown the stored offset
            raise Reclaim("the log is not the one that was applied: the topic was made anew, or cut", made_anew)

    def _say_skew(self) -> None:
        if self._skew_log.due(self._clock.now_ms() / 1000):
            log.warning(
                "The clocks of Redis and of this machine are %.1f s apart: nothing can be concluded from silence until they agree",
                self._clock.redis_ahead_ms / 1000,
            )

    # Advance

    def advance(self, applied: Mapping[TopicPartition, int], canaries: Canaries = NONE) -> Advanced | None:
        """Store how far partitions have come, after everything below has been acknowledged. Return the reply, None if nothing was new.

        ``canaries`` are those among what was applied since the last time.

        Raises:
            Reclaim: Redis does not hold what we left there: it was flushed, restored, failed over, or another task has claimed.
        """
        sights = {p: replace(held, sight=held.sight.advanced(applied[p])) if p in applied else held for p, held in self.held.items()}
        rows = {p: row for p, held in sights.items() if (row := held.row(p, canaries.newest_ms.get(p))) is not None}
        if not rows and self._topics_new is None and self._clock.agree:
            return None  # clocks that disagree are asked for on: on an idle topic nothing else would find out that they agree again
        topics, at_ms = self._topics_new or (None, 0)
        reply = self._partitions.advance(self._run_id, rows.values(), topics, at_ms)
        self._clock.told(reply.redis_ms)
        if reply.refused:
            self._count("refused", len(reply.refused))
            raise Reclaim("Redis no longer holds what this task left there", reply.refused)
        self._topics_new = None
        self.canaries += canaries.count
        self.held = {p: replace(held, stored=_stored(held, rows.get(p))) for p, held in sights.items()}
        return reply


def _taken(token: str, start: int, stored: Stored, *, proven: bool) -> Held:
    now = Stored(start)
    if proven and stored.since_ms is not None and stored.until_ms is not None and stored.epoch is not None:
        now = replace(stored, offset=start)
        return Held(token, now, Sight.resumed(start, stored.since_ms, stored.until_ms, stored.epoch), stored.log)
    log_id = stored.log if proven else ""  # known also where nothing was met yet
    return Held(token, replace(now, log=log_id), Sight(start), log_id)


def _stored(held: Held, row: Row | None) -> Stored:
    if row is None:
        return held.stored
    canary_ms = max(row.canary_ms or 0, held.stored.canary_ms or 0) or None
    if row.since_ms is None:
        return replace(held.stored, offset=row.offset, log=row.log or held.stored.log, canary_ms=canary_ms)
    return Stored(row.offset, row.since_ms, row.until_ms, row.epoch, row.log, canary_ms)
