"""Converters: what they read, what they refuse and in which words. Outcomes marked Java were measured on Kafka Connect 4.1.0."""

from __future__ import annotations

import base64
import encodings.aliases
import json
import string
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.connect.converters import CONVERTERS, ByteArrayConverter, Converter, JsonConverter, StringConverter, find_converter
from heartbeat.errors import DataError, InvalidConfig

LOGICAL = "org.apache.kafka.connect.data."
CONVERTING = "Converting byte[] to Kafka Connect data failed due to serialization error: "
NO_ENVELOPE = (
    'JsonConverter with schemas.enable requires "schema" and "payload" fields and may not contain additional fields. '
    "If you are trying to deserialize plain JSON data, set schemas.enable=false in your converter configuration."
)


def built(name: str, **config: str) -> Converter:
    plugin = find_converter(name)
    assert plugin is not None
    return plugin.build(plugin.config.load({"converter.type": "value"} | {key.replace("_", "."): value for key, value in config.items()}))


def refusals(name: str, **config: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        built(name, **config)
    return caught.value.errors


def enveloped(schema: Any, payload: Any) -> bytes:
    return json.dumps({"schema": schema, "payload": payload}).encode()


def read(schema: Any, payload: Any, **config: str) -> Any:
    return built("Json", **config).convert(enveloped(schema, payload))


def refused(schema: Any, payload: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(schema, payload)
    return str(caught.value)


# --- finding and configuring


@pytest.mark.parametrize(
    ("name", "java_class"),
    [
        ("org.apache.kafka.connect.storage.StringConverter", "org.apache.kafka.connect.storage.StringConverter"),
        ("StringConverter", "org.apache.kafka.connect.storage.StringConverter"),
        ("String", "org.apache.kafka.connect.storage.StringConverter"),
        ("ByteArray", "org.apache.kafka.connect.converters.ByteArrayConverter"),
        ("Json", "org.apache.kafka.connect.json.JsonConverter"),
    ],
)
def test_a_converter_is_found_by_its_java_class_and_by_both_short_names(name: str, java_class: str) -> None:
    plugin = find_converter(name)
    assert plugin is CONVERTERS[java_class]
    assert plugin.java_class == java_class == built(name).java_class


@pytest.mark.parametrize("name", ["", "Converter", "json", "org.apache.kafka.connect.json", "io.confluent.connect.avro.AvroConverter"])
def test_an_unknown_converter_is_not_found(name: str) -> None:
    assert find_converter(name) is None


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("String", ["converter.type", "converter.encoding"]),
        ("ByteArray", ["converter.type"]),
        ("Json", ["converter.type", "schemas.enable", "schemas.cache.size", "decimal.format", "replace.null.with.default"]),
    ],
)
def test_keys_are_declared_in_javas_order(name: str, keys: list[str]) -> None:
    plugin = find_converter(name)
    assert plugin is not None
    assert [key.name for key in plugin.config] == keys


def test_only_json_can_fail() -> None:
    assert {name: built(name).can_fail for name in ("String", "ByteArray", "Json")} == {"String": False, "ByteArray": False, "Json": True}


def test_the_converter_type_has_no_default() -> None:
    plugin = find_converter("ByteArray")
    assert plugin is not None
    with pytest.raises(InvalidConfig) as caught:
        plugin.config.load({})
    assert caught.value.errors[0] == 'Missing required configuration "converter.type" which has no default value.'


def test_a_converter_is_for_keys_values_or_headers() -> None:
    assert refusals("ByteArray", converter_type="x") == [
        "Invalid value x for configuration converter.type: String must be one of: key, value, header"
    ]


@pytest.mark.parametrize("encoding", ["nope", "", "base64", "rot13", "idna", "unicode_escape", "undefined", "a\0b"])
def test_an_encoding_that_is_no_character_set_is_refused(encoding: str) -> None:
    assert refusals("String", converter_encoding=encoding) == [
        f"Invalid value {encoding} for configuration converter.encoding: Unsupported encoding {encoding}"
    ]


def test_bad_json_settings_are_refused_in_javas_words() -> None:
    assert refusals("Json", schemas_enable="x", decimal_format="hex") == [
        "Invalid value x for configuration schemas.enable: Expected value to be either true or false",
        "Invalid value hex for configuration decimal.format: String must be one of (case insensitive): NUMERIC, BASE64",
    ]


@pytest.mark.parametrize("written", ["BASE64", "base64", "Numeric"])
def test_decimal_format_is_taken_in_any_case(written: str) -> None:
    assert built("Json", decimal_format=written).can_fail


# --- String and ByteArray


@pytest.mark.parametrize(
    ("encoding", "data", "text"),
    [
        ("UTF-8", "Grüße".encode(), "Grüße"),
        ("UTF-8", b"", ""),
        ("UTF8", b"a\xffb", "a\ufffdb"),
        ("US-ASCII", b"a\xffb", "a\ufffdb"),
        ("ISO-8859-1", b"\xfc", "ü"),
        ("windows-1252", b"\x80\x81", "€\ufffd"),
        ("UTF-16", b"\x00a\x00b", "ab"),  # Java: big-endian without a mark
        ("UTF-16", b"\xfe\xff\x00a", "a"),
        ("UTF-16", b"\xff\xfea\x00", "a"),
        ("UTF-16LE", b"a\x00", "a"),
        ("UTF-32", b"\x00\x00\x00a", "a"),
    ],
)
def test_text_is_decoded_and_malformed_input_replaced(encoding: str, data: bytes, text: str) -> None:
    assert built("String", converter_encoding=encoding).convert(data) == text


@pytest.mark.parametrize("name", ["String", "ByteArray", "Json"])
def test_null_stays_null(name: str) -> None:
    assert built(name).convert(None) is None


@given(st.text(), st.sampled_from(["UTF-8", "UTF-16BE", "UTF-16LE", "UTF-16", "UTF-32"]))
def test_encoded_text_comes_back(text: str, encoding: str) -> None:
    assert built("String", converter_encoding=encoding).convert(text.encode(encoding)) == text


def accepted_encodings() -> list[str]:
    plugin = find_converter("String")
    assert plugin is not None
    names = sorted(set(encodings.aliases.aliases.values()))
    return [name for name in names if not plugin.config.validate({"converter.type": "key", "converter.encoding": name})[1].errors]


ENCODINGS = accepted_encodings()


def test_the_usual_encodings_are_among_the_accepted() -> None:
    assert {"utf_8", "latin_1", "cp1252", "shift_jis", "gb18030", "utf_7"} <= set(ENCODINGS)


@given(st.binary(), st.sampled_from(ENCODINGS))
def test_no_accepted_encoding_ever_fails(data: bytes, encoding: str) -> None:
    assert isinstance(built("String", converter_encoding=encoding).convert(data), str)


@given(st.binary())
def test_bytes_are_untouched(data: bytes) -> None:
    assert ByteArrayConverter().convert(data) is data


# --- plain JSON


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", None),
        (b" \n", None),
        (b"null", None),
        (b"1", 1),
        (b" 1 ", 1),
        (b"-0", 0),
        (b"1.0", 1.0),
        (b"1e2", 100.0),
        (b"1.5e-400", 0.0),
        (b"9223372036854775807", 9223372036854775807),
        (b"9223372036854775808", 9223372036854775808),  # Java: -9223372036854775808
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"a":[1,{"b":null}],"c":true}', {"a": [1, {"b": None}], "c": True}),
        (b'"\\u00fc\\ud83d\\ude00"', "ü😀"),
        (b"\xef\xbb\xbf1", 1),
        (b'{"schema":null,"payload":1}', {"schema": None, "payload": 1}),
    ],
)
def test_plain_json_becomes_plain_python(data: bytes, value: Any) -> None:
    converted = built("Json", schemas_enable="false").convert(data)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"NaN",
        b"Infinity",
        b"nul",
        b"'x'",
        b"[1,]",
        b'{"a":1',
        b'"a\tb"',
        b'{"a":/*c*/1}',
        b'"\xff"',
        b'{"\xff":1}',
        b"[" * 100_000,
        b"[" * 5_000 + b"]" * 5_000,
        b"1 2",  # Java: 1
        b'{"a":1}}',  # Java: {"a": 1}
        b"1\0",
        b"007",  # Java: 7
        b"1e400",  # Java: Infinity
        b'"\\ud800"',  # Java: a string nobody can encode
        b"1" * 10_000,
    ],
)
def test_what_is_not_json_is_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        built("Json", schemas_enable="false").convert(data)
    assert str(caught.value).startswith(CONVERTING)
    assert caught.value.__cause__ is not None


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain_json)
def test_any_plain_json_comes_back_with_and_without_a_null_schema(value: Any) -> None:
    assert JsonConverter(schemas_enable=False).convert(json.dumps(value).encode()) == value
    assert JsonConverter().convert(enveloped(None, value)) == value


@given(st.binary() | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\ ').map(str.encode), st.booleans())
def test_json_raises_nothing_but_data_errors_on_arbitrary_bytes(data: bytes, schemas_enable: bool) -> None:
    with suppress(DataError):
        JsonConverter(schemas_enable=schemas_enable).convert(data)


# --- the envelope


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"null",
        b"1",
        b'"x"',
        b"[]",
        b"{}",
        b'{"payload":1}',
        b'{"schema":null}',
        b'{"schema":null,"payload":1,"x":2}',
    ],
)
def test_json_without_an_envelope_is_refused_in_javas_words(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        JsonConverter().convert(data)
    assert str(caught.value) == NO_ENVELOPE


@pytest.mark.parametrize(
    "data", [b'{"schema":null,"payload":', b'{"schema":null,"payload":"\xff"}', b'{"schema":null,"payload":NaN}', b"{x"]
)
def test_a_broken_envelope_is_a_serialization_error(data: bytes) -> None:
    with pytest.raises(DataError, match="failed due to serialization error"):
        JsonConverter().convert(data)


def test_the_last_of_two_payloads_counts() -> None:
    assert JsonConverter().convert(b'{"payload":1,"schema":null,"payload":2}') == 2


# --- schemas: values

POINT = {"type": "struct", "fields": [{"type": "int8", "field": "x"}, {"type": "string", "field": "label", "optional": True}]}
INTS = {"type": "array", "items": {"type": "int8"}}
NAMED = {"type": "map", "keys": {"type": "string"}, "values": {"type": "int8"}}
NUMBERED = {"type": "map", "keys": {"type": "int8"}, "values": {"type": "int8"}}
DECIMAL = {"type": "bytes", "name": LOGICAL + "Decimal", "parameters": {"scale": "2"}}
DATE = {"type": "int32", "name": LOGICAL + "Date"}
TIME = {"type": "int32", "name": LOGICAL + "Time"}
TIMESTAMP = {"type": "int64", "name": LOGICAL + "Timestamp"}


@pytest.mark.parametrize(
    ("schema", "payload", "value"),
    [
        ({"type": "int8"}, -128, -128),
        ({"type": "int16"}, 32767, 32767),
        ({"type": "int32"}, 5.0, 5),
        ({"type": "int64"}, 2**63 - 1, 2**63 - 1),
        ({"type": "float"}, 0.1, 0.1),
        ({"type": "double"}, 5, 5.0),
        ({"type": "boolean"}, True, True),
        ({"type": "string"}, "", ""),
        ({"type": "bytes"}, "AQI=", b"\x01\x02"),
        ({"type": "bytes"}, "", b""),
        (INTS, [1, 2], [1, 2]),
        (NAMED, {"a": 5}, {"a": 5}),
        (NUMBERED, [[1, 5]], {1: 5}),
        ({**NUMBERED, "keys": INTS}, [[[1, 2], 5]], {(1, 2): 5}),
        ({**NUMBERED, "keys": POINT}, [[{"x": 1}, 5]], {(("x", 1), ("label", None)): 5}),
        (POINT, {"x": 5, "undeclared": 6}, {"x": 5, "label": None}),
        (DECIMAL, "AJw=", Decimal("1.56")),
        (DECIMAL, 1.567, Decimal("1.567")),
        (DECIMAL, 1, Decimal(1)),
        ({**DECIMAL, "parameters": {"scale": "-2"}}, "/w==", Decimal("-1E+2")),
        (DATE, 19000, date(2022, 1, 8)),
        (TIME, 3_600_001, time(1, 0, 0, 1000)),
        (TIMESTAMP, 1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)),
        (TIMESTAMP, -1, datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        ({"type": "int8", "name": 5, "version": "x", "doc": 7, "parameters": [], "more": 8}, 3, 3),
        ({"type": "string", "name": "com.example.Own"}, "x", "x"),
    ],
)
def test_a_value_is_read_as_its_schema_says(schema: Any, payload: Any, value: Any) -> None:
    converted = read(schema, payload)
    assert converted == value
    assert type(converted) is type(value)


NUMBER = "123456789012345678901234567890.12"


@pytest.mark.parametrize(
    ("schema", "payload", "value"),
    [
        (DECIMAL, "?", Decimal(NUMBER)),
        ({"type": "array", "items": DECIMAL}, ["?"], [Decimal(NUMBER)]),
        ({**NAMED, "values": DECIMAL}, {"a": "?"}, {"a": Decimal(NUMBER)}),
        ({**NUMBERED, "keys": DECIMAL}, [["?", 1]], {Decimal(NUMBER): 1}),
        ({"type": "struct", "fields": [{**DECIMAL, "field": "d"}]}, {"d": "?"}, {"d": Decimal(NUMBER)}),
    ],
)
def test_a_decimal_written_as_a_number_keeps_every_digit(schema: Any, payload: Any, value: Any) -> None:
    data = enveloped(schema, payload).replace(b'"?"', NUMBER.encode())
    assert JsonConverter().convert(data) == value


def test_doubles_beside_a_decimal_stay_floats() -> None:
    schema = {"type": "struct", "fields": [{**DECIMAL, "field": "price"}, {"type": "double", "field": "weight"}]}
    value = read(schema, {"price": 0.1, "weight": 0.1})
    assert value == {"price": Decimal("0.1"), "weight": 0.1}
    assert type(value["weight"]) is float


# --- schemas: nulls and defaults


@pytest.mark.parametrize(
    ("extra", "replace", "value"),
    [
        ({"optional": True}, "true", None),
        ({"optional": True, "default": None}, "true", None),
        ({"optional": True, "default": "d"}, "true", "d"),
        ({"default": "d"}, "true", "d"),
        ({"optional": True, "default": "d"}, "false", None),
    ],
)
def test_a_null_takes_the_default_or_stays_null(extra: dict[str, Any], replace: str, value: Any) -> None:
    schema = {"type": "string", **extra}
    assert read(schema, None, replace_null_with_default=replace) == value
    struct = {"type": "struct", "fields": [{**schema, "field": "a"}]}
    assert read(struct, {}, replace_null_with_default=replace) == {"a": value}
    assert read(struct, {"a": None}, replace_null_with_default=replace) == {"a": value}


def test_a_required_field_does_not_take_its_default_when_told_not_to() -> None:
    with pytest.raises(DataError, match=r"^Invalid null value for required STRING field$"):
        read({"type": "string", "default": "d"}, None, replace_null_with_default="false")


def test_defaults_are_converted_and_not_shared_between_records() -> None:
    converter = built("Json")
    data = enveloped({**NAMED, "default": {"a": 1}}, None)
    converter.convert(data)["a"] = 2
    assert converter.convert(data) == {"a": 1}
    assert read({**DECIMAL, "default": "AJw="}, None) == Decimal("1.56")


# --- schemas: refusals


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (5, "Schema must contain 'type' field"),
        ([], "Schema must contain 'type' field"),
        ({}, "Schema must contain 'type' field"),
        ({"type": 5}, "Schema must contain 'type' field"),
        ({"type": "foo"}, "Unknown schema type: foo"),
        ({"type": "array"}, "Array schema did not specify the element type"),
        ({"type": "array", "items": "int8"}, "Schema must contain 'type' field"),
        ({"type": "map", "values": INTS}, "Map schema did not specify the key type"),
        ({"type": "map", "keys": INTS, "values": None}, "Map schema did not specify the value type"),
        ({"type": "struct"}, 'Struct schema\'s "fields" argument is not an array.'),
        ({"type": "struct", "fields": [5]}, "Struct schema's field name not specified properly"),
        ({"type": "struct", "fields": [{"type": "int8"}]}, "Struct schema's field name not specified properly"),
        ({"type": "struct", "fields": [{"field": "a"}]}, "Schema must contain 'type' field"),
        (
            {"type": "struct", "fields": [{"type": "int8", "field": "a"}, {"type": "int8", "field": "a"}]},
            "Cannot create field because of field name duplication a",
        ),
        ({"type": "int8", "parameters": {"a": 1}}, "Schema parameters must have string values."),
        ({"type": "int8", "default": None}, "Invalid null value for required INT8 field"),
        ({"type": "int8", "default": "x"}, "Invalid value for INT8 field: expected an integer of 8 bits but found STRING"),
        ({**POINT, "default": {}}, "Invalid null value for required INT8 field"),
    ],
)
def test_a_bad_schema_is_refused_with_the_reason(schema: Any, message: str) -> None:
    assert refused(schema, 1) == message


@pytest.mark.parametrize(
    ("schema", "payload", "message"),
    [
        ({"type": "int8"}, 128, "Invalid value for INT8 field: expected an integer of 8 bits but found NUMBER"),  # Java: -128
        ({"type": "int16"}, -32769, "Invalid value for INT16 field: expected an integer of 16 bits but found NUMBER"),
        ({"type": "int32"}, 1.5, "Invalid value for INT32 field: expected an integer of 32 bits but found NUMBER"),  # Java: 1
        ({"type": "int64"}, 2**63, "Invalid value for INT64 field: expected an integer of 64 bits but found NUMBER"),
        ({"type": "int64"}, 1e30, "Invalid value for INT64 field: expected an integer of 64 bits but found NUMBER"),
        ({"type": "int64"}, True, "Invalid value for INT64 field: expected an integer of 64 bits but found BOOLEAN"),  # Java: 0
        ({"type": "double"}, "NaN", "Invalid value for FLOAT64 field: expected a number but found STRING"),
        ({"type": "double"}, False, "Invalid value for FLOAT64 field: expected a number but found BOOLEAN"),
        ({"type": "float"}, 10**400, "Invalid value for FLOAT32 field: number out of range"),
        ({"type": "boolean"}, 1, "Invalid value for BOOLEAN field: expected true or false but found NUMBER"),
        ({"type": "string"}, {}, "Invalid value for STRING field: expected a string but found OBJECT"),
        ({"type": "string"}, None, "Invalid null value for required STRING field"),
        ({"type": "string", "optional": "true"}, None, "Invalid null value for required STRING field"),
        ({"type": "bytes"}, 5, "Invalid value for BYTES field: expected a base64 string but found NUMBER"),
        ({"type": "bytes"}, "AQI", "Invalid bytes field"),
        ({"type": "bytes"}, "A Q I =", "Invalid bytes field"),
        ({"type": "bytes"}, "_-8=", "Invalid bytes field"),
        ({"type": "bytes"}, "ü", "Invalid bytes field"),
        (INTS, [1, None], "Invalid null value for required INT8 field"),
        (INTS, {"a": 1}, "Invalid value for ARRAY field: expected an array but found OBJECT"),
        (NAMED, [["a", 5]], "Maps with string fields should be encoded as JSON objects, but found ARRAY"),
        (NUMBERED, {"a": 5}, "Maps with non-string fields should be encoded as JSON array of tuples, but found OBJECT"),
        (NUMBERED, [5], "Found invalid map entry instead of array tuple: NUMBER"),
        (NUMBERED, [[1, 2, 3]], "Found invalid map entry, expected length 2 but found :3"),
        (POINT, {}, "Invalid null value for required INT8 field"),
        (POINT, [], "Structs should be encoded as JSON objects, but found ARRAY"),
        (DECIMAL, True, "Invalid type for Decimal, underlying representation should be numeric or bytes but was BOOLEAN"),
        (DECIMAL, "", "Invalid bytes for Decimal field"),
        (DECIMAL, base64.b64encode(b"\x7f" * 1025).decode(), "Invalid bytes for Decimal field"),
        ({**DECIMAL, "parameters": {}}, "AJw=", "Invalid Decimal schema: scale parameter not found."),
        ({**DECIMAL, "parameters": {"scale": "x"}}, "AJw=", "Invalid scale parameter found in Decimal schema: "),
        ({**DECIMAL, "parameters": {"scale": str(2**31)}}, "AJw=", "Invalid scale parameter found in Decimal schema: "),
        (DATE, "2024-01-01", "Invalid type for Date, underlying representation should be integer but was STRING"),
        (DATE, 2_000_000_000, "Date value outside of the years 1 to 9999"),
        (TIME, 86_400_000, "Time values must use number of milliseconds greater than 0 and less than 86400000"),
        (TIME, -1, "Time values must use number of milliseconds greater than 0 and less than 86400000"),
        (TIMESTAMP, [], "Invalid type for Timestamp, underlying representation should be integer but was ARRAY"),
        (TIMESTAMP, 2**63 - 1, "Timestamp value outside of the years 1 to 9999"),
    ],
)
def test_a_payload_that_is_not_what_its_schema_says_is_refused(schema: Any, payload: Any, message: str) -> None:
    assert refused(schema, payload) == message


@pytest.mark.parametrize("number", [b"1e999999999", b"1e-999999999", b"1e99999999999999999999999"])
def test_a_monstrous_exponent_beside_a_decimal_is_refused_without_being_written_out(number: bytes) -> None:
    schema = {"type": "struct", "fields": [{**DECIMAL, "field": "d", "optional": True}, {"type": "int64", "field": "n"}]}
    with pytest.raises(DataError):
        JsonConverter().convert(enveloped(schema, {"n": "?"}).replace(b'"?"', number))


def test_a_schema_nested_too_deeply_is_a_data_error() -> None:
    data = b'{"schema":' + b'{"type":"array","items":' * 700 + b'{"type":"int8"}' + b"}" * 700 + b',"payload":[]}'
    with pytest.raises(DataError):
        JsonConverter().convert(data)


# --- the cache


@pytest.mark.parametrize("size", ["-1", "0", "1", "1000"])
def test_the_size_of_the_cache_changes_no_result(size: str) -> None:
    converter = built("Json", schemas_cache_size=size)
    records = [enveloped(INTS, [1]), enveloped(DATE, 0), enveloped(None, {"a": 1})]
    for _ in range(3):
        assert [converter.convert(record) for record in records] == [[1], date(1970, 1, 1), {"a": 1}]


def test_a_bad_schema_is_refused_every_time() -> None:
    converter = built("Json")
    for _ in range(2):
        with pytest.raises(DataError, match="Unknown schema type: foo"):
            converter.convert(enveloped({"type": "foo"}, 1))


# --- schemas: properties

Case = tuple[dict[str, Any], Any, Any]
"""A schema, a payload in JSON, and the value it stands for."""

DATES = st.dates().map(lambda day: (DATE, (day - date(1970, 1, 1)).days, day))
TIMES = st.integers(0, 86_399_999).map(lambda ms: (TIME, ms, (datetime.min + timedelta(milliseconds=ms)).time()))
TIMESTAMPS = st.integers(-62_135_596_800_000, 253_402_300_799_999).map(
    lambda ms: (TIMESTAMP, ms, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
)


def integers(bits: int) -> st.SearchStrategy[Case]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(lambda n: ({"type": f"int{bits}"}, n, n))


@st.composite
def decimals(draw: st.DrawFn) -> Case:
    unscaled, scale = draw(st.integers(-(10**60), 10**60)), draw(st.integers(-30, 30))
    data = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
    schema = {**DECIMAL, "parameters": {"scale": str(scale)}}
    return schema, base64.b64encode(data).decode(), Decimal(f"{unscaled}E{-scale}")


PRIMITIVES = st.one_of(
    *(integers(bits) for bits in (8, 16, 32, 64)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: ({"type": "double"}, x, x)),
    st.booleans().map(lambda x: ({"type": "boolean"}, x, x)),
    st.text().map(lambda x: ({"type": "string"}, x, x)),
    st.binary().map(lambda x: ({"type": "bytes"}, base64.b64encode(x).decode(), x)),
    DATES,
    TIMES,
    TIMESTAMPS,
    decimals(),
)


def containers(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    array = inner.map(lambda case: ({"type": "array", "items": case[0]}, [case[1]] * 2, [case[2]] * 2))
    optional = inner.filter(lambda case: "default" not in case[0]).map(lambda case: ({**case[0], "optional": True}, None, None))
    defaulted = inner.map(lambda case: ({**case[0], "default": case[1]}, None, case[2]))
    named = st.tuples(st.text(), inner).map(
        lambda pair: ({**NAMED, "values": pair[1][0]}, {pair[0]: pair[1][1]}, {pair[0]: pair[1][2]}),
    )
    numbered = st.tuples(integers(32), inner).map(
        lambda pair: ({"type": "map", "keys": pair[0][0], "values": pair[1][0]}, [[pair[0][1], pair[1][1]]], {pair[0][2]: pair[1][2]}),
    )
    struct = st.dictionaries(st.text(min_size=1), inner, max_size=4).map(
        lambda fields: (
            {"type": "struct", "fields": [{**case[0], "field": name} for name, case in fields.items()]},
            {name: case[1] for name, case in fields.items()},
            {name: case[2] for name, case in fields.items()},
        )
    )
    return st.one_of(array, named, numbered, struct, optional, defaulted.filter(lambda case: case[0]["default"] is not None))


@given(st.recursive(PRIMITIVES, containers, max_leaves=6))
def test_what_is_encoded_with_a_schema_comes_back(case: Case) -> None:
    schema, payload, value = case
    assert read(schema, payload) == value


WORDS = ["int8", "int64", "double", "string", "bytes", "array", "map", "struct", LOGICAL + "Decimal", LOGICAL + "Time", "2", "AJw="]
SCHEMA_KEYS = ["type", "fields", "field", "items", "keys", "values", "optional", "default", "name", "parameters", "scale"]
schema_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(SCHEMA_KEYS), inner, max_size=5)
        | st.fixed_dictionaries({"type": st.sampled_from(WORDS)}, optional=dict.fromkeys(SCHEMA_KEYS[1:], inner))
        | st.dictionaries(st.sampled_from(string.ascii_letters), inner, max_size=2)
    ),
    max_leaves=15,
)


@given(schema_like, schema_like)
def test_no_schema_and_no_payload_raises_anything_but_a_data_error(schema: Any, payload: Any) -> None:
    with suppress(DataError):
        JsonConverter().convert(enveloped(schema, payload))


def test_a_string_converter_without_configuration_is_utf8() -> None:
    assert StringConverter().convert("ü".encode()) == "ü"
