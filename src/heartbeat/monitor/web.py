"""The monitor over HTTP: sources and pipeline as JSON, health, readiness, metrics. It reads, and changes nothing."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heartbeat import logs
from heartbeat.beats import listing
from heartbeat.beats.connection import Connection
from heartbeat.beats.connection import Server as RedisServer
from heartbeat.beats.listing import Found, Query
from heartbeat.display import utf8
from heartbeat.errors import BadRequest, ConnectError, RetriableError, StartError
from heartbeat.monitor import metrics
from heartbeat.monitor.sources import Asked, Source, source_of, spans
from heartbeat.monitor.view import View
from heartbeat.monitor.watch import Look

log = logging.getLogger(__name__)

_REDIS_TIMEOUT_S: Final = 1.0
"""For each step (a free place, the connection, a reply), so that Redis being away is said within three seconds."""
_READERS: Final = 4
"""Pages read from Redis at the same time: more would only hold up who writes there."""
_STOP_S: Final = 0.5


class Web:
    """The endpoints. All but the health check run in Starlette's thread pool: they wait for Redis, or count."""

    def __init__(self, view: View, clock: Callable[[], int]) -> None:
        self._view = view
        self._clock = clock
        self._readers = threading.BoundedSemaphore(_READERS)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        table = {
            "/api/v1/sources": self.sources,
            "/api/v1/pipeline": self.pipeline,
            "/readyz": self.ready,
            "/metrics": self.metrics,
        }
        routes = [Route(path, _answering(endpoint), methods=["GET"]) for path, endpoint in table.items()]
        routes.append(Route("/healthz", self.health, methods=["GET"]))
        return Starlette(routes=routes, exception_handlers={HTTPException: _unmatched})

    async def health(self, _request: Request) -> Response:
        """GET /healthz: whether the detection loop turns. Not in the thread pool, which may be full of readers that wait."""
        stands = self._view.observation().stands_still(self._clock())
        return _refuse(503, stands) if stands else _json({"status": "ok"})

    def ready(self, _request: Request) -> Response:
        """GET /readyz: whether all indexes are looked at and the file's settings are in force; what channels failed with is only told."""
        seen = self._view.observation()
        stands = seen.stands_still(self._clock())
        errors = [stands] if stands else []
        if seen.error:
            errors.append(seen.error)
        errors += [f"connector {name}: {look.error}" for name, look in seen.connectors.items() if look.error]
        errors += self._view.settings().errors
        reply = {"status": "not ready" if errors else "ok", "errors": [*map(_clean, errors)], "channels": self._channels_failing()}
        return _json(reply, 503 if errors else 200)

    def metrics(self, _request: Request) -> Response:
        """GET /metrics."""
        return Response(metrics.page(self._view, self._clock()), media_type=metrics.CONTENT_TYPE)

    def pipeline(self, _request: Request) -> Response:
        """GET /api/v1/pipeline: the sight of every partition, how fresh each stage is, and what channels failed with."""
        seen, now_ms = self._view.observation(), self._clock()
        return _json(
            {
                "connectors": [_connector(name, look, now_ms) for name, look in sorted(seen.connectors.items())],
                "stages": {
                    "redis": _age_ms(seen.redis_ok_ms or None, now_ms),
                    "detection": _age_ms(seen.tick_ms or None, now_ms),
                    "delivery": {utf8(one.channel): metrics.waiting_ms(one, now_ms) for one in self._view.channels()},
                },
                "channels": self._channels_failing(),
                "error": _clean(seen.error) or None,
            }
        )

    def sources(self, request: Request) -> Response:
        """GET /api/v1/sources: a page of them, the worst first within each connector."""
        asked = Asked.parse(request.query_params.multi_items())
        settings, looks = self._view.settings(), self._view.observation().connectors
        paused = {name for name, look in looks.items() if look.paused}
        with self._reading(settings.redis) as connection:
            now_ms, connectors = listing.overview(connection)
            if asked.connector is not None and asked.connector not in connectors:
                raise BadRequest(f"connector: none of that name has sources here; there are {', '.join(map(utf8, connectors)) or 'none'}")

            def keep(found: Found) -> Source | None:
                policy = settings.rules.of(found.connector, found.source)
                source = source_of(found, policy, paused=found.connector in paused, now_ms=now_ms)
                return source if source.state in asked.states else None

            wanted = {
                name: spans(asked.states, settings.rules, paused=name in paused, now_ms=now_ms)
                for name in connectors
                if asked.connector in (None, name)
            }
            page = listing.page(connection, Query(wanted, asked.limit, asked.named(), keep, asked.cursor))
        return _json({"sources": page.rows, "next": page.next.text() if page.next else None})

    def _channels_failing(self) -> dict[str, str]:
        """Return what channels failed with, if their last message was not taken. Another monitor's are told by that one."""
        return {utf8(channel.channel): _clean(channel.last_error) for channel in self._view.channels() if channel.last_error}

    @contextmanager
    def _reading(self, server: RedisServer) -> Iterator[Connection]:
        """A connection for one request: they come in any thread, and the settings may name another Redis by the next one."""
        if not self._readers.acquire(timeout=_REDIS_TIMEOUT_S):
            raise RetriableError("too many are reading sources at the same time; try again")
        try:
            connection = Connection(replace(server, timeout_s=min(server.timeout_s, _REDIS_TIMEOUT_S)), suitable=False)
            try:
                yield connection
            finally:
                connection.close()
        finally:
            self._readers.release()


class Server:
    """Serves a view. Bound when it is made, so that a taken port is known before anything else starts."""

    def __init__(self, listen: str, view: View) -> None:
        host, _, port = listen.rpartition(":")
        self._socket = _bound(host.strip("[]"), port, listen)
        self.origin = f"http://{host}:{self._socket.getsockname()[1]}"
        web = Web(view, lambda: time.time_ns() // 1_000_000)
        self._server = uvicorn.Server(
            uvicorn.Config(web.app(), log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )
        # A daemon, because a client that holds its connection open must not hold the process.
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True)

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()
        log.info("The monitor answers at %s", self.origin)
        if not ipaddress.ip_address(self._socket.getsockname()[0]).is_loopback:
            log.warning(
                "%s is open beyond this machine, without authentication: whoever reaches it can read the names and states of all sources. "
                'Set listen = "127.0.0.1:PORT", or let a firewall or an authenticating proxy stand before it',
                self.origin,
            )

    def stop(self) -> None:
        """Stop answering; a request that is late is left behind."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        self._socket.close()


def serve(listen: str, view: View) -> Server:
    """Return a server of this view, bound to ``HOST:PORT`` and not started.

    Raises:
        StartError: it cannot listen there.
    """
    return Server(listen, view)


def _bound(host: str, port: str, listen: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, int(port)))
        bound.listen(128)
    except (OSError, OverflowError, ValueError) as error:
        bound.close()
        why = error.strerror or str(error) if isinstance(error, OSError) else "no HOST:PORT"
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        fix = "Stop what uses the port, or set another listen in [monitor]" if taken else "Set another listen in [monitor]"
        raise StartError(f"cannot listen on {listen}: {why}. {fix}") from error
    return bound


def _connector(name: str, look: Look, now_ms: int) -> dict[str, Any]:
    ends = [part.until_ms for part in look.partitions]
    proofs = [at_ms for part in look.partitions for at_ms in (part.until_ms, part.canary_ms) if at_ms is not None]
    behind = min((end for end in ends if end is not None), default=None)
    blind = look.blind
    return {
        "name": utf8(name),
        "blind": None if blind is None else msgspec.structs.replace(blind, message=_clean(blind.message)),
        "paused": look.paused or None,
        "error": _clean(look.error) or None,
        "proven_until_ms": look.proven_until_ms,
        "sources": {"total": look.sources + look.down, **{state.lower(): count for state, count in metrics.counts(look).items()}},
        # The broker has answered whoever proved most lately; the consumer is as far as the partition furthest behind.
        "stages": {"broker": _age_ms(max(proofs, default=None), now_ms), "consumer": None if None in ends else _age_ms(behind, now_ms)},
        "partitions": [{**part._asdict(), "age_ms": _age_ms(part.until_ms, now_ms)} for part in look.partitions],
    }


def _age_ms(at_ms: int | None, now_ms: int) -> int | None:
    return None if at_ms is None else max(0, now_ms - at_ms)


def _answering(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Map what an endpoint raises to a reply. What Redis raises means that it cannot be read now."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except ConnectError as error:
            return _refuse(error.status if isinstance(error, BadRequest) else 503, str(error))
        except Exception as error:
            log.error("Uncaught exception in %s", request.url.path, exc_info=error)
            return _refuse(500, str(error) or type(error).__name__)

    return answer


async def _unmatched(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _refuse(status, {404: "no such page", 405: "only GET is answered"}.get(status, f"HTTP {status}"))


def _refuse(status: int, message: str) -> Response:
    return _json({"error": _clean(message)}, status)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _clean(text: str) -> str:
    return utf8(logs.secrets.clean(text))
