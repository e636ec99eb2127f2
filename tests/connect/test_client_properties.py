"""Java's client properties become librdkafka's: by tables, by properties, and against the real library."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbeat.connect import client_names
from heartbeat.connect.client_names import Kind
from heartbeat.connect.client_properties import secrets, translate
from heartbeat.errors import InvalidConfig

CONSUMER = "org.apache.kafka.clients.consumer."
SECURITY = "org.apache.kafka.common.security."
PLAIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
SCRAM = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512"}
OAUTH = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"}
TLS = {"security.protocol": "SSL"}
BLOCK = "QUJD" * 20


def jaas(options: str, module: str = "plain.PlainLoginModule") -> str:
    return f"{SECURITY}{module} required {options}"


def pem(label: str, joint: str) -> str:
    return joint.join((f"-----BEGIN {label}-----", BLOCK[:64], BLOCK[64:], f"-----END {label}-----"))


def errors(given: dict[str, str], kind: Kind = "consumer") -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        translate(given, kind)
    return caught.value.errors


@pytest.mark.parametrize(
    ("kind", "name", "value", "becomes"),
    [
        ("consumer", "fetch.min.bytes", "7", {"fetch.min.bytes": "7"}),
        ("consumer", "fetch.max.wait.ms", " 10 ", {"fetch.wait.max.ms": "10"}),
        ("consumer", "max.partition.fetch.bytes", "+1", {"max.partition.fetch.bytes": "1"}),
        ("consumer", "request.timeout.ms", "40000", {"socket.timeout.ms": "40000"}),
        ("consumer", "metadata.max.age.ms", "5000", {"topic.metadata.refresh.interval.ms": "5000"}),
        ("consumer", "receive.buffer.bytes", "-1", {"socket.receive.buffer.bytes": "0"}),
        ("consumer", "send.buffer.bytes", "4096", {"socket.send.buffer.bytes": "4096"}),
        ("consumer", "connections.max.idle.ms", "-1", {"connections.max.idle.ms": "0"}),
        ("consumer", "group.instance.id", "a", {"group.instance.id": "a"}),
        ("consumer", "group.id", "g", {"group.id": "g"}),
        ("consumer", "enable.auto.commit", "FALSE", {"enable.auto.commit": "false"}),
        ("consumer", "isolation.level", "read_committed", {"isolation.level": "read_committed"}),
        ("consumer", "auto.offset.reset", "none", {"auto.offset.reset": "error"}),
        ("consumer", "auto.offset.reset", "earliest", {"auto.offset.reset": "earliest"}),
        ("consumer", "group.protocol", "CONSUMER", {"group.protocol": "consumer"}),
        ("consumer", "client.dns.lookup", "use_all_dns_ips", {"client.dns.lookup": "use_all_dns_ips"}),
        ("consumer", "partition.assignment.strategy", CONSUMER + "RangeAssignor", {"partition.assignment.strategy": "range"}),
        (
            "consumer",
            "partition.assignment.strategy",
            f"{CONSUMER}RoundRobinAssignor, {CONSUMER}RangeAssignor",
            {"partition.assignment.strategy": "roundrobin,range"},
        ),
        (
            "consumer",
            "partition.assignment.strategy",
            f"{CONSUMER}CooperativeStickyAssignor",
            {"partition.assignment.strategy": "cooperative-sticky"},
        ),
        ("consumer", "queued.min.messages", "5", {"queued.min.messages": "5"}),
        ("producer", "acks", "all", {"acks": "all"}),
        ("producer", "compression.type", "zstd", {"compression.type": "zstd"}),
        ("producer", "buffer.memory", "33554432", {"queue.buffering.max.kbytes": "32768"}),
        ("producer", "max.request.size", "2000000", {"message.max.bytes": "2000000"}),
        ("producer", "linger.ms", "5", {"linger.ms": "5"}),
    ],
)
def test_a_java_name_becomes_librdkafkas(kind: Kind, name: str, value: str, becomes: dict[str, str]) -> None:
    translated = translate({name: value}, kind)
    assert translated.properties.items() >= becomes.items()
    assert (translated.dropped, translated.adjusted) == ((), ())
    if name not in becomes:
        assert name not in translated.properties


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max.poll.records": "x"}, "Invalid value x for configuration max.poll.records: Not a number of type INT"),
        ({"max.poll.records": "0"}, "Invalid value 0 for configuration max.poll.records: Value must be at least 1"),
        ({"fetch.min.bytes": ""}, "Invalid value  for configuration fetch.min.bytes: Not a number of type INT"),
        ({"fetch.max.bytes": "2147483648"}, "Invalid value 2147483648 for configuration fetch.max.bytes: Not a number of type INT"),
        ({"metadata.max.age.ms": "1.5"}, "Invalid value 1.5 for configuration metadata.max.age.ms: Not a number of type LONG"),
        ({"check.crcs": "yes"}, "Invalid value yes for configuration check.crcs: Expected value to be either true or false"),
        (
            {"isolation.level": "READ"},
            "Invalid value READ for configuration isolation.level: String must be one of: read_committed, read_uncommitted",
        ),
        (
            {"security.protocol": "TLS"},
            "Invalid value TLS for configuration security.protocol: "
            "String must be one of (case insensitive): SASL_SSL, PLAINTEXT, SSL, SASL_PLAINTEXT",
        ),
    ],
)
def test_a_value_java_refuses_is_refused_in_javas_words(given: dict[str, str], expected: str) -> None:
    assert errors(given) == [expected]


@pytest.mark.parametrize(
    ("given", "name", "substitute"),
    [
        ({"auto.offset.reset": "by_duration:PT1H"}, "auto.offset.reset", "earliest"),
        ({"partition.assignment.strategy": CONSUMER + "StickyAssignor"}, "partition.assignment.strategy", "CooperativeStickyAssignor"),
        ({"partition.assignment.strategy": "com.acme.Mine"}, "partition.assignment.strategy", "RangeAssignor"),
        ({"partition.assignment.strategy": "range,cooperative-sticky"}, "partition.assignment.strategy", "CooperativeStickyAssignor alone"),
        ({"group.protocol": "consumer", "session.timeout.ms": "9000"}, "session.timeout.ms", "group.protocol=CONSUMER"),
        ({"group.remote.assignor": "uniform"}, "group.remote.assignor", "group.protocol=CLASSIC"),
        ({**TLS, "ssl.keystore.location": "c.jks"}, "ssl.keystore.location", "-srckeystore c.jks -destkeystore client.p12"),
        ({**TLS, "ssl.keystore.location": "keystore"}, "ssl.keystore.location", "ssl.keystore.type=PKCS12"),
        ({**TLS, "ssl.keystore.location": "c.p12"}, "ssl.keystore.location", "key store password is not specified"),
        ({**TLS, "ssl.keystore.password": "x"}, "ssl.keystore.password", "SSL key store is not specified"),
        ({**TLS, "ssl.keystore.location": "c.pem", "ssl.keystore.password": "x"}, "ssl.keystore.password", "only key password"),
        ({**TLS, "ssl.keystore.key": "x"}, "ssl.keystore.key", "given together"),
        ({**TLS, "ssl.truststore.location": "t.jks"}, "ssl.truststore.location", '"keytool -list -rfc -keystore t.jks > ca.pem"'),
        ({**TLS, "ssl.truststore.location": "t.p12"}, "ssl.truststore.location", '"openssl pkcs12 -in t.p12 -nokeys -out ca.pem"'),
        ({**TLS, "ssl.truststore.location": "t.pem", "ssl.truststore.type": "jks"}, "ssl.truststore.location", "ssl.truststore.type=PEM"),
        ({**TLS, "ssl.engine.factory.class": "com.acme.Engine"}, "ssl.engine.factory.class", "leave the property out"),
        ({**TLS, "ssl.enabled.protocols": "TLSv1.3"}, "ssl.enabled.protocols", "restrict the version on the broker"),
        ({"security.protocol": "SASL_SSL"}, "sasl.mechanism", "SCRAM-SHA-512"),
        ({**PLAIN, "sasl.mechanism": "AWS_MSK_IAM"}, "sasl.mechanism", "SCRAM-SHA-512, which Amazon MSK offers"),
        (PLAIN, "sasl.jaas.config", "A username and a password are needed"),
        ({**PLAIN, "sasl.jaas.config": jaas("useKeyTab=true;", "auth.Krb5LoginModule")}, "sasl.jaas.config", "PlainLoginModule"),
        ({**SCRAM, "sasl.jaas.config": jaas('username="a" password="b" tokenauth="true";')}, "sasl.jaas.config", "SCRAM credentials"),
        (OAUTH, "sasl.oauthbearer.token.endpoint.url", "needs the URL"),
        (
            {**OAUTH, "sasl.login.callback.handler.class": "com.acme.X", "sasl.oauthbearer.method": "oidc"},
            "sasl.login.callback.handler.class",
            "token.endpoint.url",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_the_way_out_is_named(given: dict[str, str], name: str, substitute: str) -> None:
    (error,) = errors(given)
    assert error.startswith("Invalid value ")
    assert f" for configuration {name}: " in error
    assert substitute in error


def test_every_error_is_reported_at_once() -> None:
    wrong = {"fetch.min.bytes": "x", "isolation.level": "y", "partition.assignment.strategy": "z", "retry.backoff.ms": "-1"}
    assert len(errors({**wrong, **TLS, "ssl.truststore.location": "t.jks"})) == 5


def test_a_java_consumers_defaults_are_kept_where_librdkafkas_differ() -> None:
    assert translate({}).properties == {"isolation.level": "read_uncommitted", "allow.auto.create.topics": "true"}
    assert translate({}, "producer").properties == {"partitioner": "murmur2_random"}
    assert translate({}, "admin").properties == {}


def test_keys_that_only_java_knows_are_left_out_and_reported() -> None:
    given = {"key.deserializer": "x.Y", "interceptor.classes": "", "metric.reporters": "z", "made.up": "1", "default.api.timeout.ms": "9"}
    translated = translate(given)
    assert translated.dropped == tuple(given)
    assert translated.properties == translate({}).properties


def test_keys_of_another_kind_of_client_are_left_out() -> None:
    assert translate({"acks": "nonsense", "linger.ms": "5"}).dropped == ("acks", "linger.ms")
    assert translate({"fetch.min.bytes": "1", "group.id": "g"}, "admin").dropped == ("fetch.min.bytes", "group.id")


def test_max_poll_records_is_checked_but_stays_with_the_worker() -> None:
    translated = translate({"max.poll.records": "100"})
    assert "max.poll.records" not in translated.properties
    assert translated.dropped == ()


def test_security_settings_of_a_protocol_not_in_use_are_ignored_as_in_java() -> None:
    given = {"ssl.truststore.location": "t.jks", "sasl.jaas.config": "nonsense", "sasl.mechanism": "GSSAPI"}
    assert translate(given).dropped == tuple(given)


def test_librdkafkas_own_name_wins_over_the_java_name() -> None:
    translated = translate({"fetch.wait.max.ms": "7", "fetch.max.wait.ms": "500"})
    assert translated.properties["fetch.wait.max.ms"] == "7"
    assert translated.dropped == ("fetch.max.wait.ms",)


def test_a_number_beyond_librdkafkas_range_takes_the_nearest_and_says_so() -> None:
    translated = translate({"max.poll.interval.ms": "2147483647"})
    assert translated.properties["max.poll.interval.ms"] == "86400000"
    assert translated.adjusted == ("max.poll.interval.ms=2147483647 is taken as 86400000",)


@pytest.mark.parametrize(
    ("given", "interval", "session"),
    [
        ({"max.poll.interval.ms": "10000"}, "10000", "10000"),
        ({"max.poll.interval.ms": "1000"}, "6000", "6000"),
        ({"max.poll.interval.ms": "1000", "session.timeout.ms": "3000"}, "3000", "3000"),
    ],
)
def test_a_poll_interval_below_the_session_timeout_shortens_the_session(given: dict[str, str], interval: str, session: str) -> None:
    translated = translate(given)
    assert (translated.properties["max.poll.interval.ms"], translated.properties["session.timeout.ms"]) == (interval, session)
    assert len(translated.adjusted) == 1


@pytest.mark.parametrize(
    ("options", "user", "password"),
    [
        ('username="u" password="p";', "u", "p"),
        (r'username="u" password="p\"x\\" ;', "u", 'p"x\\'),
        ('\n  password="p"\n  username=u\t;', "u", "p"),
        ("username='u' password='it\"s' ;", "u", 'it"s'),
        (r'username="u" password="\101\n;=" ; ', "u", "A\n;="),
        ('/* who */ username="u" // and\n password="p/q"; ', "u", "p/q"),
        ('username="a" username="u" password="p";', "u", "p"),
    ],
)
def test_a_jaas_line_of_plain_and_scram_gives_the_login(options: str, user: str, password: str) -> None:
    for protocol, module in ((PLAIN, "plain.PlainLoginModule"), (SCRAM, "scram.ScramLoginModule")):
        translated = translate({**protocol, "sasl.jaas.config": jaas(options, module)})
        assert translated.properties.items() >= {"sasl.username": user, "sasl.password": password}.items()
        assert "sasl.jaas.config" not in translated.properties


def test_other_options_of_a_jaas_line_are_ignored_and_said_so() -> None:
    translated = translate({**PLAIN, "sasl.jaas.config": jaas('username="u" password="p" serviceName="hidden1";')})
    assert translated.adjusted == ("of sasl.jaas.config only username and password are read",)


@pytest.mark.parametrize(
    "line",
    [
        "hidden1",
        "hidden1 hidden2",
        jaas('username="u" password="hidden1"'),
        jaas("username=u password=hid@den1;"),
        jaas('username="u" password "hidden1";'),
        jaas('username="u" password="hidden1"; hidden2 required;'),
        jaas('username="u" hidden1;'),
        f'{SECURITY}plain.PlainLoginModule username="u" password="hidden1";',
    ],
)
def test_a_malformed_jaas_line_is_refused_without_quoting_it(line: str) -> None:
    (error,) = errors({**PLAIN, "sasl.jaas.config": line})
    assert error.startswith("Invalid value [hidden] for configuration sasl.jaas.config: ")
    assert "hid" not in error.replace("[hidden]", "")
    assert line in secrets({"sasl.jaas.config": line})


def test_javas_oauth_login_becomes_oidc() -> None:
    line = jaas('clientId="c" clientSecret="s" scope="a b" extension_logicalCluster="lkc";', "oauthbearer.OAuthBearerLoginModule")
    handler = SECURITY + "oauthbearer.OAuthBearerLoginCallbackHandler"
    url = {"sasl.oauthbearer.token.endpoint.url": "https://localhost/token"}
    translated = translate({**OAUTH, **url, "sasl.jaas.config": line, "sasl.login.callback.handler.class": handler})
    assert translated.dropped == ()
    assert {name: value for name, value in translated.properties.items() if name.startswith("sasl.oauthbearer.")} == {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "c",
        "sasl.oauthbearer.client.secret": "s",
        "sasl.oauthbearer.scope": "a b",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc",
        **url,
    }


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"ssl.keystore.location": "c.pem"}, {"ssl.key.location": "c.pem", "ssl.certificate.location": "c.pem"}),
        ({"ssl.keystore.location": "c", "ssl.keystore.type": "pem"}, {"ssl.key.location": "c", "ssl.certificate.location": "c"}),
        (
            {"ssl.keystore.location": "c.pem", "ssl.key.password": "k"},
            {"ssl.key.location": "c.pem", "ssl.certificate.location": "c.pem", "ssl.key.password": "k"},
        ),
        (
            {"ssl.keystore.location": "c.P12", "ssl.keystore.password": "k"},
            {"ssl.keystore.location": "c.P12", "ssl.keystore.password": "k"},
        ),
        ({"ssl.truststore.location": "ca.crt"}, {"ssl.ca.location": "ca.crt"}),
        ({"ssl.truststore.location": "ca", "ssl.truststore.type": "PEM"}, {"ssl.ca.location": "ca"}),
        ({"ssl.ca.location": "ca.pem", "ssl.truststore.location": "t.jks"}, {"ssl.ca.location": "ca.pem"}),
        ({"ssl.truststore.certificates": pem("CERTIFICATE", " ")}, {"ssl.ca.pem": pem("CERTIFICATE", "\n") + "\n"}),
        (
            {"ssl.keystore.key": pem("PRIVATE KEY", " "), "ssl.keystore.certificate.chain": pem("CERTIFICATE", "\n")},
            {"ssl.key.pem": pem("PRIVATE KEY", "\n") + "\n", "ssl.certificate.pem": pem("CERTIFICATE", "\n") + "\n"},
        ),
        ({"ssl.endpoint.identification.algorithm": ""}, {"ssl.endpoint.identification.algorithm": "none"}),
        (
            {"ssl.cipher.suites": "TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_256_CBC_SHA256"},
            {"ssl.cipher.suites": "TLS_RSA_WITH_AES_256_CBC_SHA256"},
        ),
        ({"ssl.enabled.protocols": "TLSv1.2", "ssl.protocol": "TLSv1.3"}, {}),
    ],
)
def test_java_stores_become_librdkafkas_files_and_texts(given: dict[str, str], becomes: dict[str, str]) -> None:
    expected = {"security.protocol": "ssl", **becomes}
    assert {name: value for name, value in translate({**TLS, **given}).properties.items() if name.startswith(("ssl.", "sec"))} == expected


def test_the_secrets_are_the_values_to_keep_out_of_logs() -> None:
    key = pem("PRIVATE KEY", " ")
    line = jaas(r'username="u" password="p\"x";')
    given = {"sasl.jaas.config": line, "ssl.keystore.password": " s ", "ssl.keystore.key": key, "group.id": "g", "ssl.key.password": ""}
    assert secrets(given) == {line, 'p"x', "s", key, pem("PRIVATE KEY", "\n") + "\n"}


SECRET = "s3cr3t-"
JAVA_NAMES = sorted(client_names.SCOPE_OF.keys() | client_names.HONOURED | client_names.NEEDS_JAVA)
PIECES = st.lists(st.sampled_from([*' "\\;=/\n', SECRET, "required", "PlainLoginModule", "password", "username", "x"]), max_size=12)
PROTOCOLS = st.sampled_from(["SSL", "sasl_ssl", "SASL_PLAINTEXT", "PLAINTEXT", "x"])
MECHANISMS = st.sampled_from(["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER", "GSSAPI", ""])


@settings(deadline=None, max_examples=300)
@given(
    plain=st.dictionaries(st.sampled_from([*JAVA_NAMES, "made.up"]), st.text(max_size=12) | st.integers().map(str)),
    hidden=st.dictionaries(st.sampled_from(JAVA_NAMES).filter(client_names.SECRET_NAME.search), PIECES.map("".join)),
    protocol=PROTOCOLS,
    mechanism=MECHANISMS,
    kind=st.sampled_from(["consumer", "producer", "admin"]),
)
def test_nothing_but_invalid_config_is_raised_and_no_secret_is_in_it(
    plain: dict[str, str], hidden: dict[str, str], protocol: str, mechanism: str, kind: Kind
) -> None:
    given = {**plain, **hidden, "security.protocol": protocol, "sasl.mechanism": mechanism}
    secrets(given)
    try:
        translated = translate(given, kind)
        said = [*translated.dropped, *translated.adjusted]
    except InvalidConfig as error:
        said = error.errors
    assert SECRET not in "\n".join(said)


def documented(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """What librdkafka itself says of every property: consumer, producer or both, and its range or words."""
    package = Path(confluent_kafka.__file__).parent
    (library,) = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    show, system = ctypes.CDLL(str(library)).rd_kafka_conf_properties_show, ctypes.CDLL(None)
    system.fopen.restype, show.argtypes, system.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_void_p]
    stream = system.fopen(str(tmp_path / "properties").encode(), b"w")
    show(stream)
    system.fclose(stream)
    found: dict[str, tuple[str, str]] = {}
    for line in (tmp_path / "properties").read_text(encoding="utf-8").splitlines():
        name, *columns = (column.strip() for column in line.split(" | ")[:3])
        if len(columns) == 2:
            found.setdefault(name, (columns[0], columns[1]))
    return found


def test_every_name_range_and_word_of_the_tables_is_the_librarys(tmp_path: Path) -> None:
    real = documented(tmp_path)
    for name, rule in client_names.NUMBERS.items():
        if rule.target:
            scope, span = real[rule.target]
            low, high = (int(bound) for bound in span.split(" .. "))
            assert scope in {"*", rule.scope}, name
            assert low <= rule.low < rule.high <= high, name
    for name, words in client_names.WORDS.items():
        scope, allowed = real[name]
        assert scope in {"*", words.scope}, name
        if ".." not in allowed:  # acks also has names for its numbers
            assert set(words.words.values()) <= set(allowed.split(", ")), name
    passed = {name for text in client_names.PASSED.values() for name in text.split()}
    for name in passed | client_names.BOOLEANS.keys():
        assert real[name][0] in {"*", client_names.SCOPE_OF[name]}, name
    assert all(name in real for defaults in client_names.DEFAULTS.values() for name in defaults)


def construct(given: dict[str, str], kind: Kind) -> None:
    properties: dict[str, str | int | float | bool] = {
        "bootstrap.servers": "127.0.0.1:1",
        "log_level": "0",
        **translate(given, kind).properties,
    }
    if kind == "consumer":
        confluent_kafka.Consumer({"group.id": "g", **properties}).close()
    elif kind == "producer":
        confluent_kafka.Producer(properties)
    else:
        AdminClient(properties)


@pytest.mark.parametrize("kind", ["consumer", "producer", "admin"])
def test_the_real_client_accepts_every_number_java_accepts(kind: Kind) -> None:
    for name, rule in client_names.NUMBERS.items():
        lowest = 1 if rule.least is None else rule.least
        for value in {lowest, 2**31 - 1} - ({2**31 - 1} if name == "linger.ms" else set()):  # Java too wants it below delivery.timeout.ms
            construct({name: str(value)}, kind)


@pytest.mark.parametrize(
    "given",
    [
        {**PLAIN, "sasl.jaas.config": jaas('username="u" password="p";')},
        {**SCRAM, "sasl.jaas.config": jaas('username="u" password="p";', "scram.ScramLoginModule"), "ssl.truststore.location": "t.jks"},
        {**OAUTH, "enable.sasl.oauthbearer.unsecure.jwt": "true"},
        {**TLS, "ssl.cipher.suites": "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ssl.protocol": "TLSv1.3"},
        {**TLS, "ssl.cipher.suites": "TLS_AES_128_GCM_SHA256", "ssl.endpoint.identification.algorithm": ""},
        {"partition.assignment.strategy": f"{CONSUMER}RangeAssignor,{CONSUMER}RoundRobinAssignor", "client.rack": ""},
        {"partition.assignment.strategy": f"{CONSUMER}CooperativeStickyAssignor", "group.instance.id": ""},
        {"group.protocol": "CONSUMER", "group.remote.assignor": "uniform", "max.poll.interval.ms": "1000"},
        {"reconnect.backoff.ms": "20000", "auto.offset.reset": "none"},
        {"reconnect.backoff.max.ms": "50", "retry.backoff.ms": "5000"},
    ],
)
def test_the_real_client_accepts_the_result(given: dict[str, str]) -> None:
    for kind in ("consumer", "producer", "admin"):
        construct(given, kind)


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        if os.environ.get("HEARTBEAT_REQUIRE_REAL") == "1":
            pytest.fail("openssl is missing")
        pytest.skip("no openssl on this machine: apt-get install openssl")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    run("req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:changeit", "-keyout", "key", "-out", "ca.pem", "-subj", "/CN=c")
    run("pkcs12", "-export", "-in", "ca.pem", "-inkey", "key", "-passin", "pass:changeit", "-out", "c.p12", "-passout", "pass:changeit")
    (tmp_path / "c.pem").write_text((tmp_path / "key").read_text() + (tmp_path / "ca.pem").read_text())
    return tmp_path


def test_the_real_client_reads_javas_stores(stores: Path) -> None:
    key, chain = ((stores / name).read_text().replace("\n", " ") for name in ("key", "ca.pem"))
    trust = {**TLS, "ssl.truststore.location": str(stores / "ca.pem"), "ssl.truststore.type": "PEM"}
    construct({**trust, "ssl.keystore.location": str(stores / "c.p12"), "ssl.keystore.password": "changeit"}, "consumer")
    construct({**trust, "ssl.keystore.location": str(stores / "c.pem"), "ssl.key.password": "changeit"}, "consumer")
    inline = {"ssl.keystore.key": key, "ssl.keystore.certificate.chain": chain, "ssl.truststore.certificates": chain}
    construct({**TLS, "ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM", **inline, "ssl.key.password": "changeit"}, "consumer")
    with pytest.raises(confluent_kafka.KafkaException):
        construct({**trust, "ssl.keystore.location": str(stores / "c.p12"), "ssl.keystore.password": "wrong"}, "consumer")
