"""The handling of malformed replies: the share of recorded-style replies that each rung of the edit ladder takes.

The replies are those in `tests/agent/llm/replies`, each with the file that it was meant to give, or the reason to
refuse it. A reply that gives any other file counts as not as intended.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from autoresearch.agent.llm.edits import apply_reply
from autoresearch.agent.llm.replies import EditError
from autoresearch.core.trainfile.fingerprint import fingerprint

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPLIES = Path(__file__).parents[1] / "tests" / "agent" / "llm" / "replies"


def outcomes() -> tuple[Counter[str], Counter[str], int]:
    """Replies by the hardest rung that they needed, refused ones by reason, and how many gave another file."""
    base = (REPLIES / "base_train.text").read_text(encoding="utf-8")
    expected = tomllib.loads((REPLIES / "outcomes.toml").read_text(encoding="utf-8"))
    tried = {fingerprint(base.replace("\nLR = 0.1", "\nLR = 0.77"))}
    applied: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    wrong = 0
    for name, outcome in expected.items():
        intended = base
        for old, new in outcome.get("changes", ()):
            intended = intended.replace(old, new)
        try:
            edited = apply_reply((REPLIES / f"{name}.txt").read_bytes().decode(), base, tried=tried)
        except EditError as error:
            refused[error.kind] += 1
            wrong += "refused" not in outcome
            continue
        applied[max(edited.rungs, key=_LADDER.index)] += 1
        wrong += "refused" in outcome or edited.source != intended
    return applied, refused, wrong


_LADDER = ("exact", "trailing whitespace", "indentation", "whole file")


def run() -> list[dict[str, Any]]:
    """Shares in per cent, and what was applied wrongly."""
    applied, refused, wrong = outcomes()
    total = sum(applied.values()) + sum(refused.values())
    rows = [
        {"name": f"edits: {kind}: {name}", "median": 100 * count / total, "unit": "%", "note": f"{count} of {total}"}
        for kind, counts in (("applied", applied), ("refused", refused))
        for name, count in counts.most_common()
    ]
    return [*rows, {"name": "edits: not as intended", "median": wrong, "unit": f"of {total}", "note": ""}]


if __name__ == "__main__":
    for row in run():
        print(row)
