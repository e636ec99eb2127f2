"""Bytes to values, as Kafka Connect's converters do it: String, ByteArray and Json, under their Java class names.

Only the direction a sink needs, and pure: a converter is configured once and then called with a record's key or value.
What Json accepts and Java does not, or the reverse, is said at ``JsonConverter`` and in ``json_schema``.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol

import msgspec

from heartbeat.config import ConfigDef, Key, Type, one_of
from heartbeat.connect.json_schema import Schema, parse_schema
from heartbeat.errors import DataError

Convert = Callable[[bytes | None], Any]
"""Turns a record's bytes into a value; raises DataError and nothing else."""


class Converter(Protocol):
    """A configured converter. Where it cannot fail it is applied lazily, column-wise, after the batch is formed."""

    @property
    def java_class(self) -> str: ...
    @property
    def can_fail(self) -> bool: ...
    def convert(self, data: bytes | None) -> Any: ...
    def convert_all(self, column: list[bytes | None]) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class ConverterPlugin:
    """A converter by its Java class name: its keys (without the ``key.converter.`` prefix) and how to make one of them."""

    java_class: str
    config: ConfigDef
    build: Callable[[Mapping[str, Any]], Converter]


# --- String ---------------------------------------------------------------------------------------------------------

_DECODE: Final[Callable[[Any], str]] = bytes.decode
_NOT_CHARACTER_SETS: Final = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Codecs of Python's that decode to text but are no character sets: they can fail, or warn, on any input."""

_BYTE_ORDER_MARKS: Final = {
    "utf-16": (codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE),
    "utf-32": (codecs.BOM_UTF32_BE, codecs.BOM_UTF32_LE),
}


@dataclass(frozen=True, slots=True)
class StringConverter:
    """Text in one encoding. Never fails: as in Java, malformed input becomes U+FFFD (how many of them may differ).

    ``marks`` is set for encodings of unspecified byte order: without one of these marks Java takes the input as big-endian,
    Python as the machine's own.
    """

    java_class: ClassVar[str] = "org.apache.kafka.connect.storage.StringConverter"
    can_fail: ClassVar[bool] = False

    codec: str = "utf-8"
    marks: tuple[bytes, ...] = ()

    def convert(self, data: bytes | None) -> str | None:
        """Decode; null stays null."""
        if data is None:
            return None
        if self.marks and not data.startswith(self.marks):
            return data.decode(self.codec + "-be", "replace")
        return data.decode(self.codec, "replace")

    def convert_all(self, column: list[bytes | None]) -> list[str | None]:
        """Decode a column: at once where all of it is there and well-formed, as nearly always."""
        if self.codec == "utf-8":
            try:
                return list(map(_DECODE, column))  # None is a TypeError
            except (TypeError, UnicodeDecodeError):
                pass
        return [self.convert(data) for data in column]


def _codec(encoding: str) -> str | None:
    """Return Python's name of a character set, None if it has no such."""
    try:
        codec = codecs.lookup(encoding).name
        if codec in _NOT_CHARACTER_SETS:
            return None
        bytes(range(256)).decode(codec, "replace")  # refused for codecs that are no text encodings, such as base64
    except (LookupError, ValueError):
        return None
    return codec


def _known_encoding(encoding: str | None) -> str | None:
    return f"Unsupported encoding {encoding}" if encoding is None or _codec(encoding) is None else None


def _build_string(config: Mapping[str, Any]) -> StringConverter:
    codec = _codec(config["converter.encoding"]) or "utf-8"
    return StringConverter(codec, _BYTE_ORDER_MARKS.get(codec, ()))


# --- ByteArray ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ByteArrayConverter:
    """The bytes themselves."""

    java_class: ClassVar[str] = "org.apache.kafka.connect.converters.ByteArrayConverter"
    can_fail: ClassVar[bool] = False

    def convert(self, data: bytes | None) -> bytes | None:
        """Return ``data``."""
        return data

    def convert_all(self, column: list[bytes | None]) -> list[bytes | None]:
        """Return the column."""
        return column


# --- Json -----------------------------------------------------------------------------------------------------------

_BLANK: Final = b" \t\r\n"
_BROKEN: Final = "Converting byte[] to Kafka Connect data failed due to serialization error: "
_NO_ENVELOPE: Final = (
    'JsonConverter with schemas.enable requires "schema" and "payload" fields and may not contain additional fields.'
    " If you are trying to deserialize plain JSON data, set schemas.enable=false in your converter configuration."
)


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """Schema and payload, still as text: the schema's text is what its compiled form is remembered by."""

    schema: msgspec.Raw
    payload: msgspec.Raw


def _exact_number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError("Number out of range") from error


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_PLAIN: Final = msgspec.json.Decoder()
_EXACT: Final = msgspec.json.Decoder(float_hook=_exact_number)


class JsonConverter:
    """JSON, with Connect's schema envelope or without.

    Without a schema (``schemas.enable`` false, or an envelope whose schema is null): dict, list, str, bool, None, int for
    integral numbers, float for all others. Integers beyond 64 bits keep their value, where Java wraps them around.
    Duplicate names: the last one wins, as in Java. A UTF-8 byte order mark is skipped, as in Java.

    Errors here and not in Java, because they would hide broken data: text after the JSON value, numbers with leading zeros,
    numbers too big for a double (infinite in Java), unpaired surrogates (they could not be written anywhere again).
    ``decimal.format`` steers only writing in Java; reading takes either format, whatever it says.
    """

    java_class: ClassVar[str] = "org.apache.kafka.connect.json.JsonConverter"
    can_fail: ClassVar[bool] = True

    def __init__(self, *, schemas_enable: bool = True, cache_size: int = 1000, replace_null: bool = True) -> None:
        @lru_cache(maxsize=cache_size)
        def compiled(raw: bytes) -> Schema | None:
            declared = _EXACT.decode(raw)
            return None if declared is None else parse_schema(declared, replace_null=replace_null)

        self._schemas_enable = schemas_enable
        self._compiled = compiled

    def convert_all(self, column: list[bytes | None]) -> list[Any]:
        """Decode a column."""
        return [self.convert(data) for data in column]

    def convert(self, data: bytes | None) -> Any:
        """Decode; null stays null, and so do empty bytes where no envelope is required.

        Raises:
            DataError: not JSON, no envelope, or not what the schema declares.
        """
        if data is None:
            return None
        try:
            return self._enveloped(data) if self._schemas_enable else self._bare(data)
        except RecursionError as error:
            raise DataError(_BROKEN + "nested too deeply") from error
        except ValueError as error:  # msgspec's own errors, and UnicodeDecodeError, which it lets through
            raise DataError(_BROKEN + str(error)) from error

    def _bare(self, data: bytes) -> Any:
        text = data.removeprefix(codecs.BOM_UTF8)
        return _PLAIN.decode(text) if text.strip(_BLANK) else None

    def _enveloped(self, data: bytes) -> Any:
        text = data.removeprefix(codecs.BOM_UTF8)
        if not text.strip(_BLANK):
            raise DataError(_NO_ENVELOPE)
        try:
            envelope = _ENVELOPE.decode(text)
        except msgspec.ValidationError as error:
            raise DataError(_NO_ENVELOPE) from error
        schema = self._compiled(bytes(envelope.schema))
        if schema is None:
            return _PLAIN.decode(envelope.payload)
        return schema.convert((_EXACT if schema.exact else _PLAIN).decode(envelope.payload))


def _build_json(config: Mapping[str, Any]) -> JsonConverter:
    return JsonConverter(
        schemas_enable=config["schemas.enable"],
        cache_size=config["schemas.cache.size"],
        replace_null=config["replace.null.with.default"],
    )


def _decimal_format(value: str | None) -> str | None:
    allowed = ("NUMERIC", "BASE64")  # in the order in which Java's message has them
    if value is not None and value.upper() in allowed:
        return None
    return f"String must be one of (case insensitive): {', '.join(allowed)}"


# --- what there is --------------------------------------------------------------------------------------------------

_CONVERTER_TYPE: Final = Key(
    name="converter.type",
    type=Type.STRING,
    validator=one_of("key", "value", "header"),
    importance="LOW",
    doc="What the converter is applied to. Set by the worker.",
)

_STRING_KEYS: Final = (
    _CONVERTER_TYPE,
    Key(
        name="converter.encoding",
        type=Type.STRING,
        default="UTF-8",
        validator=_known_encoding,
        doc="Character set of the text, by any name that Python knows. Bytes that are not of this character set become U+FFFD.",
        width="MEDIUM",
        display_name="Encoding",
    ),
)

_JSON_KEYS: Final = (
    _CONVERTER_TYPE,
    Key(
        name="schemas.enable",
        type=Type.BOOLEAN,
        default=True,
        doc="Whether each record is an envelope of a schema and a payload. Set it to false for plain JSON.",
        group="Schemas",
        order=0,
        width="MEDIUM",
        display_name="Enable Schemas",
    ),
    Key(
        name="schemas.cache.size",
        type=Type.INT,
        default=1000,
        doc="How many different schemas are kept in compiled form. With 0 every record's schema is compiled anew.",
        group="Schemas",
        order=1,
        width="MEDIUM",
        display_name="Schema Cache Size",
    ),
    Key(
        name="decimal.format",
        type=Type.STRING,
        default="BASE64",
        validator=_decimal_format,
        importance="LOW",
        doc="How decimals are written, BASE64 or NUMERIC, in upper or lower case. Reading accepts both, whatever this says.",
        group="Serialization",
        order=0,
        width="MEDIUM",
        display_name="Decimal Format",
    ),
    Key(
        name="replace.null.with.default",
        type=Type.BOOLEAN,
        default=True,
        importance="LOW",
        doc="Whether a null takes the default that its schema declares. If false, it stays null.",
        group="Serialization",
        order=1,
        width="MEDIUM",
        display_name="Replace null with default",
    ),
)

CONVERTERS: Final[Mapping[str, ConverterPlugin]] = {
    plugin.java_class: plugin
    for plugin in (
        ConverterPlugin(StringConverter.java_class, ConfigDef(_STRING_KEYS), _build_string),
        ConverterPlugin(ByteArrayConverter.java_class, ConfigDef([_CONVERTER_TYPE]), lambda _config: ByteArrayConverter()),
        ConverterPlugin(JsonConverter.java_class, ConfigDef(_JSON_KEYS), _build_json),
    )
}
"""The converters of this worker, by Java class name."""


def find_converter(name: str) -> ConverterPlugin | None:
    """Return the converter of this Java class name, simple name, or simple name without ``Converter``; else None."""
    for java_class, plugin in CONVERTERS.items():
        simple = java_class.rpartition(".")[2]
        if name in {java_class, simple, simple.removesuffix("Converter")}:
            return plugin
    return None
