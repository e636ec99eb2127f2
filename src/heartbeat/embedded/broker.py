"""A Kafka broker inside this process, for the demo and fast tests: librdkafka's mock cluster.

It is reached by ctypes in the very library that the confluent-kafka wheel ships, so it costs no JVM, no download and no port
of its own choosing, and other processes (kcat, a second worker) can use it. It keeps about 5 MB per partition, has no
CreateTopics and no compaction, answers ListOffsets by time with -1, and makes an unknown topic with four partitions when a
producer asks for it. It is never the ground for a guarantee.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from heartbeat.errors import HeartbeatError, StartError

_ALL_BROKERS: Final = -1
_PRODUCER: Final = 0
_CONF_OK: Final = 0
_ERRORS_ONLY: Final = b"3"  # syslog's level: the client warns at 5 that it has no bootstrap.servers, which it does not need here

_POINTER: Final = ctypes.c_void_p
_TEXT: Final = ctypes.c_char_p

# name -> (result, arguments), from rdkafka.h and rdkafka_mock.h. The latter is outside librdkafka's promise of a stable ABI,
# which is why the client's version is pinned by the lock file and why every function is looked up before the first call.
_SIGNATURES: Final = {
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (ctypes.c_int, [_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t]),
    "rd_kafka_conf_destroy": (None, [_POINTER]),
    "rd_kafka_new": (_POINTER, [ctypes.c_int, _POINTER, _TEXT, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_err2str": (_TEXT, [ctypes.c_int]),
    "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_set_controller_id": (ctypes.c_int, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [_POINTER, _TEXT, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [_POINTER, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
    ),
}


class EmbeddedBroker:
    """One broker on 127.0.0.1, at a port the system chose. Alive from construction to ``close``.

    ``bootstrap`` is its ``host:port``; it also advertises that one, whatever address a client first came through.

    Raises:
        StartError: the library is not where the wheel puts it, or the broker cannot start.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._library = _library()
        self._client: int | None = _new_client(self._library)
        self._cluster: int | None = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            self.close()
            raise StartError("The embedded broker could not start: no port on 127.0.0.1 could be opened.")
        # The broker's own three seconds before a group's first assignment would be most of a demo's start.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        # Without a controller nobody answers how many partitions a topic has.
        self._library.rd_kafka_mock_set_controller_id(self._cluster, 1)
        self.bootstrap: Final[str] = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        try:
            for name, partitions in (topics or {}).items():
                self.create_topic(name, partitions)
        except HeartbeatError:
            self.close()
            raise

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic.

        Raises:
            HeartbeatError: it exists already, or the broker is closed.
        """
        code = self._library.rd_kafka_mock_topic_create(self._open(), name.encode(), partitions, 1)
        self._check(code, f"create topic {name} with {partitions} partitions")

    def set_down(self) -> None:
        """Drop every connection and refuse new ones; records, groups and the port number are kept."""
        self._check(self._library.rd_kafka_mock_broker_set_down(self._open(), _ALL_BROKERS), "go down")

    def set_up(self) -> None:
        """Accept connections again, at the same port."""
        self._check(self._library.rd_kafka_mock_broker_set_up(self._open(), _ALL_BROKERS), "come up")

    def fail_requests(self, api_key: int, error_codes: Sequence[int]) -> None:
        """Answer the next requests of one kind with these errors, one each, then serve them again.

        ``api_key`` is the protocol's (Produce 0, Fetch 1, OffsetCommit 8, JoinGroup 11), a code is Kafka's or one of
        librdkafka's own; -195 (``_TRANSPORT``) drops the connection instead.
        """
        array = (ctypes.c_int * len(error_codes))(*error_codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._open(), api_key, len(error_codes), array)

    def close(self) -> None:
        """Drop everything: connections, records and the port. May be called twice."""
        cluster, self._cluster = self._cluster, None
        client, self._client = self._client, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
        if client:
            self._library.rd_kafka_destroy(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> int:
        # A call with the pointer of a destroyed cluster would end the process.
        if not self._cluster:
            raise HeartbeatError("The embedded broker is closed.")
        return self._cluster

    def _check(self, code: int, wish: str) -> None:
        if code:
            raise HeartbeatError(f"The embedded broker could not {wish}: {self._library.rd_kafka_err2str(code).decode()}")


def find_library(package: Path) -> Path:
    """Return the librdkafka that belongs to an installed ``confluent_kafka`` package directory.

    auditwheel puts it beside the package, in ``confluent_kafka.libs/``; delocate inside it, in ``.dylibs/``.

    Raises:
        StartError: it is in neither place, as when the package was built from source against a system's library.
    """
    beside, inside = package.parent / "confluent_kafka.libs", package / ".dylibs"
    # The wheel may carry its dependencies too, and on some platforms librdkafka++: the C library sorts first by length.
    found = sorted([*beside.glob("librdkafka*.so*"), *inside.glob("librdkafka*.dylib")], key=lambda path: len(path.name))
    if not found:
        raise StartError(
            f"No librdkafka in {beside} or {inside}: the embedded broker needs the binary wheel. "
            "Install it with: pip install --force-reinstall --only-binary :all: confluent-kafka"
        )
    return found[0]


@functools.cache
def _library() -> ctypes.CDLL:
    # Located, not imported: the client's Python half costs 50 ms that a process with only a broker need not pay.
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise StartError("The embedded broker needs the package confluent-kafka. Install it with: pip install confluent-kafka")
    path = find_library(Path(spec.origin).parent)
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise StartError(f"The librdkafka at {path} cannot be used as an embedded broker: {error}") from error
    return library


def _new_client(library: ctypes.CDLL) -> int:
    """Return a client handle; a mock cluster borrows its logger and its threads, and it connects to nothing."""
    reason = ctypes.create_string_buffer(512)
    configuration = library.rd_kafka_conf_new()
    if library.rd_kafka_conf_set(configuration, b"log_level", _ERRORS_ONLY, reason, len(reason)) != _CONF_OK:
        library.rd_kafka_conf_destroy(configuration)
        raise StartError(f"The embedded broker could not start: {reason.value.decode()}")
    client: int | None = library.rd_kafka_new(_PRODUCER, configuration, reason, len(reason))
    if client is None:
        library.rd_kafka_conf_destroy(configuration)  # a successful rd_kafka_new owns it, a failed one does not
        raise StartError(f"The embedded broker could not start: {reason.value.decode()}")
    return client
