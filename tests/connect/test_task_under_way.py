"""A batch that is still under way when partitions are given back, taken or given: nothing of it passes for what comes later."""

from __future__ import annotations

from typing import Any

from tests.fakes import FakeConsumer, OwningSink, Stage, records, stage, together

from heartbeat.connect.api import TopicPartition
from heartbeat.errors import Reclaim

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)


def scene() -> tuple[Stage, list[bool]]:
    """Return an open task with two partitions, and what its plugin says of the next batches: whether they are still under way."""
    made, answers = stage(plugin=OwningSink), list[bool]()
    put = made.sink.put

    def slowly(batch: Any) -> bool:
        put(batch)
        return bool(answers.pop(0)) if answers and len(batch) else False

    made.sink.put = slowly  # type: ignore[assignment, method-assign]
    made.open()
    made.consumer.offer(P, Q)
    made.turn(idle)
    return made, answers


def idle(_: FakeConsumer) -> None:
    """Poll without any event."""


def test_a_batch_under_way_is_committed_only_when_it_has_ended() -> None:
    made, answers = scene()
    answers.append(True)
    made.turn(records("t", 0, range(3)))
    assert made.consumer.committable() == {}
    made.turn(idle)
    assert made.consumer.committable() == {P: 3}


def test_a_batch_under_way_is_brought_to_its_end_before_anything_is_opened_also_when_it_was_revoked() -> None:
    made, answers = scene()
    answers.append(True)
    made.turn(records("t", 0, range(3)))
    before = len(made.journal)

    def rebalance(consumer: FakeConsumer) -> None:
        consumer.revoke(P, Q)
        consumer.offer(P)

    made.turn(rebalance)
    after = [kind for kind, _ in made.journal[before:] if kind in {"put", "closed", "open"}]
    assert after[:3] == ["put", "closed", "open"]
    assert made.consumer.committable() == {}


def test_what_was_under_way_of_a_partition_given_back_is_not_put_after_it_was_opened_anew() -> None:
    # It ends because another partition is to be opened, and only then tells that it failed.
    made, answers = scene()
    answers.append(True)
    made.turn(together(records("t", 0, range(90, 95)), records("t", 1, range(2))))
    made.sink.outcomes.append(Reclaim("flushed", [P]))
    made.turn(lambda consumer: consumer.offer(TopicPartition("t", 2)))
    made.turn(idle)
    anew = [entry for entry in made.journal if entry[0] in {"reopen", "put"}]
    after = [where for kind, puts in anew[anew.index(("reopen", [P])) :] if kind == "put" for where in puts]
    assert [where for where in after if where[1] == 0] == []
    assert ("t", 1, 0) in after
    assert P not in made.consumer.committable()
    made.turn(records("t", 0, range(5)))
    assert made.consumer.committable()[P] == 5
