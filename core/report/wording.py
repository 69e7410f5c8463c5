"""The words and number formats that the views of a run share, and how other people's text is made safe to show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from autoresearch.core.printable import printable_line

if TYPE_CHECKING:
    from autoresearch.core.store.headline import Headline, Mean

BAR_CELLS = 16
"""Width of a progress bar, in characters."""
SEPARATOR = " · "
"""Between two facts on one line."""
_COLOUR_CODES = re.compile("\x1b\\[[0-9;:]*m")
_NOT_PLAIN = re.compile(r"[^ -~\n\t]")


# ---- phrases


def counted(count: int, noun: str) -> str:
    """Put a number before its noun: "1 trial", "3 trials"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def experiment_of(number: int, total: int | None = None) -> str:
    """Name an experiment by its number, and by how many are to be made: "experiment 3 of 20"."""
    # The baseline is experiment 0 and none of the asked-for ones; a resumed run may pass its old goal.
    return f"experiment {number}" + (f" of {total}" if total is not None and 0 < number <= total else "")


def withdrawn_text(withdrawn: Mapping[int, str]) -> str | None:
    """Say which numbers have no experiment, by `LedgerReader.withdrawn`; None where all have one."""
    if not withdrawn:
        return None
    numbers = [str(number) for number in withdrawn]
    if len(numbers) == 1:
        reason = one_line(withdrawn[int(numbers[0])])
        return f"there is no experiment {numbers[0]}: its proposal was withdrawn before a trial, because {reason}"
    named = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"there are no experiments {named}: their proposals were withdrawn before a trial"


def file_name(experiment: int, val_bpb: float | None) -> str:
    """Name a train file with its score: "baseline, 0.9000 bpb"."""
    name = experiment_of(experiment) if experiment else "baseline"
    return name if val_bpb is None else f"{name}, {val_bpb:.4f} bpb"


def trial_of(k: int, total: int | None = None) -> str:
    """Name a trial by its number within the experiment, and by how many there are: "trial 2 of 3"."""
    return f"trial {k}" + (f" of {total}" if total is not None and total > 1 else "")


def kept_of(kept: int, decided: int, goal: int | None = None, stopped: int = 0) -> str:
    """Say how far a run is: "12 of 20 experiments, 3 kept, 5 stopped early"."""
    made = counted(decided, "experiment") if goal is None else f"{decided} of {counted(goal, 'experiment')}"
    return f"{made}, {kept} kept" + (f", {stopped} stopped early" if stopped else "")


def training_parts(
    seconds_left: float,
    *,
    step: float | None = None,
    loss: float | None = None,
    tokens_per_second: float | None = None,
    memory_mb: float | None = None,
) -> list[str]:
    """Say how far a training is, one fact each: "12 s left", "step 120", "loss 2.310", "12k tokens/s", "300 MB"."""
    parts = [f"{max(seconds_left, 0.0):.0f} s left"]
    if step is not None:
        parts.append(f"step {step:.0f}")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if tokens_per_second is not None:
        parts.append(f"{compact(tokens_per_second)} tokens/s")
    if memory_mb is not None:
        parts.append(f"{memory_mb:.0f} MB")
    return parts


def decision_text(status: str | None, val_bpb: float | None, delta: float | None, reason: str | None = None) -> str:
    """Say what became of an experiment: "keep 1.2345 (-0.0012)", or "crash: out of memory"."""
    if val_bpb is None:
        return f"{status}: {one_line(str(reason), 80)}" if reason else f"{status}"
    return f"{status} {val_bpb:.4f}" if delta is None else f"{status} {val_bpb:.4f} ({delta:+.4f})"


def best_text(headline: Headline, *, digits: int = 4) -> str:
    """Say what is best so far: "best 0.9000 ± 0.0012 bpb (experiment 1, -0.1000; cautious estimate 0.9010)".

    The first number is the measured mean with half its 95 % interval; the difference is from the baseline's mean.
    """
    best, gain = headline.best, headline.gain
    about = experiment_of(headline.experiment)
    if gain is not None:
        about += f", {gain:+.{digits}f}"
    if best.selected and best.half is not None:
        about += "; its own trials, which chose it"
    if has_estimate(headline):
        about += f"; cautious estimate {headline.cautious:.{digits}f}"
    return f"best {mean_text(best, digits=digits)} bpb ({about})"


def has_estimate(headline: Headline) -> bool:
    """Tell whether there is a cautious estimate: a judge without one of its own repeats what was measured."""
    return bool(headline.experiment) and headline.cautious is not None and headline.best.half is not None


def mean_text(mean: Mean, *, digits: int = 4) -> str:
    """Write a measured mean with half its 95 % interval: "0.9000 ± 0.0012"."""
    return f"{mean.value:.{digits}f}" + ("" if mean.half is None else f" ± {mean.half:.{digits}f}")


# ---- numbers


def compact(number: float) -> str:
    """Shorten a large number: 12 -> "12", 5400 -> "5.4k", 1650000 -> "1.65M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def bar(share: float) -> str:
    """Draw a bar of BAR_CELLS characters, `share` (0 to 1) of them full."""
    full = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return "━" * full + "─" * (BAR_CELLS - full)


def duration(seconds: float) -> str:
    """Write a duration in its own units: 42 -> "42 s", 150 -> "2 min 30 s", 7260 -> "2 h 1 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def spell(seconds: float) -> str:
    """Write an expected duration with as many digits as an expectation has."""
    if seconds < 90.0:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def about_left(goal: int | None, decided: int, before: int, seconds: float) -> str | None:
    """Say how long the experiments that are left may take, by the pace of those since `before`: "about 41 min left".

    `decided` of `goal` experiments are done, `before` of them earlier than these `seconds`. None where nothing is asked
    for, nothing is left, or no pace is known yet.
    """
    if goal is None or decided >= goal or decided <= before:
        return None
    left = seconds / (decided - before) * (goal - decided)
    return f"about {spell(left)} left"


def dollars(usd: float | None) -> str:
    """Write an amount of US dollars, or "not known"."""
    if usd is None:
        return "not known"
    return "$0" if usd == 0 else f"${usd:.2f}" if usd >= 0.1 else f"${usd:.4f}"


# ---- text that a model or a log wrote


def one_line(text: str, limit: int | None = None) -> str:
    """Put a text on one line of at most `limit` characters, without control characters.

    A researcher's words may carry escape codes that would steer the reader's terminal.
    """
    words = printable_line(text)
    return words if limit is None or len(words) <= limit else words[: limit - 1].rstrip() + "…"


def shortened(text: str, limit: int) -> str:
    """Put a text on one line of at most `limit` characters, cut between two words where there is more than one."""
    words = one_line(text)
    if len(words) <= limit:
        return words
    room = max(limit - 1, 1)
    head = words[: room + 1].rpartition(" ")[0].rstrip() or words[:room]
    return head.rstrip(" ,;:") + "…"


def visible(text: str) -> str:
    """Make every character of a text of several lines visible, so that none can steer or reorder the display.

    Colour codes go, control characters become their pictures, invisible ones their code points. Lines end in "\\n".
    """
    text = _COLOUR_CODES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    # A file is mostly plain characters, which a pattern passes over a hundred times faster than a function.
    return _NOT_PLAIN.sub(lambda found: _visible(found[0]), text)


def _visible(char: str) -> str:
    if char.isprintable() or char in "\n\t":
        return char
    code = ord(char)
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"
