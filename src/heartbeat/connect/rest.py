"""Connect's REST API: routes to the herder's verbs, Connect's JSON shapes, one mapper from errors to replies."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from heartbeat import __version__, logs
from heartbeat.connect import requests, shapes
from heartbeat.connect.connector_keys import KAFKA_VERSION
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.metrics import CONTENT_TYPE, WorkerMetrics
from heartbeat.connect.store import TargetState
from heartbeat.connect.task import TaskId
from heartbeat.connect.worker_config import WorkerConfig
from heartbeat.errors import ConnectError, NotFound

log = logging.getLogger(__name__)

_CLUSTER_ID_TIMEOUT_S: Final = 3.0
_HEALTHY_BUSY_S: Final = 10.0
_MAX_BODY_BYTES: Final = 4 << 20
_HTTP: Final = {404: "HTTP 404 Not Found", 405: "HTTP 405 Method Not Allowed"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request: decoded path parameters, the query, the whole body, and the URL the client reached us by."""

    path: Mapping[str, str]
    query: Any
    body: bytes
    base_url: str

    def flag(self, name: str, default: str = "false") -> bool:
        """Return a boolean of the query: "true" in any case is true, everything else is false."""
        return str(self.query.get(name, default)).lower() == "true"

    @property
    def name(self) -> str:
        """The connector's name."""
        return self.path["name"]

    @property
    def task(self) -> TaskId:
        """The task's id.

        Raises:
            NotFound: its number is not one.
        """
        if not re.fullmatch("-?[0-9]{1,9}", self.path["task"]):
            raise NotFound(_HTTP[404])
        return TaskId(self.name, int(self.path["task"]))


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return compact JSON."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


class Rest:
    """Handlers, one per endpoint. They run in Starlette's thread pool: herder verbs block."""

    def __init__(self, herder: Herder, offsets: GroupOffsets, admin: Admin, config: WorkerConfig, worker_id: str) -> None:
        self.ready = False
        self._herder = herder
        self._metrics = WorkerMetrics(herder)
        self._offsets = offsets
        self._admin = admin
        self._config = config
        self._worker_id = worker_id

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [Route(path, _endpoint(handler), methods=[method]) for method, path, handler in self._table()]
        routes.append(Route("/health", self.health, methods=["GET"]))
        app = Starlette(routes=routes, exception_handlers={HTTPException: _unmatched})
        app.router.redirect_slashes = False
        return _EncodedPaths(app)

    def _table(self) -> list[tuple[str, str, Callable[[Call], Response]]]:
        connector, task, plugin = "/connectors/{name}", "/connectors/{name}/tasks/{task}", "/connector-plugins/{plugin}/config"
        return [
            ("GET", "/", self.server_info),
            ("GET", "/metrics", self.metrics),
            ("GET", "/connectors", self.connectors),
            ("POST", "/connectors", self.create),
            ("GET", connector, self.info),
            ("DELETE", connector, self.delete),
            ("GET", f"{connector}/config", self.config),
            ("PUT", f"{connector}/config", self.put_config),
            ("PATCH", f"{connector}/config", self.patch_config),
            ("GET", f"{connector}/status", self.status),
            ("GET", f"{connector}/tasks", self.tasks),
            ("GET", f"{task}/status", self.task_status),
            ("POST", f"{task}/restart", self.restart_task),
            ("POST", f"{connector}/restart", self.restart),
            ("PUT", f"{connector}/pause", self.pause),
            ("PUT", f"{connector}/resume", self.resume),
            ("PUT", f"{connector}/stop", self.stop),
            ("GET", f"{connector}/topics", self.topics),
            ("PUT", f"{connector}/topics/reset", self.reset_topics),
            ("GET", f"{connector}/offsets", self.offsets),
            ("PATCH", f"{connector}/offsets", self.alter_offsets),
            ("DELETE", f"{connector}/offsets", self.reset_offsets),
            ("GET", "/connector-plugins", self.plugins),
            ("GET", plugin, self.plugin_config),
            ("PUT", f"{plugin}/validate", self.validate),
        ]

    def server_info(self, call: Call) -> Response:
        """GET /."""
        cluster = self._admin.cluster_id(_CLUSTER_ID_TIMEOUT_S)
        return json_reply({"version": KAFKA_VERSION, "commit": __version__, "kafka_cluster_id": cluster})

    def metrics(self, call: Call) -> Response:
        """GET /metrics: ours, beside Connect's endpoints, in Prometheus' text format."""
        return Response(self._metrics.page(), media_type=CONTENT_TYPE)

    async def health(self, _request: Request) -> Response:
        """GET /health (KIP-1017). Not in the thread pool: it must answer when every thread waits for a verb that hangs."""
        if not self.ready:
            return json_reply({"status": "starting", "message": "Worker is still starting up."}, 503)
        if self._herder.busy_s() > _HEALTHY_BUSY_S:
            message = "Worker was unable to handle this request and may be unable to handle other requests."
            return json_reply({"status": "unhealthy", "message": message}, 500)
        return json_reply({"status": "healthy", "message": "Worker has completed startup and is ready to handle requests."})

    def connectors(self, call: Call) -> Response:
        """GET /connectors."""
        expand = call.query.getlist("expand")
        names = self._herder.connectors()
        if not expand:
            return json_reply(names)
        expanded = {}
        for name in names:
            with contextlib.suppress(NotFound):  # deleted since the names were read
                expanded[name] = self._expanded(name, expand)
        return json_reply(expanded)

    def _expanded(self, name: str, expand: list[str]) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if "status" in expand:
            parts["status"] = self._status(name)
        if "info" in expand:
            parts["info"] = shapes.info(self._herder.record(name))
        return parts

    def create(self, call: Call) -> Response:
        """POST /connectors."""
        record = self._herder.create(requests.create(call.body))
        return json_reply(shapes.info(record), 201, self._location(call, record.name))

    def info(self, call: Call) -> Response:
        """GET /connectors/{name}."""
        return json_reply(shapes.info(self._herder.record(call.name)))

    def config(self, call: Call) -> Response:
        """GET /connectors/{name}/config."""
        return json_reply(self._herder.record(call.name).config)

    def put_config(self, call: Call) -> Response:
        """PUT /connectors/{name}/config."""
        record, new = self._herder.put_config(call.name, requests.config(call.body))
        return json_reply(shapes.info(record), 201 if new else 200, self._location(call, record.name) if new else None)

    def patch_config(self, call: Call) -> Response:
        """PATCH /connectors/{name}/config (KIP-477)."""
        return json_reply(shapes.info(self._herder.patch_config(call.name, requests.config(call.body))))

    def delete(self, call: Call) -> Response:
        """DELETE /connectors/{name}."""
        self._herder.delete(call.name)
        return Response(status_code=204)

    def status(self, call: Call) -> Response:
        """GET /connectors/{name}/status."""
        return json_reply(self._status(call.name))

    def _status(self, name: str) -> dict[str, Any]:
        return shapes.status(name, self._herder.status(name), self._worker_id)

    def tasks(self, call: Call) -> Response:
        """GET /connectors/{name}/tasks."""
        return json_reply(shapes.tasks(self._herder.record(call.name)))

    def task_status(self, call: Call) -> Response:
        """GET /connectors/{name}/tasks/{task}/status."""
        status = self._herder.task_status(call.task)
        version = self._herder.status(call.name).version
        return json_reply(shapes.task_state(call.task, status, self._worker_id, version))

    def restart_task(self, call: Call) -> Response:
        """POST /connectors/{name}/tasks/{task}/restart."""
        self._herder.restart_task(call.task)
        return Response(status_code=204)

    def restart(self, call: Call) -> Response:
        """POST /connectors/{name}/restart (KIP-745)."""
        include_tasks, only_failed = call.flag("includeTasks"), call.flag("onlyFailed")
        plan = self._herder.restart(call.name, include_tasks=include_tasks, only_failed=only_failed)
        if not include_tasks and not only_failed:
            return Response(status_code=204)
        return json_reply(shapes.status(call.name, plan, self._worker_id), 202)

    def pause(self, call: Call) -> Response:
        """PUT /connectors/{name}/pause."""
        self._herder.set_target(call.name, TargetState.PAUSED)
        return Response(status_code=202)

    def resume(self, call: Call) -> Response:
        """PUT /connectors/{name}/resume."""
        self._herder.set_target(call.name, TargetState.STARTED)
        return Response(status_code=202)

    def stop(self, call: Call) -> Response:
        """PUT /connectors/{name}/stop (KIP-875)."""
        self._herder.set_target(call.name, TargetState.STOPPED)
        return Response(status_code=204)

    def topics(self, call: Call) -> Response:
        """GET /connectors/{name}/topics (KIP-558)."""
        if not self._config.values["topic.tracking.enable"]:
            return _refuse(403, "Topic tracking is disabled.")
        return json_reply({call.name: {"topics": self._herder.active_topics(call.name)}})

    def reset_topics(self, call: Call) -> Response:
        """PUT /connectors/{name}/topics/reset."""
        if not self._config.values["topic.tracking.enable"]:
            return _refuse(403, "Topic tracking is disabled.")
        if not self._config.values["topic.tracking.allow.reset"]:
            return _refuse(403, "Topic tracking reset is disabled.")
        self._herder.reset_topics(call.name)
        return Response(status_code=202)

    def offsets(self, call: Call) -> Response:
        """GET /connectors/{name}/offsets."""
        return json_reply(shapes.offsets(self._offsets.read(call.name)))

    def alter_offsets(self, call: Call) -> Response:
        """PATCH /connectors/{name}/offsets."""
        return json_reply({"message": self._offsets.alter(call.name, requests.offsets(call.body))})

    def reset_offsets(self, call: Call) -> Response:
        """DELETE /connectors/{name}/offsets."""
        return json_reply({"message": self._offsets.reset(call.name)})

    def plugins(self, call: Call) -> Response:
        """GET /connector-plugins (KIP-769)."""
        return json_reply(shapes.plugins(self._herder.plugins, connectors_only=call.flag("connectorsOnly", "true")))

    def plugin_config(self, call: Call) -> Response:
        """GET /connector-plugins/{plugin}/config."""
        return json_reply(shapes.plugin_config(self._herder.plugins, call.path["plugin"]))

    def validate(self, call: Call) -> Response:
        """PUT /connector-plugins/{plugin}/config/validate: 200 even with errors."""
        return json_reply(self._herder.validate(call.path["plugin"], requests.config(call.body)).describe())

    def _location(self, call: Call, name: str) -> dict[str, str]:
        return {"Location": f"{call.base_url}connectors/{quote(name, safe='')}"}


def _endpoint(handler: Callable[[Call], Response]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return _refuse(413, f"The body is larger than {_MAX_BODY_BYTES} bytes.")
        # Matrix parameters are no part of a name: JAX-RS cuts them off.
        path = {key: unquote(value.split(";")[0]) for key, value in request.path_params.items()}
        call = Call(path, request.query_params, body, str(request.base_url))
        return await run_in_threadpool(_answer, handler, call)

    return endpoint


def _answer(handler: Callable[[Call], Response], call: Call) -> Response:
    """Call a handler; map what it raises to Connect's error entity."""
    try:
        return handler(call)
    except ConnectError as error:
        return _refuse(error.status, str(error))
    except Exception as error:
        log.error("Uncaught exception in REST call", exc_info=error)
        return _refuse(500, str(error) or type(error).__name__)


def _refuse(status: int, message: str) -> Response:
    return json_reply({"error_code": status, "message": logs.secrets.clean(message)}, status)


async def _unmatched(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    # Connect names no content type where no endpoint matched.
    return Response(msgspec.json.encode({"error_code": status, "message": _HTTP.get(status, f"HTTP {status}")}), status)


class _EncodedPaths:
    """Lets routes match the path as it was sent, so that a name may hold an encoded slash; handlers decode the parameters.

    Starlette matches decoded paths, where ``a%2Fb`` has become two segments.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["raw_path"].decode("latin-1").partition("?")[0]
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)
