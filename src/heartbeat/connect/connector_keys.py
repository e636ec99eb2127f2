"""The keys that Connect itself defines for a sink's config, in its order, with its groups and names; the words are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from heartbeat.config import Key, Type, between, non_empty, one_of
from heartbeat.connect.converters import CONVERTERS
from heartbeat.connect.plugins import Plugin

KAFKA_VERSION: Final = "4.1.0"
"""The Connect version whose behaviour this worker has; clients gate features on it."""

MOST_TASKS: Final = 1000
"""Each task is a thread and a Kafka client; a slip of the finger must not end the process."""

SIMPLE_HEADERS: Final = "org.apache.kafka.connect.storage.SimpleHeaderConverter"
HEADER_CONVERTERS: Final = frozenset(
    {
        SIMPLE_HEADERS,
        "org.apache.kafka.connect.storage.StringConverter",
        "org.apache.kafka.connect.converters.ByteArrayConverter",
    }
)
"""Those that cannot fail: a batch hands headers on as bytes."""


def _not_yet(what: str) -> Any:
    return lambda value: f"{what} not supported by this worker yet; remove the key" if value else None


def _regex(value: str | None) -> str | None:
    try:
        re.compile(value or "")
    except re.error as error:
        return f"Invalid regex: {error}"
    return None


def _name(value: str | None) -> str | None:
    controls = [ord(char) for char in value or "" if ord(char) < 32 or 127 <= ord(char) < 160]
    if controls:
        return f"String may not contain control sequences but had the following ASCII chars: {', '.join(map(str, controls))}"
    return non_empty(value)


def _common(name: str, order: int, display_name: str, **rest: Any) -> Key:
    return Key(name=name, group=rest.pop("group", "Common"), order=order, display_name=display_name, **rest)


def _errors(name: str, order: int, display_name: str, **rest: Any) -> Key:
    return _common(name, order, display_name, group="Error Handling", importance="MEDIUM", **rest)


def _converter_keys(role: str, order: int, default: str | None, known: Sequence[str]) -> list[Key]:
    title = role.capitalize()
    version = KAFKA_VERSION if default else None
    return [
        _common(
            f"{role}.converter",
            order,
            f"{title} converter class",
            type=Type.CLASS,
            default=default,
            importance="LOW",
            width="SHORT",
            recommended=tuple(known),
            doc=f"How the {role} of a record is decoded. Without it the worker's own {role}.converter applies.",
        ),
        _common(
            f"{role}.converter.plugin.version",
            order + 1,
            f"{title} converter version",
            type=Type.STRING,
            default=version,
            recommended=(version,) if version else (),
            importance="LOW",
            width="SHORT",
            doc=f"The version of the {role} converter to use.",
        ),
    ]


def framework_keys(plugin: Plugin | None, worker: Mapping[str, str]) -> list[Key]:
    """Return the keys that Connect itself defines for a sink, in its order; ``worker`` gives the converters' defaults."""
    converters, headers = sorted(CONVERTERS), sorted(HEADER_CONVERTERS)
    return [
        *_identity_keys(plugin.task.VERSION if plugin else None),
        *_converter_keys("key", 6, worker.get("key.converter"), converters),
        *_converter_keys("value", 8, worker.get("value.converter"), converters),
        *_converter_keys("header", 10, worker.get("header.converter"), headers),
        *_CHAIN_KEYS,
        *_ERROR_KEYS,
        *_TOPIC_KEYS,
        *_DEAD_LETTER_KEYS,
    ]


def _identity_keys(version: str | None) -> list[Key]:
    return [
        _common("name", 1, "Connector name", type=Type.STRING, validator=_name, width="MEDIUM", doc="A name no other connector has."),
        _common(
            "connector.class", 2, "Connector class", type=Type.STRING, width="LONG", doc="The sink to run: its class or an alias of it."
        ),
        _common(
            "connector.plugin.version",
            3,
            "Connector version",
            type=Type.STRING,
            default=version,
            importance="MEDIUM",
            width="MEDIUM",
            recommended=(version,) if version else (),
            doc="The version of the sink to run.",
        ),
        _common(
            "tasks.max",
            4,
            "Tasks max",
            type=Type.INT,
            default=1,
            validator=between(1, MOST_TASKS),
            width="SHORT",
            doc="How many tasks share the partitions.",
        ),
        _common(
            "tasks.max.enforce",
            5,
            "Enforce tasks max",
            type=Type.BOOLEAN,
            default=True,
            importance="LOW",
            width="SHORT",
            doc="Whether more tasks than tasks.max are an error. This worker never makes more.",
        ),
    ]


_CHAIN_KEYS: Final = (
    _common(
        "transforms",
        12,
        "Transforms",
        group="Transforms",
        type=Type.LIST,
        default=[],
        importance="LOW",
        width="LONG",
        validator=_not_yet("Transformations are"),
        doc="Aliases of the transformations a record goes through. Not supported yet.",
    ),
    _common(
        "predicates",
        13,
        "Predicates",
        group="Predicates",
        type=Type.LIST,
        default=[],
        importance="LOW",
        width="LONG",
        validator=_not_yet("Predicates are"),
        doc="Aliases of the predicates that transformations use. Not supported yet.",
    ),
    _common(
        "config.action.reload",
        14,
        "Reload Action",
        type=Type.STRING,
        default="restart",
        validator=one_of("none", "restart"),
        importance="LOW",
        width="MEDIUM",
        doc="What to do when an external value in the config changes.",
    ),
)

_TOPIC_KEYS: Final = (
    _common("topics", 4, "Topics", type=Type.LIST, default=[], width="LONG", doc="The topics to consume, separated by commas."),
    _common(
        "topics.regex",
        4,
        "Topics regex",
        type=Type.STRING,
        default="",
        validator=_regex,
        width="LONG",
        doc="A regular expression (Python's syntax) that the whole name of a topic must match to be consumed.",
    ),
)

_ERROR_KEYS: Final = (
    _errors(
        "errors.retry.timeout",
        1,
        "Retry Timeout for Errors",
        type=Type.LONG,
        default=0,
        width="MEDIUM",
        doc="For how long, in ms, a passing error of a converter is retried; no converter of this worker has any.",
    ),
    _errors(
        "errors.retry.delay.max.ms",
        2,
        "Maximum Delay Between Retries for Errors",
        type=Type.LONG,
        default=60000,
        width="MEDIUM",
        doc="The longest time, in ms, between two such retries.",
    ),
    _errors(
        "errors.tolerance",
        3,
        "Error Tolerance",
        type=Type.STRING,
        default="none",
        validator=one_of("none", "all"),
        width="SHORT",
        doc="What a record that does not decode does: 'none' fails the task, 'all' skips and counts it.",
    ),
    _errors(
        "errors.log.enable",
        4,
        "Log Errors",
        type=Type.BOOLEAN,
        default=False,
        width="SHORT",
        doc="Whether each record that does not decode is logged.",
    ),
    _errors(
        "errors.log.include.messages",
        5,
        "Log Error Details",
        type=Type.BOOLEAN,
        default=False,
        width="SHORT",
        doc="Whether such a log line names topic, partition, offset and timestamp. The payload is never logged.",
    ),
)


_DEAD_LETTER_KEYS: Final = (
    _errors(
        "errors.deadletterqueue.topic.name",
        6,
        "Dead Letter Queue Topic Name",
        type=Type.STRING,
        default="",
        width="MEDIUM",
        validator=_not_yet("A dead letter queue is"),
        doc="The topic for records that do not decode. Not supported yet.",
    ),
    _errors(
        "errors.deadletterqueue.topic.replication.factor",
        7,
        "Dead Letter Queue Topic Replication Factor",
        type=Type.SHORT,
        default=3,
        width="MEDIUM",
        doc="The replication factor of that topic if it has to be created.",
    ),
    _errors(
        "errors.deadletterqueue.context.headers.enable",
        8,
        "Enable Error Context Headers",
        type=Type.BOOLEAN,
        default=False,
        width="MEDIUM",
        doc="Whether records in that topic carry headers that tell what went wrong.",
    ),
)
