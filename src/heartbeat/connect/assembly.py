"""From a task config, as stored, to the parts a task runs on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from heartbeat import logs
from heartbeat.config import Type
from heartbeat.connect import client_properties, kafka, kafka_admin
from heartbeat.connect.api import Subscription, TaskContext, TopicPartition
from heartbeat.connect.connector_config import consumer_properties, converter_settings, explicit_offset_reset, validate
from heartbeat.connect.conversion import Conversion, Tolerance
from heartbeat.connect.converters import Converter, find_converter
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.store import ConnectorRecord
from heartbeat.connect.task import Consumer, Feed, Pace, TaskId, TaskSpec
from heartbeat.connect.worker_config import WorkerConfig
from heartbeat.errors import BadRequest

log = logging.getLogger(__name__)

Resolve = Callable[[str, int], tuple[str, int]]
TASK_CLASS: Final = "task.class"
_MAX_RECORDS: Final = "20000"
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
        plugin, parsed = self._plugin(config)
        properties = consumer_properties(config, self._worker.given)
        passwords = {parsed[key.name] for key in plugin.task.CONFIG if key.type is Type.PASSWORD and parsed[key.name]}
        logs.secrets.add(passwords | client_properties.secrets(properties))
        context = self._context(task.connector, config, parsed, task.number)
        return TaskSpec(
            id=task,
            made_from=config,
            plugin=plugin.task,
            config={key.name: parsed[key.name] for key in plugin.task.CONFIG},
            context=replace(context, logs=kafka_admin.PartitionLogs(_connection(properties))),
            feed=Feed(
                subscription=context.subscription,
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

    def alter_offsets(self, name: str, config: Mapping[str, str], offsets: Mapping[TopicPartition, int | None] | None) -> bool:
        """Let the plugin of a stopped connector follow a change of its offsets; None resets all. Return whether it keeps any.

        Raises:
            ConnectError: it could not.
        """
        plugin, parsed = self._plugin(config)
        return plugin.task.alter_offsets(parsed, self._context(name, config, parsed), offsets)

    def tell_target(self, record: ConnectorRecord) -> None:
        """Tell a connector's plugin what an operator wants of it.

        Raises:
            RetriableError: not now.
            ConnectError: the plugin cannot note it.
        """
        plugin, parsed = self._plugin(record.config)
        plugin.task.on_target(parsed, self._context(record.name, record.config, parsed), record.target.value)

    def forget(self, name: str, config: Mapping[str, str]) -> None:
        """Let the plugin of a deleted connector forget what it stored.

        Raises:
            ConnectError: something is left.
        """
        plugin, parsed = self._plugin(config)
        plugin.task.on_delete(parsed, self._context(name, config, parsed))

    def _plugin(self, config: Mapping[str, str]) -> tuple[Plugin, dict[str, Any]]:
        plugin = self._plugins.get(config.get("connector.class", ""))
        validation = validate(config, plugin, self._worker.given)
        validation.check()
        return plugin, validation.parsed()

    def _context(self, connector: str, config: Mapping[str, str], parsed: Mapping[str, Any], number: int = 0) -> TaskContext:
        properties = consumer_properties(config, self._worker.given)
        return TaskContext(
            connector,
            number,
            self._resolve,
            Subscription(
                topics=tuple(parsed["topics"]),
                pattern=parsed["topics.regex"] or None,
                refresh_s=max(1.0, int(properties.get("metadata.max.age.ms", _METADATA_AGE_MS)) / 1000),
            ),
            explicit_offset_reset(config, self._worker.given),
        )

    def _converter(self, role: str, config: Mapping[str, str], parsed: Mapping[str, Any]) -> Converter:
        """Return the connector's converter; where it names none, the worker's, with the worker's settings for it."""
        name = f"{role}.converter"
        plugin = find_converter(parsed[name])
        if plugin is None:
            raise BadRequest(f"Class {parsed[name]} could not be found.")
        return plugin.build(plugin.config.load(converter_settings(role, config if name in config else self._worker.given)))


def _consumer(task: TaskId, java: Mapping[str, str]) -> Callable[[kafka.Membership], Consumer]:
    def make(membership: kafka.Membership) -> Consumer:
        translated = client_properties.translate({"client.id": f"connector-consumer-{task}", **java})
        left_out = sorted({*translated.dropped, *(translated.properties.keys() & kafka.OWN.keys())})
        if left_out:
            log.warning("Task %s: client properties that mean nothing here were left out: %s", task, ", ".join(left_out))
        for note in translated.adjusted:
            log.warning("Task %s: %s", task, note)
        return kafka.SinkConsumer(translated.properties, membership)

    return make


_CONNECTION: Final = ("security.", "sasl.", "ssl.", "client.dns.lookup")


def _connection(consumer: Mapping[str, str]) -> dict[str, str]:
    """Return librdkafka's properties for asking, beside a task's consumer and as the same user, about the logs it reads."""
    java = {name: text for name, text in consumer.items() if name == "bootstrap.servers" or name.startswith(_CONNECTION)}
    return client_properties.translate({"client.id": f"heartbeat-logs-{os.getpid()}", **java}, "admin").properties


def admin_properties(worker: Mapping[str, str]) -> dict[str, str]:
    """Return librdkafka's properties for the worker's own client: its unprefixed connection settings, then ``admin.*``.

    Raises:
        InvalidConfig: they cannot be honoured.
    """
    java = {name: text for name, text in worker.items() if name == "bootstrap.servers" or name.startswith(_CONNECTION)}
    java |= {name.removeprefix("admin."): text for name, text in worker.items() if name.startswith("admin.")}
    java.pop("listeners", None)  # admin.listeners is the worker's own
    logs.secrets.add(client_properties.secrets(java))
    return client_properties.translate({"client.id": f"heartbeat-worker-{os.getpid()}", **java}, "admin").properties
