"""Version ranges of ``*.plugin.version`` keys (KIP-891): ``1.0``, ``[1.0]``, ``[1.0,2.0)``, as Maven writes them."""

from __future__ import annotations

import re

from heartbeat.errors import BadRequest


def check(plugin: str, version: str, wanted: str | None) -> str | None:
    """Return why ``version`` is not the one wanted, in Connect's words, or None if it is.

    Raises:
        BadRequest: ``wanted`` is not a range.
    """
    if wanted is None:
        return None
    text = wanted.strip()
    if text[:1] not in {"[", "("}:
        text = f"[{text},{text}]" if text else "[,]"
    elif text[-1] not in {"]", ")"} or len(text) < 2:
        raise BadRequest(f"Unbounded range: {wanted}")
    if wanted.strip() and _contains(text, version):
        return None
    return f"Plugin {plugin} not found that matches the version range {text}, available versions: [{version}]"


def _contains(text: str, version: str) -> bool:
    low, _, high = text[1:-1].partition(",")
    high = high if "," in text else low
    here = _order(version)
    above = not low.strip() or here > _order(low) or (here == _order(low) and text[0] == "[")
    below = not high.strip() or here < _order(high) or (here == _order(high) and text[-1] == "]")
    return above and below


def _order(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"[.\-]", version.strip())]
