"""The documents against what they speak of: files, links, commands, settings and tests that they name exist, and the twins agree."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.real.compose.seed_commands import BLOCKS, SUCCESS, SUPPORT
from tests.real.programs import missing

from heartbeat.beats import measures
from heartbeat.beats.clock import Clock
from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.holdings import Held, Holdings
from heartbeat.beats.keyspace import Keyspace
from heartbeat.beats.partitions import Partitions, Stored
from heartbeat.beats.proof import Sample, Sight
from heartbeat.beats.settings import Limits, Rules
from heartbeat.beats.sink import HeartbeatSink
from heartbeat.beats.sources import Sources
from heartbeat.connect.api import TopicPartition
from heartbeat.connect.kafka_admin import PartitionLogs

ROOT = Path(__file__).parents[1]
ENGLISH = ROOT / "README.md"
KOREAN = ROOT / "README.ko.md"
ORIGINAL = ROOT / "docs" / "original.md"
MONITOR = ROOT / "docs" / "monitor.md"
DOCUMENTS = (ENGLISH, KOREAN, *sorted((ROOT / "docs").rglob("*.md")))
SEED = ROOT.parent / "shared" / "seed"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
CELL = re.compile(r"(?<!\\)\|")
TREE_ENTRY = re.compile(r"^([│ ]*)[├└]── (\S+)")
TOUR = re.compile(r"`tour\[([^`]*)\]`")
TEST = re.compile(r"`(tests/[^`]*\.py)::(\w+)`")
REASON = "No test: "
NOT_REPOSITORY = (".cache/", "connector/", "hb:", "org.")
"""How names begin that look like files of this repository and are none: made at run time, or of the original."""
NOT_FILES = {"worker.properties", "connector.json", "connector.properties", "requirements.in"}

TYPED_AS_A_WHOLE = ("tour", "alert")
"""Parts of the README that tests/real/test_readme.py and test_readme_alert.py type from their first block to their last."""
TYPED_ELSEWHERE = {
    "docker compose -f docker-compose.yml -f compose.kraft.yml up -d": ("tests/real/compose/test_compose_kraft.py", '"compose.kraft.yml"'),
    "docker compose exec test-runner /scripts/check-redis.sh": ("tests/scripts/test_script_redis.py", "check-redis.sh"),
    "docker compose exec test-runner /scripts/setup.sh /config/service-heartbeat-sink.json": (
        "tests/scripts/test_script_setup.py",
        "service-heartbeat-sink",
    ),
    "docker compose exec test-runner /scripts/batch-job-example.sh sleep 90": (
        "tests/scripts/test_script_beats.py",
        "batch-job-example.sh",
    ),
    "docker compose --profile metrics up -d --wait redis-exporter": (
        "tests/real/compose/test_compose_stack.py",
        '"--profile", "metrics", "up", "-d", "--wait", "redis-exporter"',
    ),
    "curl -s http://localhost:9121/metrics": ("tests/real/compose/test_compose_stack.py", "ports.exporter}/metrics"),
    "scripts/heartbeat-monitor.sh": ("tests/scripts/test_script_redis.py", "heartbeat-monitor.sh"),
    "SLACK_WEBHOOK_URL=https://hooks.slack.com/... scripts/heartbeat-monitor.sh": (
        "tests/scripts/test_script_redis.py",
        "SLACK_WEBHOOK_URL",
    ),
    'echo "=== $i ==="': ("tests/real/compose/seed_commands.py", 'echo "=== $i회차 확인 ==="'),
    "./test.sh": (".ci/run", "./test.sh"),
    "curl -s http://localhost:8083/metrics": ("tests/real/test_metrics.py", '"/metrics"'),
    "heartbeat doctor                                    # the demo, or http://127.0.0.1:8083": ("tests/test_doctor.py", "doctor"),
    "heartbeat doctor --worker worker.properties         # the brokers and REST address of this worker": (
        "tests/real/test_doctor.py",
        "--worker",
    ),
    "heartbeat doctor --redis 127.0.0.1:6379 --json      # Redis by another address; for programs": ("tests/real/test_doctor.py", "--json"),
    "heartbeat backtest --bootstrap-server localhost:9092 --topic heartbeat-topic --key heartbeat --ttl 60 --grace 5": (
        "tests/real/test_backtest.py",
        '"backtest", "--bootstrap-server"',
    ),
    "bash scripts/install.sh run": ("run.sh", "scripts/install.sh run"),
    ".venv/bin/heartbeat monitor --check config/monitor.toml": ("tests/test_monitor_document.py", '"config" / "monitor.toml"'),
    ".venv/bin/heartbeat monitor config/monitor.toml": ("tests/real/chaos/monitor.py", 'heartbeat_argv("monitor"'),
    ".venv/bin/heartbeat status": ("tests/real/test_readme_alert.py", '"heartbeat status"'),
    **dict.fromkeys(
        (
            'echo "backup" | kcat -P -b localhost:9092 -t heartbeat-topic -H hb-status=fail -H hb-run=4711 -H "hb-message=disk full"',
            'docker compose exec redis redis-cli HGET "hb:{redis-heartbeat-sink}:status" heartbeat',
            'docker compose exec redis redis-cli HMGET "hb:{redis-heartbeat-sink}:proof" heartbeat-topic/0/since heartbeat-topic/0/until',
        ),
        ("tests/real/test_readme_proof.py", "shown_commands()"),
    ),
}
"""Commands of the README that the original does not have, and the file, with words of it, that runs them or what they start."""


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def blocks(document: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return FENCE.findall(document.read_text(encoding="utf-8"))


def rows(text: str, header: str) -> Iterator[list[str]]:
    """The cells of each row of the tables that have this header."""
    table = False
    for line in text.splitlines():
        if not line.startswith("|"):
            table = False
        elif line == header:
            table = True
        elif table and not line.startswith("|---"):
            yield [cell.strip() for cell in CELL.split(line)[1:-1]]


def anchors(document: Path) -> set[str]:
    """The names under which headings can be linked to, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in HEADING.findall(prose(document))}


@cache
def functions_of(path: Path) -> set[str]:
    """The names of the test functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def show(default: object) -> str:
    """A default as Connect's documents write it."""
    return json.dumps(default) if default is None or isinstance(default, bool) else str(default)


def unknown_tests(cell: str) -> list[str]:
    """What a cell names as a test and nobody finds."""
    typed = {block.name for block in BLOCKS} | {step.command for step in SUPPORT}
    lost = [name for name in TOUR.findall(cell) if name not in typed]
    return lost + [
        f"{path}::{test}" for path, test in TEST.findall(cell) if not (ROOT / path).is_file() or test not in functions_of(ROOT / path)
    ]


def files() -> list[list[str]]:
    """The table of the original's files."""
    return list(rows(ORIGINAL.read_text(encoding="utf-8"), "| In the original | Here | Test |"))


def promises() -> list[list[str]]:
    """The table of the original's promises."""
    return list(rows(ORIGINAL.read_text(encoding="utf-8"), "| Section | Promise | Here | Test |"))


def plain(heading: str) -> str:
    """A heading of the original without its pictures and numbers."""
    return re.sub(r"^[\W\d_]+", "", heading).strip()


def test_the_twins_have_the_same_code_byte_for_byte() -> None:
    assert blocks(KOREAN) == blocks(ENGLISH)
    assert len(blocks(ENGLISH)) > 30


def test_the_twins_have_the_same_structure() -> None:
    english, korean = prose(ENGLISH), prose(KOREAN)
    assert [len(level) for level, _ in HEADING.findall(korean)] == [len(level) for level, _ in HEADING.findall(english)]
    shape = re.compile(r"^(?:\||- |\d\. )", re.MULTILINE)
    assert shape.findall(korean) == shape.findall(english)
    # What stands in code is the same in both, whatever the order of words around it.
    assert sorted(set(CODE.findall(korean))) == sorted(set(CODE.findall(english)))


def test_the_twins_lead_to_each_other() -> None:
    assert "(README.ko.md)" in prose(ENGLISH)
    assert "(README.md)" in prose(KOREAN)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if link.startswith(("http://", "https://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def is_file_of_ours(name: str) -> bool:
    """Tell whether a name in code is meant to be a file or a folder of the repository."""
    if name in NOT_FILES or name.startswith((*NOT_REPOSITORY, "/", "~", "-", "http")) or not re.fullmatch(r"[\w./-]+", name):
        return False
    return bool(re.match(r"(?:src|tests|docs|scripts|config|docker|bench)/", name) or re.search(r"\.(?:py|sh|md|ya?ml|json|toml)$", name))


@pytest.mark.parametrize("document", [ENGLISH, KOREAN, ORIGINAL, MONITOR], ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    named = [name.split("::")[0] for name in CODE.findall(prose(document))]
    ours = [name for name in named if is_file_of_ours(name)]
    # A script may be called by its name alone.
    found = {path.name for folder in ("scripts", "config", "docs", "tests") for path in (ROOT / folder).rglob("*")}
    assert [name for name in ours if not ((ROOT / name).exists() or name in found)] == []
    assert ours


def test_every_file_of_the_drawn_tree_exists() -> None:
    (tree,) = [text for _, text in blocks(ENGLISH) if "├──" in text]
    folders: list[str] = []
    paths = []
    for line in tree.splitlines():
        if entry := TREE_ENTRY.match(line):
            del folders[len(entry[1]) // 4 :]
            paths.append("".join(folders) + entry[2])
            folders.append(entry[2])
    assert [path for path in paths if not (ROOT / path).exists()] == []
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.sh")}
    assert scripts <= set(paths)


def test_every_command_of_the_readme_is_typed_by_a_test() -> None:
    text = ENGLISH.read_text(encoding="utf-8")
    for name in TYPED_AS_A_WHOLE:
        text = text.replace(text.split(f"<!-- {name}")[1].split(f"<!-- end of {name}")[0], "")
    original = "".join(block.text for block in BLOCKS) + "\n".join(step.command for step in SUPPORT)
    known = {line.strip() for line in original.splitlines()} | set(TYPED_ELSEWHERE)
    lines = [line.strip() for language, block in FENCE.findall(text) if language == "bash" for line in block.splitlines()]
    assert [line for line in lines if line not in known] == []
    assert set(TYPED_ELSEWHERE) <= set(lines)
    assert [path for path, words in TYPED_ELSEWHERE.values() if words not in (ROOT / path).read_text(encoding="utf-8")] == []


def test_the_support_commands_stand_in_the_readme() -> None:
    assert [step.command for step in SUPPORT if f"`{step.command}`" not in prose(ENGLISH)] == []


def test_the_log_line_that_is_shown_is_one_that_is_written() -> None:
    assert any(re.fullmatch(SUCCESS, text.strip()) for _, text in blocks(ENGLISH))


def test_the_config_that_is_shown_is_the_one_that_is_shipped() -> None:
    assert ("json", (ROOT / "config" / "redis-heartbeat-sink.json").read_text(encoding="utf-8")) in blocks(ENGLISH)


@pytest.mark.parametrize(("document", "header"), [(ENGLISH, "| Setting | Default | Meaning |"), (KOREAN, "| 설정 | 기본값 | 설명 |")])
def test_the_settings_are_those_of_the_sink(document: Path, header: str) -> None:
    table = [(name.strip("`"), default.strip("`")) for name, default, _ in rows(prose(document), header)]
    assert table == [(key.name, show(key.default)) for key in HeartbeatSink.CONFIG]


def test_the_sinks_own_figures_are_those_that_it_tells() -> None:
    connection = Connection(Server("127.0.0.1", 1))
    sources = Sources(Keyspace(connection, "never asked"), Limits(ttl_ms=1, most=1, horizon_ms=1))
    sources.indexed = 1
    holdings = Holdings(Partitions(connection, "never asked"), PartitionLogs({}), Clock(), Rules("", ttl_ms=1, horizon_ms=1))
    holdings.held = {TopicPartition("topic", 0): Held("", Stored(1, 1, 1, 1), Sight(1, held=Sample(1, 2)))}
    holdings.claims = {"rebuild": 1}
    told = [
        (f"{name}_total" if kind == "counter" else name, ", ".join(labels))
        for name, kind, _, labels, _ in measures.of(sources, holdings, Clock())
    ]
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    table = [(name.strip("`"), labels.replace("`", "")) for name, labels, _ in rows(text, "| Figure | Labels | Meaning |")]
    assert sorted(table) == sorted(told)


@pytest.mark.parametrize("row", files() + promises(), ids=lambda row: " ".join(row[:2])[:60])
def test_every_row_names_tests_that_exist_or_a_reason(row: list[str]) -> None:
    cell = row[-1]
    if cell.startswith(REASON):
        assert len(cell) > len(REASON) + 10
        return
    assert TOUR.findall(cell) or TEST.findall(cell), cell
    assert not re.sub(r"`tour\[[^`]*\]`|`tests/[^`]*::\w+`|[, ]", "", cell), "nothing but tests"
    assert unknown_tests(cell) == []


def test_every_block_and_every_command_of_the_original_has_a_row() -> None:
    named = {name for row in files() + promises() for name in TOUR.findall(row[-1])}
    assert named == {block.name for block in BLOCKS} | {step.command for step in SUPPORT}


def test_the_original_has_seven_ticks_and_each_has_its_row() -> None:
    assert len([row for row in promises() if row[1].startswith("tick: ")]) == 7


def test_every_file_of_the_originals_tree_has_a_row() -> None:
    (tree,) = [block.text for block in BLOCKS if block.name == "project-tree"]
    names = set(re.findall(r"[\w./-]+\.(?:md|yml|sh|xml|build|java|json)\b", tree))
    table = " ".join(row[0] for row in files())
    assert len(names) == 12
    assert [name for name in names if name not in table] == []


def test_every_heading_of_the_original_is_a_section_of_the_table() -> None:
    if not SEED.is_dir():
        missing("the original's document", f"it belongs into {SEED.parent.name}/{SEED.name} beside the clone")
    text = "".join(FENCE.sub("", path.read_text(encoding="utf-8")) for path in sorted(SEED.glob("*.txt")))
    headings = [plain(title) for _, title in HEADING.findall(text)]
    sections = list(dict.fromkeys(row[0] for row in promises()))
    assert sections == headings


def test_no_document_still_has_a_place_to_be_filled_in() -> None:
    for document in (ROOT / "README.md", ROOT / "README.ko.md", ROOT / "bench" / "RESULTS.md"):
        assert not re.search(r"^(FIGURES|TODO|TBD)\b", document.read_text(), re.MULTILINE), document.name
