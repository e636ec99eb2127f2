"""Declared configuration keys: one declaration feeds parsing, validation, documentation and the REST replies.

Wording and rules are those of Kafka's ``ConfigDef``, because clients show these messages to people and match on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from heartbeat.errors import ConfigError, InvalidConfig

Validator = Callable[[Any], str | None]
"""Takes the parsed value (None if it did not parse), returns the reason it is refused, or None."""


class Type(Enum):
    """The types of Kafka's ``ConfigDef.Type`` that we declare."""

    BOOLEAN = "BOOLEAN"
    STRING = "STRING"
    INT = "INT"
    SHORT = "SHORT"
    LONG = "LONG"
    LIST = "LIST"
    CLASS = "CLASS"
    PASSWORD = "PASSWORD"  # noqa: S105  a type's name


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""The default of a key that must be given."""

_INTEGER_BITS = {Type.SHORT: 16, Type.INT: 32, Type.LONG: 64}
HIDDEN: Final = "[hidden]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One declared key. ``default`` is a parsed value; ``group``, ``order``, ``width`` only steer how clients show it."""

    name: str
    type: Type
    default: Any = REQUIRED
    doc: str
    validator: Validator | None = None
    importance: str = "HIGH"
    group: str | None = None
    order: int = -1
    width: str = "NONE"
    display_name: str = ""
    recommended: tuple[str, ...] = ()

    def parse(self, text: str | None) -> Any:
        """Parse ``text`` to this key's type.

        Raises:
            ConfigError: the text is not of this type.
        """
        return None if text is None else _parse(self, text)

    def describe(self) -> dict[str, Any]:
        """Return Connect's ``ConfigKeyInfo``."""
        return {
            "name": self.name,
            "type": self.type.value,
            "required": self.default is REQUIRED,
            "default_value": None if self.default is REQUIRED else to_text(self, self.default),
            "importance": self.importance,
            "documentation": self.doc,
            "group": self.group,
            "width": self.width,
            "display_name": self.display_name or self.name,
            "dependents": [],
            "order": self.order,
        }


@dataclass(slots=True)
class KeyValue:
    """The outcome of validating one key: its parsed value and everything wrong with it, in order."""

    key: Key
    value: Any = None
    errors: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return Connect's ``ConfigValueInfo``."""
        return {
            "name": self.key.name,
            "value": to_text(self.key, self.value),
            "recommended_values": list(self.key.recommended),
            "errors": self.errors,
            "visible": True,
        }


class ConfigDef:
    """An ordered set of declared keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.name: key for key in keys}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def __getitem__(self, name: str) -> Key:
        return self._keys[name]

    def validate(self, given: Mapping[str, str | None]) -> list[KeyValue]:
        """Check every declared key against ``given``; nothing is raised, every error is in the result."""
        return [_validate(key, given) for key in self]

    def load(self, given: Mapping[str, str | None]) -> dict[str, Any]:
        """Return parsed values of all declared keys.

        Raises:
            InvalidConfig: with everything that is wrong.
        """
        checked = self.validate(given)
        errors = [error for result in checked for error in result.errors]
        if errors:
            raise InvalidConfig(errors)
        return {result.key.name: result.value for result in checked}


def _validate(key: Key, given: Mapping[str, str | None]) -> KeyValue:
    result = KeyValue(key)
    if key.name not in given:
        if key.default is REQUIRED:
            result.errors.append(f'Missing required configuration "{key.name}" which has no default value.')
            return result
        result.value = key.default
    else:
        try:
            result.value = key.parse(given[key.name])
        except ConfigError as error:
            result.errors.append(str(error))
    reason = key.validator(result.value) if key.validator else None
    if reason is not None:
        result.errors.append(str(ConfigError(key.name, to_text(key, result.value, hide=key.type is Type.PASSWORD), reason)))
    return result


def _parse(key: Key, text: str) -> Any:
    text = text.strip()
    match key.type:
        case Type.BOOLEAN:
            if text.lower() not in {"true", "false"}:
                raise ConfigError(key.name, text, "Expected value to be either true or false")
            return text.lower() == "true"
        case Type.INT | Type.SHORT | Type.LONG:
            return _parse_integer(key, text)
        case Type.LIST:
            return [item.strip() for item in text.split(",")] if text else []
        case _:
            return text


def _parse_integer(key: Key, text: str) -> int:
    bound = 1 << (_INTEGER_BITS[key.type] - 1)
    digits = text[1:] if text[:1] in {"+", "-"} else text
    # The length first: int() itself refuses text of thousands of digits.
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40 or not -bound <= int(text) < bound:
        raise ConfigError(key.name, text, f"Not a number of type {key.type.value}")
    return int(text)


def to_text(key: Key, value: Any, *, hide: bool = True) -> str | None:
    """Return the value as Connect writes it: lists joined by commas, booleans in lower case, passwords hidden."""
    if value is None:
        return None
    if key.type is Type.PASSWORD and hide:
        return HIDDEN
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def at_least(minimum: int) -> Validator:
    """Return a validator for Kafka's ``Range.atLeast``."""
    return between(minimum, None)


def between(minimum: int, maximum: int | None) -> Validator:
    """Return a validator for Kafka's ``Range.between``, bounds included."""

    def check(value: int | None) -> str | None:
        if value is None:
            return "Value must be non-null"
        if value < minimum:
            return f"Value must be at least {minimum}"
        if maximum is not None and value > maximum:
            return f"Value must be no more than {maximum}"
        return None

    return check


def optional(validator: Validator) -> Validator:
    """Return a validator that lets null pass."""
    return lambda value: None if value is None else validator(value)


def one_of(*allowed: str) -> Validator:
    """Return a validator for Kafka's ``ValidString``."""
    return lambda value: None if value in allowed else f"String must be one of: {', '.join(allowed)}"


def non_empty(value: str | None) -> str | None:
    """Refuse an empty string, as Kafka's ``NonEmptyString``."""
    return "String may not be empty" if value == "" else None
