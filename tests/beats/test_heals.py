"""Whatever goes wrong between any two commands, the index ends as a run without the fault leaves it. Properties, on a real Redis.

Left out, because the design leaves it open: a ttl that changes while two tasks write the same source, while a flush comes
between, or from none to one of its own before the source was introduced, is right only from its next beats on; so is the
public key, never the deadline, after a task died that was writing for a partition it had already lost. After a flush an open
run may be forgotten. And a task that has lost a partition may write a beat older than a goodbye it has not seen: who judges
a deadline looks at ``gone``, and so does this comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.beats.parts import P0, P1, Message, everything, now_ms
from tests.beats.worlds import Faults, World, expected, world
from tests.patience import patient

from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.keyspace import Keyspace
from heartbeat.connect.api import TopicPartition
from heartbeat.embedded.redis import EmbeddedRedis

EXAMPLES = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
Logs = Mapping[TopicPartition, Sequence[Message]]

# (source, minutes ago, ttl in minutes or 0 for the default, status, run)
said = st.tuples(
    st.sampled_from("abcx"),
    st.integers(0, 6),
    st.sampled_from([0, 0, 1, 5, 10]),
    st.sampled_from([None, None, None, "ok", "start", "fail", "bye"]),
    st.sampled_from(["", "r", "q"]),
)
Said = tuple[str, int, int, str | None, str]
steps = st.lists(
    st.tuples(st.sampled_from(["turn", "turn", "turn", "commit", "move", "lose"]), st.integers(0, 1), st.integers(1, 4)), max_size=25
)


def plans(*kinds: str) -> st.SearchStrategy[dict[int, str]]:
    return st.dictionaries(st.integers(1, 80), st.sampled_from(kinds), max_size=8)


def logs_of(records: Sequence[Said], now: int, *, changing: bool) -> Logs:
    """Make logs of what was drawn.

    ``x`` beats in every partition and says nothing else, the others have one partition each. All times differ, and no
    deadline is near now. What a source signals is in the order of time, as clocks have it.
    """
    logs: dict[TopicPartition, list[Message]] = {P0: [], P1: []}
    signalled = {
        source: sorted(when(record, i, now) for i, record in enumerate(records) if record[0] == source and record[3]) for source in "abc"
    }
    for index, (source, _, ttl, status, run) in enumerate(records):
        number = index % 2 if source == "x" else ord(source) % 2
        stamp = when(records[index], index, now)
        marks: list[tuple[str, bytes | None]] = []
        if source != "x":
            minutes_long = ttl or 5 if changing else {"a": 0, "b": 1, "c": 10}[source]
            if minutes_long:
                marks.append(("hb-ttl", str(60 * minutes_long).encode()))
            if status:
                stamp = signalled[source].pop(0)
                marks += [("hb-status", status.encode()), ("hb-run", run.encode())]
        log = logs[TopicPartition("t", number)]
        log.append(Message(stamp, source, number, len(log), tuple(marks)))
    return logs


def when(record: Said, index: int, now: int) -> int:
    return now - 30_000 - 60_000 * record[1] + index


def follow(made: World, how: Sequence[tuple[str, int, int]]) -> None:
    tasks = len(made.tasks)
    for what, which, many in how:
        if what == "turn" or tasks == 1:
            made.turn(which % tasks, many)
        elif what == "commit":
            made.commit(which)
        else:
            made.move((P0, P1)[which], told=what == "move")
        if what == "commit":
            made.commit(which % tasks)


def tail(made: World, logs: Logs) -> Logs:
    """One more beat in each partition: whatever was lost shows when something is written."""
    more: dict[TopicPartition, list[Message]] = {}
    for p, messages in logs.items():
        last = Message(now_ms() + 1_000, f"tail{p.partition}", p.partition, len(messages))
        made.append(p, last)
        more[p] = [*messages, last]
    return more


@pytest.fixture(scope="module")
def place(server: EmbeddedRedis) -> Server:
    return patient(server.host, server.port)


def found(place: Server) -> dict[str, Any]:
    admin = Connection(place)
    try:
        return everything(admin, Keyspace(admin, "c"))
    finally:
        admin.close()


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out deadlines made by beats older than their source's goodbye."""
    gone = dict(found["gone"])
    ttls = {b"s:a": 120_000, b"s:b": 60_000, b"s:c": 600_000, b"s:x": 120_000}
    past = {source for source, deadline in found["deadlines"] if source in gone and deadline - ttls[source] <= gone[source]}
    deadlines = [(source, deadline) for source, deadline in found["deadlines"] if source not in past]
    return {**found, "deadlines": deadlines, "keys": {key: value for key, value in found["keys"].items() if key.encode() not in past}}


@EXAMPLES
@example(
    [*[("a", 0, 0, None, "")] * 23, ("b", 0, 0, None, ""), ("b", 0, 1, None, "")],
    [("turn", 0, 1), ("turn", 0, 1), ("turn", 0, 2), ("turn", 0, 1)],
    {2: "crash", 4: "crash", 13: "crash", 18: "refuse"},  # the third task dies when it has kept b's ttl, and not yet its deadline
)
@given(st.lists(said, max_size=25), steps, plans("crash", "refuse", "lose"))
def test_one_task_that_crashes_anywhere_ends_where_no_fault_would(
    place: Server, records: list[Said], how: list[tuple[str, int, int]], plan: dict[int, str]
) -> None:
    now = now_ms()
    logs = logs_of(records, now, changing=True)
    with world(place, logs, 1, Faults(plan)) as made:
        follow(made, how)
        made.heal()
        assert found(place) == expected(logs, now)


@EXAMPLES
@given(st.lists(said, max_size=25), steps, plans("crash", "refuse", "lose"))
def test_two_tasks_that_take_over_from_each_other_end_where_no_fault_would(
    place: Server, records: list[Said], how: list[tuple[str, int, int]], plan: dict[int, str]
) -> None:
    now = now_ms()
    logs = logs_of(records, now, changing=False)
    with world(place, logs, 2, Faults(plan)) as made:
        follow(made, how)
        made.heal()
        assert judged(found(place)) == expected(logs, now)


@EXAMPLES
@given(st.lists(said, max_size=25), steps, plans("crash", "refuse", "lose", "flush"), st.integers(1, 80), st.integers(1, 2))
def test_a_flush_between_any_two_commands_heals_to_the_same(
    place: Server, records: list[Said], how: list[tuple[str, int, int]], plan: dict[int, str], flush: int, tasks: int
) -> None:
    now = now_ms()
    logs = logs_of(records, now, changing=False)
    with world(place, logs, tasks, Faults({**plan, flush: "flush"})) as made:
        follow(made, how)
        logs = tail(made, logs)
        made.heal()
        without_runs: dict[str, Any] = {"runs": {}}
        assert judged(found(place)) | without_runs == expected(logs, now) | without_runs
