"""The first rule that matches holds, over the whole name, whatever is in the name; what cannot be meant is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.errors import InvalidConfig
from heartbeat.monitor.rules import Policy, Rules, check, understood
from heartbeat.monitor.settings import Channel, Defaults, Rule, Settings

OPS, NIGHT = Channel("ops", "log"), Channel("night", "log")
EXAMPLE = Path(__file__).parents[2] / "config" / "monitor.toml"


def rules(*given_rules: Rule, defaults: Defaults = Defaults()) -> Rules:  # noqa: B008  it is frozen
    return Rules(Settings(defaults=defaults, rules=given_rules, channels=(OPS, NIGHT)))


def test_a_source_that_no_rule_matches_has_the_defaults() -> None:
    defaults = Defaults(1.5, 0.25, "low", ("a",), ("ops",))
    assert rules(Rule("x"), defaults=defaults).of("c", "y") == Policy(1500, 250, "low", ("a",), ("ops",))


def test_the_first_rule_that_matches_holds_and_the_defaults_fill_it_up() -> None:
    defaults = Defaults(1.0, 2.0, "low", ("a",), ("ops",))
    found = rules(Rule("pump-*", grace_s=9.0, tags=()), Rule("*", severity="high", warn_s=0.0, channels=("night",)), defaults=defaults)
    assert found.of("c", "pump-1") == Policy(9000, 2000, "low", (), ("ops",))
    assert found.of("c", "fan-1") == Policy(1000, 0, "high", ("a",), ("night",))


@pytest.mark.parametrize(
    ("glob", "source", "matches"),
    [
        ("*", "", True),
        ("*", "a\nb", True),
        ("a*b", "a\n\nb", True),
        ("a?b", "a\nb", True),
        ("pump", "pump-1", False),
        ("pump", "pump\n", False),
        ("pump", "my-pump", False),
        ("Pump-*", "pump-1", False),
        ("pump-[0-3]", "pump-3", True),
        ("pump-[!0-3]", "pump-3", False),
        ("pump-[z-a]", "pump-z", False),
        ("a.b", "axb", False),
        ("*/펌프/*", "공장/펌프/1", True),
        ("*", "\udcff", True),
        ("[", "[", True),
    ],
)
def test_a_glob_is_over_the_whole_name(glob: str, source: str, matches: bool) -> None:
    found = rules(Rule(glob, grace_s=1.0), defaults=Defaults(grace_s=2.0))
    assert found.of("c", source).grace_ms == (1000 if matches else 2000)


def test_a_rule_may_be_of_some_connectors_only() -> None:
    found = rules(Rule("*", connector="plant-*", grace_s=1.0), defaults=Defaults(grace_s=2.0))
    assert [found.of(connector, "x").grace_ms for connector in ("plant-1", "office")] == [1000, 2000]


@given(st.lists(st.tuples(st.sampled_from(["*", "a*", "*b", "ab", "b"]), st.sampled_from(["*", "c"])), max_size=4))
def test_what_is_remembered_is_what_is_found(patterns: list[tuple[str, str]]) -> None:
    found = rules(*(Rule(match, connector, grace_s=float(index)) for index, (match, connector) in enumerate(patterns)))
    asked = [(connector, source) for connector in ("c", "d") for source in ("ab", "b", "a", "c")]
    assert [found.of(*one) for one in asked] == [found.of(*one) for one in asked]
    for connector, source in asked:
        holding = [
            index
            for index, (match, of) in enumerate(patterns)
            if of in ("*", connector) and {"*": True, "a*": source[0] == "a", "*b": source[-1] == "b"}.get(match, match == source)
        ]
        assert found.of(connector, source).grace_ms == (holding[0] * 1000 if holding else 5000)


def test_bounds_are_of_rules_and_defaults() -> None:
    found = rules(Rule("a", grace_s=0.5, warn_s=3.0), Rule("b", grace_s=60.0), defaults=Defaults(grace_s=5.0, warn_s=1.0))
    assert (found.shortest_grace_ms, found.longest_grace_ms, found.longest_warn_ms) == (500, 60_000, 3000)
    assert (rules().shortest_grace_ms, rules().longest_grace_ms, rules().longest_warn_ms) == (5000, 5000, 0)


def test_a_declared_source_is_expected_where_it_is_clear_of_whom() -> None:
    found = rules(
        Rule("here", "plant-1", expected=True), Rule("anywhere", expected=True), Rule("undeclared"), Rule("here", "p*", expected=True)
    )
    assert found.expected("plant-1", {"plant-1"}) == ("here", "anywhere")
    assert found.expected("plant-1", {"plant-1", "office"}) == ("here",)
    assert found.expected("office", {"plant-1", "office"}) == ()


def test_a_declaration_stands_though_an_earlier_rule_says_what_holds() -> None:
    found = rules(Rule("*", grace_s=1.0), Rule("backup", grace_s=9.0, expected=True))
    assert found.expected("c", ["c"]) == ("backup",)
    assert found.of("c", "backup").grace_ms == 1000


def test_blindness_is_told_to_the_default_channels_or_to_all() -> None:
    assert rules().pipeline_channels() == ("ops", "night")
    assert rules(defaults=Defaults(channels=("night",))).pipeline_channels() == ("night",)


def warnings(path: Path, text: str) -> list[str]:
    path.write_text(text + '[[channel]]\nname = "ops"\ntype = "log"\n')
    return [line.removeprefix(f"{path}") for line in check(path, {})[0]]


TOLD = '[defaults]\nchannels = ["ops"]\n'


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ('match = "*"', 'match = "pump-*"', True),
        ('match = "**"', 'match = "pump"', True),
        ('match = "pump-*"', 'match = "pump-7"', True),
        ('match = "pump-?"', 'match = "pump-?"', True),
        ('match = "*"', 'match = "x"\nconnector = "c"', True),
        ('match = "*"\nconnector = "p*"', 'match = "x"\nconnector = "plant"', True),
        ('match = "*"\nconnector = "c"', 'match = "x"', False),
        ('match = "*"\nconnector = "c"', 'match = "x"\nconnector = "d"', False),
        ('match = "pump-7"', 'match = "pump-*"', False),
        ('match = "pump-?"', 'match = "pump-*"', False),
        ('match = "pump-*"', 'match = "fan-7"', False),
    ],
)
def test_a_rule_that_never_holds_is_warned_of(tmp_path: Path, earlier: str, later: str, shadowed: bool) -> None:
    found = warnings(tmp_path / "f", f"{TOLD}[[rule]]\n{earlier}\n[[rule]]\n{later}\n")
    line = 5 + earlier.count("\n")
    assert found == [f", line {line}: warning: this rule never holds: the one in line 3 matches all that it does"] * shadowed


def test_sources_of_which_nobody_is_told_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "f"
    no_default = "warning: nobody is told of sources that no rule matches: [defaults] names no channel"
    no_rule = "warning: nobody is told of what this rule matches: neither it nor [defaults] names a channel"
    assert warnings(path, "") == [f": {no_default}"]
    assert warnings(path, "[[rule]]\nmatch = 'x'\n[defaults]\n") == [f", line 1: {no_rule}", f", line 3: {no_default}"]
    assert warnings(path, "[[rule]]\nmatch = '*'\nchannels = ['ops']\n") == []
    assert warnings(path, TOLD + "[[rule]]\nmatch = 'quiet'\nchannels = []\n") == []


def test_a_channel_that_is_told_of_no_source_is_warned_of(tmp_path: Path) -> None:
    unused = '[[channel]]\nname = "night"\ntype = "log"\n'
    assert warnings(tmp_path / "f", TOLD + unused) == [
        ", line 3: warning: no rule and no [defaults] names `night`: it is told of no source"
    ]
    assert warnings(tmp_path / "f", f"{TOLD}[[rule]]\nmatch = 'x'\nchannels = ['night']\n{unused}") == []


def test_kafka_properties_that_no_client_takes_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[kafka.properties]\nfoo.bar = 1\n')
    with pytest.raises(InvalidConfig) as caught:
        check(path, {})
    (error,) = caught.value.errors
    assert error.startswith(f"{path}, line 3: The Kafka client does not take these properties: ")
    assert "foo.bar" in error


def test_a_declaration_for_any_connector_is_warned_of(tmp_path: Path) -> None:
    found = warnings(tmp_path / "f", TOLD + "[[rule]]\nmatch = 'x'\nexpected = true\n")
    assert found == [", line 3: warning: `expected` holds only while a single connector matches `*`: name it in `connector`"]


def test_the_example_has_nothing_to_warn_of() -> None:
    assert check(EXAMPLE, {})[0] == ()


def test_a_check_says_what_was_understood_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(
        '[redis]\nurl = "redis://u:r-swordfish@h/3"\n[kafka]\nbootstrap_servers = "b:1"\n[defaults]\nwarn_s = 2\nchannels = ["hook"]\n'
        '[[rule]]\nmatch = "a\\u202e"\nconnector = "c"\nexpected = true\ntags = ["x", "y"]\nchannels = []\n'
        '[[channel]]\nname = "hook"\ntype = "webhook"\nurl = "https://h/x"\nsecret = "s-swordfish"\n'
    )
    found, settings = check(path, {})
    assert found == ()
    assert understood(settings) == (
        "listens on 127.0.0.1:8080",
        "Redis at h:6379, database 3",
        "Kafka at b:1: canary on, flips to heartbeat-flips",
        "channel hook: webhook",
        "rule a\\u202e of c: LATE 2 s before, DOWN 5 s after the deadline, critical, tags x y, tells nobody, expected",
        "all else: LATE 2 s before, DOWN 5 s after the deadline, critical, tells hook",
    )
