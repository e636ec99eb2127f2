"""The embedded broker as other processes and the real client see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from heartbeat.embedded.broker import EmbeddedBroker, find_library
from heartbeat.embedded.ports import Forward, require_free
from heartbeat.errors import HeartbeatError, StartError

DEADLINE_S = 30.0
TOPIC = "heartbeat-topic"
PRODUCE = 0


@pytest.fixture
def kcat() -> str:
    found = shutil.which("kcat")
    if found is None:
        missing = "kcat is not installed: apt install kcat"
        if os.environ.get("HEARTBEAT_REQUIRE_REAL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def produce(bootstrap: str, value: bytes, **config: Any) -> KafkaError | None:
    """Produce one record and return the error of its delivery report."""
    reports: list[KafkaError | None] = []

    def note(error: KafkaError | None, message: Message) -> None:
        reports.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2, **config})
    producer.produce(TOPIC, value, on_delivery=note)
    assert producer.flush(DEADLINE_S) == 0
    return reports[0]


def first_record(bootstrap: str) -> bytes:
    """Join a new group and return the value of the first record it is given."""
    settings = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    try:
        consumer.subscribe([TOPIC])
        message = consumer.poll(DEADLINE_S)
        assert message is not None
        assert message.error() is None, message.error()
        value = message.value()
        assert value is not None
        return value
    finally:
        consumer.close()


def partitions(bootstrap: str, timeout_s: float = DEADLINE_S) -> dict[str, int]:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    return {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=timeout_s).topics.items()}


def test_kcat_produces_and_consumes_through_the_well_known_port(kcat: str) -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker, Forward(0, to=broker.bootstrap) as forward:
        run(kcat, "-b", forward.address, "-P", "-t", TOPIC, "-K", ":", text="pump:one\npump:two\n")
        assert run(kcat, "-b", forward.address, "-C", "-t", TOPIC, "-K", ":", "-e", "-q") == "pump:one\npump:two\n"


def test_kcat_reaches_it_by_the_name_localhost(kcat: str) -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker, Forward(0, to=broker.bootstrap) as forward:
        run(kcat, "-b", f"localhost:{forward.port}", "-P", "-t", TOPIC, text="one\n")
        assert run(kcat, "-b", f"localhost:{forward.port}", "-C", "-t", TOPIC, "-e", "-q") == "one\n"


def test_topics_have_the_partitions_asked_for() -> None:
    with EmbeddedBroker({TOPIC: 1, "wide": 3}) as broker:
        broker.create_topic("later", 2)
        assert partitions(broker.bootstrap) == {TOPIC: 1, "wide": 3, "later": 2}


def test_a_group_gets_its_first_record_without_waiting_for_the_rebalance_delay() -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        assert produce(broker.bootstrap, b"one") is None
        took_s = []
        for _ in range(3):
            started = time.monotonic()
            assert first_record(broker.bootstrap) == b"one"
            took_s.append(time.monotonic() - started)
    # librdkafka's default delay is 3 s: with it, not even the best of three could be below.
    assert min(took_s) < 2.5, took_s


def test_a_broker_that_was_down_comes_up_at_the_same_port_with_its_records() -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        assert produce(broker.bootstrap, b"one") is None
        broker.set_down()
        with pytest.raises(KafkaException):
            partitions(broker.bootstrap, timeout_s=1.0)
        broker.set_up()
        assert first_record(broker.bootstrap) == b"one"


def test_a_pushed_error_meets_one_request_and_then_the_broker_serves_again() -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker:
        broker.fail_requests(PRODUCE, [KafkaError.TOPIC_AUTHORIZATION_FAILED])
        error = produce(broker.bootstrap, b"one")
        assert error is not None
        assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        assert produce(broker.bootstrap, b"two") is None


def test_two_brokers_know_nothing_of_each_other() -> None:
    with EmbeddedBroker({"a": 1}) as one, EmbeddedBroker({"b": 1}) as other:
        assert one.bootstrap != other.bootstrap
        assert partitions(one.bootstrap) == {"a": 1}
        assert partitions(other.bootstrap) == {"b": 1}


def test_it_listens_on_loopback_and_closing_frees_the_port() -> None:
    broker = EmbeddedBroker()
    host, _, port = broker.bootstrap.partition(":")
    assert host == "127.0.0.1"
    with pytest.raises(StartError):
        require_free(int(port))
    broker.close()
    broker.close()
    require_free(int(port))


def test_a_closed_broker_says_so_instead_of_ending_the_process() -> None:
    broker = EmbeddedBroker()
    broker.close()
    for use in (broker.set_down, broker.set_up, lambda: broker.create_topic(TOPIC), lambda: broker.fail_requests(PRODUCE, [1])):
        with pytest.raises(HeartbeatError, match="closed"):
            use()


def test_a_topic_made_twice_is_an_error_that_names_it() -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker, pytest.raises(HeartbeatError, match=f"create topic {TOPIC} .*exists"):
        broker.create_topic(TOPIC)


@pytest.mark.parametrize("place", ["confluent_kafka.libs/librdkafka-0cb94173.so.1", "confluent_kafka/.dylibs/librdkafka.1.dylib"])
def test_the_library_is_found_where_the_wheels_of_linux_and_macos_put_it(tmp_path: Path, place: str) -> None:
    library = tmp_path / place
    library.parent.mkdir(parents=True)
    library.touch()
    (library.parent / "libssl.so.3").touch()
    assert find_library(tmp_path / "confluent_kafka") == library


def test_a_missing_library_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"pip install .*confluent-kafka"):
        find_library(tmp_path / "confluent_kafka")
