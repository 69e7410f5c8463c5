"""The lines before an edit, in which a model or an agent says what it tries."""

from __future__ import annotations

import re
from dataclasses import dataclass

from autoresearch.core.proposal import CATEGORIES

_FIELD = r"^[ \t>*#_-]*{name}[ \t*_]*:[ \t*_]*(.+)$"
_NUMBER = re.compile(r"[-+\u2212]?\d*\.?\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Header:
    """What a reply says about its edit. Fields that are missing are empty or None."""

    hypothesis: str
    category: str
    predicted_delta: float | None
    risk: str
    finding: str = ""
    """The name of the finding that it tries."""


def read_header(text: str) -> Header:
    """The lines before the edit, however they are decorated."""
    before = re.split(
        r"^[ \t]*<{5,9}|^[ \t]*```", re.sub(r"(?is)<think(?:ing)?>.*?</think(?:ing)?>", "", text), flags=re.M
    )[0]

    def of(name: str) -> str:
        found = re.search(_FIELD.format(name=name), before, re.M | re.I)
        return found.group(1).strip(" \t*_`") if found else ""

    category = re.sub(r"[^a-z]+", "_", of("category").lower()).strip("_")
    delta = _NUMBER.search(of("predicted[ _-]?delta"))
    value = float(delta.group().replace("\u2212", "-")) if delta else None
    return Header(
        hypothesis=" ".join(of("hypothesis").split())[:500],
        category=category if category in CATEGORIES else "",
        predicted_delta=value if value is not None and abs(value) < 100 else None,
        risk=of("risk"),
        finding=of("finding"),
    )
