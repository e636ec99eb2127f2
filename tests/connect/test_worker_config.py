"""The worker's properties: Java's file syntax, the variables of Confluent's image, and everything wrong with them at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.connect import worker_config
from heartbeat.connect.worker_config import WORKER_KEYS, Listener, WorkerConfig, environment_properties
from heartbeat.errors import InvalidConfig, WorkerFileError

STRINGS = "org.apache.kafka.connect.storage.StringConverter"
LEAST = {"key.converter": STRINGS, "value.converter": STRINGS}
LEAST_LINES = f"key.converter={STRINGS}\nvalue.converter={STRINGS}\n".encode()


def from_file(tmp_path: Path, text: bytes, environment: Mapping[str, str] | None = None) -> WorkerConfig:
    path = tmp_path / "worker.properties"
    path.write_bytes(LEAST_LINES + text)
    return worker_config.load(path, environment or {})


def config(**given: str) -> WorkerConfig:
    properties = {**LEAST, **{name.replace("_", "."): text for name, text in given.items()}}
    return WorkerConfig(properties, WORKER_KEYS.load(properties))


def refusal(**given: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        config(**given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"a.b=c", "a.b", "c"),
        (b"a.b: c", "a.b", "c"),
        (b"a.b c d", "a.b", "c d"),
        (b"  a.b   =   c  ", "a.b", "c  "),
        (b"a.b\tc", "a.b", "c"),
        (b"a.b", "a.b", ""),
        (b"a.b=", "a.b", ""),
        (b"a.b=c=d:e", "a.b", "c=d:e"),
        (b"a.b=one,\\\n    two,\\\r\n\tthree", "a.b", "one,two,three"),
        (b"a\\:b\\=c\\ d=e", "a:b=c d", "e"),
        (b"a=\\u00e9\\t\\\\n\\q", "a", "é\t\\nq"),
        (b"a=caf\xe9", "a", "café"),
        (b"a=caf\xc3\xa9", "a", "cafÃ©"),
        (b"# no=1\n! no=2\na=1", "a", "1"),
        (b"a=# no comment", "a", "# no comment"),
        (b"a=1\na=2", "a", "2"),
        (b"a=1\r\nb=2", "a", "1"),
        (b"a=path\\to", "a", "path\to"),
    ],
)
def test_a_file_is_read_as_java_reads_it(tmp_path: Path, line: bytes, name: str, value: str) -> None:
    given = from_file(tmp_path, line).given
    assert given[name] == value
    assert not {"no", "# no", "! no"} & given.keys()


def test_a_broken_escape_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(WorkerFileError, match=r"worker\.properties is not a Java properties file: "):
        from_file(tmp_path, b"a=\\u00")


def test_a_missing_file_is_an_error_that_names_it_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(WorkerFileError) as caught:
        worker_config.load(tmp_path / "none.properties", {})
    assert str(caught.value) == f"cannot read worker properties {tmp_path / 'none.properties'}: No such file or directory"


def test_a_directory_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerFileError, match="Is a directory"):
        worker_config.load(tmp_path, {})


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("CONNECT_BOOTSTRAP_SERVERS", "bootstrap.servers"),
        ("CONNECT_CONFIG_STORAGE_FILE", "config.storage.file"),
        ("CONNECT_A__B", "a_b"),
        ("CONNECT_A___B", "a-b"),
        ("CONNECT_A_B__C___D_E", "a.b_c-d.e"),
        ("CONNECT_CONSUMER_MAX_POLL_RECORDS", "consumer.max.poll.records"),
        ("CONNECT_REST_ADVERTISED_HOST_NAME", "rest.advertised.host.name"),
    ],
)
def test_a_variable_is_named_as_confluents_image_names_it(variable: str, name: str) -> None:
    assert environment_properties({variable: "x"}) == {name: "x"}


def test_variables_that_are_no_worker_properties_are_left_alone() -> None:
    others = ["PATH", "connect_a", "XCONNECT_A", "CONNECT_LOG4J_ROOT_LOGLEVEL", "CONNECT_LOG4J_LOGGERS", "CONNECT_CUB_KAFKA_TIMEOUT"]
    assert environment_properties(dict.fromkeys(others, "x")) == {}


@given(st.dictionaries(st.from_regex(r"\A[a-km-z][a-z]*([._-][a-z]+)*\Z"), st.text()))
def test_every_property_can_be_given_as_a_variable(properties: dict[str, str]) -> None:
    plain = {name: text for name, text in properties.items() if not name.startswith(("cub.", "log4j."))}
    variables = {name.replace("_", "__").replace("-", "___").replace(".", "_").upper(): text for name, text in plain.items()}
    assert environment_properties({f"CONNECT_{name}": text for name, text in variables.items()}) == plain


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    read = from_file(tmp_path, b"bootstrap.servers=file:1\noffset.flush.interval.ms=7\n", {"CONNECT_BOOTSTRAP_SERVERS": "env:1"})
    assert read.values["bootstrap.servers"] == ["env:1"]
    assert read.given["bootstrap.servers"] == "env:1"
    assert read.seconds("offset.flush.interval.ms") == 0.007


def test_the_environment_alone_will_do() -> None:
    given = {"CONNECT_BOOTSTRAP_SERVERS": "a:1,b:2", "CONNECT_KEY_CONVERTER": STRINGS, "CONNECT_VALUE_CONVERTER": STRINGS}
    assert worker_config.load(None, given).values["bootstrap.servers"] == ["a:1", "b:2"]


@pytest.mark.parametrize("environment", [{}, {"PATH": "x"}, {"CONNECT_LOG4J_ROOT_LOGLEVEL": "DEBUG"}])
def test_neither_file_nor_environment_is_an_error_that_says_what_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(WorkerFileError, match=r"name a file, or set CONNECT_BOOTSTRAP_SERVERS"):
        worker_config.load(None, environment)


def test_keys_nobody_declared_are_kept_as_they_are(tmp_path: Path) -> None:
    read = from_file(tmp_path, b"consumer.fetch.min.bytes=1\nplugin.path=/x\nmade.up=\\u2713\ntopic.creation.enable=false\n")
    assert read.given["consumer.fetch.min.bytes"] == "1"
    assert read.given["plugin.path"] == "/x"
    assert read.given["made.up"] == "✓"


def test_a_file_without_brokers_means_connects_default(tmp_path: Path) -> None:
    read = from_file(tmp_path, b"")
    assert read.given["bootstrap.servers"] == "localhost:9092"
    assert read.values["offset.flush.interval.ms"] == 60000
    assert read.listeners == [Listener("", 8083)]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "worker.properties"
    path.write_text("value.converter=a.B\noffset.flush.interval.ms=x\nlisteners=ftp://x\ntopic.tracking.enable=1\n")
    with pytest.raises(WorkerFileError) as caught:
        worker_config.load(path, {})
    first, *reasons = str(caught.value).splitlines()
    assert first == f"{path} is not usable:"
    assert reasons == [
        "  Invalid value ftp://x for configuration listeners: ftp://x is not a URL of the form http://host:port",
        '  Missing required configuration "key.converter" which has no default value.',
        "  Invalid value a.B for configuration value.converter: Class a.B could not be found.",
        "  Invalid value x for configuration offset.flush.interval.ms: Not a number of type LONG",
        "  Invalid value null for configuration offset.flush.interval.ms: Value must be non-null",
        "  Invalid value 1 for configuration topic.tracking.enable: Expected value to be either true or false",
    ]


def test_faults_of_the_environment_are_said_to_be_there() -> None:
    with pytest.raises(WorkerFileError, match=r"the environment \(CONNECT_\*\) is not usable"):
        worker_config.load(None, {"CONNECT_BOOTSTRAP_SERVERS": "a:1"})


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_an_https_listener_is_refused_with_the_way_out(scheme: str) -> None:
    assert "listen on http on 127.0.0.1 and put a TLS proxy in front" in refusal(listeners=f"http://:8083,{scheme}://:8443")


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        ("http://:8083", [Listener("", 8083)]),
        ("HTTP://localhost:9000", [Listener("localhost", 9000)]),
        ("hTTp://127.0.0.1:1 , http://[::1]:2", [Listener("127.0.0.1", 1), Listener("::1", 2)]),
        ("http://0.0.0.0", [Listener("0.0.0.0", 8083)]),
        ("http://host:0", [Listener("host", 0)]),
        ("http://[::]:8083/", [Listener("::", 8083)]),
    ],
)
def test_listeners_are_urls_with_schemes_in_any_case(listeners: str, expected: list[Listener]) -> None:
    assert config(listeners=listeners).listeners == expected


@pytest.mark.parametrize(
    "listeners", ["", "localhost:8083", "http:8083", "://:8083", "http://:99999", "http://:x", "http://[::1", "tcp://:1"]
)
def test_a_listener_that_is_no_http_url_is_refused(listeners: str) -> None:
    assert "for configuration listeners: " in refusal(listeners=listeners)


@pytest.mark.parametrize(
    ("host", "everywhere", "origin"),
    [
        ("", True, "http://0.0.0.0:1"),
        ("0.0.0.0", True, "http://0.0.0.0:1"),
        ("::", True, "http://[::]:1"),
        ("127.0.0.1", False, "http://127.0.0.1:1"),
        ("::1", False, "http://[::1]:1"),
    ],
)
def test_a_listener_knows_whether_strangers_reach_it(host: str, everywhere: bool, origin: str) -> None:
    listener = Listener(host, 1)
    assert (listener.everywhere, listener.origin) == (everywhere, origin)


def test_the_worker_is_known_by_what_is_advertised_else_by_where_it_listens() -> None:
    bound = Listener("127.0.0.1", 4711)
    advertised = config(rest_advertised_host_name="connect.example", rest_advertised_port="80")
    assert advertised.advertised(bound) == "connect.example:80"
    assert config(rest_advertised_host_name="connect.example").advertised(bound) == "connect.example:4711"
    assert config(rest_advertised_port="80").advertised(bound) == "127.0.0.1:80"
    assert config(rest_advertised_listener="http").advertised(bound) == "127.0.0.1:4711"


def test_a_worker_that_listens_everywhere_is_known_by_an_address_not_by_a_wildcard() -> None:
    for host in ("", "0.0.0.0", "::"):
        name, _, port = config().advertised(Listener(host, 4711)).rpartition(":")
        assert name not in {"", "0.0.0.0", "::"}
        assert port == "4711"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("rest_extension_classes", "a.BasicAuth", "the REST API would be open without it"),
        ("config_providers", "file", "values would stay unresolved without it"),
    ],
)
def test_what_would_be_unsafe_to_ignore_is_refused(name: str, value: str, why: str) -> None:
    assert why in refusal(**{name: value})


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_list_of_unsupported_things_is_fine(value: str) -> None:
    assert config(rest_extension_classes=value, config_providers=value).values["config.providers"] == []


def test_a_converter_the_worker_lacks_is_refused_in_connects_words() -> None:
    avro = "io.confluent.connect.avro.AvroConverter"
    assert refusal(key_converter=avro) == f"Invalid value {avro} for configuration key.converter: Class {avro} could not be found."
    assert "header.converter" in refusal(header_converter=avro)


@pytest.mark.parametrize("policy", ["All", "None", "Principal"])
def test_connects_override_policies_are_known(policy: str) -> None:
    assert config(connector_client_config_override_policy=policy).values["connector.client.config.override.policy"] == policy


def test_an_unknown_override_policy_is_refused() -> None:
    assert "String must be one of: All, None, Principal" in refusal(connector_client_config_override_policy="mine")


@pytest.mark.parametrize("package", ["", "org.apache.kafka.connect.connector.policy."])
@pytest.mark.parametrize("policy", ["All", "None", "Principal"])
def test_an_override_policy_may_be_named_by_its_java_class(policy: str, package: str) -> None:
    java = f"{package}{policy}ConnectorClientConfigOverridePolicy"
    parsed = worker_config.parse({**LEAST, "connector.client.config.override.policy": java})
    assert parsed.values["connector.client.config.override.policy"] == policy
    assert parsed.given["connector.client.config.override.policy"] == policy


def test_somebody_elses_override_policy_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="String must be one of: All, None, Principal"):
        worker_config.parse({**LEAST, "connector.client.config.override.policy": "com.example.MyConnectorClientConfigOverridePolicy"})


def test_commits_after_every_batch_may_be_asked_for() -> None:
    assert config(offset_flush_interval_ms="0").seconds("offset.flush.interval.ms") == 0


def test_keys_that_mean_nothing_here_are_named_and_no_others() -> None:
    nothing = ["admin.listeners", "exactly.once.source.support", "group.id", "offset.storage.replication.factor", "producer.acks"]
    something = ["bootstrap.servers", "consumer.group.id", "consumer.session.timeout.ms", "config.storage.file", "admin.security.protocol"]
    given = {**LEAST, **dict.fromkeys([*nothing, *something], "x")}
    assert WorkerConfig(given, {}).meaningless() == nothing
