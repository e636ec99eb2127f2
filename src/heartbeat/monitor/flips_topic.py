"""The topic of flips: what others subscribe to, and the memory from which open incidents return when Redis has lost everything."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from heartbeat.beats.stream_ids import order
from heartbeat.display import utf8
from heartbeat.errors import RetriableError
from heartbeat.monitor.cluster import Cluster
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.kafka import Fault, Record, Sender, read_to_end
from heartbeat.monitor.settings import Kafka

log = logging.getLogger(__name__)

ID_HEADER: Final = "id"
_TIMEOUT_S: Final = 4.0
"""For a batch: less than a lease lasts, or two monitors could write at a time."""
_WAIT_S: Final = 0.1

_OWN: Final = {
    "enable.idempotence": "true",
    "message.timeout.ms": str(int(_TIMEOUT_S * 1000)),
    "partitioner": "murmur2_random",  # Java's: a tombstone from elsewhere goes where the record is
}


class Recorded(NamedTuple):
    """A flip, and its id in the stream of its connector."""

    flip: Flip
    id: str


class FlipsTopic:
    """One topic, compacted: the newest flip of every source. Each thread has its own of these.

    ``clock`` counts seconds and never goes back.
    """

    def __init__(self, settings: Kafka, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = settings.flips_topic
        self._settings = settings
        self._cluster = cluster
        self._clock = clock
        self._ensured = False
        self._sender: Sender | None = None

    def ensure(self) -> bool:
        """Make the topic if it is not there. The cluster is asked once, and again after a failure; return whether it was asked.

        Raises:
            RetriableError: the cluster does not answer.
            ConnectError: it refuses.
        """
        if self._ensured:
            return False
        self._cluster.ensure_compacted(self.name)
        self._ensured = True
        return True

    def write(self, flips: Sequence[Recorded]) -> None:
        """Write flips in this order, and return when all of them are committed; after an error, write the same ones again.

        Raises:
            RetriableError: not all were acknowledged.
            ConnectError: the cluster refuses.
        """
        self._send([self._record(flip, stream_id) for flip, stream_id in flips])

    def tombstones(self, sources: Collection[tuple[str, str]]) -> None:
        """Take (connector, source) out of the topic and of its memory; raises as ``write`` does."""
        self._send([Record(self.name, _key(connector, source), None) for connector, source in sources])

    def forget(self, connector: str, timeout_s: float) -> None:
        """Take what is open of a connector out of the memory: one that is made under its name later has other sources.

        Raises as ``remember`` and ``write`` do.
        """
        self.tombstones([(connector, source) for source in self.remember(timeout_s).get(connector, {})])

    def remember(
        self, timeout_s: float, ended_since_ms: int | None = None, after: Mapping[str, str] | None = None
    ) -> Mapping[str, Mapping[str, Recorded]]:
        """Return what opened the incidents that are open as the topic has it, by connector and source; nothing if there is no topic.

        With ``ended_since_ms`` also what has ended incidents since then; with ``after`` only of these connectors, and what was stored
        after these ids. It takes as much memory as it returns, however many records there are.

        Raises:
            RetriableError: the topic could not be read to its end in time.
            ConnectError: the cluster refuses.
        """
        memory: dict[bytes, Recorded] = {}
        unread = 0
        for record in read_to_end(self._settings, self.name, timeout_s):
            key = record.key or b""
            flip = None if record.value is None else _decoded(record)
            if flip is None and record.value is not None:
                unread += 1
                continue
            memory.pop(key, None)
            stream_id = dict(record.headers).get(ID_HEADER, b"").decode("ascii", "replace")
            if flip is None or not (flip.opens or (ended_since_ms is not None and order(stream_id)[0] >= ended_since_ms)):
                continue
            if after is None or (flip.connector in after and order(stream_id) > order(after[flip.connector])):
                memory[key] = Recorded(flip, stream_id)
        if unread:
            log.warning("%d records of topic %s are no flips: they are passed over", unread, self.name)
        found: dict[str, dict[str, Recorded]] = {}
        for recorded in memory.values():
            found.setdefault(recorded.flip.connector, {})[recorded.flip.source] = recorded
        return found

    def _record(self, flip: Flip, stream_id: str) -> Record:
        headers = ((ID_HEADER, stream_id.encode()),)
        return Record(self.name, _key(flip.connector, flip.source), msgspec.json.encode(flip), headers)

    def _send(self, records: Sequence[Record]) -> None:
        if self._sender is None:
            self._sender = Sender(self._settings, _OWN)
        sender, deadline_s = self._sender, self._clock() + _TIMEOUT_S
        settled: list[Fault | None] = []
        for record in records:
            while not (taken := sender.send(record, settled.append)) and self._clock() < deadline_s:
                sender.poll(_WAIT_S)  # no room: what waits must settle first
            if not taken:
                break  # what comes after it must not overtake it
        while len(settled) < len(records) and not any(settled) and self._clock() < deadline_s:
            sender.poll(_WAIT_S)
        if len(settled) < len(records) or any(settled):
            self._give_up(sender, next(filter(None, settled), None))

    def _give_up(self, sender: Sender, fault: Fault | None) -> None:
        # What is under way would otherwise arrive later, behind what somebody else has written meanwhile.
        sender.drop()
        self._ensured = False  # a topic that has gone looks like a broker that is slow
        if fault is None:
            raise RetriableError(f"Topic {self.name} did not acknowledge all flips in {_TIMEOUT_S:.0f} s")
        if fault.fatal:
            self._sender = None
        raise fault.error(f"Topic {self.name} did not take all flips")


def _key(connector: str, source: str) -> bytes:
    return utf8(f"{connector}/{source}").encode()


def _decoded(record: Record) -> Flip | None:
    """Return a record's flip; None if it is none, or not under its own key."""
    try:
        flip = msgspec.json.decode(record.value or b"", type=Flip)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return flip if record.key == _key(flip.connector, flip.source) else None
