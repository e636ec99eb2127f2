"""One connector, watched over a real Redis: what is told of it, when, and how often."""

from __future__ import annotations

import time

import pytest
from tests.monitor.judging import GRACE, TTL, Index, Monitor

from heartbeat.beats import verdicts
from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Info, Keyspace
from heartbeat.beats.partitions import Partitions
from heartbeat.monitor import settings, watch
from heartbeat.monitor.flips import incident_of

MANY = 3_000


@pytest.fixture
def index(connection: Connection) -> Index:
    return Index(connection)


@pytest.fixture
def monitor(connection: Connection) -> Monitor:
    return Monitor(connection)


def ruled(*rules: settings.Rule, **monitor: float) -> settings.Settings:
    return settings.Settings(monitor=settings.Monitor(**monitor), rules=rules)  # type: ignore[arg-type]


def test_a_silent_source_is_down_once_with_the_true_times(index: Index, monitor: Monitor) -> None:
    beat = index.beat("pump:7", at=-80_000)
    index.beat("pump:8")
    index.prove()
    monitor.tick(3)
    (flip,) = index.flips()
    assert (flip.source, flip.connector, flip.from_, flip.to, flip.reason) == ("pump:7", "pumps", "LATE", "DOWN", "silence")
    assert (flip.last_beat_ms, flip.deadline_ms, flip.at_ms) == (beat, beat + TTL, beat + TTL + GRACE)
    assert flip.incident == incident_of("pumps", "pump:7", beat + TTL)
    assert flip.proven_until_ms is not None
    assert flip.detected_ms is not None
    assert flip.deadline_ms is not None
    assert flip.deadline_ms < flip.proven_until_ms <= flip.detected_ms
    assert index.down() == {"pump:7": beat + TTL}


def test_a_source_is_given_the_grace_slack_tags_and_severity_of_the_settings(index: Index, monitor: Monitor) -> None:
    monitor.settings.live = ruled(settings.Rule(match="patient-*", grace_s=3_600), settings.Rule(match="p*", severity="info", tags=("x",)))
    index.beat("patient-1", "pump", at=-80_000)
    index.prove()
    monitor.tick()
    assert [(flip.source, flip.severity, flip.tags) for flip in index.flips()] == [("pump", "info", ("x",))]
    index.beat("prompt", at=-80_000)
    monitor.settings.live = ruled(settings.Rule(match="patient-*", grace_s=10), slack_s=100)
    monitor.tick()
    assert len(index.flips()) == 1
    monitor.settings.live = ruled(settings.Rule(match="patient-*", grace_s=10))
    monitor.tick()
    assert sorted(flip.source for flip in index.flips()) == ["patient-1", "prompt", "pump"]


def test_a_look_counts_who_is_due_late_and_unknown(index: Index, monitor: Monitor) -> None:
    index.beat("alive")
    index.beat("late", at=-62_000)
    index.beat("unproven", "unproven too", at=-90_000)
    index.prove(-40_000)
    monitor.tick()
    seen = monitor.detector.state.connectors["pumps"]
    assert (seen.sources, seen.late, seen.unknown, seen.down) == (4, 1, 2, 0)
    assert seen.blind is not None
    index.prove()
    monitor.tick(2)
    seen = monitor.detector.state.connectors["pumps"]
    assert (seen.sources, seen.late, seen.unknown, seen.down, seen.blind) == (2, 1, 0, 2, None)


def test_a_restart_changes_nothing(index: Index, monitor: Monitor) -> None:
    judged = index.beat("pump", at=-80_000) + TTL
    index.prove()
    monitor.tick()
    monitor.restart()
    monitor.tick(2)
    assert index.told() == [("pump", "DOWN", "silence")]
    back = index.beat("pump")
    monitor.restart()
    monitor.tick(2)
    monitor.restart()
    monitor.tick(2)
    down, up = index.flips()
    assert (up.to, up.reason, up.incident, up.at_ms) == ("UP", "recovered", down.incident, back)
    assert (up.down_ms, up.missed) == (back - judged - GRACE, 1)
    assert index.down() == {}


def test_a_redelivered_beat_or_one_that_has_passed_recovers_nobody(index: Index, monitor: Monitor) -> None:
    index.beat("again", "later", at=-200_000)
    index.prove()
    monitor.tick()
    index.beat("again", at=-210_000)
    index.beat("later", at=-90_000)
    monitor.tick(2)
    assert sorted(index.told()) == [("again", "DOWN", "silence"), ("later", "DOWN", "silence")]
    assert index.connection.call("ZCARD", index.keys.deadlines) == 0


def test_verdicts_are_held_while_blind_and_settled_after_with_the_true_deadline(index: Index, monitor: Monitor) -> None:
    silent = index.beat("silent", at=-100_000)
    index.beat("beat meanwhile", at=-100_000)
    index.prove(-60_000)
    monitor.tick(3)
    assert index.told() == [("pipeline:pumps", "BLIND", "blind")]
    index.beat("beat meanwhile", at=-10_000)
    index.prove()
    monitor.tick(3)
    assert index.told() == [
        ("pipeline:pumps", "BLIND", "blind"),
        ("pipeline:pumps", "SIGHTED", "sighted"),
        ("silent", "DOWN", "silence"),
    ]
    blind, sighted, down = index.flips()
    assert (down.deadline_ms, down.at_ms) == (silent + TTL, silent + TTL + GRACE)
    assert blind.incident == sighted.incident
    assert blind.at_ms == blind.proven_until_ms == int(sighted.at_ms) - (sighted.down_ms or 0)


def test_who_was_overdue_before_blindness_began_is_judged_by_what_is_proven(index: Index, monitor: Monitor) -> None:
    index.beat("silent before", at=-200_000)
    index.prove(-60_000)
    monitor.tick(2)
    assert sorted(index.told()) == [("pipeline:pumps", "BLIND", "blind"), ("silent before", "DOWN", "silence")]


def test_a_gap_in_our_looking_is_settled_before_anything_is_concluded(index: Index, monitor: Monitor) -> None:
    index.beat("pump", at=-80_000)
    index.prove(since=-50_000)
    monitor.tick(2)
    assert index.told() == []
    index.prove(since=-61_000)
    monitor.tick()
    assert index.told() == [("pump", "DOWN", "silence")]


def test_blindness_is_one_incident_however_often_it_is_looked_at_and_by_whom(
    index: Index, monitor: Monitor, connection: Connection
) -> None:
    other = Monitor(connection, "other")
    index.prove(-60_000)
    for _ in range(3):
        monitor.tick()
        other.tick()
        monitor.restart()
    index.prove(-59_000)
    other.tick()
    monitor.tick()
    assert index.told() == [("pipeline:pumps", "BLIND", "blind")]
    assert other.detector.state.connectors["pumps"].blind is not None
    index.prove()
    for _ in range(3):
        monitor.restart()
        monitor.tick()
        other.tick()
    assert index.told() == [("pipeline:pumps", "BLIND", "blind"), ("pipeline:pumps", "SIGHTED", "sighted")]
    index.prove(-30_000)
    monitor.tick()
    assert len({flip.incident for flip in index.flips()}) == 2


def test_blindness_says_its_stage_its_partition_and_what_an_operator_did(index: Index, monitor: Monitor) -> None:
    index.prove(-60_000, partitions=1, target='{"state":"PAUSED","at_ms":1}')
    monitor.tick()
    (flip,) = index.flips()
    assert flip.message == "consumer: an operator paused the connector (t-0 is not read); resume it to see again"
    seen = monitor.detector.state.connectors["pumps"]
    assert seen.paused == "PAUSED"
    assert seen.blind is not None
    assert (seen.blind.topic, seen.blind.partition, seen.blind.incident) == ("t", 0, flip.incident)


def test_a_connector_that_has_just_been_claimed_is_not_blind_at_once(index: Index, monitor: Monitor) -> None:
    index.claim()
    monitor.tick(2)
    assert index.told() == []
    monitor.clock.ahead_ms = 1_000
    monitor.settings.live = ruled(blind_after_s=0.0)
    deadline = time.monotonic() + 20
    while not index.told() and time.monotonic() < deadline:
        monitor.tick()
        time.sleep(0.02)
    assert index.told() == [("pipeline:pumps", "BLIND", "blind")]


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 3_600_000])
def test_a_monitor_that_starts_with_a_wrong_clock_tells_of_it(ahead_ms: int, index: Index, monitor: Monitor) -> None:
    monitor.settings.live = ruled(blind_after_s=0.2)
    monitor.clock.ahead_ms = ahead_ms
    index.prove()
    deadline = time.monotonic() + 20
    while not index.told() and time.monotonic() < deadline:
        monitor.tick()
        time.sleep(0.05)
    assert index.told() == [("pipeline:pumps", "BLIND", "blind")]
    assert "apart" in index.flips()[0].message


def test_a_wrong_clock_is_told_once_where_a_right_one_sees(index: Index, monitor: Monitor, connection: Connection) -> None:
    other = Monitor(connection, "other")
    index.prove()
    monitor.clock.ahead_ms = -15_000
    monitor.tick()
    for monitor.clock.ahead_ms in (-2_500, -2_400, -2_500, -2_400):
        index.prove()
        monitor.tick()
        other.tick()
    assert index.told() == [("pipeline:pumps", "BLIND", "blind"), ("pipeline:pumps", "SIGHTED", "sighted")]
    blind = monitor.detector.state.connectors["pumps"].blind
    assert blind is not None
    assert "apart" in blind.message
    monitor.clock.ahead_ms = 0
    index.prove()
    monitor.tick()
    assert monitor.detector.state.connectors["pumps"].blind is None
    for monitor.clock.ahead_ms in (-15_000, -2_500):  # that it was right in between makes it another one
        monitor.tick()
    assert len(index.told()) == 3


def test_nothing_is_concluded_while_clocks_disagree(index: Index, monitor: Monitor) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    for monitor.clock.ahead_ms in (-5_000, 5_000):
        monitor.tick()
    assert index.down() == {}
    monitor.clock.ahead_ms = 0
    monitor.tick()
    assert "pump" in index.down()


def test_a_fail_is_down_at_once_with_its_message_and_told_once(index: Index, monitor: Monitor) -> None:
    failed = index.fail("job", "no disk", at=-1_000)
    index.prove()
    monitor.tick(2)
    (flip,) = index.flips()
    assert (flip.source, flip.to, flip.reason, flip.message, flip.at_ms) == ("job", "DOWN", "fail", "no disk", failed)
    index.connection.call("ZADD", index.keys.fails, failed, "job")  # a replay
    index.beat("job", at=-2_000)
    monitor.tick(2)
    index.fail("job", "still no disk")
    monitor.tick(2)
    assert len(index.flips()) == 1
    back = index.beat("job", at=100)
    monitor.tick(2)
    assert [(flip.to, flip.at_ms) for flip in index.flips()] == [("DOWN", failed), ("UP", back)]


def test_a_fail_waits_for_what_others_may_have_said_since(index: Index, monitor: Monitor) -> None:
    index.fail("job", "no disk", at=-1_000)
    index.prove(-5_000)
    monitor.tick()
    assert index.told() == []
    index.prove()
    monitor.tick()
    assert index.told() == [("job", "DOWN", "fail")]


def test_a_goodbye_ends_without_alert(index: Index, monitor: Monitor) -> None:
    index.beat("pump")
    index.prove()
    index.bye("pump")
    index.beat("pump", at=-100_000)
    monitor.tick(2)
    assert index.told() == []
    assert index.connection.call("ZCARD", index.keys.deadlines) == 0


def test_a_goodbye_while_down_ends_the_incident(index: Index, monitor: Monitor) -> None:
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick()
    gone = index.bye("pump")
    monitor.tick(2)
    index.beat("pump", at=-90_000)
    monitor.tick(2)
    assert index.told() == [("pump", "DOWN", "silence"), ("pump", "PAUSED", "bye")]
    assert (index.flips()[1].at_ms, index.flips()[1].message) == (gone, "")


def declared(*sources: str) -> settings.Settings:
    return ruled(*(settings.Rule(match=source, expected=True) for source in sources))


def test_a_declared_source_that_never_beats_is_down_and_recovers(index: Index, monitor: Monitor) -> None:
    monitor.settings.live = declared("pump", "known", "new")
    index.beat("known")
    index.prove()
    since = index.now() - 80_000
    index.connection.call("ZADD", index.keys.expected, since, "pump", since, "known")
    monitor.tick(2)
    monitor.restart()
    monitor.tick(2)
    (flip,) = index.flips()
    assert (flip.source, flip.from_, flip.reason, flip.last_beat_ms) == ("pump", "NEW", "never_seen", None)
    assert (flip.deadline_ms, flip.at_ms) == (since + TTL, since + TTL + GRACE)
    index.beat("pump")
    monitor.tick(2)
    assert index.told()[1:] == [("pump", "UP", "recovered")]


def test_a_declared_source_that_said_goodbye_long_ago_is_not_missed(index: Index, monitor: Monitor, connection: Connection) -> None:
    monitor.settings.live = declared("pump")
    index.beat("pump")
    index.prove()
    monitor.tick()
    connection.call("ZADD", index.keys.expected, index.now() - 3_600_000, "pump")  # declared for long
    index.bye("pump")
    monitor.restart()
    monitor.tick()
    later_ms = index.now() + 1  # a horizon later, by the clock of a sink whose next goodbye comes
    Keyspace(connection, "pumps").bye([("other", later_ms, TTL)], later_ms)
    monitor.restart()
    monitor.tick()
    assert index.told() == []


def test_one_that_was_never_seen_and_is_declared_no_more_is_not_down_for_ever(index: Index, monitor: Monitor) -> None:
    monitor.settings.live = declared("misspelt")
    index.prove()
    index.connection.call("ZADD", index.keys.expected, index.now() - 80_000, "misspelt")
    monitor.tick()
    assert index.told() == [("misspelt", "DOWN", "never_seen")]
    monitor.settings.live = declared("pump")
    monitor.clock.ahead_ms = 1_900
    monitor.restart()
    monitor.tick(2)
    assert index.down() == {}


def test_with_canaries_a_partition_without_one_holds_verdicts_up(index: Index, monitor: Monitor) -> None:
    monitor.kafka.canaries = True
    index.beat("pump", at=-80_000)
    index.prove(canaries=1)
    monitor.tick()
    assert index.told() == []
    now = index.now()
    index.prove(**{"canaries": 1, "t/0/canary": now, "t/1/canary": now})
    monitor.tick()
    assert index.told() == [("pump", "DOWN", "silence")]


def test_two_monitors_of_different_patience_tell_a_blindness_once(index: Index, monitor: Monitor, connection: Connection) -> None:
    patient = Monitor(connection, "patient")
    monitor.settings.live, patient.settings.live = ruled(blind_after_s=3.0), ruled(blind_after_s=60.0)
    index.prove(-20_000)
    for _ in range(3):
        monitor.tick()
        patient.tick()
    assert index.told() == [("pipeline:pumps", "BLIND", "blind")]
    index.prove()
    patient.tick()
    assert index.told() == [("pipeline:pumps", "BLIND", "blind"), ("pipeline:pumps", "SIGHTED", "sighted")]


def test_canaries_that_nobody_sent_while_no_monitor_ran_blind_nobody(index: Index, monitor: Monitor) -> None:
    monitor.kafka.canaries = True
    now = index.now()
    old = {"canaries": 1, "t/0/canary": now - 60_000, "t/1/canary": now - 60_000}
    index.prove(**old)
    monitor.tick(2)
    assert index.told() == []
    monitor.settings.live = ruled(blind_after_s=0.2)
    deadline = time.monotonic() + 20
    while not index.told() and time.monotonic() < deadline:
        index.prove(**old)
        monitor.tick()
    (flip,) = index.flips()
    assert "broker: canaries sent to t-0 do not arrive" in flip.message


def test_a_sink_that_knows_no_canaries_is_not_asked_for_them(index: Index, monitor: Monitor) -> None:
    monitor.kafka.canaries = True
    index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick()
    assert index.told() == [("pump", "DOWN", "silence")]
    assert not monitor.detector.state.connectors["pumps"].takes_canaries


def test_many_that_are_due_at_once_are_judged_over_several_ticks_each_once(
    index: Index, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many in front of them that are due and not to be judged yet."""
    monkeypatch.setattr(watch, "_MOST_DUE", 1_000)
    monitor.settings.live = ruled(settings.Rule(match="patient-*", grace_s=3_600))
    index.beat(*(f"patient-{n}" for n in range(1_700)), at=-90_000)
    index.beat(*(f"pump-{n}" for n in range(MANY)), at=-80_000)
    index.prove()
    for _ in range(30):
        monitor.tick()
        if len(index.down()) == MANY:
            break
    monitor.tick(3)
    told = [flip.source for flip in index.flips()]
    assert len(told) == len(set(told)) == MANY
    assert not any(source.startswith("patient") for source in told)


def test_many_that_come_back_at_once_are_closed_each_once(index: Index, monitor: Monitor) -> None:
    sources = [f"pump-{n}" for n in range(MANY)]
    index.beat(*sources, at=-80_000)
    index.prove()
    monitor.tick(2)
    assert len(index.down()) == MANY
    index.beat(*sources)
    monitor.tick(4)
    assert index.down() == {}
    told = index.told()
    assert len(told) == len(set(told)) == 2 * MANY


def test_nobody_hurries_while_nobody_can_be_judged(index: Index, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a gap in our looking: for minutes all that is due is unproven."""
    monkeypatch.setattr(watch, "_MOST_DUE", 1_000)
    index.beat(*(f"pump-{n}" for n in range(MANY)), at=-80_000)
    index.prove(since=-1_000)
    monitor.tick()
    assert not monitor.detector.state.connectors["pumps"].busy
    index.prove()
    monitor.tick()
    assert monitor.detector.state.connectors["pumps"].busy


def failed_with_a_long_ttl(index: Index) -> int:
    """Have a job that runs for an hour say that it failed."""
    at_ms = index.fail("job", "no disk", at=-1_000)
    index.connection.call("ZADD", index.keys.deadlines, at_ms + 60 * TTL, "job")
    index.connection.call("HSET", index.keys.info, "job", Info(at_ms, 60 * TTL).packed())
    return at_ms


def test_the_goodbye_of_a_job_that_failed_ends_its_incident_whatever_ttl_it_had(index: Index, monitor: Monitor) -> None:
    failed_with_a_long_ttl(index)
    index.prove()
    monitor.tick()
    gone = index.now()
    assert Keyspace(index.connection, "pumps").bye([("job", gone, TTL)], gone - 600_000) == {"job"}
    monitor.tick()
    assert index.told() == [("job", "DOWN", "fail"), ("job", "PAUSED", "bye")]
    assert index.down() == {}


def test_a_job_that_failed_is_up_with_its_next_beat_although_that_has_a_shorter_ttl(index: Index, monitor: Monitor) -> None:
    failed = failed_with_a_long_ttl(index)
    index.prove()
    monitor.tick(2)
    keyspace = Keyspace(index.connection, "pumps")
    keyspace.retime({"job": failed}, {"job": TTL}, Info(failed, TTL))  # delivered again
    monitor.tick(2)
    assert index.told() == [("job", "DOWN", "fail")]
    back = failed + 900
    keyspace.retime({"job": back}, {"job": TTL}, Info(back, TTL))
    monitor.tick(2)
    down, up = index.flips()
    assert (up.to, up.at_ms, up.down_ms, up.incident) == ("UP", back, 900, down.incident)
    assert down.incident == incident_of("pumps", "job", failed)


def test_a_fail_and_its_silence_are_one_incident_when_both_are_due(index: Index, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a loss, with more fails than one look takes on."""
    monkeypatch.setattr(verdicts, "_MOST_FAILS", 1)
    failed = {source: index.fail(source, "no disk", at=-200_000) for source in ("job", "other job")}
    index.prove()
    monitor.tick(2)
    assert index.told() == [("job", "DOWN", "fail"), ("other job", "DOWN", "fail")]
    assert index.down() == failed


def test_goodbyes_that_come_with_others_that_are_newer_end_what_is_open(index: Index, monitor: Monitor) -> None:
    index.beat("pump", at=-3_700_000)
    index.beat("valve", at=-3_000_000)
    index.prove(since=-7_200_000)
    monitor.tick()
    now = index.now()
    Keyspace(index.connection, "pumps").bye([("pump", now - 3_000_000, TTL), ("valve", now - 2_900_000, TTL)], now - 600_000)
    monitor.tick()
    assert sorted(index.told()[2:]) == [("pump", "PAUSED", "bye"), ("valve", "PAUSED", "bye")]


def test_one_that_was_never_seen_is_missed_again_when_it_is_declared_again(index: Index, monitor: Monitor) -> None:
    def declare(*sources: str, since: int) -> None:
        monitor.settings.live = declared(*sources)
        for source in sources:
            index.connection.call("ZADD", index.keys.expected, index.now() + since, source)
        index.prove()
        monitor.restart()
        monitor.tick(2)

    declare("pump", since=-80_000)
    declare(since=0)
    declare("pump", since=-70_000)
    assert index.told() == [("pump", "DOWN", "never_seen"), ("pump", "PAUSED", "bye"), ("pump", "DOWN", "never_seen")]
    assert (index.flips()[1].message, index.flips()[1].missed) == ("is watched no more", None)
    assert len({flip.incident for flip in index.flips()}) == 2


def test_who_is_down_is_let_go_of_with_the_index_or_for_room_and_its_incident_ends(index: Index, monitor: Monitor) -> None:
    partitions = Partitions(index.connection, index.connector)
    partitions.claim("one", TTL, "token", [])
    index.beat("renamed", at=-90_000)
    index.beat("the longest dead", at=-100_000)
    index.fail("job", "no disk")
    index.prove()
    monitor.tick()
    assert len(index.told()) == 3
    assert Keyspace(index.connection, index.connector).make_room(1, index.now()) == 1
    monitor.tick(2)
    assert index.told()[3:] == [("the longest dead", "PAUSED", "bye")]
    partitions.claim("two", TTL, "token", [])
    monitor.tick(2)
    assert sorted(index.told()[4:]) == [("job", "PAUSED", "bye"), ("renamed", "PAUSED", "bye")]
    assert {flip.message for flip in index.flips()[3:]} == {"is watched no more"}
    assert index.down() == {}
    assert index.connection.call("EXISTS", index.keys.gone) == 0


def test_who_left_while_down_came_back_and_is_silent_again_is_down_again(index: Index, monitor: Monitor) -> None:
    """Nobody looked meanwhile: the goodbye ended the first incident, the silence is another one."""
    index.beat("pump", at=-200_000)
    index.prove()
    monitor.tick()
    index.connection.call("ZADD", index.keys.gone, index.now() - 100_000, "pump")
    beat = index.beat("pump", at=-80_000)
    index.prove()
    monitor.tick(3)
    assert index.told() == [("pump", "DOWN", "silence"), ("pump", "PAUSED", "bye"), ("pump", "DOWN", "silence")]
    assert index.down() == {"pump": beat + TTL}
