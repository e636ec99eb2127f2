"""Validation of a connector's config as a whole, reported as Connect reports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from heartbeat.config import ConfigDef, KeyValue
from heartbeat.connect import client_properties, versions
from heartbeat.connect.connector_keys import HEADER_CONVERTERS, KAFKA_VERSION, framework_keys
from heartbeat.connect.converters import ConverterPlugin, find_converter
from heartbeat.connect.plugins import Plugin
from heartbeat.errors import BadRequest, ConfigError, InvalidConfig

OVERRIDE: Final = "consumer.override."

_BOTH_TOPICS: Final = "topics and topics.regex are mutually exclusive options, but both are set."
_NO_TOPICS: Final = "Must configure one of topics or topics.regex"
_LAST_LINE: Final = "You can also find the above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`"
_NULL_VALUE: Final = "Null value can not be supplied as the configuration value."


@dataclass(frozen=True, slots=True)
class Validation:
    """The outcome of validating a connector config.

    ``values`` are the declared keys in Connect's order; ``undeclared`` the complaints about keys nobody declared;
    ``refused`` the complaints about client overrides, per key.
    """

    connector_class: str
    values: list[KeyValue]
    undeclared: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """Every error text, in Connect's order."""
        return [*self.undeclared.values(), *(error for value in self.values for error in value.errors), *self.refused]

    def parsed(self) -> dict[str, Any]:
        """Return the parsed values of the declared keys."""
        return {value.key.name: value.value for value in self.values}

    def check(self) -> None:
        """Pass if nothing is wrong.

        Raises:
            BadRequest: with every error, in Connect's words.
        """
        errors = self.errors
        if errors:
            head = f"Connector configuration is invalid and contains the following {len(errors)} error(s):"
            raise BadRequest("\n".join([head, *errors, _LAST_LINE]))

    def describe(self) -> dict[str, Any]:
        """Return Connect's ``ConfigInfos``."""
        groups = ["Common", "Transforms", "Predicates", "Error Handling"]
        groups += dict.fromkeys(group for value in self.values if (group := value.key.group) and group not in groups)
        undeclared = [_undefined(name, error) for name, error in self.undeclared.items()]
        declared = [{"definition": value.key.describe(), "value": value.describe()} for value in self.values]
        refused = [_undefined(OVERRIDE.rstrip("."), error) for error in self.refused]
        return {
            "name": self.connector_class,
            "error_count": len(self.errors),
            "groups": groups,
            "configs": [*undeclared, *declared, *refused],
        }


def _undefined(name: str, error: str) -> dict[str, Any]:
    return {"definition": None, "value": {"name": name, "value": None, "recommended_values": [], "errors": [error], "visible": True}}


def validate(config: Mapping[str, str | None], plugin: Plugin, worker: Mapping[str, str]) -> Validation:
    """Check a connector config as a whole. ``worker`` holds the worker's own properties, which give defaults."""
    framework = framework_keys(plugin, worker)
    own = list(plugin.task.CONFIG)
    values = ConfigDef([*framework, *own]).validate(config)
    by_name = {value.key.name: value for value in values}
    topics_error = _topics_error(by_name)
    undeclared = {name: _NULL_VALUE for name, text in config.items() if text is None and name not in by_name}
    for name in ("topics", "topics.regex"):
        by_name[name].errors += topics_error
    for name, text in config.items():
        if text is None and name in by_name:
            by_name[name].errors.append(_NULL_VALUE)
    _check_version(by_name["connector.class"], by_name["connector.plugin.version"], plugin.name, plugin.task.VERSION)
    values += list(_check_converters(config, by_name, plugin))
    given = {name: text for name, text in config.items() if text is not None}
    return Validation(str(config.get("connector.class")), values, undeclared, list(_check_overrides(given, worker)))


def _topics_error(values: Mapping[str, KeyValue]) -> list[str]:
    topics, regex = values["topics"], values["topics.regex"]
    topics.value = list(dict.fromkeys(topic for topic in topics.value or [] if topic))
    if topics.value and regex.value:
        return [_BOTH_TOPICS]
    return [] if topics.value or regex.value else [_NO_TOPICS]


def _check_version(chosen: KeyValue, wanted: KeyValue, plugin: str, version: str) -> None:
    """Complain on both keys, as Connect does."""
    error = versions.check(plugin, version, wanted.value)
    if error is not None:
        chosen.errors.append(error)
        wanted.errors.append(error)


def _check_converters(config: Mapping[str, str | None], values: Mapping[str, KeyValue], plugin: Plugin) -> Iterator[KeyValue]:
    """Check converter classes; yield the sub-keys of those the connector itself names."""
    header = values["header.converter"]
    if header.value is not None and header.value not in HEADER_CONVERTERS:
        header.errors.append(str(ConfigError("header.converter", header.value, f"Class {header.value} could not be found.")))
    for role in ("key", "value"):
        chosen = values[f"{role}.converter"]
        if chosen.value is None:
            continue
        found = find_converter(chosen.value)
        if found is None and chosen.value in plugin.names:
            chosen.errors.append(f"Class class {plugin.name} does not implement the Converter interface")
            continue
        if found is None:
            chosen.errors.append(str(ConfigError(chosen.key.name, chosen.value, f"Class {chosen.value} could not be found.")))
            continue
        _check_version(chosen, values[f"{role}.converter.plugin.version"], found.java_class, KAFKA_VERSION)
        if f"{role}.converter" in config:
            yield from _converter_values(role, found, config)


def _converter_values(role: str, converter: ConverterPlugin, config: Mapping[str, str | None]) -> Iterator[KeyValue]:
    prefix = f"{role}.converter."
    for value in converter.config.validate(converter_settings(role, config)):
        key = replace(value.key, name=prefix + value.key.name, display_name=value.key.display_name or value.key.name)
        yield replace(value, key=key)


def converter_settings(role: str, config: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the sub-keys given for the ``key`` or ``value`` converter, without their prefix."""
    prefix = f"{role}.converter."
    given = {name.removeprefix(prefix): text for name, text in config.items() if name.startswith(prefix)}
    given.pop("plugin.version", None)
    return {"converter.type": role, **given}


def _check_overrides(config: Mapping[str, str], worker: Mapping[str, str]) -> Iterator[str]:
    policy = worker.get("connector.client.config.override.policy", "All")
    if any(name.startswith("admin.override.") for name in config):
        yield "admin.override.* is not supported by this worker yet: offsets would be changed with the worker's own connection; remove it"
    overrides = {name.removeprefix(OVERRIDE): text for name, text in config.items() if name.startswith(OVERRIDE)}
    allowed = {"None": frozenset[str](), "Principal": frozenset({"sasl.jaas.config", "sasl.mechanism", "security.protocol"})}.get(policy)
    if allowed is not None:
        for name in sorted(overrides.keys() - allowed):
            yield f"The '{policy}' policy does not allow '{name}' to be overridden in the connector configuration."
    try:
        client_properties.translate(consumer_properties(config, worker))
    except InvalidConfig as error:
        yield from error.errors


def explicit_offset_reset(config: Mapping[str, str], worker: Mapping[str, str]) -> str | None:
    """Return ``auto.offset.reset`` where the connector or the worker sets it, else None: Connect's own default is no one's wish."""
    return config.get(f"{OVERRIDE}auto.offset.reset", worker.get("consumer.auto.offset.reset"))


def consumer_properties(config: Mapping[str, str], worker: Mapping[str, str]) -> dict[str, str]:
    """Return the consumer's properties in Java's names: the worker's ``consumer.*``, then the connector's overrides."""
    name = config.get("name", "")
    properties = {"bootstrap.servers": worker["bootstrap.servers"], "group.id": f"connect-{name}", "auto.offset.reset": "earliest"}
    for prefix, source in (("consumer.", worker), (OVERRIDE, config)):
        properties |= {key.removeprefix(prefix): text for key, text in source.items() if key.startswith(prefix)}
    return properties
