"""A settings file says everything that is wrong with it at once, by line and without secrets; a bad edit changes nothing."""

from __future__ import annotations

import logging
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from heartbeat.beats.connection import Server, Tls
from heartbeat.errors import InvalidConfig
from heartbeat.logs import Redactor
from heartbeat.monitor import settings
from heartbeat.monitor.settings import Channel, Kafka, Monitor, RedisPlace, Rule, Self, Settings, SettingsFile, load

EXAMPLE = Path(__file__).parents[2] / "config" / "monitor.toml"
OPS = '[[channel]]\nname = "ops"\ntype = "log"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitor.toml"


@pytest.fixture(autouse=True)
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    """One for each test: what one has hidden must not hide a fault from the next."""
    fresh = Redactor()
    monkeypatch.setattr(settings, "secrets", fresh)
    return fresh


def errors(path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    """Everything said of a text, without the file's name."""
    path.write_text(text)
    with pytest.raises(InvalidConfig) as raised:
        load(path, environment or {})
    return [error.removeprefix(str(path)).removeprefix(", ") for error in raised.value.errors]


def loaded(path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path.write_text(text)
    return load(path, environment or {})


def test_an_empty_file_is_all_defaults(path: Path) -> None:
    assert loaded(path, "") == Settings()


def test_the_example_loads_without_any_environment() -> None:
    found = load(EXAMPLE, {})
    assert found.channels == (Channel("log", "log"),)
    assert found.rules == (Rule("pump-*", grace_s=10.0, tags=("plant-1",)),)
    assert (found.monitor, found.redis, found.kafka, found.self_) == (Monitor(), RedisPlace(), None, None)


def test_what_the_example_has_as_comments_loads_too(path: Path) -> None:
    (path.parent / "kafka-password").write_text("from-a-file\n")
    text = re.sub(r"^# (?=\[|[a-z_.]+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    environment = {"HOOK_SECRET": "example-secret", "SLACK_URL": "https://s.example/x", "DEAD_MAN_URL": "https://d.example/x"}
    found = loaded(path, text, environment)
    assert [channel.type for channel in found.channels] == ["log", "webhook", "slack"]
    properties = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "monitor"}
    properties["sasl.password"] = "from-a-file"
    assert found.kafka == Kafka("127.0.0.1:9092", properties=properties)
    assert found.self_ == Self("https://d.example/x")
    assert [rule.expected for rule in found.rules] == [False, True]


WRONG = """\
listen = "x"
[monitr]
[monitor]
listn = "127.0.0.1:1"
slack_s = -1
settle_s = "120"
blind_after_s = 2.9
[kafka]
canary_every_s = true
[defaults]
channels = ["ops", "opps"]
tags = [
  "fine",
  7,
]
[[rule]]
grace = 5
[[rule]]
match = "pump-*"
expected = true
channels = ["nobody"]
[[channel]]
name = "ops"
type = "webhok"
[[channel]]
name = "ops"
type = "slack"
[[channel]]
name = "hook"
type = "webhook"
url = "ftp://example.com"
secret = ""
[self]
every_s = 0
"""


def test_every_error_is_told_at_once_in_reading_order(path: Path) -> None:
    assert errors(path, WRONG) == [
        "line 1: unknown table or key `listen`. Known: monitor, redis, kafka, defaults, rule, channel, self",
        "line 2: unknown table or key `monitr`. Did you mean `monitor`?",
        "line 4: unknown key `listn` in [monitor]. Did you mean `listen`?",
        "line 5: `slack_s` in [monitor]: expected `float` >= 0.0",
        "line 6: `settle_s` in [monitor]: expected `float`, got `str`",
        "line 7: `blind_after_s` in [monitor]: expected `float` >= 3.0",
        "line 8: [kafka] needs a `bootstrap_servers`",
        "line 9: `canary_every_s` in [kafka]: expected `float`, got `bool`",
        "line 11: no channel is named `opps`. Did you mean `ops`?",
        "line 14: `tags` in [defaults]: expected `str`, got `int`",
        "line 16: [[rule]] needs a `match`",
        "line 17: unknown key `grace` in [[rule]]. Did you mean `grace_s`?",
        "line 20: `expected` needs a `match` that names one source, without any of *?[",
        "line 21: no channel is named `nobody`. Known: ops, hook",
        "line 24: unknown type `webhok`. Did you mean `webhook`?",
        "line 25: a slack channel needs a `url`",
        "line 26: a second channel is named `ops`, as the one in line 23",
        "line 31: `url` in [[channel]]: expected http://... or https://...",
        "line 32: `secret` in [[channel]]: expected `str` of length >= 1",
        "line 33: [self] needs a `url`",
        "line 34: `every_s` in [self]: expected `float` >= 1.0",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb =\n", r"line 2, column 4: .+"),
        ("monitor = 3", r"line 1: \[monitor\] must be a table"),
        ("\n[[monitor]]", r"line 2: \[monitor\] must be a table"),
        ("[rule]\nmatch = 'x'", r"line 1: write \[\[rule\]\]: there may be several"),
        ("rule = [\n1]", r"line 2: \[\[rule\]\] must be a table"),
        ("[monitor]\nslack_s = nan", r"line 2: `slack_s` in \[monitor\]: .+"),
        ("[monitor]\nslack_s = inf", r"line 2: `slack_s` in \[monitor\]: .+"),
        ("[monitor]\nslack_s = 1979-05-27", r"line 2: `slack_s` in \[monitor\]: .+"),
        ('[monitor]\n"a\\u001b\\nb" = 1', r"line 2: unknown key `a\\x1b\\nb` .+"),
        ('[defaults]\ntags = "a"', r"line 2: `tags` in \[defaults\]: expected `array`, got `str`"),
        ('[defaults]\nchannels = ["x"]', r"line 2: no channel is named `x`\. There is no \[\[channel\]\]"),
        ("[[rule]]\nmatch = 'x'\ntags = 'y'", r"line 3: `tags` in \[\[rule\]\]: expected `array`, got `str`"),
        (OPS + "timeout_s = 11", r"line 4: `timeout_s` in \[\[channel\]\]: expected `float` <= 8.0"),
        (OPS.replace("ops", "kafka:x"), r"line 2: `kafka:x` cannot be a channel's name.+"),
        (OPS.replace("ops", "a\\u202eb"), r"line 2: `a\\u202eb` cannot be a channel's name.+"),
        ('[kafka]\nbootstrap_servers = "b:1"\ncanary_every_s = 5.5', r"line 3: `canary_every_s` .+ at most half of `blind_after_s`, 10"),
        ('[kafka]\nbootstrap_servers = "b:1"\n[kafka.properties]\na.b = 1.5', r"line 4: `a.b` in \[kafka.properties\]: expected `str`"),
        ('[kafka]\nbootstrap_servers = "b:1"\n[kafka.properties]\na.b = "c"\n"a.b" = "d"', r"line 5: `a.b` is twice in .+"),
        ("[self]\nurl = 'mailto:x@example.com'", r"line 2: `url` in \[self\]: expected http.+"),
    ],
)
def test_a_fault_is_told_once_where_it_is(path: Path, text: str, expected: str) -> None:
    (error,) = errors(path, text)
    assert re.fullmatch(expected, error), error


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:65535", "monitor.example.com:80"])
def test_it_listens_on_host_and_port(path: Path, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    assert loaded(path, f'[monitor]\nlisten = "{listen}"').monitor.address == (host.strip("[]"), int(port))


@pytest.mark.parametrize(
    "listen", ["", "8080", ":8080", "host", "host:", "host:65536", "::1:80", "http://h:80", "h:80/", "h h:80", "h:80\\n", "h:٣"]
)
def test_it_listens_on_nothing_else(path: Path, listen: str) -> None:
    (error,) = errors(path, f'[monitor]\nlisten = "{listen}"')
    assert error.startswith("line 2: `listen` in [monitor]: expected ")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://h", Server("h", 6379)),
        ("redis://h:7000/", Server("h", 7000)),
        ("redis://:slash%2Fed@h/15", Server("h", 6379, 15, password="slash/ed")),
        ("redis://u%40x:word-6@[::1]:7000/1", Server("::1", 7000, 1, "u@x", "word-6")),
        ("rediss://h", Server("h", 6379, tls=Tls())),
    ],
)
def test_a_redis_url_says_which_server(path: Path, url: str, server: Server) -> None:
    assert loaded(path, f'[redis]\nurl = "{url}"').redis.server() == server


def test_the_files_that_a_redis_url_names_must_be_there(path: Path) -> None:
    names = ca, certificate, key = [str(path.parent / name) for name in ("a", "b", "c")]
    text = f'[redis]\nurl = "rediss://h/2?ca={ca}&certificate={certificate}&key={key}&verify=false"'
    told = errors(path, text)
    assert told == [
        f"line 2: `{option}={name}` in the `url` of [redis] cannot be read: No such file or directory"
        for option, name in zip(("ca", "certificate", "key"), names, strict=True)
    ]
    for name in names:
        Path(name).touch()
    assert loaded(path, text).redis.server() == Server("h", 6379, 2, tls=Tls(ca, certificate, key, verify=False))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "h:6379",
            "http://h",
            "redis://",
            "redis:///0",
            "redis://h/x",
            "redis://h/-1",
            "redis://h:70000",
            "redis://[::1",
            "redis://h/0#x",
        ),
        *("redis://h?ca=x", "rediss://h?cb=x", "rediss://h?ca", "rediss://h?verify=no"),
        *("redis://u:herring/x@h", "redis://u:herring#x@h", "redis://u:herring?x@h"),
    ],
)
def test_no_other_redis_url_is_taken_nor_quoted(path: Path, url: str) -> None:
    (error,) = errors(path, f'[redis]\nurl = "{url}"')
    assert error.startswith("line 2: `url` in [redis]: expected redis://")
    assert "herring" not in error


# ${...}


def test_variables_and_files_are_put_into_every_text(path: Path) -> None:
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "tag").write_bytes("태그\n\n".encode())
    (path.parent / "crlf").write_bytes(b"x\r\n")
    text = '[defaults]\nseverity = "${env:A}-${env:A}"\ntags = ["${file:sub/tag}", "${file:crlf}", "${file:%s}"]' % (path.parent / "crlf")
    found = loaded(path, text, {"A": "${env:B}$${"}).defaults
    assert found.severity == "${env:B}$${-${env:B}$${"
    assert found.tags == ("태그\n", "x", "x")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("$${", "${"), ("$${env:A}", "${env:A}"), ("$$${", "$${"), ("$", "$"), ("$$", "$$"), ("{$}", "{$}"), ("$ {", "$ {")],
)
def test_a_dollar_and_a_brace_can_be_written(path: Path, written: str, meant: str) -> None:
    assert loaded(path, f'[defaults]\nseverity = "{written}"', {"A": "no"}).defaults.severity == meant


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${env:NOPE}", r"\$\{env:NOPE\} is not set"),
        ("${env:BYTES}", r"\$\{env:BYTES\} is not UTF-8"),
        ("${file:nope}", r"\$\{file:nope\} cannot be read: No such file or directory"),
        ("${file:.}", r"\$\{file:\.\} cannot be read: it is no regular file"),
        ("${file:/dev/zero}", r"\$\{file:/dev/zero\} cannot be read: it is no regular file"),
        ("${file:binary}", r"\$\{file:binary\} is not UTF-8"),
        ("${file:huge}", r"\$\{file:huge\} cannot be read: it is larger than .+"),
        ("${file:a\\u0000b}", r"\$\{file:a\\x00b\} .+"),
        ("${env:}", r"\$\{ begins .+"),
        ("${vault:swordfish}", r"\$\{ begins .+"),
        ("${env:A", r"\$\{ begins .+"),
    ],
)
def test_what_cannot_be_put_in_is_told_once(path: Path, written: str, expected: str) -> None:
    (path.parent / "binary").write_bytes(b"\xff")
    (path.parent / "huge").write_bytes(b"x" * (1 << 20) + b"x")
    (error,) = errors(path, f'[[channel]]\nname = "a"\ntype = "slack"\nurl = "{written}"', {"BYTES": os.fsdecode(b"\xff")})
    assert re.fullmatch(f"line 4: {expected}", error), error
    assert "swordfish" not in error


def test_a_channel_whose_name_cannot_be_told_is_not_missed_elsewhere(path: Path) -> None:
    text = '[defaults]\nchannels = ["ops"]\n[[channel]]\nname = "${env:NOPE}"\ntype = "log"'
    assert errors(path, text) == ["line 4: ${env:NOPE} is not set"]


def test_an_empty_secret_is_refused_also_from_outside(path: Path) -> None:
    text = OPS + 'secret = "${env:EMPTY}"'
    assert errors(path, text, {"EMPTY": ""}) == ["line 4: ${env:EMPTY} is set, but empty"]
    (path.parent / "empty").write_text("\n")
    assert errors(path, OPS + 'secret = "${file:empty}"') == ["line 4: ${file:empty} is empty"]
    assert errors(path, OPS + 'secret = ""') == ["line 4: `secret` in [[channel]]: expected `str` of length >= 1"]


# Secrets

SECRETIVE = """
[redis]
url = "redis://u:red%2Dherring@h"
[kafka]
bootstrap_servers = "b:1"
[kafka.properties]
sasl.password = "kafka-swordfish"
sasl.username = "kafka-user"
[self]
url = "https://ping.example/self-swordfish"
[[channel]]
name = "hook"
type = "webhook"
url = "https://u:hook-swordfish@hook.example/plain"
secret = "signing-swordfish"
[[channel]]
name = "chat"
type = "slack"
url = "https://slack.example/slack-swordfish"
"""
HIDDEN = [
    *("red%2Dherring", "red-herring", "kafka-swordfish", "hook-swordfish", "signing-swordfish"),
    *("https://ping.example/self-swordfish", "https://slack.example/slack-swordfish"),
]


@pytest.mark.parametrize("fault", ["", "[[rule]]\nmatch = 3"])
def test_secrets_are_hidden_in_logs_once_a_file_was_read(path: Path, redactor: Redactor, fault: str) -> None:
    path.write_text(SECRETIVE + fault)
    with pytest.raises(InvalidConfig) if fault else nullcontext():
        load(path, {})
    for secret in HIDDEN:
        assert redactor.clean(f"<{secret}>") == "<[hidden]>"
    for plain in ("kafka-user", "hook.example/plain", "chat"):
        assert redactor.clean(plain) == plain


def test_the_url_of_a_channel_whose_type_is_misspelt_is_hidden(path: Path, redactor: Redactor) -> None:
    assert errors(path, '[[channel]]\nname = "chat"\ntype = "slak"\nurl = "https://s.example/herring"')
    assert redactor.clean("POST https://s.example/herring") == "POST [hidden]"


@pytest.mark.parametrize("place", ["match", "severity", "connector", "channels", "tags", "unknown", "expected"])
@pytest.mark.parametrize(
    ("sound", "spoilt"),
    [
        ("@h", "@h:port"),
        ("redis://", "http://"),
        ("https://ping", "ping"),
        ("https://slack", "slack"),
        ("https://u:", "u:"),
        ('type = "slack"', 'type = "slak"'),
        ('type = "slack"', ""),
        ("signing-swordfish", "signing-swordfish${env:NOPE}"),
        ("sasl.password", 'sasl.password.x = "y"\nsasl.password'),
        ("secret =", "secrte ="),
    ],
)
def test_no_error_quotes_a_secret(path: Path, sound: str, spoilt: str, place: str) -> None:
    """Neither of the value that is wrong, nor where the same word stands in a place that is quoted."""
    assert sound in SECRETIVE
    value = '["kafka-swordfish"]' if place in ("channels", "tags") else '"kafka-swordfish"'
    rule = f'[[rule]]\n{place} = {value}\n[[channel]]\nname = "kafka-swordfish"\ntype = "kafka-swordfish"\n'
    told = "\n".join(errors(path, SECRETIVE.replace(sound, spoilt) + rule))
    assert not re.search("fish|herring", told)


# A file that changes


def replaced(path: Path, text: str) -> None:
    """Write as editors do: another file takes the name, so that even a change within one tick of the clock is seen."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_a_changed_file_is_applied(path: Path) -> None:
    path.write_text("")
    watched = SettingsFile(path, {})
    assert not watched.turn()
    replaced(path, "[monitor]\nslack_s = 7")
    assert watched.turn()
    assert watched.settings.monitor.slack_s == 7
    assert not watched.turn()


def test_a_file_in_place_of_another_is_applied_though_time_and_size_are_the_same(path: Path) -> None:
    path.write_text("[monitor]\nslack_s = 1")
    found, watched = path.stat(), SettingsFile(path, {})
    other = path.with_suffix(".new")
    other.write_text("[monitor]\nslack_s = 2")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    assert watched.turn()


def test_an_invalid_file_keeps_the_old_settings_and_is_complained_of_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(OPS)
    watched = SettingsFile(path, {})
    before = watched.settings
    replaced(path, "[monitr]\n[monitor]\nslack_s = -1")
    turns = [watched.turn() for _ in range(3)]
    assert (turns, watched.settings) == ([False] * 3, before)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(": ")[0] for line in told[:-1]] == [f"{path}, line 1", f"{path}, line 3"]
    assert told[-1] == f"{path} is not applied: the settings stay as they were"
    assert list(watched.errors) == told[:-1]
    replaced(path, "[monitor]\nslack_s = 3")
    assert watched.turn()
    assert watched.errors == ()


def test_a_file_that_is_away_for_a_moment_keeps_the_old_settings(path: Path) -> None:
    path.write_text(OPS)
    watched = SettingsFile(path, {})
    path.unlink()
    assert not watched.turn()
    path.write_text(OPS + "timeout_s = 1")
    assert watched.turn()
    assert watched.settings.channels[0].timeout_s == 1


def test_a_changed_secret_file_is_applied_also_after_it_was_away(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_text("first-secret\n")
    path.write_text(OPS + 'secret = "${file:secret}"')
    watched = SettingsFile(path, {})
    secret.unlink()
    assert not watched.turn()
    assert watched.settings.channels[0].secret == "first-secret"
    secret.write_text("second-secret\n")
    assert watched.turn()
    assert watched.settings.channels[0].secret == "second-secret"


def test_who_asks_has_the_file_read_though_nothing_tells_of_a_change(path: Path) -> None:
    path.write_text("[monitor]\nslack_s = 1")
    found = path.stat()
    watched = SettingsFile(path, {})
    path.write_text("[monitor]\nslack_s = 2")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert not watched.turn()
    watched.ask()
    assert watched.turn()
    assert watched.settings.monitor.slack_s == 2
    watched.ask()
    assert not watched.turn()


def test_a_file_that_is_invalid_at_the_start_is_refused(path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"^{re.escape(str(path))} cannot be read: No such file or directory$"):
        SettingsFile(path, {})
