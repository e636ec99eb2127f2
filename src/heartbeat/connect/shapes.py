"""Connect's JSON entities, built from what the herder knows. Field names and their order are the API's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heartbeat.config import Key
from heartbeat.connect.api import TopicPartition
from heartbeat.connect.connector_keys import HEADER_CONVERTERS, KAFKA_VERSION, framework_keys
from heartbeat.connect.converters import CONVERTERS, find_converter
from heartbeat.connect.herder import ConnectorStatus
from heartbeat.connect.plugins import Plugins
from heartbeat.connect.store import ConnectorRecord
from heartbeat.connect.task import TaskId, TaskStatus
from heartbeat.errors import NotFound


def info(record: ConnectorRecord) -> dict[str, Any]:
    """Return ConnectorInfo."""
    tasks = [{"connector": record.name, "task": i} for i in range(len(record.task_configs))]
    return {"name": record.name, "config": record.config, "tasks": tasks, "type": "sink"}


def tasks(record: ConnectorRecord) -> list[dict[str, Any]]:
    """Return a list of TaskInfo."""
    return [{"id": {"connector": record.name, "task": i}, "config": config} for i, config in enumerate(record.task_configs)]


def status(name: str, known: ConnectorStatus, worker_id: str) -> dict[str, Any]:
    """Return Status."""
    connector = {"state": known.state.value, "worker_id": worker_id, "version": known.version, "trace": known.trace}
    return {
        "name": name,
        "connector": _without_nulls(connector),
        "tasks": [task_state(task, one, worker_id, known.version) for task, one in known.tasks.items()],
        "type": "sink",
    }


def task_state(task: TaskId, known: TaskStatus, worker_id: str, version: str | None) -> dict[str, Any]:
    """Return TaskState."""
    state = {"id": task.number, "state": known.state.value, "worker_id": worker_id, "version": version, "trace": known.trace}
    return _without_nulls(state)


def _without_nulls(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in entity.items() if value is not None}


def offsets(known: Mapping[TopicPartition, int]) -> dict[str, Any]:
    """Return Offsets."""
    return {
        "offsets": [
            {"partition": {"kafka_partition": partition.partition, "kafka_topic": partition.topic}, "offset": {"kafka_offset": offset}}
            for partition, offset in sorted(known.items())
        ]
    }


def plugins(known: Plugins, *, connectors_only: bool) -> list[dict[str, str]]:
    """Return a list of Plugin: sinks, then converters, then header converters."""
    found = [{"class": plugin.name, "type": "sink", "version": plugin.task.VERSION} for plugin in known]
    if connectors_only:
        return found
    found += [{"class": name, "type": "converter", "version": KAFKA_VERSION} for name in sorted(CONVERTERS)]
    found += [{"class": name, "type": "header_converter", "version": KAFKA_VERSION} for name in sorted(HEADER_CONVERTERS)]
    return found


def plugin_config(known: Plugins, name: str) -> list[dict[str, Any]]:
    """Return the keys of a plugin as a list of ConfigKeyInfo: a sink's own, then Connect's.

    Raises:
        NotFound: there is no such plugin.
    """
    plugin = known.find(name)
    converter = find_converter(name)
    keys: list[Key]
    if plugin is not None:
        keys = [*plugin.task.CONFIG, *(key for key in framework_keys(plugin, {}) if key.name not in plugin.task.CONFIG)]
    elif converter is not None:
        keys = list(converter.config)
    else:
        raise NotFound(f"Unknown plugin {name}.")
    return [key.describe() for key in keys]
