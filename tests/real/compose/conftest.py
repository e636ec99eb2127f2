"""An engine for all tests of this directory, and a stack for each of their modules."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from . import engine as engines
from . import stack as stacks
from .engine import Engine
from .stack import Stack

HERE = Path(__file__).parent
LONGEST_S = 900
"""The first test waits for an engine, images and a build, all of which may have to be fetched."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give this directory's tests the time they need."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(LONGEST_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the containers are doing and have said."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {}).values()
        found = [stack for stack in (getattr(value, "stack", value) for value in used) if isinstance(stack, Stack)]
        report.sections += [(f"containers of {stack.project}", stack.account()) for stack in found]
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with Compose."""
    with engines.running() as engine:
        yield engine


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the copies of the repository are."""
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="module")
def stack(engine: Engine, parent: Path) -> Iterator[Stack]:
    """The stack as it is shipped, healthy, with the connector running."""
    with stacks.copied("heartbeat-test", parent) as stack:
        stack.up()
        stack.set_up()
        stack.wait_for_running()
        yield stack
