"""A run on a terminal: where it stands, what it tries now, what was decided last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from autoresearch.core.report.follow import Running, Snapshot
from autoresearch.core.report.terminal.curves import braille, sparkline, steps
from autoresearch.core.report.terminal.live import decision_words
from autoresearch.core.report.wording import dollars, one_line, span
from autoresearch.core.store.rows import ExperimentRow

CURVE_LINES, CURVE_WIDTH = 4, 72
SHORT_LINES = 20
"""Below this height there is no loss curve."""
SPARK_CELLS = 10
"""With less room than this the sparkline gets a line of its own."""
_STYLES = {"keep": "bold green", "discard": "dim", "crash": "red", "invalid": "red", "timeout": "yellow"}


@dataclass(frozen=True)
class Outlook:
    """What only the process that runs the loop knows. Times are seconds since the epoch."""

    researcher: str = ""
    thinking: float | None = None
    """When it was asked for the proposal that it has not made yet."""
    goal: int | None = None
    """How many experiments were asked for."""
    ends: float | None = None
    """When its hours are over."""
    isolation: str | None = None
    """Of the trials to come."""


def panel(snapshot: Snapshot, width: int, height: int = 1000, outlook: Outlook | None = None) -> list[Text]:
    """The run in at most `height` lines that fit `width` columns."""
    outlook = outlook or Outlook()
    lines = [*_head(snapshot, width, outlook), *_best(snapshot, width), Text()]
    flying = [one for one in snapshot.running if one.progress is not None or one.experiment.state != "proposed"]
    waiting = [one for one in snapshot.running if one not in flying]
    for index, one in enumerate(flying):
        lines += _trial(one, snapshot, width, curve=index == 0 and height >= SHORT_LINES)
    lines += [Text(line, style="magenta") for line in flow(researcher_words(snapshot, outlook, waiting), width)]
    lines += [Text(), *_decisions(snapshot, max(height - len(lines) - 1, 0))]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def flow(parts: Sequence[str], width: int, separator: str = " · ") -> list[str]:
    """The parts in as many lines of `width` columns as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + len(separator) + cell_len(part) <= width:
            lines[-1] += separator + part
        else:
            lines.append(part)
    return lines


def head_words(snapshot: Snapshot, outlook: Outlook | None = None) -> list[str]:
    """The run, what it runs on, and how far it is."""
    outlook = outlook or Outlook()
    config, totals = snapshot.run.config, snapshot.totals
    parts = [
        f"{snapshot.run.tag}: {snapshot.state}",
        f"{config['backend']}/{config['preset']} on {one_line(str(config['device']), 40)}",
    ]
    isolation = snapshot.isolation or outlook.isolation
    if isolation:
        parts.append(one_line(isolation))
    of = "" if outlook.goal is None else f" of {outlook.goal}"
    parts.append(f"{totals.decided}{of} experiments, {totals.by_status.get('keep', 0)} kept")
    parts.append("cost not known" if totals.usd is None else dollars(totals.usd))
    if outlook.ends is not None:
        parts.append(f"{span(max(outlook.ends - snapshot.now, 0))} left")
    return parts


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
    return " · ".join(trial_words(snapshot.running[0], snapshot))


def trial_words(one: Running, snapshot: Snapshot) -> list[str]:
    """How far a trial is; where it does not say what memory it takes, what the last one took."""
    if one.progress is None:
        return ["deciding"]
    parts = one.progress.parts(snapshot.now)
    if one.progress.memory_mb is None and snapshot.peak_memory_mb is not None:
        parts.append(f"{snapshot.peak_memory_mb:.0f} MB (last trial)")
    return parts


def researcher_words(snapshot: Snapshot, outlook: Outlook, waiting: Sequence[Running]) -> list[str]:
    """What the researcher does now, and what it has proposed that waits for a device."""
    parts = []
    if snapshot.over:
        return [one_line(snapshot.run.ended or snapshot.state)]
    if outlook.thinking is not None:
        parts.append(f"{outlook.researcher} has been thinking for {span(max(snapshot.now - outlook.thinking, 0))}")
    elif not snapshot.running:
        parts.append(f"{outlook.researcher or 'the researcher'} proposes")
    elif outlook.researcher:
        parts.append(f"{outlook.researcher} waits for a result" if not waiting else f"{outlook.researcher} waits")
    for one in waiting:
        parts.append(f"next: experiment {one.experiment.number}: {one_line(one.experiment.hypothesis)}")
    return parts


def decided_words(row: ExperimentRow) -> str:
    """An experiment's outcome and what it was, in one line."""
    facts = {"status": row.status, "val_bpb": row.val_bpb, "delta": row.delta if row.number else None}
    return f"{decision_words(facts)}  {one_line(row.hypothesis)}"


def _head(snapshot: Snapshot, width: int, outlook: Outlook) -> list[Text]:
    style = "bold" if not snapshot.over else ""
    return [Text(line, style=style) for line in flow(head_words(snapshot, outlook), width)]


def _best(snapshot: Snapshot, width: int) -> list[Text]:
    words = best_words(snapshot)
    values, room = steps(snapshot.keeps, snapshot.decided), width - len(words) - 2
    if room >= SPARK_CELLS:
        return [Text(f"{words}  {sparkline(values, room)}", style="green")]
    return [Text(words, style="green"), Text(sparkline(values, width), style="green")]


def _trial(one: Running, snapshot: Snapshot, width: int, *, curve: bool) -> list[Text]:
    repeat = f" (trial {one.trial.k})" if one.trial and one.trial.k > 1 else ""
    lines = [Text(f"experiment {one.experiment.number}{repeat}: {one_line(one.experiment.hypothesis)}")]
    lines += [Text(line, style="cyan") for line in flow(trial_words(one, snapshot), width)]
    if curve and one.losses:
        # The fall of the first steps would make a line of the rest.
        losses = one.losses[len(one.losses) // 10 :]
        labels = [f"{max(losses):7.3f} ", *[" " * 8] * (CURVE_LINES - 2), f"{min(losses):7.3f} "]
        drawn = braille(losses, min(width - 8, CURVE_WIDTH), CURVE_LINES)
        lines += [Text(f"{label}{line}", style="cyan") for label, line in zip(labels, drawn, strict=True)]
    return lines


def _decisions(snapshot: Snapshot, room: int) -> list[Text]:
    lines: list[Text] = []
    for row in reversed(snapshot.last):
        lines.append(Text(f"{row.number:>5} {decided_words(row)}", style=_STYLES.get(row.status or "", "")))
        if row.reason:
            lines.append(Text(f"      {one_line(row.reason)}", style="dim"))
    return lines[:room]
