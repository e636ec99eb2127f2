"""Canaries: records that a monitor sends through every partition, to see how far the whole path from a producer to Redis reaches. Pure.

Whoever waits for all replicas (``acks=all``) knows that what was appended before its record is committed too. So a canary that
has come through closes the one gap that end offsets leave: records that a dying follower hides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from heartbeat.connect.api import Batch, TopicPartition

HEADER: Final = "hb-canary"
"""Holds when it was sent, in ms. Whatever else a record with it is, it is nobody's beat."""
_TIME: Final = re.compile(rb"\d{1,15}")


@dataclass(frozen=True, slots=True)
class Canaries:
    """What a batch had of them: when the newest of each partition was sent, how many they were, and how many did not say when."""

    newest_ms: Mapping[TopicPartition, int] = field(default_factory=dict)
    count: int = 0
    garbled: int = 0


NONE: Final = Canaries()


def parted(batch: Batch, latest_ms: int) -> tuple[Batch, Canaries]:
    """Return the batch without its canaries, and what those say: none was sent after ``latest_ms``."""
    found = {index: named[HEADER] for index, given in batch.with_headers().items() if HEADER in (named := dict(given))}
    if not found:
        return batch, NONE
    topics, numbers = batch.topics(), batch.partitions()
    newest_ms: dict[TopicPartition, int] = {}
    garbled = 0
    for index, text in found.items():
        if not _TIME.fullmatch(text or b""):
            garbled += 1
            continue
        partition = TopicPartition(topics[index], numbers[index])
        newest_ms[partition] = max(newest_ms.get(partition, 0), min(int(text or 0), latest_ms))
    return batch.only([index for index in range(len(batch)) if index not in found]), Canaries(newest_ms, len(found), garbled)
