"""Schemas as Kafka's JsonConverter puts them into its envelope, and the reading of payloads by them.

A schema is compiled once into a ``Schema`` whose ``convert`` turns a decoded JSON value into plain Python:

| declared                                     | Python                                                        |
|----------------------------------------------|---------------------------------------------------------------|
| int8, int16, int32, int64                    | int                                                           |
| float, double                                | float, as written: no rounding to 32 bits                     |
| boolean, string, bytes                       | bool, str, bytes                                              |
| array, struct                                | list, dict of exactly the declared fields                     |
| map                                          | dict; keys that are lists or dicts become tuples              |
| Decimal                                      | decimal.Decimal, exact                                        |
| Date, Time                                   | datetime.date, datetime.time                                  |
| Timestamp                                    | datetime.datetime in UTC                                      |

Where we differ from Java on purpose: a value that does not fit its declared type is an error. Java reads ``"x"`` as the
number 0, ``1`` as false, 300 as the int8 44 and a number as the string null, silently. A whole number may be written
with a fraction of zero (``5.0``). Dates outside the years 1 to 9999 are errors, as Python has none.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, isinf
from typing import Any, Final, NamedTuple

from heartbeat.errors import DataError

Read = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS: Final = 86_400_000
_INT64: Final = 1 << 63
_INT32: Final = 1 << 31
_MAX_DECIMAL_BYTES: Final = 1024
"""Some 2,500 digits. Binary to decimal takes quadratic time: without a bound one record could hold a task for minutes."""


class Reading(NamedTuple):
    """How a non-null JSON value is read, and whether its numbers must be decoded exactly, as Decimal."""

    read: Read
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema. ``type`` is Kafka's name for it; ``default`` is JSON, read anew for each use so nobody shares it."""

    type: str
    optional: bool
    reading: Reading
    default: Any = None

    @property
    def exact(self) -> bool:
        """Whether the payload must be decoded with its numbers as Decimal."""
        return self.reading.exact

    def convert(self, value: Any) -> Any:
        """Return the Python value of a decoded JSON value; None stands for null and for a missing field.

        Raises:
            DataError: the value is not what this schema declares.
        """
        if value is not None:
            return self.reading.read(value)
        if self.default is not None:
            return self.reading.read(self.default)
        if self.optional:
            return None
        raise DataError(f"Invalid null value for required {self.type} field")


def parse_schema(declared: Any, *, replace_null: bool = True) -> Schema:
    """Compile a decoded schema. Its own numbers must have been decoded as Decimal, or exact defaults are lost.

    With ``replace_null`` false, defaults are checked but never used.

    Raises:
        DataError: in the words of Kafka's JsonConverter.
    """
    if not isinstance(declared, dict) or not isinstance(declared.get("type"), str):
        raise DataError("Schema must contain 'type' field")
    if declared["type"] not in _TYPES:
        raise DataError(f"Unknown schema type: {declared['type']}")
    type_name, compile_reading = _TYPES[declared["type"]]
    reading = compile_reading(declared, replace_null)
    parameters = _parameters(declared)
    name = declared.get("name")
    if isinstance(name, str) and name in _LOGICAL:
        reading = _LOGICAL[name](parameters)
    schema = Schema(type_name, declared.get("optional") is True, reading)
    if "default" in declared:
        schema.convert(declared["default"])
        if replace_null:
            return Schema(schema.type, schema.optional, reading, declared["default"])
    return schema


def _parameters(declared: Mapping[str, Any]) -> Mapping[str, str]:
    parameters = declared.get("parameters")
    if not isinstance(parameters, dict):
        return {}
    if not all(isinstance(value, str) for value in parameters.values()):
        raise DataError("Schema parameters must have string values.")
    return parameters


def _node(value: Any) -> str:
    """Return the name that Jackson, and so Kafka's messages, give this kind of JSON value."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "BOOLEAN"
        case str():
            return "STRING"
        case list():
            return "ARRAY"
        case dict():
            return "OBJECT"
        case _:
            return "NUMBER"


def _mismatch(type_name: str, expected: str, value: Any) -> DataError:
    return DataError(f"Invalid value for {type_name} field: expected {expected} but found {_node(value)}")


def _whole(value: Any) -> int | None:
    """Return the integer that a JSON number stands for, None for everything else and for fractions beyond 64 bits."""
    if type(value) is int:
        return value
    # The range comes first: int() of 1e999999999 would not end.
    if isinstance(value, float | Decimal) and -_INT64 <= value < _INT64 and value == int(value):
        return int(value)
    return None


def _integer(type_name: str, bits: int) -> Read:
    bound = 1 << (bits - 1)

    def read(value: Any) -> int:
        number = _whole(value)
        if number is None or not -bound <= number < bound:
            raise _mismatch(type_name, f"an integer of {bits} bits", value)
        return number

    return read


def _floating(type_name: str) -> Read:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise _mismatch(type_name, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = inf
        if isinf(number):
            raise DataError(f"Invalid value for {type_name} field: number out of range")
        return number

    return read


def _just(type_name: str, wanted: type, expected: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not wanted:
            raise _mismatch(type_name, expected, value)
        return value

    return read


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _mismatch("BYTES", "a base64 string", value)
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise DataError("Invalid bytes field") from error


def _array(declared: Mapping[str, Any], replace_null: bool) -> Reading:
    if declared.get("items") is None:
        raise DataError("Array schema did not specify the element type")
    items = parse_schema(declared["items"], replace_null=replace_null)

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _mismatch("ARRAY", "an array", value)
        return [items.convert(item) for item in value]

    return Reading(read, items.exact)


def _map(declared: Mapping[str, Any], replace_null: bool) -> Reading:
    for part, meaning in (("keys", "key"), ("values", "value")):
        if declared.get(part) is None:
            raise DataError(f"Map schema did not specify the {meaning} type")
    keys = parse_schema(declared["keys"], replace_null=replace_null)
    values = parse_schema(declared["values"], replace_null=replace_null)

    def read_object(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"Maps with string fields should be encoded as JSON objects, but found {_node(value)}")
        return {key: values.convert(item) for key, item in value.items()}

    def read_pairs(value: Any) -> dict[Any, Any]:
        if not isinstance(value, list):
            raise DataError(f"Maps with non-string fields should be encoded as JSON array of tuples, but found {_node(value)}")
        return {_hashable(keys.convert(key)): values.convert(item) for key, item in map(_pair, value)}

    return Reading(read_object if keys.type == "STRING" else read_pairs, keys.exact or values.exact)


def _pair(entry: Any) -> list[Any]:
    if not isinstance(entry, list):
        raise DataError(f"Found invalid map entry instead of array tuple: {_node(entry)}")
    if len(entry) != 2:
        raise DataError(f"Found invalid map entry, expected length 2 but found :{len(entry)}")
    return entry


def _hashable(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(_hashable(item) for item in key)
    if isinstance(key, dict):
        return tuple((name, _hashable(item)) for name, item in key.items())
    return key


def _struct(declared: Mapping[str, Any], replace_null: bool) -> Reading:
    if not isinstance(declared.get("fields"), list):
        raise DataError('Struct schema\'s "fields" argument is not an array.')
    fields: dict[str, Schema] = {}
    for field in declared["fields"]:
        name = field.get("field") if isinstance(field, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError("Struct schema's field name not specified properly")
        if name in fields:
            raise DataError(f"Cannot create field because of field name duplication {name}")
        fields[name] = parse_schema(field, replace_null=replace_null)

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"Structs should be encoded as JSON objects, but found {_node(value)}")
        return {name: schema.convert(value.get(name)) for name, schema in fields.items()}

    return Reading(read, any(schema.exact for schema in fields.values()))


def _wrong_logical(name: str, wanted: str, value: Any) -> DataError:
    return DataError(f"Invalid type for {name}, underlying representation should be {wanted} but was {_node(value)}")


def _decimal(parameters: Mapping[str, str]) -> Reading:
    scale = parameters.get("scale")

    def read(value: Any) -> Decimal:
        if type(value) is int or isinstance(value, Decimal):
            return Decimal(value)
        if not isinstance(value, str):
            raise _wrong_logical("Decimal", "numeric or bytes", value)
        return _unscaled(_bytes(value), _scale(scale))

    return Reading(read, exact=True)


def _scale(text: str | None) -> int:
    if text is None:
        raise DataError("Invalid Decimal schema: scale parameter not found.")
    try:
        scale = int(text)
    except ValueError as error:
        raise DataError("Invalid scale parameter found in Decimal schema: ") from error
    if not -_INT32 <= scale < _INT32:
        raise DataError("Invalid scale parameter found in Decimal schema: ")
    return scale


def _unscaled(data: bytes, scale: int) -> Decimal:
    if not 0 < len(data) <= _MAX_DECIMAL_BYTES:
        raise DataError("Invalid bytes for Decimal field")
    sign, digits, _ = Decimal(int.from_bytes(data, "big", signed=True)).as_tuple()
    return Decimal((sign, digits, -scale))  # a tuple is taken as it is; scaleb() would round to the context's precision


def _since_epoch(name: str, value: Any, unit: timedelta) -> datetime:
    number = _whole(value)
    if number is None:
        raise _wrong_logical(name, "integer", value)
    try:
        return _EPOCH + unit * number
    except OverflowError as error:
        raise DataError(f"{name} value outside of the years 1 to 9999") from error


def _date(_parameters: Mapping[str, str]) -> Reading:
    def read(value: Any) -> date:
        return _since_epoch("Date", value, timedelta(days=1)).date()

    return Reading(read)


def _time(_parameters: Mapping[str, str]) -> Reading:
    def read(value: Any) -> time:
        number = _whole(value)
        if number is None:
            raise _wrong_logical("Time", "integer", value)
        if not 0 <= number < _DAY_MS:
            raise DataError(f"Time values must use number of milliseconds greater than 0 and less than {_DAY_MS}")
        return (_EPOCH + timedelta(milliseconds=number)).time()

    return Reading(read)


def _timestamp(_parameters: Mapping[str, str]) -> Reading:
    def read(value: Any) -> datetime:
        return _since_epoch("Timestamp", value, timedelta(milliseconds=1))

    return Reading(read)


_Compile = Callable[[Mapping[str, Any], bool], Reading]


def _plain(read: Read) -> _Compile:
    return lambda _declared, _replace_null: Reading(read)


_TYPES: Final[Mapping[str, tuple[str, _Compile]]] = {
    "int8": ("INT8", _plain(_integer("INT8", 8))),
    "int16": ("INT16", _plain(_integer("INT16", 16))),
    "int32": ("INT32", _plain(_integer("INT32", 32))),
    "int64": ("INT64", _plain(_integer("INT64", 64))),
    "float": ("FLOAT32", _plain(_floating("FLOAT32"))),
    "double": ("FLOAT64", _plain(_floating("FLOAT64"))),
    "boolean": ("BOOLEAN", _plain(_just("BOOLEAN", bool, "true or false"))),
    "string": ("STRING", _plain(_just("STRING", str, "a string"))),
    "bytes": ("BYTES", _plain(_bytes)),
    "array": ("ARRAY", _array),
    "map": ("MAP", _map),
    "struct": ("STRUCT", _struct),
}

_LOGICAL: Final[Mapping[str, Callable[[Mapping[str, str]], Reading]]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "org.apache.kafka.connect.data.Date": _date,
    "org.apache.kafka.connect.data.Time": _time,
    "org.apache.kafka.connect.data.Timestamp": _timestamp,
}
