"""What a Redis, its clock, and a connector's public keys in it mean for beats. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from heartbeat.beats.clock import MOST_SKEW_MS
from heartbeat.beats.connection import Server
from heartbeat.beats.inspection import Index, PublicKey, RedisState
from heartbeat.doctor.findings import Finding, fail, ok, warn

_OLDEST: Final = (6, 2)
_SLOW_MS: Final = 100.0
_SKEW_WORTH_A_LOOK_MS: Final = 500.0
_FULL: Final = 0.9
_TOLERANCE_MS: Final = 1_500
"""Between reading a deadline and its key's remaining life other things are asked, and clocks differ by what a network takes."""
_NAMED: Final = 3


def command(server: Server, *words: str) -> str:
    """Return what sends a command to this server."""
    return " ".join(["heartbeat redis", f"-h {server.host} -p {server.port}", *words])


def no_server(where: str, reason: str) -> Finding:
    """Say that Redis does not answer."""
    text = (
        f"{where} does not answer or refuses us: {reason}. Beats wait in Kafka, sources become UNKNOWN, and all is applied when it returns"
    )
    fix = (
        "start it (redis-server --maxmemory-policy noeviction); or correct redis.host, redis.port, redis.password in the connector's "
        "config; or say where it is from here: --redis HOST:PORT (password: REDISCLI_AUTH)"
    )
    return fail("redis", text, fix)


def server(server: Server, found: RedisState) -> Iterator[Finding]:
    """Judge a server."""
    info = found.info
    told = f"{server.host}:{server.port} answered in {found.answer_ms:.1f} ms"
    if not info:
        text = f"{told}, but does not let us ask (INFO): version, eviction and persistence are not known"
        yield warn("redis", text, command(server, "ACL SETUSER", server.username or "default", "+info"))
    else:
        yield from _version(server, info, told, found.answer_ms)
        yield from _eviction(server, info)
        yield from _memory(server, info)
        yield _persistence(server, info, found.settings.get("save"))
        yield from _replication(server, info)
    if found.ahead_ms is not None:
        yield _clock(found.ahead_ms, found.answer_ms)


def _version(server: Server, info: Mapping[str, str], told: str, answer_ms: float) -> Iterator[Finding]:
    text = info.get("redis_version", "?")
    version = tuple(int(part) for part in text.split(".") if part.isdigit())
    if version and version < _OLDEST:
        yield fail("redis", f"{told}: version {text} is too old, tasks fail", "install Redis 6.2 or newer (SET with PXAT), or any Valkey")
    elif info.get("loading", "0") == "1":
        yield warn("redis", f"{told}: it is still loading its data, beats wait", "look again in some seconds")
    elif answer_ms > _SLOW_MS:
        yield warn("redis", f"{told}: version {text}. That is slow: sight grows old", command(server, "SLOWLOG GET 10"))
    elif info.get("cluster_enabled", "0") == "1":
        text = f"{told}: version {text} in cluster mode: the sink speaks to one node, which refuses the keys of others"
        yield warn("redis", text, "use a Redis without cluster mode")
    else:
        yield ok("redis", f"{told}: version {text}")


def _eviction(server: Server, info: Mapping[str, str]) -> Iterator[Finding]:
    policy, limit, evicted = info.get("maxmemory_policy", "?"), int(info.get("maxmemory", "0")), int(info.get("evicted_keys", "0"))
    fix = command(server, "CONFIG SET maxmemory-policy noeviction")
    if policy == "noeviction":
        yield ok("redis eviction", f"maxmemory-policy noeviction, maxmemory {limit or 'not set'}")
    elif limit:
        text = (
            f"maxmemory-policy {policy} may drop our keys, and a lost key would look like a source that stopped: tasks fail at their start"
        )
        yield fail("redis eviction", text, f"{fix}; then restart the tasks that have failed")
    elif policy != "?":
        text = f"maxmemory-policy {policy} drops nothing only as long as maxmemory is not set; the day it is, tasks fail"
        yield warn("redis eviction", text, fix)
    if evicted:
        text = f"{evicted:,} keys were dropped since it was started: some may have been ours"
        yield warn("redis eviction", text, f"{fix}; what was dropped comes back with the next beats")


def _memory(server: Server, info: Mapping[str, str]) -> Iterator[Finding]:
    used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    told = f"{used >> 20:,} MB used" + (f" of {limit >> 20:,} MB" if limit else ", no limit set")
    more = command(server, f"CONFIG SET maxmemory {max(2 * limit, 2 * used) >> 20}mb")
    if limit and used >= limit:
        yield fail("redis memory", f"{told}: writes are refused (OOM), beats wait in Kafka", more)
    elif limit and used >= _FULL * limit:
        yield warn("redis memory", f"{told}: when it is full, writes are refused and beats wait", more)
    else:
        yield ok("redis memory", told)


def _persistence(server: Server, info: Mapping[str, str], save: str | None) -> Finding:
    check, heals = "redis persistence", "the sink notices, and rebuilds who is alive from Kafka"
    if info.get("aof_enabled") == "1" and info.get("aof_last_write_status", "ok") != "ok":
        text = "its append-only file cannot be written: Redis refuses writes, beats wait"
        return fail(check, text, "free the disk Redis writes to; see its log")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        text = "its last snapshot failed: Redis refuses writes (MISCONF) unless told otherwise, beats wait"
        return fail(check, text, f"free the disk Redis writes to, then: {command(server, 'BGSAVE')}")
    if info.get("aof_enabled") == "1":
        return ok(check, f"append-only file: a restart loses about the last second; {heals}")
    if save is None:
        return ok(check, f"no append-only file, snapshots are not told: a restart may lose what is there; {heals}")
    if save:
        return ok(check, f"snapshots ({save}): a restart loses what came after the last one; {heals}")
    text = "none: a restart loses everything, the history of alerts and goodbyes older than the rebuild horizon for good"
    return ok(check, f"{text}; {heals}. To keep them: {command(server, 'CONFIG SET appendonly yes')}")


def _replication(server: Server, info: Mapping[str, str]) -> Iterator[Finding]:
    check, replicas = "redis replication", [text for name, text in info.items() if name.startswith("slave") and name[5:].isdigit()]
    if info.get("role") == "slave":
        primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        text = f"this is a replica of {primary} (link {info.get('master_link_status', '?')}): it takes no writes, beats wait"
        yield fail(check, text, f"set redis.host and redis.port to the primary's, {primary}; or, if that is gone: REPLICAOF NO ONE")
    elif away := [text for text in replicas if "state=online" not in text]:
        text = f"{len(away)} of {len(replicas)} replicas are not online: a failover to one of them would lose what it lacks, and be rebuilt"
        yield warn(check, text, command(server, "INFO replication"))
    elif info.get("role") == "master":
        yield ok(check, f"primary with {len(replicas)} replica(s)")


def _clock(ahead_ms: float, answer_ms: float) -> Finding:
    check, apart = "clock redis", abs(ahead_ms)
    text = f"Redis is {apart:,.0f} ms {'ahead of' if ahead_ms > 0 else 'behind'} this machine, give or take {answer_ms / 2:.1f} ms"
    fix = "set the clock that is wrong: timedatectl set-ntp true, or chronyc makestep"
    if apart > MOST_SKEW_MS:
        return fail(check, f"{text}: if the worker runs here, nothing can be concluded from silence beyond {MOST_SKEW_MS} ms", fix)
    if apart > max(_SKEW_WORTH_A_LOOK_MS, answer_ms):
        return warn(check, f"{text}: beyond {MOST_SKEW_MS} ms nothing can be concluded from silence", fix)
    return ok(check, text)


def keys(name: str, found: Index) -> Iterator[Finding]:
    """Judge the public keys of the sampled sources against the index."""
    check = f"keys {name}"
    alive = [key for key in found.sample if key.deadline_ms > found.sampled_ms + _TOLERANCE_MS]
    occupied = [key for key in alive if key.ttl_ms != -2 and not key.beat]
    missing = [key for key in alive if key.ttl_ms == -2]
    differing = [key for key in alive if key.beat and key.ttl_ms != -2 and not _agrees(key, found.sampled_ms)]
    if occupied:
        text = f"{_some(occupied, found)} have a public key that holds something else than a beat: another program uses the name"
        yield warn(check, text, "give our keys a prefix of their own, such as redis.key=beat:${key}, or rename the other program's")
    if missing:
        text = f"{_some(missing, found)} are alive in the index but have no public key: who looks at keys only takes them for dead"
        yield warn(check, text, "each comes back with its source's next beat; find out who deletes keys: see FLUSHDB, DEL, eviction")
    if differing:
        text = f"{_some(differing, found)} have a public key that lives shorter or longer than the index says"
        yield warn(check, text, "each is set right by its source's next beat; find out who else writes these keys")
    if not (occupied or missing or differing):
        dead = f"{found.down:,} down, {found.gone:,} said goodbye"
        text = (
            f"{len(found.sample):,} of {found.sources:,} source(s) looked at, {len(alive):,} of them alive: index and keys agree ({dead})"
        )
        yield ok(check, text)


def _agrees(key: PublicKey, sampled_ms: int) -> bool:
    return key.ttl_ms >= 0 and abs(sampled_ms + key.ttl_ms - key.deadline_ms) <= _TOLERANCE_MS


def _some(keys: Sequence[PublicKey], found: Index) -> str:
    named = ", ".join(key.source[:100] for key in keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
    return f"{len(keys):,} of {len(found.sample):,} source(s) looked at ({named})"
