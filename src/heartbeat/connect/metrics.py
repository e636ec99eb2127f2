"""``GET /metrics``: what is known at the moment of the scrape, under the names that Connect's JMX metrics have in Prometheus.

One collector reads the state; nothing is registered per connector or task, so nothing outlives one. The names are those of
Strimzi's rules for the JMX exporter: ``kafka_connect_<type without -metrics>_<attribute>{connector, task}``. What this worker
cannot know is left out (``docs/compatibility.md`` says what). The library is imported by the first scrape: a worker that
nobody scrapes starts without it.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from heartbeat import logs
from heartbeat.connect.api import Measure
from heartbeat.connect.herder import ConnectorStatus, Herder
from heartbeat.connect.task import State, TaskId
from heartbeat.connect.worker import TaskReading, WorkerReading
from heartbeat.errors import NotFound

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MOST_MEASURES: Final = 5000
"""How many figures of its own a task may show. A plugin that labels by something unbounded must not fill the scraper's memory."""
_CONNECT: Final = "kafka_connect_"
_LEFT_OUT: Final = "heartbeat_worker_measures_left_out"
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_KINDS: Final = {"counter", "gauge"}
_FAULT_LOG_S: Final = 60.0

Labels = Mapping[str, str]


class _Figure(NamedTuple):
    name: str
    help: str
    of: Callable[[TaskReading], float]


_FIGURES: Final = (
    _Figure("sink_task_sink_record_read_total", "Records read from Kafka, dropped ones included.", lambda t: t.meters.records_read),
    _Figure("sink_task_sink_record_read_rate", "Records read per second, over the last minute.", lambda t: t.meters.read_rate),
    _Figure("sink_task_sink_record_send_total", "Records the plugin has applied.", lambda t: t.meters.records_sent),
    _Figure("sink_task_sink_record_send_rate", "Records applied per second, over the last minute.", lambda t: t.meters.send_rate),
    _Figure("sink_task_sink_record_active_count", "Offsets read and not yet committed.", lambda t: t.meters.active),
    _Figure("sink_task_sink_record_active_count_max", "The most of them in the last minute.", lambda t: t.meters.active_max),
    _Figure("sink_task_sink_record_active_count_avg", "Their mean over the last minute.", lambda t: t.meters.active_avg),
    _Figure("sink_task_partition_count", "Partitions assigned to the task.", lambda t: t.meters.partitions),
    _Figure("sink_task_offset_commit_seq_no", "Commits sent, those within a revocation not counted.", lambda t: t.meters.commit_seq_no),
    _Figure("sink_task_offset_commit_completion_total", "Commits acknowledged in full.", lambda t: t.meters.commits_completed),
    _Figure("sink_task_offset_commit_completion_rate", "Commits acknowledged per second.", lambda t: t.meters.commit_completion_rate),
    _Figure("sink_task_put_batch_max_time_ms", "The longest put of records in the last minute.", lambda t: t.meters.put_max_ms),
    _Figure("sink_task_put_batch_avg_time_ms", "The mean put of records over the last minute.", lambda t: t.meters.put_avg_ms),
    _Figure("connector_task_running_ratio", "The part of its life that the task was running.", lambda t: t.meters.running_ratio),
    _Figure("connector_task_pause_ratio", "The part of its life that the task was paused.", lambda t: t.meters.pause_ratio),
    _Figure("connector_task_batch_size_max", "The largest batch in the last minute.", lambda t: t.meters.batch_max),
    _Figure("connector_task_batch_size_avg", "The mean batch over the last minute.", lambda t: t.meters.batch_avg),
    _Figure(
        "connector_task_offset_commit_success_percentage",
        "The part (0 to 1) of the last minute's commits that was acknowledged.",
        lambda t: t.meters.commit_success_ratio,
    ),
    _Figure(
        "connector_task_offset_commit_failure_percentage",
        "The part (0 to 1) of the last minute's commits that failed or was not answered in time.",
        lambda t: 1 - t.meters.commit_success_ratio,
    ),
    _Figure("task_error_total_record_failures", "Times that a record could not be used.", lambda t: t.errors.failures),
    _Figure("task_error_total_record_errors", "Records that ended the task.", lambda t: t.errors.errors),
    _Figure("task_error_total_records_skipped", "Records tolerated and dropped.", lambda t: t.errors.skipped),
    _Figure("task_error_total_errors_logged", "Failures logged because of errors.log.enable.", lambda t: t.errors.logged),
    _Figure("task_error_total_retries", "Puts that were to be tried again.", lambda t: t.meters.retries),
    _Figure("task_error_last_error_timestamp", "When a record last could not be used, epoch ms; 0: never.", lambda t: t.errors.last_ms),
)
_COUNTED_STATES: Final = (State.RUNNING, State.PAUSED, State.FAILED, State.UNASSIGNED)


class _Page:
    """The families of one scrape. All samples of a name come together, whoever adds them, and no two have the same labels."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}
        self._seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    def add(self, measure: Measure) -> bool:
        """Add a sample and return whether it could be: not as a second one, and not as another kind than its namesakes."""
        from prometheus_client.metrics_core import Metric  # late: see the module's docstring

        stem = measure.name.removesuffix("_total") if measure.kind == "counter" else measure.name
        name = f"{stem}_total" if measure.kind == "counter" else stem
        value = float(measure.value)
        place = (name, tuple(sorted(measure.labels.items())))
        family = self.families.get(name) or self.families.setdefault(name, Metric(stem, measure.help, measure.kind))
        if family.type != measure.kind or place in self._seen:
            return False
        self._seen.add(place)
        family.add_sample(name, dict(measure.labels), value)
        return True

    def connect(self, name: str, help_: str, labels: Labels, value: float) -> None:
        """Add a figure of Connect's. Those that end in "-total" are counters; a counter of another name has to pass for a gauge."""
        self.add(Measure(_CONNECT + name, "counter" if name.endswith("_total") else "gauge", help_, labels, value))


class WorkerMetrics:
    """The collector."""

    def __init__(self, herder: Herder) -> None:
        self._herder = herder
        self._fault_log = logs.Every(_FAULT_LOG_S)

    def page(self) -> bytes:
        """Return everything, in the text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Return the families of this moment, as the library asks for them."""
        page, reading = _Page(), self._herder.reading()
        statuses = self._statuses()
        _worker(page, len(statuses), reading)
        for name, status in statuses.items():
            self._connector(page, name, status)
            for task, known in status.tasks.items():
                labels = {"connector": name, "task": str(task.number)}
                # As Strimzi's rules have it: a task's status is called the connector's.
                page.connect("connector_status", "1 for the state the task is in.", {**labels, "status": known.state.value.lower()}, 1)
                if task in reading.tasks:
                    for figure in _FIGURES:
                        page.connect(figure.name, figure.help, labels, figure.of(reading.tasks[task]))
        for status in statuses.values():  # after all of Connect's, so that no plugin comes before them
            for task in status.tasks:
                if task in reading.tasks:
                    self._measures(page, task, reading.tasks[task].measures)
        yield from page.families.values()

    def _statuses(self) -> dict[str, ConnectorStatus]:
        statuses = {}
        for name in self._herder.connectors():
            with suppress(NotFound):  # deleted since the names were read
                statuses[name] = self._herder.status(name)
        return statuses

    def _connector(self, page: _Page, name: str, status: ConnectorStatus) -> None:
        states = Counter(task.state for task in status.tasks.values())
        page.connect("worker_connector_total_task_count", "Tasks of the connector.", {"connector": name}, len(status.tasks))
        for state in _COUNTED_STATES:
            word = state.value.lower()
            page.connect(f"worker_connector_{word}_task_count", f"Tasks that are {word}.", {"connector": name}, states[state])
        texts = {"connector_type": "sink", "connector_class": self._class_of(name), "connector_version": status.version}
        for attribute, text in texts.items():
            if text is not None:
                page.connect(f"connector_{attribute}", "1; the label tells.", {"connector": name, attribute: text}, 1)
        state_labels = {"connector": name, "status": status.state.value.lower()}
        page.connect("connector_metrics_status", "1 for the state the connector is in.", state_labels, 1)

    def _class_of(self, name: str) -> str | None:
        try:
            named = self._herder.record(name).config["connector.class"]
        except NotFound:
            return None
        plugin = self._herder.plugins.find(named)
        return plugin.name if plugin else named

    def _measures(self, page: _Page, task: TaskId, measures: Callable[[], Sequence[Measure]]) -> None:
        """Add a plugin's own figures, as far as they can be: its faults must not cost anybody else their figures."""
        labels = {"connector": task.connector, "task": str(task.number)}
        try:
            own = measures()
            left_out = max(0, len(own) - MOST_MEASURES) + sum(not _added(page, measure, labels) for measure in own[:MOST_MEASURES])
            if left_out and self._fault_log.due(time.monotonic()):
                log.error("Task %s: %d figures of the plugin's cannot be shown in /metrics", task, left_out)
        except Exception as error:
            left_out = 1
            if self._fault_log.due(time.monotonic()):
                log.error("Task %s: the plugin failed to tell its figures", task, exc_info=error)
        page.add(Measure(_LEFT_OUT, "gauge", "The plugin's figures that could not be shown, or 1 if it failed to tell.", labels, left_out))


def _worker(page: _Page, connectors: int, reading: WorkerReading) -> None:
    startups = reading.startups
    page.connect("worker_connector_count", "Connectors of this worker.", {}, connectors)
    page.connect("worker_task_count", "Tasks that run in this worker, failed ones included.", {}, len(reading.tasks))
    page.connect("worker_task_startup_attempts_total", "Starts of tasks.", {}, startups.attempts)
    page.connect("worker_task_startup_success_total", "Starts of tasks that came to run.", {}, startups.successes)
    page.connect("worker_task_startup_failure_total", "Starts of tasks that failed.", {}, startups.failures)


def _added(page: _Page, measure: Measure, labels: Labels) -> bool:
    fine = (
        measure.kind in _KINDS
        and _NAME.fullmatch(measure.name)
        and not measure.name.startswith((_CONNECT, _LEFT_OUT))
        and all(_LABEL.fullmatch(label) for label in measure.labels)
    )
    own = {label: str(text) for label, text in measure.labels.items()}
    return bool(fine) and page.add(measure._replace(labels={**own, **labels}))
