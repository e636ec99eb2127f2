"""From a task config, as stored, to the parts a task runs on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from heartbeat import logs
from heartbeat.config import Type
from heartbeat.connect import client_properties, kafka
from heartbeat.connect.api import Subscription, TaskContext, TopicPartition
from heartbeat.connect.connector_config import consumer_properties, converter_settings, validate
from heartbeat.connect.conversion import Conversion, Tolerance
from heartbeat.connect.converters import Converter, find_converter
from heartbeat.connect.plugins import Plugins
from heartbeat.connect.task import Consumer, Feed, Pace, TaskId, TaskSpec
from heartbeat.connect.worker_config import WorkerConfig
from heartbeat.errors import BadRequest

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], tuple[str, int]]
TASK_CLASS: Final = "task.class"
_MAX_RECORDS: Final = "10000"
_METADATA_AGE_MS: Final = "300000"


class Assembly:
    """Builds tasks from task configs, with this worker's plugins and properties."""

    def __init__(self, plugins: Plugins, worker: WorkerConfig, resolve: Resolve) -> None:
        self._plugins = plugins
        self._worker = worker
        self._resolve = resolve

    def task_configs(self, config: Mapping[str, str]) -> tuple[dict[str, str], ...]:
        """Return the task set of a valid connector config: every task gets the whole config."""
        plugin = self._plugins.get(config["connector.class"])
        return tuple({**config, TASK_CLASS: plugin.name} for _ in range(int(config.get("tasks.max", "1"))))

    def build(self, task: TaskId, config: Mapping[str, str]) -> TaskSpec:
        """Return what the task is made of.

        Raises:
            BadRequest: the stored config is not valid with this worker's plugins.
        """
        plugin = self._plugins.get(config.get("connector.class", ""))
        validation = validate(config, plugin, self._worker.given)
        validation.check()
        parsed = validation.parsed()
        properties = consumer_properties(config, self._worker.given)
        passwords = {parsed[key.name] for key in plugin.task.CONFIG if key.type is Type.PASSWORD and parsed[key.name]}
        logs.secrets.add(passwords | client_properties.secrets(properties))
        return TaskSpec(
            id=task,
            made_from=config,
            plugin=plugin.task,
            config={key.name: parsed[key.name] for key in plugin.task.CONFIG},
            context=TaskContext(task.connector, task.number, self._resolve),
            feed=Feed(
                subscription=Subscription(
                    topics=tuple(parsed["topics"]),
                    pattern=parsed["topics.regex"] or None,
                    refresh_s=max(1.0, int(properties.get("metadata.max.age.ms", _METADATA_AGE_MS)) / 1000),
                ),
                pace=Pace(
                    commit_every_s=self._worker.seconds("offset.flush.interval.ms"),
                    commit_timeout_s=self._worker.seconds("offset.flush.timeout.ms"),
                    max_records=int(properties.get("max.poll.records", _MAX_RECORDS)),
                ),
                conversion=Conversion(
                    str(task),
                    self._converter("key", config, parsed),
                    self._converter("value", config, parsed),
                    Tolerance(parsed["errors.tolerance"] == "all", parsed["errors.log.enable"], parsed["errors.log.include.messages"]),
                ),
                consumer=_consumer(task, properties),
            ),
        )

    def _converter(self, role: str, config: Mapping[str, str], parsed: Mapping[str, Any]) -> Converter:
        """Return the connector's converter; where it names none, the worker's, with the worker's settings for it."""
        name = f"{role}.converter"
        plugin = find_converter(parsed[name])
        if plugin is None:
            raise BadRequest(f"Class {parsed[name]} could not be found.")
        return plugin.build(plugin.config.load(converter_settings(role, config if name in config else self._worker.given)))


def _consumer(task: TaskId, java: Mapping[str, str]) -> Callable[[Callable[[], Mapping[TopicPartition, int]]], Consumer]:
    def make(committable: Callable[[], Mapping[TopicPartition, int]]) -> Consumer:
        translated = client_properties.translate({"client.id": f"connector-consumer-{task}", **java})
        left_out = sorted({*translated.dropped, *(translated.properties.keys() & kafka.OWN.keys())})
        if left_out:
            log.warning("Task %s: client properties that mean nothing here were left out: %s", task, ", ".join(left_out))
        for note in translated.adjusted:
            log.warning("Task %s: %s", task, note)
        return kafka.SinkConsumer(translated.properties, committable)

    return make


_ADMIN_PREFIXES: Final = ("security.", "sasl.", "ssl.")


def admin_properties(worker: Mapping[str, str]) -> dict[str, str]:
    """Return librdkafka's properties for the worker's own client: its unprefixed connection settings, then ``admin.*``.

    Raises:
        InvalidConfig: they cannot be honoured.
    """
    java = {name: text for name, text in worker.items() if name == "bootstrap.servers" or name.startswith(_ADMIN_PREFIXES)}
    java |= {name.removeprefix("admin."): text for name, text in worker.items() if name.startswith("admin.")}
    java.pop("listeners", None)  # admin.listeners is the worker's own
    logs.secrets.add(client_properties.secrets(java))
    return client_properties.translate({"client.id": f"heartbeat-worker-{os.getpid()}", **java}, "admin").properties
