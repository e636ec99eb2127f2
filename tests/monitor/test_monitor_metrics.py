"""The monitor's figures, in Prometheus' own words as its own parser reads them."""

from __future__ import annotations

import math
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from tests.monitor.views import NOW, SEEN, Seen

from heartbeat.monitor import metrics
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.vision import Blindness
from heartbeat.monitor.watch import Look


def samples(view: Seen) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.page(view, NOW).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_sources_are_counted_by_connector_and_state() -> None:
    looks = {"pumps": Look(sources=10, late=2, unknown=3, down=4, proven_until_ms=NOW - 1_500), "fans": Look()}
    found = samples(Seen(replace(SEEN, connectors=looks)))
    states = {"UP": 5, "LATE": 2, "UNKNOWN": 3, "DOWN": 4}
    for state, count in states.items():
        assert found["heartbeat_sources", (("connector", "pumps"), ("state", state))] == count
        assert found["heartbeat_sources", (("connector", "fans"), ("state", state))] == 0
    assert found["heartbeat_due_unproven", (("connector", "pumps"),)] == 3
    assert found["heartbeat_proven_until_age_seconds", (("connector", "pumps"),)] == 1.5


def test_what_was_never_proven_is_infinitely_old_so_that_an_alert_fires() -> None:
    found = samples(Seen(replace(SEEN, tick_ms=0, connectors={"c": Look(blind=Blindness("consumer", "", NOW))})))
    assert found["heartbeat_proven_until_age_seconds", (("connector", "c"),)] == math.inf
    assert found["heartbeat_pipeline_blind", (("connector", "c"),)] == 1
    assert found["heartbeat_tick_age_seconds", ()] == math.inf


def test_the_last_tick_is_told() -> None:
    found = samples(Seen(replace(SEEN, took_ms=12.0, tick_ms=NOW - 2_000)))
    assert found["heartbeat_tick_seconds", ()] == 0.012
    assert found["heartbeat_tick_age_seconds", ()] == 2
    assert found["heartbeat_redis_up", ()] == 1
    assert samples(Seen(replace(SEEN, error="away")))["heartbeat_redis_up", ()] == 0


def test_channels_tell_what_waits_and_what_failed() -> None:
    channel = DelivererState(
        "ops", leader=True, pending=3, oldest_pending_ms=NOW - 4_000, last_success_ms=NOW - 90_000, failures=7, lost=2, last_error="no"
    )
    found = samples(Seen(told=(channel, DelivererState("new"))))
    ops, new = (("channel", "ops"),), (("channel", "new"),)
    assert found["heartbeat_channel_pending", ops] == 3
    assert found["heartbeat_channel_oldest_pending_age_seconds", ops] == 4
    assert found["heartbeat_channel_last_success_timestamp_seconds", ops] == (NOW - 90_000) / 1000
    assert found["heartbeat_channel_failures", ops] == 7
    assert found["heartbeat_channel_lost_total", ops] == 2
    assert (found["heartbeat_channel_leader", ops], found["heartbeat_channel_leader", new]) == (1, 0)
    assert ("heartbeat_channel_last_success_timestamp_seconds", new) not in found
    assert found["heartbeat_channel_oldest_pending_age_seconds", new] == 0


def test_names_that_are_no_unicode_or_hold_quotes_break_nothing() -> None:
    found = samples(Seen(replace(SEEN, connectors={'a"\n\\': Look(), "raw\udcff": Look()})))
    assert {labels[0][1] for name, labels in found if name == "heartbeat_pipeline_blind"} == {'a"\n\\', "raw\\xff"}
