"""A group member that says itself where its partitions start, as a task does whose plugin keeps offsets elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.fakes import PATIENCE_S, Where, eventually

from heartbeat.connect.api import Committed, TopicPartition
from heartbeat.connect.kafka import Membership, SinkConsumer
from heartbeat.connect.offsets import Progress
from heartbeat.errors import RetriableError

Ledger = dict[TopicPartition, int]
"""The next offset per partition: what members have in common, as tasks have a Redis."""


class Owner:
    """One member. It opens what it is given at the ledger's offset while ``opening``, and applies all it gets, in one thread."""

    def __init__(self, bootstrap: str, topic: str, ledger: Ledger, more: Mapping[str, str]) -> None:
        self.ledger = ledger
        self.opening = True
        self.applied: list[Where] = []
        self.opened: list[dict[TopicPartition, Committed | None]] = []
        self.progress = Progress()
        properties = {
            "bootstrap.servers": bootstrap,
            "group.id": f"g-{topic}",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": "10",
            "topic.metadata.refresh.interval.ms": "200",
            **more,
        }
        self.consumer = SinkConsumer(properties, Membership(self._committable, lambda p: f"seen {p.partition}", opens=True))
        self.consumer.subscribe([topic])

    @property
    def has(self) -> set[int]:
        """The numbers of the partitions that are consumed."""
        return {partition for _, partition in self.consumer.assigned}

    @property
    def waits_for(self) -> set[int]:
        """The numbers of the partitions that were given and not yet opened."""
        return {partition for _, partition in self.consumer.unopened}

    def turn(self) -> None:
        """Poll once, apply what came, open what waits."""
        delivery = self.consumer.poll(0.05, 100)
        self.progress.committed(self.consumer.take_committed())
        self.progress.follow(self.consumer.assigned)
        self.applied += [(m.topic(), m.partition(), m.offset()) for m in delivery.messages]
        self.progress.apply(delivery.next_offsets)
        self.ledger.update(delivery.next_offsets)
        if self.opening and self.consumer.unopened:
            self.open()

    def open(self) -> None:
        """Open everything that waits; a coordinator that does not answer yet is asked with the next turn."""
        try:
            known = self.consumer.committed()
            self.opened.append(known)
            self.consumer.start_at({partition: self.ledger.get(partition, 0) for partition in known})
        except RetriableError:
            return

    def until(self, check: Callable[[], object], what: str, *others: Owner, timeout_s: float = PATIENCE_S) -> None:
        """Turn, the others too, until it is so."""

        def turned() -> object:
            for owner in (self, *others):
                owner.turn()
            return check()

        eventually(turned, what, timeout_s)

    def commit(self) -> None:
        """Commit what is applied and wait for the answer."""
        self.consumer.commit(self._committable())
        self.consumer.wait_for_commit(PATIENCE_S)

    def leave(self, timeout_s: float = 30.0) -> None:
        """Close in a thread, as a task does."""
        thread = threading.Thread(target=self.consumer.close, daemon=True)
        thread.start()
        thread.join(timeout_s)
        assert not thread.is_alive(), f"close() did not return within {timeout_s} s"

    def _committable(self) -> Mapping[TopicPartition, int]:
        self.progress.follow(self.consumer.assigned)
        return self.progress.committable()


@contextmanager
def owner(bootstrap: str, topic: str, ledger: Ledger, more: Mapping[str, str]) -> Iterator[Owner]:
    """Have a member, which leaves at the end."""
    made = Owner(bootstrap, topic, ledger, more)
    try:
        yield made
    finally:
        made.leave()


def offsets_of(applied: Collection[Where], partition: int) -> list[int]:
    """Return the offsets of one partition, in the order they were applied."""
    return [offset for _, number, offset in applied if number == partition]


def once_each(sent: Collection[Where], owners: Sequence[Owner]) -> bool:
    """Tell whether everything sent was applied by somebody; something applied twice, or never sent, is an error at once."""
    applied = [where for each in owners for where in each.applied]
    assert len(applied) == len(set(applied)), f"applied twice: {sorted({w for w in applied if applied.count(w) > 1})[:10]}"
    assert set(applied) <= set(sent)
    return len(applied) == len(sent)


def goes_on(owners: Sequence[Owner], seconds: float) -> None:
    """Turn for a while: what must not happen gets its chance."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for each in owners:
            each.turn()
