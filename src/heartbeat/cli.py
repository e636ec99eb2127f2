"""The ``heartbeat`` command. Each verb imports what it needs, when it runs: start-up time is part of the product."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import click

from heartbeat import __version__
from heartbeat.errors import HeartbeatError, StartError, UsageError, WorkerFileError

_EXIT_CODES = {UsageError: 1, OSError: 1, WorkerFileError: 2, StartError: 3}
_NO_ANSWER = 2
"""Of ``status``: its 1 says that somebody is down, so that no mistake may end it so."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="heartbeat")
def cli() -> None:
    """Kafka beats kept alive in Redis, behind Kafka Connect's REST API."""


@cli.command("connect-standalone")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[WORKER.PROPERTIES] [CONNECTOR.JSON|CONNECTOR.PROPERTIES]...")
def connect_standalone(files: tuple[Path, ...]) -> None:
    """Run a worker. Its properties come from the first file and from CONNECT_* variables, which win."""
    from heartbeat.connect import app

    if not files and not any(name.startswith("CONNECT_") for name in os.environ):
        raise UsageError(
            "usage: heartbeat connect-standalone worker.properties [connector.json ...]; CONNECT_* variables can stand for the file"
        )
    properties, connectors = (files[0], files[1:]) if files else (None, ())
    if properties is not None and properties.suffix == ".json":
        # A connector's file: to read it as properties would start a worker that runs nothing, and say nothing.
        if not any(name.startswith("CONNECT_") for name in os.environ):
            raise UsageError(f"{properties} is a connector's file; the first file must be the worker's properties")
        properties, connectors = None, files
    app.run(properties, connectors, os.environ)


@cli.command()
@click.option("--connector", type=click.Path(path_type=Path), help="The connector to run.  [default: the original's config]")
@click.option("--kafka-port", default=9092, show_default=True, help="Where Kafka clients bootstrap.")
@click.option("--redis-port", default=6379, show_default=True, help="Where Redis listens.")
@click.option("--rest-port", default=8083, show_default=True, help="Where the REST API listens.")
@click.option("--every", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between beats.")
@click.option("--no-producer", is_flag=True, help="Send no beats; leave that to you.")
@click.option("--stop", "stop_", is_flag=True, help="Stop the demo that is running instead.")
def demo(  # one parameter per option is click's way
    connector: Path | None, kafka_port: int, redis_port: int, rest_port: int, every: float, no_producer: bool, stop_: bool
) -> None:
    """Run broker, Redis, worker and a producer here, in the foreground, on loopback."""
    from heartbeat.embedded import app

    if stop_:
        print("The demo has stopped." if app.stop_running() else "No demo is running.")
        return
    app.run(connector or app.default_connector(), app.Ports(kafka_port, redis_port, rest_port), None if no_producer else every)


@cli.command()
@click.option("--bootstrap-server", help="The broker to begin with.  [default: the running demo's, else 127.0.0.1:9092]")
@click.option("--topic", default="heartbeat-topic", show_default=True)
@click.option("--key", help="The record's key.")
@click.argument("text", default="")
def send(bootstrap_server: str | None, topic: str, key: str | None, text: str) -> None:
    """Send one beat to any broker; TEXT defaults to the time."""
    from heartbeat.connect.kafka_sender import Sender
    from heartbeat.embedded import state

    running = state.read()
    bootstrap = bootstrap_server or (running.kafka if running else "127.0.0.1:9092")
    value = text or f"beat-{datetime.now():%Y-%m-%dT%H:%M:%S}"
    partition, offset = Sender({"bootstrap.servers": bootstrap}).send(topic, key.encode() if key is not None else None, value.encode())
    print(f"Sent {value!r} to {topic}, partition {partition}, offset {offset}")


@cli.command()
@click.option("--bootstrap-server", help="The broker to begin with.  [default: the running demo's, else 127.0.0.1:9092]")
@click.option("--topic", "topics", multiple=True, help="The topic to read; may be given again.")
@click.option("--key", help="What names a record's source, as redis.key does.  [default: ${key}]")
@click.option("--ttl", type=click.IntRange(1, 2**31 - 1), help="Seconds after the last beat at which the key would expire.  [default: 60]")
@click.option("--grace", default=5.0, show_default=True, type=click.FloatRange(0, 1e9), help="Seconds from there to DOWN.")
@click.option(
    "--connector", type=click.Path(path_type=Path), help="A connector's file: its topics, redis.key and redis.ttl are the defaults."
)
@click.option("--client-config", type=click.Path(path_type=Path), help="Properties of the Kafka client, in Java's names.")
@click.option("--since", help="Read no records older than this: 90s, 15m, 1h30m, 7d.  [default: all there are]")
@click.option(
    "--top", type=click.IntRange(1), help="How many sources to show, those with most DOWNs first.  [default: 20; with --json all]"
)
@click.option("--json", "as_json", is_flag=True, help="Print everything for a program.")
def backtest(  # one parameter per option is click's way
    bootstrap_server: str | None,
    topics: tuple[str, ...],
    key: str | None,
    ttl: int | None,
    grace: float,
    connector: Path | None,
    client_config: Path | None,
    since: str | None,
    top: int | None,
    as_json: bool,
) -> None:
    """Tell what a ttl would have done to the beats that topics still hold: gaps, DOWNs, the smallest ttl. Writes nothing."""
    from heartbeat import backtest as root
    from heartbeat.embedded import state

    running = state.read()
    request = root.Request(
        topics=topics,
        default_bootstrap=running.kafka if running else "127.0.0.1:9092",
        bootstrap=bootstrap_server,
        key=key,
        ttl_s=ttl,
        grace_s=grace,
        connector=connector,
        client_config=client_config,
        since=since,
        top=top,
        json=as_json,
    )
    click.echo(root.run(request), nl=False)


@cli.command()
@click.option("--rest", metavar="URL", help="The worker's REST API.  [default: the running demo's, else http://127.0.0.1:8083]")
@click.option("--connector", help="The connector to look at.  [default: all]")
@click.option("--worker", type=click.Path(path_type=Path), help="The worker's properties: its brokers, its REST API.")
@click.option("--bootstrap-server", help="The broker to begin with.  [default: the worker's, else the running demo's, else 127.0.0.1:9092]")
@click.option("--redis", metavar="HOST:PORT", help="Where Redis is from here.  [default: as the connector's config says]")
@click.option("--redis-password", envvar="REDISCLI_AUTH", help="In place of the config's.  [env: REDISCLI_AUTH]")
@click.option("--json", "as_json", is_flag=True, help="Print everything for a program.")
def doctor(  # one parameter per option is click's way
    rest: str | None,
    connector: str | None,
    worker: Path | None,
    bootstrap_server: str | None,
    redis: str | None,
    redis_password: str | None,
    as_json: bool,
) -> NoReturn:
    """Look at broker, topics, group, Redis, clocks, connectors and sight; say what is wrong, and what to type. Writes nothing.

    Ends with 0 if all is OK, with 1 if something FAILs, with 2 if there are only WARNings.
    """
    from heartbeat.doctor import app
    from heartbeat.embedded import state

    running = state.read()
    request = app.Request(
        rest=rest,
        connector=connector,
        worker=worker,
        bootstrap=bootstrap_server,
        redis=redis,
        redis_password=redis_password,
        json=as_json,
        demo=(running.kafka, f"{running.redis_host}:{running.redis_port}", running.rest) if running else None,
        environment=os.environ,
    )
    text, code = app.run(request)
    click.echo(text, nl=False)
    _end(code)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="MONITOR.TOML")
@click.option("--check", is_flag=True, help="Say what the settings come to, or what is wrong with them, and end.")
def monitor(file: Path, check: bool) -> None:
    """Watch all connectors that have an index in Redis, and tell who has stopped: DOWN only with proof, told once."""
    if check:
        from heartbeat.monitor import rules

        warnings, settings = rules.check(file, os.environ)
        click.echo("\n".join([*warnings, *rules.understood(settings)]))
        return
    from heartbeat.monitor import app

    app.run(file, os.environ)


@cli.command()
@click.option("--url", help="The monitor's address.  [default: the running demo's, else http://127.0.0.1:8080]")
@click.option("--all", "everything", is_flag=True, help="Show every source, not only the worst 50.")
@click.option("--json", "as_json", is_flag=True, help="Print everything for a program.")
def status(url: str | None, everything: bool, as_json: bool) -> NoReturn:
    """Show who is up and who is down. Ends with 0 if all are up, with 1 if some are down, with 2 if that is not known or cannot be told."""
    from heartbeat.embedded import state
    from heartbeat.monitor import status as look

    running = state.read()
    default = running.monitor if running else look.DEFAULT_URL
    # An empty one is no address: a variable that is not set must not lead to somebody else's monitor.
    text, code = look.run(default if url is None else url, as_json=as_json, everything=everything)
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:  # click would end with 1
        code = _NO_ANSWER
    _end(code)


@cli.group()
def alert() -> None:
    """Work with the channels by which people are told."""


@alert.command("test")
@click.argument("channel")
@click.option("--settings", "file", default="monitor.toml", show_default=True, type=click.Path(path_type=Path))
def alert_test(channel: str, file: Path) -> int:
    """Send one message, marked as a test, to CHANNEL, and say what came of it."""
    from heartbeat.monitor import app

    text, code = app.test_channel(file, channel, os.environ)
    click.echo(text)
    return code


# Options of the command sent, such as the -1 of LRANGE, are not ours: everything after the first word is passed on.
@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]})
@click.option("-h", "host", help="[default: the running demo's, else 127.0.0.1]")
@click.option("-p", "port", type=int, help="[default: the running demo's, else 6379]")
@click.option("-n", "database", default=0, show_default=True)
@click.option("-a", "password", envvar="REDISCLI_AUTH", help="[env: REDISCLI_AUTH]")
@click.option("--user", "username")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def redis(host: str | None, port: int | None, database: int, password: str | None, username: str | None, command: tuple[str, ...]) -> int:
    """Send one command to Redis and print the reply as redis-cli does."""
    from heartbeat.beats import console
    from heartbeat.beats.connection import Server
    from heartbeat.embedded import state

    running = None if host or port else state.read()
    host = host or (running.redis_host if running else "127.0.0.1")
    server = Server(host, port or (running.redis_port if running else 6379), database, username, password)
    text, failed = console.run(server, command, raw=not sys.stdout.isatty())
    click.echo(text, nl=False)
    return 1 if failed else 0


def main() -> NoReturn:
    """Run the command; say errors in one line and end with the code that names their kind."""
    mistake = _NO_ANSWER if sys.argv[1:2] == ["status"] else None
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(mistake or 1)
    except click.Abort:
        sys.exit(130)
    except (HeartbeatError, OSError) as error:  # an OSError is of the output: a full disk
        print(f"heartbeat: {error}", file=sys.stderr)
        _end(mistake or next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 3))
    sys.exit(code if isinstance(code, int) else 0)


def _end(code: int) -> NoReturn:
    """End at once: a Kafka client that hangs, or has been refused its answers, would hold up the interpreter's own end, or break it."""
    for stream in (sys.stdout, sys.stderr):
        # One that is closed is none; one that takes nothing has been told of, or has nobody who reads it.
        with contextlib.suppress(AttributeError, OSError):
            stream.flush()
    os._exit(code)
