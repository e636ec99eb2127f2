"""``GET /metrics`` of a worker in its own process, against real records, commits and failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import kcat_send, sink_config, unique

JSON = {"value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false"}


class Scraper:
    """What Prometheus would see of one connector's task 0."""

    def __init__(self, worker: HeartbeatWorker, connector: str) -> None:
        self.connector = connector
        self._worker = worker

    def samples(self) -> dict[tuple[str, str], float]:
        """Every sample that names the connector: its name, its ``status`` label if it has one, its value."""
        reply = self._worker.rest("GET", "/metrics")
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return {
            (sample.name.removeprefix("kafka_connect_"), sample.labels.get("status", "")): sample.value
            for family in text_string_to_metric_families(reply.text)
            for sample in family.samples
            if sample.labels.get("connector") == self.connector
        }

    def task(self, name: str) -> float:
        """Return one figure."""
        return self.samples()[name, ""]

    def wait_for(self, **wanted: float) -> None:
        """Wait until these figures have these values."""
        eventually(lambda: all(self.task(name) == value for name, value in wanted.items()), f"{wanted}, have {self.samples()}")

    def wait_for_status(self, status: str) -> None:
        """Wait until the task is in this state."""
        eventually(lambda: ("connector_status", status) in self.samples(), f"the task of {self.connector} is {status}")


def create(worker: HeartbeatWorker, name: str, config: Mapping[str, str]) -> Scraper:
    """Create a connector of any name."""
    reply = worker.rest("POST", "/connectors", {"name": name, "config": dict(config)})
    assert reply.status_code == 201, reply.text
    return Scraper(worker, name)


def delete(worker: HeartbeatWorker, name: str) -> None:
    """Delete a connector of any name."""
    assert worker.rest("DELETE", f"/connectors/{quote(name, safe='')}").status_code == 204


@pytest.mark.parametrize("odd", ["", 'quo"te', "back\\slash", "\\", '\\"', "{a=b,c}"], ids=repr)
def test_what_was_read_applied_and_committed_is_told_whatever_the_connectors_name(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis, odd: str
) -> None:
    topic = kafka.create_topic(unique("figures"), 2)
    kafka.produce(topic, [(str(number), f"beat {number}") for number in range(40)])
    seen = create(worker, f"{topic}{odd}", sink_config(redis, topic))
    seen.wait_for(
        sink_task_sink_record_read_total=40,
        sink_task_sink_record_send_total=40,
        sink_task_sink_record_active_count=0,
        sink_task_partition_count=2,
    )
    samples = seen.samples()
    assert samples["connector_status", "running"] == samples["connector_metrics_status", "running"] == 1
    assert samples["sink_task_offset_commit_completion_total", ""] >= 1
    assert samples["connector_task_offset_commit_success_percentage", ""] == 1
    assert samples["sink_task_sink_record_active_count_max", ""] > 0
    assert samples["sink_task_put_batch_max_time_ms", ""] > 0
    assert 0 < samples["sink_task_sink_record_read_rate", ""] <= 40 / 30
    assert 1 <= samples["connector_task_batch_size_avg", ""] <= samples["connector_task_batch_size_max", ""] <= 40
    delete(worker, seen.connector)
    assert seen.samples() == {}


@pytest.mark.parametrize("control", ["\n", "\r", "\t", "\x00", "\x7f"], ids=repr)
def test_a_line_feed_never_becomes_part_of_a_connectors_name(worker: HeartbeatWorker, redis: Redis, control: str) -> None:
    body = {"name": f"two{control}lines", "config": sink_config(redis, "t")}
    reply = worker.rest("POST", "/connectors", body)
    assert reply.status_code == 400
    assert "control sequences" in reply.json()["message"]


def test_a_failed_task_keeps_its_figures_until_it_is_restarted(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("fails"))
    seen = create(worker, topic, sink_config(redis, topic, JSON))
    kcat_send(kafka, topic, '{"fine": true}')
    seen.wait_for(sink_task_sink_record_send_total=1)
    kcat_send(kafka, topic, "{broken")
    seen.wait_for_status("failed")
    samples = seen.samples()
    assert (samples["sink_task_sink_record_read_total", ""], samples["sink_task_sink_record_send_total", ""]) == (2, 1)
    assert (samples["task_error_total_record_failures", ""], samples["task_error_total_record_errors", ""]) == (1, 1)
    assert samples["task_error_last_error_timestamp", ""] > 1_600_000_000_000
    assert samples["worker_connector_failed_task_count", ""] == 1
    assert worker.rest("POST", f"/connectors/{topic}/tasks/0/restart").status_code == 204
    seen.wait_for_status("failed")
    assert seen.task("sink_task_sink_record_send_total") == 0, "the new task has read the broken record only"
    delete(worker, topic)


def test_records_that_are_tolerated_are_counted(worker: HeartbeatWorker, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("skips"))
    kafka.produce(topic, [("k", "{broken"), ("k", "1"), ("k", "{broken too")])
    tolerant = {"errors.tolerance": "all", "errors.log.enable": "true"}
    seen = create(worker, topic, sink_config(redis, topic, JSON | tolerant))
    seen.wait_for(sink_task_sink_record_read_total=3, sink_task_sink_record_send_total=1, sink_task_sink_record_active_count=0)
    samples = seen.samples()
    assert (samples["task_error_total_records_skipped", ""], samples["task_error_total_errors_logged", ""]) == (2, 2)
    assert samples["task_error_total_record_errors", ""] == 0
    delete(worker, topic)


def test_what_waits_for_redis_is_read_and_active_and_its_puts_are_retries(worker: HeartbeatWorker, kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.create_topic(unique("waits"))
    kafka.produce(topic, [("k", "beat")])
    with parts.redis_server(tmp_path) as redis:
        seen = create(worker, topic, sink_config(redis, topic))
        seen.wait_for(sink_task_sink_record_send_total=1, sink_task_sink_record_active_count=0)
        redis.stop()
        kafka.produce(topic, [("k", "beat")] * 7)
        eventually(lambda: seen.task("task_error_total_retries") >= 2, "the put is tried again")
        samples = seen.samples()
        assert samples["connector_status", "running"] == 1
        assert samples["sink_task_sink_record_read_total", ""] == 1 + samples["sink_task_sink_record_active_count", ""] >= 2
        assert samples["sink_task_sink_record_send_total", ""] == 1
        redis.start()
        eventually(lambda: seen.task("sink_task_sink_record_send_total") >= 8, "what waited is applied", timeout_s=60)
        seen.wait_for(sink_task_sink_record_active_count=0)
        delete(worker, topic)
