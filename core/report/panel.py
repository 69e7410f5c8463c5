"""A run on a terminal: where it stands, what it tries now, what was decided last."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from autoresearch.core.report.curves import braille, sparkline, steps
from autoresearch.core.report.follow import Snapshot
from autoresearch.core.report.live import decision_words
from autoresearch.core.report.wording import dollars, one_line
from autoresearch.core.store.rows import ExperimentRow

CURVE_LINES, CURVE_WIDTH = 4, 72
_STYLES = {"keep": "bold green", "discard": "dim", "crash": "red", "invalid": "red", "timeout": "yellow"}


def panel(snapshot: Snapshot, width: int) -> Group:
    """The run in lines that fit `width` columns."""
    lines = [_head(snapshot), _best(snapshot, width), Text()]
    lines += [*_current(snapshot, width), Text(), *_decisions(snapshot)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def head_words(snapshot: Snapshot) -> str:
    """The run, what it runs on, and how far it is, in one line."""
    config, totals = snapshot.run.config, snapshot.totals
    parts = [
        f"{snapshot.run.tag}: {snapshot.state}",
        f"{config['backend']}/{config['preset']} on {one_line(str(config['device']), 40)}",
    ]
    if snapshot.isolation:
        parts.append(one_line(snapshot.isolation))
    parts.append(f"{totals.decided} experiments, {totals.by_status.get('keep', 0)} kept")
    parts.append("cost not known" if totals.usd is None else dollars(totals.usd))
    return " · ".join(parts)


def best_words(snapshot: Snapshot) -> str:
    """The best so far in one line."""
    best = snapshot.best
    if best is None or best.estimate is None:
        return "no result yet"
    words = f"best {best.estimate:.4f} bpb (experiment {best.number}"
    return f"{words}, {snapshot.gain:+.4f})" if snapshot.gain and best.number else f"{words})"


def current_words(snapshot: Snapshot) -> str:
    """What is done now, in one line."""
    if snapshot.over:
        return one_line(snapshot.run.ended or snapshot.state)
    if snapshot.progress is None:
        return "deciding" if snapshot.current else "proposing"
    words = snapshot.progress.words(snapshot.now)
    return words if snapshot.peak_memory_mb is None else f"{words} · {snapshot.peak_memory_mb:.0f} MB (last trial)"


def decided_words(row: ExperimentRow) -> str:
    """An experiment's outcome and what it was, in one line."""
    facts = {"status": row.status, "val_bpb": row.val_bpb, "delta": row.delta if row.number else None}
    return f"{decision_words(facts)}  {one_line(row.hypothesis)}"


def _head(snapshot: Snapshot) -> Text:
    return Text(head_words(snapshot), style="bold" if not snapshot.over else "")


def _best(snapshot: Snapshot, width: int) -> Text:
    words = best_words(snapshot)
    spark = sparkline(steps(snapshot.keeps, snapshot.decided), max(width - len(words) - 2, 0))
    return Text.assemble((words, "green"), "  ", (spark, "green"))


def _current(snapshot: Snapshot, width: int) -> list[Text]:
    lines = []
    if snapshot.current is not None:
        repeat = f" (trial {snapshot.trial.k})" if snapshot.trial and snapshot.trial.k > 1 else ""
        lines.append(Text(f"experiment {snapshot.current.number}{repeat}: {one_line(snapshot.current.hypothesis)}"))
    lines.append(Text(current_words(snapshot), style="cyan"))
    if snapshot.losses:
        labels = [f"{max(snapshot.losses):7.3f} ", *[" " * 8] * (CURVE_LINES - 2), f"{min(snapshot.losses):7.3f} "]
        curve = braille(snapshot.losses, min(width - 8, CURVE_WIDTH), CURVE_LINES)
        lines += [Text(f"{label}{line}", style="cyan") for label, line in zip(labels, curve, strict=True)]
    return lines


def _decisions(snapshot: Snapshot) -> list[Text]:
    lines = []
    for row in reversed(snapshot.last):
        lines.append(Text(f"{row.number:>5} {decided_words(row)}", style=_STYLES.get(row.status or "", "")))
        if row.reason:
            lines.append(Text(f"      {one_line(row.reason)}", style="dim"))
    return lines
