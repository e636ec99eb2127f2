"""Figure ``throughput``: how fast a backlog is applied, by ours, by the sketch (the practical limit), and by JVM sinks, turn about.

Each run is a process of its own, a new consumer group and an empty Redis. Ours is the whole product, and every one of its runs is checked:
the sight of every partition is fresh when it has caught up, and the index is exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from bench.peers import sketch, standin
from bench.race import Outcome, run_ours, run_peer
from bench.results import Row, Section, ratios, row
from bench.setting import Setting
from bench.workloads import FIXED_KEY, W1, W2, W2_SMALL, W3, Workload, loaded

_ROUNDS = 3
_SKETCH_BATCH = 10_000
_PIPELINE = 5_000
_KAFKA_DEFAULT = 500
_OURS, _SKETCH, _SYNC, _PIPELINED = "ours", "sketch", "JVM sink, one SET a record", "JVM sink, pipelining 5,000"
_CONTESTS = {
    W1: ("${key}", (_OURS, _SKETCH, _PIPELINED)),
    W2: (FIXED_KEY, (_OURS, _SKETCH)),
    W2_SMALL: (FIXED_KEY, (_OURS, _SYNC)),
    W3: ("${key}", (_OURS, _SKETCH)),
}

_Outcomes = dict[tuple[Workload, str], list[Outcome]]


def throughput(setting: Setting) -> Section:
    """Records a second from the first write until done, and the ratios of each round."""
    outcomes: _Outcomes = defaultdict(list)
    setting.let_a_group_come_and_go(loaded(setting.kafka, W1).topic)
    for number in range(_ROUNDS):
        for workload, (key, sinks) in _CONTESTS.items():
            for sink in sinks if number % 2 == 0 else reversed(sinks):
                outcomes[workload, sink].append(_run(setting, workload, key, sink))
    rows = [
        *_rates(outcomes),
        *(_ratio(outcomes, workload, _SKETCH, 0.8) for workload in (W1, W2, W3)),
        _ratio(outcomes, W2_SMALL, _SYNC, 25),
        _ratio(outcomes, W1, _PIPELINED, 1.2, lambda outcome: outcome.rate_warm, " after its warm-up"),
        row(
            f"{W1.name}: ours / {_PIPELINED}, both from exec",
            ratios([o.done_s for o in outcomes[W1, _PIPELINED]], [o.done_s for o in outcomes[W1, _OURS]]),
            "x",
            at_least=4,
        ),
    ]
    notes = [
        f"Records: {', '.join(f'{w.name} {w.records:,}' for w in _CONTESTS)}; {W1.partitions} partitions, 12-byte keys, 16-byte values, in "
        "the topic before the start. From the first write seen in Redis until the last record of every partition is visible; a ratio is "
        "that of one round. The order within a round turns around from round to round.",
        "Ours: worker with REST and all defaults (at-least-once, index, sight), `redis.key` is `${key}`, for one key its default. Each run "
        "fails unless `until` of every partition is under 1.2 s old at its end, and offsets, deadlines and keys in Redis are exact.",
        f"Sketch: `bench/sketch.py`, batches of {_SKETCH_BATCH:,}; no product, and so the practical limit. JVM sinks: `bench/standin/` in "
        "Kafka 4.1's `connect-standalone`, all defaults apart from `-Xmx512m`, byte converters, `plugin.discovery=service_load`, "
        f"`max.poll.records` {_PIPELINE:,} (pipelining) and {_KAFKA_DEFAULT} (its default). Its warm-up is the first half of the records.",
    ]
    return Section("throughput", "A backlog applied: ours, a hand-made hot loop, and JVM sinks.", rows, notes)


def _run(setting: Setting, workload: Workload, key: str, sink: str) -> Outcome:
    backlog = loaded(setting.kafka, workload)
    if sink == _OURS:
        return run_ours(setting, backlog, key)
    if sink == _SKETCH:
        return run_peer(setting, sketch(setting, backlog.topic, _SKETCH_BATCH), backlog)
    if sink == _SYNC:
        return run_peer(setting, standin(setting, backlog.topic, "sync", _KAFKA_DEFAULT), backlog)
    return run_peer(setting, standin(setting, backlog.topic, "pipeline", _PIPELINE), backlog, halved=True)


def _rates(outcomes: _Outcomes) -> list[Row]:
    rows = []
    for (workload, sink), runs in outcomes.items():
        rows.append(row(f"{workload.name}: {sink}", [outcome.rate for outcome in runs], "k/s", None, 0))
        if sink == _PIPELINED:
            rows.append(row(f"{workload.name}: {sink}, after its warm-up", [outcome.rate_warm for outcome in runs], "k/s", None, 0))
    return rows


def _ratio(
    outcomes: _Outcomes,
    workload: Workload,
    sink: str,
    at_least: float,
    rate: Callable[[Outcome], float] = lambda outcome: outcome.rate,
    when: str = "",
) -> Row:
    ours, theirs = outcomes[workload, _OURS], outcomes[workload, sink]
    quotients = ratios([outcome.rate for outcome in ours], [rate(outcome) for outcome in theirs])
    return row(f"{workload.name}: ours / {sink}{when}", quotients, "x", at_least=at_least)
