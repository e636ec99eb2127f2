"""The table of worlds against scripts with one condition changed: it must notice each, or it would not notice a mistake either."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from tests.beats.verdict_worlds import WORLDS, Bench, Left
from tests.patience import patient

from heartbeat.beats import verdict_scripts
from heartbeat.beats.connection import Connection
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError

SCRIPTS: Final = ("JUDGE", "RECOVER", "BLIND", "SIGHTED")


class Mutation(NamedTuple):
    """A piece of the scripts, and what stands there instead."""

    old: str
    new: str


MUTATIONS: Final = {
    # what is proven
    "believe a clock that is ahead of Redis": Mutation("math.min(redis_now, own)", "own"),
    "believe Redis where our clock is behind": Mutation("math.min(redis_now, own)", "redis_now"),
    "skip the age of the partition set where there is none": Mutation(
        "proof['partitions_at'] or -1", "proof['partitions_at'] or redis_now"
    ),
    "skip the first partition": Mutation("for n = 0, count - 1 do", "for n = 1, count - 1 do"),
    "skip the last partition": Mutation("for n = 0, count - 1 do", "for n = 0, count - 2 do"),
    "take a missing since for an old one": Mutation("proof[p .. '/since'] or -1", "proof[p .. '/since'] or 0"),
    "take a missing until for now": Mutation("proof[p .. '/until'] or -1", "proof[p .. '/until'] or redis_now"),
    "skip whether a partition has a since": Mutation("if since < 0 or til > redis_now then", "if til > redis_now then"),
    "believe an until in the future": Mutation("if since < 0 or til > redis_now then", "if since < 0 then"),
    "look at how long a partition was seen from its end": Mutation("= til - since\n", "= redis_now\n"),
    "skip canaries": Mutation("    if canaries then til", "    if false then til"),
    "demand canaries of everybody": Mutation("    if canaries then til", "    if true then til"),
    "take a missing canary for now": Mutation("proof[p .. '/canary'] or -1", "proof[p .. '/canary'] or redis_now"),
    "let a canary stand in for sight": Mutation("til = math.min(til, tonumber(", "til = math.max(-1, tonumber("),
    "take the best partition": Mutation("least = math.min(least, til)", "least = math.max(least, til)"),
    "take the last partition": Mutation("least = math.min(least, til)", "least = til"),
    "skip the sight": Mutation("least = math.min(least, til)", "least = redis_now"),
    "prove without partitions": Mutation("if #windows == 0 or", "if"),
    "believe a partition set from the future": Mutation("if least > redis_now then least = -1 end", ""),
    "skip the partition set": Mutation("if least > redis_now then least = -1 end", "least = redis_now"),
    "skip whether the clocks agree": Mutation(" or math.abs(redis_now - own) > 2000 then", " then"),
    "skip whether our clock is behind": Mutation("math.abs(redis_now - own) > 2000", "own - redis_now > 2000"),
    "skip whether our clock is ahead": Mutation("math.abs(redis_now - own) > 2000", "redis_now - own > 2000"),
    "demand that the clocks agree to the ms": Mutation("math.abs(redis_now - own) > 2000", "math.abs(redis_now - own) > 20"),
    # what is kept of a source
    "skip everybody's ttl": Mutation("tonumber(proof['ttl'] or 0)", "0"),
    "skip a source's own ttl": Mutation("'^%d+ (%d+)'", "'^nothing (%d+)'"),
    "take for a ttl when a source was first seen": Mutation("'^%d+ (%d+)'", "'^(%d+)'"),
    "take any signal for a fail": Mutation("said and said.status == 'fail' and said.at_ms", "said and said.at_ms"),
    "say that something is proven where nothing is": Mutation("local known = least >= 0 and", "local known = least >= -1 and"),
    # proven
    "skip whether sight reaches the deadline": Mutation("if deadline + slack > least then return false end", ""),
    "skip the slack": Mutation("if deadline + slack > least", "if deadline > least"),
    "demand sight beyond the slack": Mutation("if deadline + slack > least", "if deadline + slack >= least"),
    "settle never": Mutation("ttl and math.min(ttl, settle) or settle", "0"),
    "settle for one ttl": Mutation("ttl and math.min(ttl, settle) or settle", "ttl or settle"),
    "settle for the settle time": Mutation("ttl and math.min(ttl, settle) or settle", "settle"),
    "settle for everybody's ttl": Mutation("ttl and math.min(ttl, settle) or settle", "math.min(ttl or default_ttl, settle)"),
    "demand more than the settle time": Mutation("if window < needed then", "if window <= needed then"),
    # silence
    "judge who is down already": Mutation("  if score(KEYS[3], source) then\n", "  if false then\n"),
    "keep a fail of one that is down": Mutation("    redis.call('ZREM', KEYS[7], source)\n    return 'known'", "    return 'known'"),
    "skip the score": Mutation("if deadline ~= judged then return 'moved' end", ""),
    "take an older deadline for the same": Mutation(
        "if deadline ~= judged then return", "if not deadline or deadline < judged then return"
    ),
    "take a newer deadline for the same": Mutation("if deadline ~= judged then return", "if not deadline or deadline > judged then return"),
    "judge a silence before its fail": Mutation("if score(KEYS[7], source) then return 'moved' end -- that", "-- that"),
    "skip gone": Mutation("if gone and gone >= judged - (ttl or default_ttl) then", "if false then"),
    "believe any goodbye": Mutation("if gone and gone >= judged - (ttl or default_ttl) then", "if gone then"),
    "believe only goodbyes after the beat": Mutation("gone >= judged - (ttl or default_ttl)", "gone > judged - (ttl or default_ttl)"),
    "compare goodbyes by everybody's ttl": Mutation("gone >= judged - (ttl or default_ttl)", "gone >= judged - default_ttl"),
    "compare goodbyes by a ttl of none": Mutation("gone >= judged - (ttl or default_ttl)", "gone >= judged - (ttl or 0)"),
    "leave the deadline of one that is gone": Mutation("redis.call('ZREM', KEYS[2], source)\n      return 'gone'", "return 'gone'"),
    "skip grace": Mutation("return judged + grace <= now and proven(judged, ttl)", "return proven(judged, ttl)"),
    "count the grace as over": Mutation("judged + grace <= now and proven(judged, ttl)", "judged <= now and proven(judged, ttl)"),
    "wait beyond the grace": Mutation("judged + grace <= now and proven(judged, ttl)", "judged + grace < now and proven(judged, ttl)"),
    "skip the proof of silence": Mutation("proven(judged, ttl)", "true"),
    "prove as if everybody's ttl were known": Mutation("proven(judged, ttl)", "proven(judged, ttl or default_ttl)"),
    # fail
    "judge a fail that was judged": Mutation("if score(KEYS[7], source) ~= seen then return 'moved' end", ""),
    "judge a fail that is not the newest signal": Mutation("if failed_at(source) ~= seen or (newer", "if (newer"),
    "judge an old fail although it beat since": Mutation("(newer and seen + grace < now) or (over", "(over"),
    "skip a fresh fail because it beat since": Mutation("(newer and seen + grace < now)", "newer"),
    "skip any old fail": Mutation("(newer and seen + grace < now)", "(seen + grace < now)"),
    "count a fail as old too early": Mutation("seen + grace < now)", "seen + grace <= now)"),
    "judge a fail although the silence after its beat can be": Mutation("(over and proven(deadline, ttl)) or", ""),
    "judge a fail although the silence after its beat is due": Mutation("least >= seen and not over and", "least >= seen and"),
    "skip a fail although the silence after its beat is not proven": Mutation("(over and proven(deadline, ttl))", "over"),
    "count a beat after a fail as over too late": Mutation("newer and deadline <= now", "newer and deadline < now"),
    "take the fail's own beat for a newer one": Mutation(
        "deadline - (ttl or default_ttl) > seen", "deadline - (ttl or default_ttl) >= seen"
    ),
    "compare beats with a fail by a ttl of none": Mutation("deadline - (ttl or default_ttl) > seen", "deadline - (ttl or 0) > seen"),
    "judge a fail of one that is gone": Mutation(" or (gone and gone >= seen) then", " then"),
    "skip a fail after a goodbye": Mutation(" or (gone and gone >= seen) then", " or gone then"),
    "judge a fail at its goodbye": Mutation("(gone and gone >= seen)", "(gone and gone > seen)"),
    "keep a fail that is over": Mutation("redis.call('ZREM', KEYS[7], source)\n      return 'moved'", "return 'moved'"),
    "judge a fail unproven": Mutation("return least >= seen and not over and", "return not over and"),
    "prove beyond a fail": Mutation("return least >= seen and", "return least > seen and"),
    # never seen
    "miss whoever beats": Mutation("if deadline or gone or score(KEYS[8]", "if gone or score(KEYS[8]"),
    "miss whoever is gone": Mutation("if deadline or gone or score(KEYS[8]", "if deadline or score(KEYS[8]"),
    "miss whom nobody declares": Mutation("score(KEYS[8], source) ~= seen or", "not seen or"),
    "miss by another ttl": Mutation(" or judged ~= seen + default_ttl then", " then"),
    "miss at once": Mutation("return judged + grace <= now and proven(judged, default_ttl)", "return proven(judged, default_ttl)"),
    "miss unproven": Mutation("proven(judged, default_ttl)", "true"),
    # what a verdict does
    "leave the deadline of one that is down": Mutation("if beat <= judged then redis.call('ZREM', KEYS[2], source) end", ""),
    "leave the deadline of a fail": Mutation("if beat <= judged then redis", "if beat < judged then redis"),
    "take a newer deadline of one that is down": Mutation("if beat <= judged then redis", "if true then redis"),
    "date a beat after a fail by everybody's ttl": Mutation("(ttl_of(source) or default_ttl)\n    if beat", "default_ttl\n    if beat"),
    "date a beat after a fail by a ttl of none": Mutation(
        "(ttl_of(source) or default_ttl)\n    if beat", "(ttl_of(source) or 0)\n    if beat"
    ),
    "judge without keeping whom": Mutation("redis.call('ZADD', KEYS[3], string.format('%.0f', judged)", "-- "),
    "keep another deadline than the one judged": Mutation("KEYS[3], string.format('%.0f', judged)", "KEYS[3], string.format('%.0f', now)"),
    "keep a fail as a silence": Mutation("(ARGV[i] == 'fail' and '.5' or '')", "''"),
    "keep a silence as a fail": Mutation("(ARGV[i] == 'fail' and '.5' or '')", "'.5'"),
    "leave the fail of one that is down": Mutation(
        "    redis.call('ZREM', KEYS[7], source)\n    redis.call('ZADD'", "    redis.call('ZADD'"
    ),
    "judge without telling": Mutation("    flip(KEYS[9], ARGV[i + 5])\n", ""),
    "judge each case by the first one's deadline": Mutation("tonumber(ARGV[i + 4]))\n  if outcome", "0)\n  if outcome"),
    # recovery
    "recover on any verdict": Mutation("if score(KEYS[3], source) == judged then", "if score(KEYS[3], source) then"),
    "recover who is not down": Mutation("if score(KEYS[3], source) == judged then", "if (score(KEYS[3], source) or judged) == judged then"),
    "date the last beat by the deadline now": Mutation("or judged - ttl\n", "or (deadline or 0) - ttl\n"),
    "date a fail as a silence": Mutation("judged % 1 > 0 and math.floor(judged) or judged - ttl", "judged - ttl"),
    "date a silence as a fail": Mutation("judged % 1 > 0 and math.floor(judged) or judged - ttl", "math.floor(judged)"),
    "take the half of a fail for time": Mutation("math.floor(judged) or", "judged or"),
    "date a beat by a ttl of none": Mutation(
        "local ttl, failed = ttl_of(source) or default_ttl", "local ttl, failed = ttl_of(source) or 0"
    ),
    "date a beat by everybody's ttl": Mutation("local ttl, failed = ttl_of(source) or default_ttl", "local ttl, failed = default_ttl"),
    "skip gone at a recovery": Mutation("if left or back then", "if false then"),
    "believe any goodbye at a recovery": Mutation("local left = gone and gone >= (beat or last)", "local left = gone"),
    "believe only goodbyes after the newest beat": Mutation("gone >= (beat or last)", "gone > (beat or last)"),
    "stay down through a goodbye and the silence after it": Mutation("if left or back then", "if left then"),
    "end by a goodbye from before": Mutation("gone >= last and not left", "not left"),
    "end only by a goodbye after the last beat": Mutation("gone >= last and not left", "gone > last and not left"),
    "look at one who came back by the monitor's clock": Mutation(
        "and (deadline <= redis_now or (failed or 0)", "and (deadline <= now or (failed or 0)"
    ),
    "take whoever came back for silent": Mutation("(deadline <= redis_now or (failed or 0) >= beat)", "true"),
    "let a fail after a goodbye pass": Mutation("or (failed or 0) >= beat)", "or false)"),
    "let a fail pass that is the newest beat": Mutation("(failed or 0) >= beat)", "(failed or 0) > beat)"),
    "forget the fail after a goodbye": Mutation("        redis.call('ZADD', KEYS[7], string.format('%.0f', failed), source)\n", ""),
    "judge a fail from before the goodbye": Mutation("elseif (failed or 0) > gone then", "elseif failed then"),
    "take the silence away of one who came back": Mutation(
        "if left then\n        redis.call('ZREM', KEYS[2]", "if true then\n        redis.call('ZREM', KEYS[2]"
    ),
    "keep a goodbye that was delivered again": Mutation("      redis.call('ZREM', KEYS[4], source)\n", ""),
    "skip the compare of beats": Mutation("(beat <= last or deadline", "(deadline"),
    "recover on a redelivered beat": Mutation("(beat <= last or", "(beat < last or"),
    "recover on a deadline that has passed": Mutation("deadline <= redis_now or (failed and", "(failed and"),
    "recover on a deadline that has passed by the clock of Redis": Mutation(
        "deadline <= redis_now or (failed and", "deadline <= now or (failed and"
    ),
    "recover under a fail": Mutation(" or (failed and failed >= beat)) then", ") then"),
    "stay down under any fail": Mutation("(failed and failed >= beat)", "failed"),
    "stay down only under a fail after the beat": Mutation("(failed and failed >= beat)", "(failed and failed > beat)"),
    "leave a deadline that is no news": Mutation(
        "      redis.call('ZREM', KEYS[2], source)\n      outcome = 'still'", "      outcome = 'still'"
    ),
    "recover on what was no news when it was seen": Mutation("elseif deadline and seen - ttl > last and", "elseif deadline and"),
    "recover on what was seen at the verdict": Mutation("seen - ttl > last and", "seen - ttl >= last and"),
    "recover on an earlier deadline than was seen": Mutation(" and deadline >= seen then", " then"),
    "recover only on a later deadline than was seen": Mutation(" and deadline >= seen then", " and deadline > seen then"),
    "keep whoever recovered": Mutation(
        "      redis.call('ZREM', KEYS[3], source)\n      flip(KEYS[9], ARGV[i + 3])", "      flip(KEYS[9], ARGV[i + 3])"
    ),
    "recover without telling": Mutation("      flip(KEYS[9], ARGV[i + 3])\n", ""),
    "keep whoever said goodbye": Mutation("      redis.call('ZREM', KEYS[3], source)\n      if not heard", "      if not heard"),
    "leave the deadline of one that said goodbye": Mutation(
        "      if left then\n        redis.call('ZREM', KEYS[2], source)\n", "      if left then\n"
    ),
    "keep a goodbye that nobody said": Mutation("if not heard(source) then redis.call('ZREM', KEYS[4], source) end", ""),
    "forget every goodbye that ends something": Mutation(
        "if not heard(source) then redis.call('ZREM', KEYS[4]", "if true then redis.call('ZREM', KEYS[4]"
    ),
    "say goodbye without telling": Mutation("      flip(KEYS[9], ARGV[i + 4])\n", ""),
    # the pipeline
    "go blind twice": Mutation("if redis.call('EXISTS', KEYS[2]) == 1 or (", "if ("),
    "go blind in spite of sight": Mutation(" or (ARGV[8] ~= '1' and least >= now - tonumber(ARGV[5])) then", " then"),
    "believe nobody's blindness": Mutation("(ARGV[8] ~= '1' and least >=", "(least >="),
    "go blind a ms too early": Mutation("and least >= now - tonumber(ARGV[5])) then", "and least > now - tonumber(ARGV[5])) then"),
    "go blind without keeping it": Mutation("redis.call('SET', KEYS[2], ARGV[6])\n", ""),
    "go blind without telling": Mutation("ARGV[6])\nflip(KEYS[3], ARGV[7])", "ARGV[6])"),
    "end another blindness": Mutation("if redis.call('GET', KEYS[2]) ~= ARGV[6] or", "if not redis.call('GET', KEYS[2]) or"),
    "end a blindness that is over": Mutation(
        "if redis.call('GET', KEYS[2]) ~= ARGV[6] or", "if (redis.call('GET', KEYS[2]) or ARGV[6]) ~= ARGV[6] or"
    ),
    "end a blindness unproven": Mutation(" or least < now - tonumber(ARGV[5]) then", " then"),
    "end a blindness a ms too late": Mutation("or least < now - tonumber(ARGV[5]) then", "or least <= now - tonumber(ARGV[5]) then"),
    "keep a blindness that is over": Mutation("redis.call('DEL', KEYS[2])\n", ""),
    "end a blindness without telling": Mutation("KEYS[2])\nflip(KEYS[3], ARGV[7])", "KEYS[2])"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_a_mutation_changes_stands_in_the_scripts_once(name: str) -> None:
    assert inspect.getsource(verdict_scripts).count(MUTATIONS[name].old) == 1


@pytest.fixture(scope="module")
def bench(server: EmbeddedRedis) -> Iterator[Bench]:
    connection = Connection(patient(server.host, server.port))
    yield Bench(connection)
    connection.close()


@pytest.fixture(scope="module")
def left(bench: Bench) -> dict[str, Left]:
    """What is left of each world by the scripts as they are."""
    return {name: bench.left(row.world) for name, row in WORLDS.items()}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(name: str, bench: Bench, left: dict[str, Left], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTATIONS[name]
    for script in SCRIPTS:
        monkeypatch.setattr(verdict_scripts, script, getattr(verdict_scripts, script).replace(old, new))
    assert any(differs(bench, world, left[world]) for world in WORLDS), "no world comes out differently"


def differs(bench: Bench, world: str, before: Left) -> bool:
    try:
        return bench.left(WORLDS[world].world) != before
    except ConnectError as error:
        return "compiling" not in str(error)  # such a mutation is none
