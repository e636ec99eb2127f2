"""A figure as it is reported, and the file that keeps them: a run of some figures replaces their sections and no others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HEADER = """# Results

Written by `make bench`; every figure is reproduced by the command that stands above its table. A target is *met* if every run
met it, the slowest included; *in the median only* says how many did not. Everything runs on loopback of one machine.
"Others" is what all other processes of the machine used meanwhile, in cores: with more than 0.1 the figure is disturbed.

"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity; ``spread`` is min / median / max of ``runs``."""

    what: str
    target: str
    measured: str
    spread: str
    runs: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Section:
    """One figure: its name on the command line, a title, and what was measured how."""

    name: str
    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def row(
    what: str, values: Sequence[float], unit: str, limit: float | None = None, digits: int = 2, *, at_least: float | None = None
) -> Row:
    """Return the row of these values, one per run; ``limit`` is the largest value that is on target, or ``at_least`` the smallest."""
    middle = statistics.median(values)
    spread = " / ".join(f"{value:.{digits}f}" for value in (min(values), middle, max(values)))
    measured, spread = f"{middle:.{digits}f} {unit}", f"{spread} {unit}"
    if at_least is not None:
        verdict = _verdict([value < at_least for value in values], middle >= at_least, "under")
        return Row(what, f">= {at_least:g} {unit}", measured, spread, len(values), verdict)
    if limit is not None:
        return Row(
            what, f"<= {limit:g} {unit}", measured, spread, len(values), _verdict([v > limit for v in values], middle <= limit, "over")
        )
    return Row(what, "-", measured, spread, len(values), "-")


def _verdict(misses: Sequence[bool], in_the_median: bool, side: str) -> str:
    if not any(misses):
        return "met"
    return f"in the median only, {sum(misses)} of {len(misses)} {side}" if in_the_median else "**missed**"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round: what disturbs a machine for a while disturbs both of a round, and hardly their ratio."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def render(section: Section, conditions: str) -> str:
    """Return the Markdown of one figure."""
    lines = [f"## {section.name}", "", section.title, "", f"`make bench BENCH={section.name}` · {conditions}", ""]
    lines += ["| What | Target | Measured (median) | min / median / max | Runs | Verdict |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.target} | {r.measured} | {r.spread} | {r.runs} | {r.verdict} |" for r in section.rows]
    if section.notes:
        lines += ["", *(f"- {note}" for note in section.notes)]
    return "\n".join(lines) + "\n"


def update(file: Path, machine: str, sections: dict[str, str], order: Sequence[str]) -> None:
    """Write these rendered sections into ``file``. Those of another machine that it holds are dropped: they do not compare."""
    kept = _parse(file.read_text()) if file.exists() else {}
    if kept.pop("", "").rstrip().endswith(machine):
        sections = {**kept, **sections}
    known = [sections[name] for name in order if name in sections]
    file.write_text(_HEADER + machine + "\n\n" + "\n".join(known))


def _parse(text: str) -> dict[str, str]:
    head, *rest = text.split("\n## ")
    return {"": head} | {part.split("\n", 1)[0]: "## " + part.rstrip() + "\n" for part in rest}
