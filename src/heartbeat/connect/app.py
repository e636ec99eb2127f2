"""The composition root of the worker: builds the parts, runs them until told to stop, takes them down in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from heartbeat import __version__, logs
from heartbeat.connect import connector_files, worker_config
from heartbeat.connect.api import same_address
from heartbeat.connect.assembly import Assembly, Resolve, admin_properties
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.plugins import Plugins
from heartbeat.connect.rest import Rest
from heartbeat.connect.store import FileStore, Store
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import Listener, WorkerConfig
from heartbeat.errors import ConnectError, InvalidConfig, StartError, WorkerFileError

log = logging.getLogger(__name__)

_GC_EVERY = 50_000

_STOP_TASKS_S: Final = 4.0
"""SIGTERM ends the process in under 5 s, whatever hangs: a task that is late is left behind."""
_STOP_REST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Bound:
    socket: socket.socket
    listener: Listener


class StandaloneWorker:
    """A worker in Connect's standalone mode: everything it is told to run, it runs itself."""

    def __init__(self, config: WorkerConfig, resolve: Resolve = same_address) -> None:
        """Build the parts and bind the listeners; nothing runs yet.

        Raises:
            WorkerFileError: the properties cannot be honoured.
            StartError: a listener's port is taken, or the stored connectors cannot be read.
        """
        plugins = Plugins.discover()
        try:
            admin = Admin(admin_properties(config.given))
        except InvalidConfig as error:
            raise WorkerFileError(f"the worker's client properties are not usable:\n{error}") from error
        store_file = config.values["config.storage.file"]
        store = FileStore(Path(store_file)) if store_file else Store()
        worker = Worker(config.seconds("task.shutdown.graceful.timeout.ms"))
        self.herder = Herder(store, worker, plugins, Assembly(plugins, config, resolve), config.given)
        self._bound = [_bind(listener) for listener in config.listeners]
        self.worker_id = config.advertised(self._bound[0].listener)
        self._rest = Rest(self.herder, GroupOffsets(self.herder, admin, config.given), admin, config, self.worker_id)
        self._server = uvicorn.Server(
            uvicorn.Config(self._rest.app(), log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        # A daemon, because a client that holds its connection open must not hold the process.
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound.socket for bound in self._bound]}, name="rest", daemon=True
        )

    @property
    def listeners(self) -> list[Listener]:
        """The listeners as they are bound."""
        return [bound.listener for bound in self._bound]

    def start(self, connectors: Sequence[Path] = ()) -> None:
        """Open the REST API, then start stored connectors and those of the given files; a file wins over the store.

        Raises:
            StartError: a file cannot be used; what was stored is as it was, except for the files before it.
        """
        self._thread.start()
        for listener in self.listeners:
            log.info("REST API listens on %s", listener.origin)
            if listener.everywhere:
                log.warning(
                    "The REST API listens on all interfaces without authentication: anyone who reaches port %d can change connectors. "
                    "Set listeners=http://127.0.0.1:%d, or let a firewall or an authenticating proxy stand before it",
                    listener.port,
                    listener.port,
                )
        requests = [(path, connector_files.read(path)) for path in connectors]
        self.herder.reconcile()
        for path, request in requests:
            try:
                self.herder.start_from_file(request)
            except ConnectError as error:
                raise StartError(f"{path}: {error}") from error
            log.info("Created connector %s", request.name)
        self._rest.ready = True
        log.info("Worker %s started, version %s", self.worker_id, __version__)

    def stop(self) -> bool:
        """Stop tasks (they commit and leave their groups), then the REST API. Return whether everything ended in time."""
        clean = self.herder.shut_down(_STOP_TASKS_S)
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_REST_S)
        for bound in self._bound:
            bound.socket.close()
        return clean


def run(properties: Path | None, connectors: Sequence[Path], environment: Mapping[str, str]) -> None:
    """Run a standalone worker until SIGTERM or SIGINT.

    Raises:
        WorkerFileError, StartError: it cannot start.
    """
    logs.set_up(environment.get("CONNECT_LOG4J_ROOT_LOGLEVEL", "INFO"))
    config = worker_config.load(properties, environment)
    if config.meaningless():
        log.warning("These keys mean nothing to this standalone worker: %s", ", ".join(config.meaningless()))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # A batch is tens of thousands of objects without a cycle among them: looking for cycles every 700 costs a fifth of a catch-up.
    gc.set_threshold(_GC_EVERY, 10, 10)
    worker = StandaloneWorker(config)
    try:
        worker.start(connectors)
        while not stop.wait(3600):
            pass
    finally:
        log.info("Worker is stopping")
        worker.stop()
        log.info("Worker stopped")
    # At once: a client library that hangs would hold up the interpreter's exit, and one that is destroyed may abort it.
    logging.shutdown()
    os._exit(0)


def _bind(listener: Listener) -> _Bound:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((listener.host, listener.port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise StartError(
            f"cannot listen on {listener.origin}: {error.strerror}. Stop what uses the port, or set listeners=http://127.0.0.1:PORT"
        ) from error
    return _Bound(bound, Listener(listener.host, bound.getsockname()[1]))
