"""The ``heartbeat`` command. Each verb imports what it needs, when it runs: start-up time is part of the product."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from heartbeat import __version__
from heartbeat.errors import HeartbeatError, StartError, UsageError, WorkerFileError

_EXIT_CODES = {UsageError: 1, WorkerFileError: 2, StartError: 3}


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
        raise UsageError("heartbeat connect-standalone worker.properties [connector.json ...], or CONNECT_* variables instead of the file")
    app.run(files[0] if files else None, files[1:], os.environ)


def main() -> NoReturn:
    """Run the command; say errors in one line and end with the code that names their kind."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
    except HeartbeatError as error:
        print(f"heartbeat: {error}", file=sys.stderr)
        sys.exit(next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 3))
    sys.exit(code if isinstance(code, int) else 0)
