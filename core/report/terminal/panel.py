"""The panel of a run on a terminal: how far it is, its best file, the trials under way, the last decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from autoresearch.core.report.curves import best_so_far, braille, sparkline
from autoresearch.core.report.follow import Running, Snapshot
from autoresearch.core.report.terminal.table import STATUS_STYLES, flow
from autoresearch.core.report.wording import (
    SEPARATOR,
    about_left,
    best_text,
    decision_text,
    dollars,
    duration,
    experiment_of,
    kept_of,
    one_line,
    trial_of,
)
from autoresearch.core.store.rows import ExperimentRow

CURVE_LINES, CURVE_WIDTH = 4, 72
"""Size of the loss curve, in lines and characters."""
SHORT_LINES = 20
"""Height in lines below which there is no loss curve."""
SPARK_CELLS = 10
"""Characters to the right of the best result; with fewer, the sparkline gets a line of its own."""


@dataclass(frozen=True)
class LoopInfo:
    """Facts that only the process running the loop knows. Times are seconds since the epoch."""

    researcher: str = ""
    thinking: float | None = None
    """Time at which the researcher was asked for the proposal that it has not made yet."""
    goal: int | None = None
    """Number of experiments asked for, those of earlier sessions included."""
    began: float | None = None
    """Time at which this session began."""
    before: int = 0
    """Number of experiments that were decided before it."""
    ends: float | None = None
    """Time at which the hours asked for are over."""
    isolation: str | None = None
    """Isolation level of the trials to come."""


def panel(snapshot: Snapshot, width: int, height: int = 1000, info: LoopInfo | None = None) -> list[Text]:
    """Draw the run in at most `height` lines that fit `width` columns."""
    info = info or LoopInfo()
    lines = [*_head(snapshot, width, info), *_best(snapshot, width), Text()]
    begun = [one for one in snapshot.running if one.progress is not None or one.experiment.state != "proposed"]
    waiting = [one for one in snapshot.running if one not in begun]
    for index, one in enumerate(begun):
        lines += _trial(one, snapshot, width, info, curve=index == 0 and height >= SHORT_LINES)
    lines += [Text(line, style="magenta") for line in flow(researcher_parts(snapshot, info, waiting), width)]
    lines += [Text(), *_decisions(snapshot, max(height - len(lines) - 1, 0))]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


# ---- text, shared with the plain lines of `ar watch`


def head_parts(snapshot: Snapshot, info: LoopInfo | None = None) -> list[str]:
    """Name the run and what it runs on, and say how far it is."""
    info = info or LoopInfo()
    config, totals = snapshot.run.config, snapshot.totals
    parts = [
        f"{snapshot.run.tag}: {snapshot.state}",
        f"{config['backend']}/{config['preset']} on {one_line(str(config['device']), 40)}",
    ]
    isolation = snapshot.isolation or info.isolation
    if isolation:
        parts.append(one_line(isolation))
    parts.append(
        kept_of(totals.by_status.get("keep", 0), totals.decided, info.goal, totals.by_status.get("stopped", 0))
    )
    parts.append("cost not known" if totals.usd is None else dollars(totals.usd))
    if info.ends is not None:
        parts.append(f"{duration(max(info.ends - snapshot.now, 0))} left")
    elif info.began is not None and not snapshot.over:
        left = about_left(info.goal, totals.decided, info.before, snapshot.now - info.began)
        parts += [left] if left else []
    return parts


def best_line(snapshot: Snapshot) -> str:
    """Name the best result so far."""
    return "no result yet" if snapshot.headline is None else best_text(snapshot.headline)


def current_line(snapshot: Snapshot) -> str:
    """Say what the run does now, or why it ended."""
    if snapshot.over:
        return one_line(snapshot.run.ended or snapshot.state)
    if snapshot.progress is None:
        return "deciding" if snapshot.current else "proposing"
    return SEPARATOR.join(trial_parts(snapshot.running[0], snapshot))


def trial_parts(one: Running, snapshot: Snapshot) -> list[str]:
    """Say how far a trial is. Where it does not report its memory, the last trial's stands in."""
    if one.progress is None:
        return ["deciding"]
    parts = one.progress.parts(snapshot.now)
    if one.progress.memory_mb is None and snapshot.peak_memory_mb is not None:
        parts.append(f"{snapshot.peak_memory_mb:.0f} MB (last trial)")
    return parts


def researcher_parts(snapshot: Snapshot, info: LoopInfo, waiting: Sequence[Running]) -> list[str]:
    """Say what the researcher does now, and which proposals of its wait for a device."""
    if snapshot.over:
        return [one_line(snapshot.run.ended or snapshot.state)]
    parts = []
    if info.thinking is not None:
        parts.append(f"{info.researcher} has been thinking for {duration(max(snapshot.now - info.thinking, 0))}")
    elif not snapshot.running:
        parts.append(f"{info.researcher or 'the researcher'} proposes")
    elif info.researcher:
        parts.append(f"{info.researcher} waits for a result" if not waiting else f"{info.researcher} waits")
    for one in waiting:
        parts.append(f"next: {experiment_of(one.experiment.number)}: {one_line(one.experiment.hypothesis)}")
    return parts


def decision_line(row: ExperimentRow) -> str:
    """Say what an experiment came to and what it tried."""
    text = decision_text(row.status, row.val_bpb, row.change)
    return f"{text}  {one_line(row.hypothesis)}"


# ---- parts of the panel


def _head(snapshot: Snapshot, width: int, info: LoopInfo) -> list[Text]:
    style = "bold" if not snapshot.over else ""
    return [Text(line, style=style) for line in flow(head_parts(snapshot, info), width)]


def _best(snapshot: Snapshot, width: int) -> list[Text]:
    line = best_line(snapshot)
    values, room = best_so_far(snapshot.keeps, snapshot.decided), width - len(line) - 2
    if room >= SPARK_CELLS:
        return [Text(f"{line}  {sparkline(values, room)}", style="green")]
    return [Text(line, style="green"), Text(sparkline(values, width), style="green")]


def _trial(one: Running, snapshot: Snapshot, width: int, info: LoopInfo, *, curve: bool) -> list[Text]:
    name = experiment_of(one.experiment.number, info.goal)
    if one.trial and one.trial.k > 1:
        name += f", {trial_of(one.trial.k)}"
    lines = [Text(f"{name}: {one_line(one.experiment.hypothesis)}")]
    lines += [Text(line, style="cyan") for line in flow(trial_parts(one, snapshot), width)]
    if curve and one.losses:
        # The steep fall of the first steps would flatten the rest into a line.
        losses = one.losses[len(one.losses) // 10 :]
        labels = [f"{max(losses):7.3f} ", *[" " * 8] * (CURVE_LINES - 2), f"{min(losses):7.3f} "]
        drawn = braille(losses, min(width - 8, CURVE_WIDTH), CURVE_LINES)
        lines += [Text(f"{label}{line}", style="cyan") for label, line in zip(labels, drawn, strict=True)]
    return lines


def _decisions(snapshot: Snapshot, room: int) -> list[Text]:
    """Draw the last decisions, the newest first, in at most `room` lines."""
    lines: list[Text] = []
    for row in reversed(snapshot.last):
        lines.append(Text(f"{row.number:>5} {decision_line(row)}", style=STATUS_STYLES.get(row.status or "", "")))
        if row.reason:
            lines.append(Text(f"      {one_line(row.reason)}", style="dim"))
    return lines[:room]
