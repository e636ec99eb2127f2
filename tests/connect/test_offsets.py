"""Progress under any sequence of events, against a model that remembers what was really applied."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.offsets import Progress

P, Q, R = (TopicPartition("t", number) for number in range(3))
SOME = st.dictionaries(st.sampled_from([P, Q, R]), st.integers(0, 30))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), st.dictionaries(st.sampled_from([P, Q, R]), st.integers(1, 3))),
        st.tuples(st.just("apply"), SOME),
        st.tuples(st.just("committed"), SOME),
    ),
    max_size=30,
)


class Model:
    """What a careful reader of the same events may believe."""

    def __init__(self) -> None:
        self.assigned: dict[TopicPartition, int] = {}
        self.applied: dict[TopicPartition, int] = {}

    def follow(self, assigned: Mapping[TopicPartition, int]) -> None:
        self.applied = {p: offset for p, offset in self.applied.items() if p in assigned and assigned[p] == self.assigned[p]}
        self.assigned = dict(assigned)

    def apply(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.applied |= {p: offset for p, offset in offsets.items() if p in self.assigned}


@given(EVENTS)
def test_only_what_this_assignment_has_applied_is_ever_committable(events: list[tuple[str, dict[TopicPartition, int]]]) -> None:
    progress, model = Progress(), Model()
    for event, offsets in events:
        match event:
            case "assign":
                progress.follow(offsets)
                model.follow(offsets)
            case "apply":
                progress.apply(offsets)
                model.apply(offsets)
            case _:
                progress.committed(offsets)
        committable = progress.committable()
        assert committable.keys() <= model.assigned.keys()
        assert all(offset == model.applied.get(p) for p, offset in committable.items())


@given(EVENTS, SOME)
def test_what_was_applied_stays_committable_until_the_group_holds_it(
    events: list[tuple[str, dict[TopicPartition, int]]], last: dict[TopicPartition, int]
) -> None:
    progress = Progress()
    progress.follow({P: 1, Q: 1, R: 1})
    for event, offsets in events:
        if event == "apply":
            progress.apply(offsets)
    progress.committed(dict.fromkeys((P, Q, R), -1))
    progress.apply(last)
    assert progress.committable().items() >= last.items()
    progress.committed(last)
    assert not progress.committable().keys() & last.keys()


def test_a_partition_assigned_again_starts_afresh() -> None:
    progress = Progress()
    progress.follow({P: 1})
    progress.apply({P: 10})
    progress.follow({P: 2})
    assert progress.committable() == {}
    progress.apply({P: 4})
    assert progress.committable() == {P: 4}


def test_an_assignment_that_stands_is_not_touched_when_others_change() -> None:
    progress = Progress()
    progress.follow({P: 1})
    progress.apply({P: 10})
    progress.follow({P: 1, Q: 2})
    assert progress.committable() == {P: 10}


def test_a_late_answer_for_older_offsets_leaves_the_newer_ones_committable() -> None:
    progress = Progress()
    progress.follow({P: 1})
    progress.apply({P: 10})
    progress.committed({P: 10})
    progress.apply({P: 20})
    progress.committed({P: 10})
    assert progress.committable() == {P: 20}


def test_nothing_is_known_before_the_first_assignment() -> None:
    progress = Progress()
    progress.apply({P: 3})
    progress.committed({P: 3})
    assert progress.committable() == {}
