"""What brokers, topics and groups that were found mean for beats. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.cluster import Brokers, GroupState, TopicState
from heartbeat.display import duration
from heartbeat.doctor.findings import Finding, fail, ok, warn
from heartbeat.doctor.target import Target

_SLOW_MS: Final = 1_000
_EMBEDDED: Final = "mockCluster"
"""How librdkafka's own broker, which the demo runs, begins its cluster id."""


def no_brokers(bootstrap: str, reason: str) -> Finding:
    """Say that no broker answers."""
    text = f"{bootstrap} does not answer: {reason}. Nobody can tell whether beats were sent: sources become UNKNOWN, none DOWN"
    return fail("kafka", text, "start the broker, or name the right one: --bootstrap-server HOST:PORT, or --worker worker.properties")


def brokers(bootstrap: str, found: Brokers) -> Iterator[Finding]:
    """Judge the cluster as a whole."""
    told = f"{bootstrap} answered in {found.answer_ms:.0f} ms: {len(found.addresses)} broker(s), cluster {found.cluster_id}"
    if (found.cluster_id or "").startswith(_EMBEDDED):
        told += ", embedded, for demos: it does not tell the settings of topics"
    elif found.protocol is not None:
        told += f", {found.protocol}"
    if found.answer_ms > _SLOW_MS:
        yield warn(
            "kafka", f"{told}. That is slow: sight grows old when end offsets take over 2 s", "see the brokers' load and the network"
        )
    else:
        yield ok("kafka", told)
    yield ok("clock kafka", "Kafka tells no time to those who only read; where a topic stamps by LogAppendTime, its line says so")


def topic(name: str, found: TopicState | None, horizon_ms: int | None, bootstrap: str) -> Iterator[Finding]:
    """Judge a topic; ``horizon_ms`` is how far back a rebuild must be able to read, None where that is not known."""
    check = f"topic {name}"
    if found is None:
        create = f"kafka-topics --bootstrap-server {bootstrap} --create --topic {name}"
        yield fail(check, "does not exist: no beat can come by it", f"{create}; or correct topics in the connector's config")
        return
    settings = found.settings
    told = f"{len(found.partitions)} partition(s)"
    if settings is not None:
        told += f", cleanup.policy {settings.get('cleanup.policy', '?')}, retention.ms {settings.get('retention.ms', '?')}"
    bad = [*_replication(check, found, bootstrap, name)]
    if settings is not None:
        bad += _settings(check, name, settings, horizon_ms, bootstrap)
    if settings is not None and settings.get("message.timestamp.type") == "LogAppendTime":
        told += ", LogAppendTime: a beat counts as of its arrival, by the broker's clock, however long it waited at its producer"
    yield from bad or [ok(check, told)]


def no_match(name: str, pattern: str) -> Finding:
    """Say that a connector's pattern matches no topic."""
    text = f"no topic matches topics.regex {pattern} of {name}: no beat can come by it"
    return fail("topic", text, "create one, or correct topics.regex in the connector's config")


def _replication(check: str, found: TopicState, bootstrap: str, name: str) -> Iterator[Finding]:
    see = f"start the missing brokers; see: kafka-topics --bootstrap-server {bootstrap} --describe --topic {name}"
    if found.leaderless:
        numbers = ", ".join(map(str, found.leaderless))
        yield fail(check, f"nobody leads partition(s) {numbers}: they can be neither written nor read", see)
    behind = [number for number, (copies, in_sync) in found.partitions.items() if in_sync < copies and number not in found.leaderless]
    if behind:
        numbers = ", ".join(map(str, behind))
        yield warn(check, f"copies of partition(s) {numbers} are out of sync: beats that were acknowledged may be lost with a leader", see)


def _settings(check: str, name: str, settings: Mapping[str, str], horizon_ms: int | None, bootstrap: str) -> Iterator[Finding]:
    alter = f"kafka-configs --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {name} --add-config"
    policy = settings.get("cleanup.policy", "delete")
    retention_ms = int(text) if (text := settings.get("retention.ms", "-1")).isdigit() else -1
    if "compact" in policy:
        text = f"cleanup.policy is {policy}: records without a key are refused, and of each key only the newest beat is kept for a backtest"
        yield warn(check, text, f"{alter} cleanup.policy=delete")
    if horizon_ms is not None and "delete" in policy and 0 <= retention_ms < horizon_ms:
        text = (
            f"retention.ms {retention_ms} is shorter than the rebuild horizon of {horizon_ms} ms: after a loss of Redis, who was "
            "silent for longer than Kafka keeps would be unknown"
        )
        yield warn(check, text, f"{alter} retention.ms={horizon_ms}")


def group(target: Target, found: GroupState, ends: Mapping[TopicPartition, int], tasks: int | None) -> Finding:
    """Judge a connector's consumer group; ``ends`` are the ends of its logs, ``tasks`` how many of its tasks run, None if not known."""
    check = f"group {target.group}"
    lag = None
    if found.committed is not None:
        lag = sum(max(0, end - found.committed.get(partition, 0)) for partition, end in ends.items())
    told = "its committed offsets are not told" if lag is None else f"{lag:,} record(s) are not committed yet"
    if found.state is None:
        return ok(check, f"the broker does not tell its members; {told}")
    members = found.members or 0
    if not members and tasks:
        text = f"has no members, though {tasks} task(s) run ({found.state}): no partition is read; {told}"
        return fail(check, text, "look again in some seconds; if it stays, see the worker's log for why its consumers do not join")
    if not members:
        text = f"has no members ({found.state}): nobody reads; {told}"
        return warn(check, text, "see the connect and connector lines above")
    if tasks is not None and members > tasks:
        text = f"has {members} members for {tasks} running task(s): somebody else reads along, and takes partitions away from this worker"
        return warn(check, text, "stop the other worker that runs this connector, or wait until a dead member's session ends (45 s)")
    if found.state in {"PREPARING_REBALANCING", "COMPLETING_REBALANCING", "ASSIGNING", "RECONCILING"}:
        return warn(check, f"is rebalancing ({members} members): nothing is read meanwhile; {told}", "look again in some seconds")
    return ok(check, f"{found.state} with {members} member(s); {told}")


def span(length_ms: float) -> str:
    """Return a length of time for people, which clocks that disagree may have made negative."""
    return duration(max(0, round(length_ms)))
