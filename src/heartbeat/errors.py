"""Every error this project raises on purpose, and the data a caller decides by. Nobody matches message text.

HeartbeatError
├── UsageError                 the command line is wrong (exit code 1)
├── WorkerFileError            the worker's properties are missing or unusable (exit code 2)
├── StartError                 a connector file is bad or the worker cannot start (exit code 3)
├── ConfigError                one configured value is wrong: name, value, reason
├── InvalidConfig              several such at once: ``errors``
├── NoRedisServer              the demo found no Redis-compatible server to start
└── ConnectError               Connect's own family; carries an HTTP status and a Java class name for traces
    ├── DataError              bytes that do not decode
    ├── RetriableError         try the same batch again after ``retry_after_s``
    ├── Reclaim                a plugin gives partitions back: open them again
    ├── BadRequest      400
    ├── NotFound        404
    ├── AlreadyExists   409
    ├── Conflict        409
    └── RequestTimeout  500
"""

from __future__ import annotations

from collections.abc import Collection


class HeartbeatError(Exception):
    """The root: something we know about and can say plainly."""


class UsageError(HeartbeatError):
    """The command line is wrong."""


class WorkerFileError(HeartbeatError):
    """The worker's properties are missing or unusable."""


class StartError(HeartbeatError):
    """A connector file is bad, a port is taken: the worker cannot start."""


class NoRedisServer(HeartbeatError):
    """No Redis-compatible server was found on this machine."""


class ConfigError(HeartbeatError):
    """One configured value is wrong, worded as Kafka's ``ConfigException``.

    >>> str(ConfigError("tasks.max", 0, "Value must be at least 1"))
    'Invalid value 0 for configuration tasks.max: Value must be at least 1'
    """

    def __init__(self, name: str, value: object, reason: str) -> None:
        shown = "null" if value is None else value
        super().__init__(f"Invalid value {shown} for configuration {name}: {reason}")


class InvalidConfig(HeartbeatError):
    """Everything that is wrong with a set of values, in the order of their declaration."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class ConnectError(HeartbeatError):
    """Anything Kafka Connect would raise; ``status`` is the HTTP status, ``java_name`` the first word of a trace."""

    status = 500
    java_name = "org.apache.kafka.connect.errors.ConnectException"


class DataError(ConnectError):
    """Bytes that a converter cannot decode."""

    java_name = "org.apache.kafka.connect.errors.DataException"


class RetriableError(ConnectError):
    """A passing fault: the same batch is worth trying again.

    ``retry_after_s`` is the server's own wish, in seconds; None leaves the pace to the runner's back-off.
    """

    java_name = "org.apache.kafka.connect.errors.RetriableException"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Reclaim(ConnectError):
    """A plugin cannot go on from where it is in some partitions: they are to be opened again.

    ``partitions`` are (topic, partition).
    """

    def __init__(self, message: str, partitions: Collection[tuple[str, int]]) -> None:
        super().__init__(message)
        self.partitions = partitions


class BadRequest(ConnectError):
    """The request cannot be honoured as it stands."""

    status = 400
    java_name = "org.apache.kafka.connect.runtime.rest.errors.BadRequestException"


class NotFound(ConnectError):
    """The named thing does not exist."""

    status = 404
    java_name = "org.apache.kafka.connect.errors.NotFoundException"


class AlreadyExists(ConnectError):
    """The named thing exists already."""

    status = 409
    java_name = "org.apache.kafka.connect.errors.AlreadyExistsException"


class Conflict(ConnectError):
    """Something else is being done to the same connector; trying again later is worth it."""

    status = 409
    java_name = "org.apache.kafka.connect.runtime.rest.errors.ConnectRestException"


class RequestTimeout(ConnectError):
    """The request did not finish in its time; the operation may go on."""
