"""``GET /metrics`` through a client, against a real herder and real tasks whose consumers are scripted."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tests.fakes import CollectingSink, FakeClock, FakeConsumer, eventually, records

from heartbeat.connect.api import Measure, TopicPartition, same_address
from heartbeat.connect.assembly import Assembly, admin_properties
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka import Delivery
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.metrics import MOST_MEASURES
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.rest import Rest
from heartbeat.connect.store import Store
from heartbeat.connect.task import Consumer, TaskId, TaskSpec
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.errors import BadRequest

STRING = "org.apache.kafka.connect.storage.StringConverter"
DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
P = TopicPartition("t", 0)
ODD = "quo\"te back\\slash {b=r,a}ce 'ünï"

Labels = dict[str, str]


class TellingSink(CollectingSink):
    """A plugin with figures of its own: what a test says, or raises."""

    own: ClassVar[Callable[[], Sequence[Measure]]] = staticmethod(tuple)

    def measures(self) -> Sequence[Measure]:
        return TellingSink.own()


class Member(FakeConsumer):
    """A group member that has one partition and three records, and whose empty polls take a moment."""

    def __init__(self) -> None:
        super().__init__(FakeClock(), [])
        self.assign(P)
        self.script.append(records("t", 0, range(5, 8)))

    def poll(self, timeout_s: float, max_records: int) -> Delivery:
        if not self.script:
            time.sleep(0.005)
        return super().poll(timeout_s, max_records)


class ScriptedAssembly(Assembly):
    """The worker's own assembly, but for the consumers."""

    members: ClassVar[dict[TaskId, Member]] = {}
    refuses: ClassVar[bool] = False
    silent: ClassVar[bool] = False
    """Makes members that have no records."""

    def build(self, task: TaskId, config: Mapping[str, str]) -> TaskSpec:
        if ScriptedAssembly.refuses:
            raise BadRequest("no such converter")
        spec = super().build(task, config)

        def join(_: Any) -> Consumer:
            member = ScriptedAssembly.members[task] = Member()
            if ScriptedAssembly.silent:
                member.script.clear()
            return member

        return replace(spec, feed=replace(spec.feed, consumer=join))


class Site:
    """A worker's REST API, a client of it, and a scraper."""

    def __init__(self) -> None:
        given = {
            "bootstrap.servers": "127.0.0.1:1",
            "key.converter": STRING,
            "value.converter": STRING,
            "offset.flush.interval.ms": "50",
        }
        plugins = Plugins([Plugin("tests.TellingSink", TellingSink)])
        config, admin = WorkerConfig(given, WORKER_KEYS.load(given)), Admin(admin_properties(given))
        self.herder = Herder(Store(), Worker(10.0), plugins, ScriptedAssembly(plugins, config, same_address), given)
        rest = Rest(self.herder, GroupOffsets(self.herder, admin, given), admin, config, "w:8083")
        self.client = TestClient(rest.app(), raise_server_exceptions=False)

    def create(self, name: str = "c", **more: str) -> None:
        config = {"connector.class": "TellingSink", "topics": "t", **{key.replace("_", "."): text for key, text in more.items()}}
        reply = self.client.post("/connectors", json={"name": name, "config": config})
        assert reply.status_code == 201, reply.text

    def text(self) -> str:
        reply = self.client.get("/metrics")
        assert reply.status_code == 200, reply.text
        return reply.text

    def scrape(self) -> dict[str, list[tuple[Labels, float]]]:
        """What a scraper sees: the samples of each name."""
        seen = dict[str, list[tuple[Labels, float]]]()
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                seen.setdefault(sample.name, []).append((sample.labels, sample.value))
        return seen

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample of this name and these labels, or None."""
        found = [value for seen, value in self.scrape().get(name, []) if seen == labels]
        assert len(found) <= 1
        return found[0] if found else None

    def task(self, name: str, connector: str = "c") -> float | None:
        return self.value(f"kafka_connect_{name}", connector=connector, task="0")

    def waits(self, wanted: float, name: str, **labels: str) -> None:
        eventually(lambda: self.value(name, **labels) == wanted, f"{name} is {wanted}")

    def applies(self, connector: str = "c") -> None:
        """Wait until the three records are applied."""
        self.waits(3, "kafka_connect_sink_task_sink_record_send_total", connector=connector, task="0")


@pytest.fixture
def site() -> Iterator[Site]:
    CollectingSink.reset()
    TellingSink.own = staticmethod(tuple)
    ScriptedAssembly.refuses = ScriptedAssembly.silent = False
    ScriptedAssembly.members.clear()
    made = Site()
    yield made
    assert made.herder.shut_down(20.0)


def documented() -> set[str]:
    """The names in the document's tables of what is there."""
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## Metrics\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)", section.split("### Left out")[0], re.MULTILINE))


# --- the page


def test_the_page_is_prometheus_text_and_head_is_get_without_the_body(site: Site) -> None:
    site.create()
    get, head = site.client.get("/metrics"), site.client.head("/metrics")
    assert get.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", get.headers["Content-Type"])
    assert site.client.post("/metrics").status_code == 405


def test_a_worker_without_connectors_tells_of_itself_only(site: Site) -> None:
    assert site.scrape() == {
        "kafka_connect_worker_connector_count": [({}, 0)],
        "kafka_connect_worker_task_count": [({}, 0)],
        "kafka_connect_worker_task_startup_attempts_total": [({}, 0)],
        "kafka_connect_worker_task_startup_success_total": [({}, 0)],
        "kafka_connect_worker_task_startup_failure_total": [({}, 0)],
    }


def test_what_the_document_says_is_there_is_there_and_nothing_else(site: Site) -> None:
    site.create()
    site.applies()
    assert set(site.scrape()) == documented()


def test_samples_of_one_name_come_together_with_one_head(site: Site) -> None:
    TellingSink.own = staticmethod(lambda: [Measure("own", "gauge", "Own.", {}, 1.0)])
    for name in ("a", "b"):
        site.create(name, tasks_max="2")
    eventually(lambda: len(site.scrape().get("own", [])) == 4, "all four tasks run")
    heads = re.findall(r"^# TYPE (\w+)", site.text(), re.MULTILINE)
    assert len(heads) == len(set(heads))
    assert len(re.findall(r"^# HELP ", site.text(), re.MULTILINE)) == len(heads)
    for head in heads:
        lines = [line.startswith((f"{head}{{", f"{head} ")) for line in site.text().splitlines()]
        assert sum(now != before for before, now in zip([False, *lines], lines, strict=False)) <= 2, head


def test_names_of_connectors_are_escaped(site: Site) -> None:
    site.create(ODD)
    site.applies(ODD)
    assert '{connector="quo\\"te back\\\\slash {b=r,a}ce \'ünï",task="0"}' in site.text()


def test_a_worker_that_nobody_scrapes_does_not_import_the_library() -> None:
    program = "import sys, heartbeat.connect.app; print('prometheus_client' in sys.modules, 'heartbeat.connect.metrics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "True"]


# --- connectors and tasks


def test_a_task_tells_what_it_has_done(site: Site) -> None:
    site.create()
    site.applies()
    assert site.task("sink_task_sink_record_read_total") == 3
    assert 0 < (site.task("sink_task_sink_record_read_rate") or 0) <= 0.1
    assert site.task("sink_task_partition_count") == 1
    assert (site.task("connector_task_batch_size_max"), site.task("connector_task_batch_size_avg")) == (3, 3)
    assert site.task("sink_task_sink_record_active_count_max") == 3
    assert (site.task("sink_task_put_batch_max_time_ms") or -1) >= 0
    assert site.task("connector_task_pause_ratio") == 0
    assert site.task("task_error_last_error_timestamp") == 0
    assert site.value("kafka_connect_connector_status", connector="c", task="0", status="running") == 1


def test_a_commit_is_told_when_it_is_acknowledged(site: Site) -> None:
    site.create()
    site.waits(1, "kafka_connect_sink_task_offset_commit_completion_total", connector="c", task="0")
    assert site.task("sink_task_sink_record_active_count") == 0
    assert site.task("sink_task_offset_commit_seq_no") == 1
    assert site.task("connector_task_offset_commit_success_percentage") == 1
    assert site.task("connector_task_offset_commit_failure_percentage") == 0


def test_what_nothing_is_known_of_in_the_last_minute_is_not_a_number(site: Site) -> None:
    ScriptedAssembly.silent = True
    site.create()
    site.waits(1, "kafka_connect_connector_status", connector="c", task="0", status="running")
    for name in ("sink_task_put_batch_avg_time_ms", "connector_task_batch_size_max", "connector_task_offset_commit_success_percentage"):
        assert isnan(site.task(name) or 0), name
    assert site.task("sink_task_sink_record_read_total") == site.task("sink_task_sink_record_read_rate") == 0


def test_connectors_and_their_tasks_are_counted_by_state(site: Site) -> None:
    site.create("runs", tasks_max="2")
    site.create("fails", sink_mode="fail-start")
    site.create("pauses")
    site.client.put("/connectors/pauses/pause")
    site.create("stops")
    site.client.put("/connectors/stops/stop")
    wanted = {"runs": (2, 2, 0, 0), "fails": (1, 0, 0, 1), "pauses": (1, 0, 1, 0), "stops": (0, 0, 0, 0)}

    def counts(name: str) -> tuple[float | None, ...]:
        kinds = ("total", "running", "paused", "failed")
        return tuple(site.value(f"kafka_connect_worker_connector_{kind}_task_count", connector=name) for kind in kinds)

    eventually(lambda: {name: counts(name) for name in wanted} == wanted, "every task is where it belongs")
    assert site.value("kafka_connect_worker_connector_count") == 4
    assert site.value("kafka_connect_worker_task_count") == 4
    assert site.value("kafka_connect_connector_metrics_status", connector="stops", status="stopped") == 1
    assert site.value("kafka_connect_connector_connector_class", connector="runs", connector_class="tests.TellingSink") == 1
    assert site.value("kafka_connect_connector_connector_version", connector="runs", connector_version="9.9") == 1
    assert site.value("kafka_connect_connector_connector_type", connector="runs", connector_type="sink") == 1


def test_a_task_has_one_status_at_a_time(site: Site) -> None:
    site.create()
    site.applies()
    site.client.put("/connectors/c/pause")
    site.waits(1, "kafka_connect_connector_status", connector="c", task="0", status="paused")
    assert len(site.scrape()["kafka_connect_connector_status"]) == 1


def test_a_failed_task_keeps_its_figures_and_its_plugins_until_it_is_restarted(site: Site) -> None:
    TellingSink.own = staticmethod(lambda: [Measure("own", "gauge", "Own.", {}, 7.0)])
    site.create()
    site.applies()

    def fail(_: FakeConsumer) -> None:
        raise ValueError("the broker is gone for good")

    ScriptedAssembly.members[TaskId("c", 0)].script.append(fail)
    site.waits(1, "kafka_connect_connector_status", connector="c", task="0", status="failed")
    assert site.task("sink_task_sink_record_send_total") == 3
    assert site.value("own", connector="c", task="0") == 7
    assert site.client.post("/connectors/c/tasks/0/restart").status_code == 204
    site.waits(1, "kafka_connect_connector_status", connector="c", task="0", status="running")
    site.applies()
    assert site.task("sink_task_sink_record_read_total") == 3, "a new task counts from nothing"


def test_of_a_deleted_connector_nothing_is_left(site: Site) -> None:
    TellingSink.own = staticmethod(lambda: [Measure("own", "counter", "Own.", {}, 7.0)])
    site.create("gone")
    site.create("stays")
    site.applies("gone")
    site.applies("stays")
    assert site.client.delete("/connectors/gone").status_code == 204
    assert '"gone"' not in site.text()
    assert site.task("sink_task_sink_record_send_total", "stays") == 3


def test_starts_of_tasks_are_counted_with_their_outcome_also_when_the_tasks_are_gone(site: Site) -> None:
    def startups() -> list[float | None]:
        return [site.value(f"kafka_connect_worker_task_startup_{kind}_total") for kind in ("attempts", "success", "failure")]

    site.create("fine", tasks_max="2")
    site.create("fails", sink_mode="fail-start")
    eventually(lambda: startups() == [3, 2, 1], "all three have an outcome")
    site.client.delete("/connectors/fine")
    site.client.delete("/connectors/fails")
    assert startups() == [3, 2, 1]
    ScriptedAssembly.refuses = True
    site.create("unbuilt")
    assert startups() == [4, 2, 2]
    assert site.value("kafka_connect_connector_metrics_status", connector="unbuilt", status="failed") == 1
    assert site.value("kafka_connect_worker_connector_unassigned_task_count", connector="unbuilt") == 1


# --- the plugin's own


def telling(site: Site, *measures: Any) -> None:
    TellingSink.own = staticmethod(lambda: list(measures))
    site.create()
    site.applies()


def left_out(site: Site) -> float | None:
    return site.value("heartbeat_worker_measures_left_out", connector="c", task="0")


def test_a_plugins_figures_get_the_tasks_labels_beside_their_own(site: Site) -> None:
    own = {"topic": 'a"b\\c\nd', "connector": "a lie", "task": "9"}
    telling(site, Measure("heartbeat_lag", "gauge", "Two\nlines.", own, 1.5), Measure("heartbeat_beats", "counter", "Beats.", {}, 3))
    assert site.value("heartbeat_lag", connector="c", task="0", topic='a"b\\c\nd') == 1.5
    assert site.value("heartbeat_beats_total", connector="c", task="0") == 3
    assert '\nheartbeat_lag{connector="c",task="0",topic="a\\"b\\\\c\\nd"} 1.5\n' in site.text()
    assert "# HELP heartbeat_lag Two\\nlines.\n# TYPE heartbeat_lag gauge\n" in site.text()
    assert "# TYPE heartbeat_beats_total counter\n" in site.text()
    assert left_out(site) == 0


@pytest.mark.parametrize(
    "bad",
    [
        Measure("with space", "gauge", "", {}, 1.0),
        Measure("", "gauge", "", {}, 1.0),
        Measure("1st", "gauge", "", {}, 1.0),
        Measure("own", "histogram", "", {}, 1.0),
        Measure("own", "gauge", "", {"la-bel": "x"}, 1.0),
        Measure("own", "gauge", "", {"__name__": "x"}, 1.0),
        Measure("kafka_connect_worker_task_count", "gauge", "", {}, 99.0),
        Measure("kafka_connect_sink_task_partition_count", "gauge", "", {}, 99.0),
        Measure("heartbeat_worker_measures_left_out", "gauge", "", {}, 99.0),
        Measure("fine", "gauge", "", {}, 99.0),
        Measure("fine", "gauge", "", {"connector": "another"}, 99.0),
    ],
    ids=repr,
)
def test_a_figure_that_would_spoil_the_page_is_left_out_and_that_is_told(site: Site, bad: Measure) -> None:
    telling(site, Measure("fine", "gauge", "Fine.", {}, 1.0), bad)
    assert site.value("fine", connector="c", task="0") == 1
    assert left_out(site) == 1
    assert 99.0 not in {value for samples in site.scrape().values() for _, value in samples}


def test_a_name_is_of_one_kind(site: Site) -> None:
    telling(site, Measure("own_total", "counter", "", {}, 1.0), Measure("own_total", "gauge", "", {"other": "x"}, 2.0))
    assert site.scrape()["own_total"] == [({"connector": "c", "task": "0"}, 1.0)]
    assert left_out(site) == 1


def test_more_figures_than_the_bound_are_left_out(site: Site) -> None:
    telling(site, *(Measure("own", "gauge", "", {"source": str(n)}, n) for n in range(MOST_MEASURES + 3)))
    assert len(site.scrape()["own"]) == MOST_MEASURES
    assert left_out(site) == 3


@pytest.mark.parametrize("figures", [None, ["text"], [Measure("own", "gauge", "", {}, "x")], [Measure("own", "gauge", "", None, 1.0)]])  # type: ignore[arg-type]
def test_figures_that_are_none_take_nothing_with_them(site: Site, figures: Any, caplog: pytest.LogCaptureFixture) -> None:
    TellingSink.own = staticmethod(lambda: figures)
    site.create()
    site.applies()
    assert left_out(site) == 1
    assert "the plugin failed to tell its figures" in caplog.text


def test_a_plugin_that_fails_to_tell_costs_nobody_else_their_figures_and_one_line_a_minute(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Sequence[Measure]:
        raise ValueError("no figures today")

    TellingSink.own = staticmethod(fail)
    site.create()
    site.applies()
    assert left_out(site) == 1
    assert site.task("sink_task_sink_record_read_total") == 3
    assert caplog.text.count("Task c-0: the plugin failed to tell its figures") == 1
    assert "no figures today" in caplog.text
