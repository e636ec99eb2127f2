"""Which of Kafka's errors pass by themselves: what a broker without permissions cannot show is held here."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from heartbeat.errors import ConnectError, RetriableError
from heartbeat.monitor.kafka import fault_of

FOR_GOOD = [
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError._AUTHENTICATION,
    KafkaError._UNSUPPORTED_FEATURE,
]
PASSING = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.NOT_CONTROLLER,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._PURGE_QUEUE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
]


@pytest.mark.parametrize("code", FOR_GOOD)
def test_what_needs_a_person_is_an_error_for_good_that_says_what(code: int) -> None:
    error = fault_of(KafkaError(code)).error("Topic t did not take it")
    assert type(error) is ConnectError
    assert str(error).startswith("Topic t did not take it: ")
    assert KafkaError(code).name() in str(error)


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_by_itself_is_retriable(code: int) -> None:
    assert type(fault_of(KafkaError(code)).error("Topic t did not take it")) is RetriableError


def test_a_client_that_is_of_no_more_use_says_so() -> None:
    assert fault_of(KafkaError(KafkaError._FATAL, "fenced", fatal=True)).fatal
    assert not fault_of(KafkaError(KafkaError._TRANSPORT)).fatal
