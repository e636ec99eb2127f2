"""docs/monitor.md against the code: its settings, figures, parameters and fields are those that there are, and what it shows works."""

from __future__ import annotations

import json
import re
import runpy
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.monitor.views import NOW, SEEN, Seen
from tests.test_documents import ENGLISH, ROOT, blocks, rows

from heartbeat.errors import BadRequest
from heartbeat.monitor import metrics, settings
from heartbeat.monitor.channels.webhook import signature
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.flips import STATES, Flip
from heartbeat.monitor.messages import Message, text_of
from heartbeat.monitor.rules import check
from heartbeat.monitor.sources import Asked, Source
from heartbeat.monitor.watch import Look

DOCUMENT = ROOT / "docs" / "monitor.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
TABLES: Mapping[str, type[msgspec.Struct]] = {
    "[monitor]": settings.Monitor,
    "[redis]": settings.RedisPlace,
    "[kafka]": settings.Kafka,
    "[defaults]": settings.Defaults,
    "[[rule]]": settings.Rule,
    "[[channel]]": settings.Channel,
    "[self]": settings.Self,
}


def section(title: str) -> str:
    """The text from a heading to the next one."""
    return re.split(r"^##.*\n", TEXT.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """A default as the document writes it: as TOML does."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "as in `[defaults]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def example(language: str, word: str, document: Path = DOCUMENT) -> str:
    """The block of code that holds a word."""
    (found,) = [text for kind, text in blocks(document) if kind == language and word in text]
    return found


@pytest.mark.parametrize("title", TABLES)
def test_the_settings_are_those_that_are_read(title: str) -> None:
    told = [(key.strip("`"), default) for key, default, _ in rows(section(f"`{title}`"), "| Key | Default | Meaning |")]
    assert told == [(field.encode_name, default_of(field)) for field in msgspec.structs.fields(TABLES[title])]


def test_every_table_of_the_settings_is_told() -> None:
    several = {"rules": "rule", "channels": "channel", "self_": "self"}
    assert [title.strip("[]") for title in TABLES] == [several.get(name, name) for name in settings.Settings.__struct_fields__]


def test_the_figures_are_those_that_it_tells() -> None:
    view = Seen(replace(SEEN, connectors={"pumps": Look(proven_until_ms=NOW)}), (DelivererState("ops", last_success_ms=NOW),))
    told = {
        sample.name: sorted(sample.labels)
        for family in text_string_to_metric_families(metrics.page(view, NOW).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    table = {name.strip("`"): sorted(re.findall(r"`(\w+)`", labels)) for name, labels, _ in rows(TEXT, "| Figure | Labels | Meaning |")}
    assert table == told


def test_the_parameters_are_those_that_are_read() -> None:
    named = [name.strip("`") for name, _ in rows(TEXT, "| Parameter | Meaning |")]
    with pytest.raises(BadRequest, match=f"there are {', '.join(sorted(named))}$"):
        Asked.parse([("other", "1")])


def test_the_reply_that_is_shown_is_one_that_is_given() -> None:
    (shown,) = json.loads(example("json", '"next"'))["sources"]
    assert list(shown) == list(Source.__struct_fields__)
    assert json.loads(msgspec.json.encode(msgspec.convert(shown, Source))) == shown


def test_the_message_that_is_shown_is_one_that_is_sent() -> None:
    shown: dict[str, Any] = json.loads(example("json", '"flips"'))
    flip = msgspec.convert(shown["flips"][0], Flip)
    sent = json.loads(Message(flip.key, "ops", text_of([flip]), (flip,)).json())
    assert sent == shown
    assert [list(sent), list(sent["flips"][0])] == [list(shown), list(shown["flips"][0])]


def test_the_readme_shows_that_message() -> None:
    assert json.loads(example("json", '"flips"'))["text"] in ENGLISH.read_text(encoding="utf-8")


def test_the_receiver_that_is_shown_takes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "receiver.py"
    file.write_text("import hashlib, hmac, time\nfrom collections.abc import Mapping\n" + example("python", "is_ours"))
    is_ours = runpy.run_path(str(file))["is_ours"]

    def sent(secret: bytes, at_s: float, body: bytes) -> dict[str, str]:
        timestamp = str(int(at_s))
        return {"X-Heartbeat-Timestamp": timestamp, "X-Heartbeat-Signature": signature(secret, timestamp, body)}

    now_s = time.time()
    assert is_ours(sent(b"secret", now_s, b"{}"), b"{}", b"secret")
    assert not is_ours(sent(b"another", now_s, b"{}"), b"{}", b"secret")
    assert not is_ours(sent(b"secret", now_s, b"{}"), b"{ }", b"secret")
    assert not is_ours(sent(b"secret", now_s - 3_600, b"{}"), b"{}", b"secret")


def test_the_settings_that_the_readme_shows_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(example("toml", "[[rule]]", ENGLISH))
    warnings, found = check(file, {"HOOK_SECRET": "secret"})
    assert (warnings, found.channels[0].secret) == ((), "secret")


def test_the_settings_that_are_shipped_are_valid_with_every_comment_taken_away(tmp_path: Path) -> None:
    shipped = ROOT / "config" / "monitor.toml"
    assert check(shipped, {})[0] == ()
    everything = re.sub(r"^# (?=\[|\w+(?:\.\w+)* = )", "", shipped.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert tomllib.loads(everything).keys() == {"monitor", "redis", "kafka", "defaults", "rule", "channel", "self"}
    file = tmp_path / "monitor.toml"
    file.write_text(everything)
    (tmp_path / "kafka-password").write_text("secret")
    url = "http://127.0.0.1:9/"
    assert check(file, {"HOOK_SECRET": "secret", "SLACK_URL": url, "DEAD_MAN_URL": url})[1].kafka is not None


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_the_readme_explains_every_state(readme: str) -> None:
    headers = ("| State | Meaning | Told? | What to do |", "| 상태 | 뜻 | 알림 | 할 일 |")
    text = (ROOT / readme).read_text(encoding="utf-8")
    told = [row[0].strip("`") for header in headers for row in rows(text, header)]
    assert sorted(told) == sorted(STATES)
