"""The README's tour, typed from top to bottom: documents rot unless they are run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartbeat.embedded.ports import require_free
from heartbeat.errors import StartError

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "README.md").read_text().split("<!-- tour")[1].split("<!-- end of tour")[0]


def bash(command: str) -> str:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def embedded() -> Iterator[None]:
    """Nothing runs, and the tour's ports are free: they are the ones that people type."""
    try:
        for port in (9092, 6379, 8083):
            require_free(port)
    except StartError as error:
        pytest.fail(f"the README's tour needs its ports: {error}")
    yield
    bash("./run.sh --embedded down")


@pytest.mark.usefixtures("embedded")
def test_the_tour_of_the_readme_works_from_its_first_command_to_its_last() -> None:
    blocks = [bash(block) for block in re.findall(r"```bash\n(.*?)```", TOUR, re.DOTALL)]
    started, status, created, beat, states, restarted, changed, silence, recovery, scripts, end = blocks
    shown = re.search(r"```json\n(.*?)\n```", TOUR)
    assert shown is not None
    assert "Running in the background" in started
    assert status == shown[1]
    assert '"tasks":[{"connector":"redis-heartbeat-sink","task":0}]' in created
    sent, value, ttl_s = beat.splitlines()
    assert "partition 0" in sent
    assert len(value) == 13
    assert 0 < int(ttl_s) <= 60
    assert re.search(r"^heartbeat +UP ", states, re.MULTILINE)
    assert restarted == ""
    assert '"redis.ttl":"4"' in changed
    assert silence == "-2"
    assert 0 < int(recovery.splitlines()[-1]) <= 4
    assert "Connector redis-heartbeat-sink: updated" in scripts
    assert re.search(r"^✅ ALIVE: heartbeat in Redis at 127\.0\.0\.1:6379$", scripts, re.MULTILINE)
    assert end == "The demo has stopped."
