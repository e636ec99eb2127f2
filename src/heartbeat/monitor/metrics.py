"""``GET /metrics`` of the monitor: what is known at the moment of the scrape, in Prometheus' text format.

Labels are bounded by what people configure: connectors, channels, states. There is no figure per source: a million of them would be a
load for everybody, and ``/api/v1/sources`` has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from heartbeat.display import utf8
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.flips import DOWN, LATE, UNKNOWN, UP
from heartbeat.monitor.view import View
from heartbeat.monitor.watch import Look

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def counts(look: Look) -> Mapping[str, int]:
    """Return how many sources of a connector are in each state. One that an operator has paused has UNKNOWN ones all the same."""
    return {UP: max(0, look.sources - look.late - look.unknown), LATE: look.late, UNKNOWN: look.unknown, DOWN: look.down}


def page(view: View, now_ms: int) -> bytes:
    """Return everything as it is now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(view, now_ms))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, view: View, now_ms: int) -> None:
        self._view = view
        self._now_ms = now_ms

    def collect(self) -> Iterator[Metric]:
        """Return the families of this moment, as the library asks for them."""
        seen = self._view.observation()
        yield GaugeMetricFamily("heartbeat_tick_seconds", "How long the last look at all connectors took.", seen.took_ms / 1000)
        yield GaugeMetricFamily("heartbeat_tick_age_seconds", "How long ago it began.", self._age_s(seen.tick_ms or None))
        yield GaugeMetricFamily("heartbeat_redis_up", "1 if Redis answered it.", 0 if seen.error else 1)
        yield from self._connectors(seen.connectors)
        yield from self._channels()

    def _connectors(self, looks: Mapping[str, Look]) -> Iterator[Metric]:
        sources = GaugeMetricFamily("heartbeat_sources", "Sources by state.", labels=("connector", "state"))
        due = _of_connector("heartbeat_due_unproven", "Sources past their grace of which nothing is proven: UNKNOWN, not DOWN.")
        blind = _of_connector("heartbeat_pipeline_blind", "1 while nothing can be concluded from silence.")
        age = _of_connector("heartbeat_proven_until_age_seconds", "How long ago all is proven until, in the partition furthest behind.")
        for connector, look in looks.items():
            name = utf8(connector)
            for state, count in counts(look).items():
                sources.add_metric((name, state), count)
            due.add_metric((name,), look.unknown)
            blind.add_metric((name,), 1 if look.blind else 0)
            age.add_metric((name,), self._age_s(look.proven_until_ms))
        yield from (sources, due, blind, age)

    def _channels(self) -> Iterator[Metric]:
        label = ("channel",)
        leader = GaugeMetricFamily("heartbeat_channel_leader", "1 if this monitor delivers to the channel.", labels=label)
        pending = GaugeMetricFamily("heartbeat_channel_pending", "Changes that the channel has not got yet.", labels=label)
        oldest = GaugeMetricFamily("heartbeat_channel_oldest_pending_age_seconds", "How old the oldest of them is.", labels=label)
        failures = GaugeMetricFamily("heartbeat_channel_failures", "Attempts that failed since the last success.", labels=label)
        lost = CounterMetricFamily("heartbeat_channel_lost", "Changes that the channel will not get.", labels=label)
        success = GaugeMetricFamily("heartbeat_channel_last_success_timestamp_seconds", "When a message last got there.", labels=label)
        for channel in self._view.channels():
            name = (utf8(channel.channel),)
            leader.add_metric(name, 1 if channel.leader else 0)
            pending.add_metric(name, channel.pending)
            oldest.add_metric(name, waiting_ms(channel, self._now_ms) / 1000)
            failures.add_metric(name, channel.failures)
            lost.add_metric(name, channel.lost)
            if channel.last_success_ms:
                success.add_metric(name, channel.last_success_ms / 1000)
        yield from (leader, pending, oldest, failures, lost, success)

    def _age_s(self, at_ms: int | None) -> float:
        """Return how long ago that was; infinitely long if it never was, so that an alert on it fires."""
        return math.inf if at_ms is None else max(0, self._now_ms - at_ms) / 1000


def waiting_ms(channel: DelivererState, now_ms: int) -> int:
    """Return how long the oldest change has waited for its delivery, 0 if none waits."""
    return max(0, now_ms - channel.oldest_pending_ms) if channel.pending and channel.oldest_pending_ms else 0


def _of_connector(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("connector",))
