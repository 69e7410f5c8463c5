"""The messages for a language model, made from a history within its context.

What stays the same comes first, so that providers read it from their caches: the rules with the idea bank and the
literature, then the best file, then the cards, which are written once; at the end, what changes with every call. Where
not everything fits, the oldest details are dropped first, the rules never.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autoresearch.agent.findings import described_origin
from autoresearch.agent.llm import fence
from autoresearch.agent.llm.edits import Format
from autoresearch.agent.llm.ideas import Idea, bank_text, nearest_ideas
from autoresearch.agent.llm.literature import Paper, literature_text
from autoresearch.agent.llm.memory import (
    Card,
    card_in_flight,
    card_of,
    diff_of,
    difference,
    measured,
    open_near_misses,
    score_predictions,
    shortened,
    without_marks,
)
from autoresearch.agent.llm.operators import Task
from autoresearch.agent.llm.providers import Message, tokens_in
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.tuner.effects import ConstantEffect, constant_effects
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import CATEGORIES, Attempt, History, Withdrawn
from autoresearch.core.stack_parts import kept_parts

FOLDER = Path(__file__).parent / "prompts"
_FINDING_DIFFS = 3
"""Number of untried findings that are shown with their diffs."""


_CARD_STEP, _DIFF_STEP = 20, 6
"""Old cards and old diffs go so many at a time: each time, what follows them has to be read anew by the provider."""
_BEST_LINES = 400
"""Lines of the difference of the best file from another one that is edited."""
_NEAR_MISSES = 6
"""Number of near misses that are listed, the best first."""


@dataclass(frozen=True)
class Detail:
    """The amount of detail beside the rules, the file and the task, as numbers of entries."""

    cards: int = 60
    """Latest experiments, one line each."""
    diffs: int = 12
    """Latest of these cards that are shown with their diffs."""
    bank: int = 400
    """Entries of the idea bank among the rules."""
    literature: int = 40_000
    """Characters of the literature among the rules."""
    ideas: int = 6
    """Entries of the bank that are pointed at."""
    effects: int = 8
    """Constants whose effects are told."""
    findings: int = 8
    digest: bool = True
    best_too: bool = True
    """True to show the best file as well where the task edits another one."""

    def less(self) -> Detail | None:
        """Take one step less: literature, diffs, the best file beside another, old cards, bank, effects and so on."""
        if self.literature:
            return replace(self, literature=self.literature // 2 if self.literature > 5000 else 0)
        if self.diffs:
            return replace(self, diffs=self.diffs // 2)
        if self.best_too:
            return replace(self, best_too=False)
        if self.cards > 5:
            return replace(self, cards=max(5, self.cards * 3 // 4))
        if self.bank:
            return replace(self, bank=self.bank // 2 if self.bank > 10 else 0)
        if self.ideas:
            return replace(self, ideas=self.ideas // 2)
        if self.effects:
            return replace(self, effects=self.effects // 2)
        if self.findings:
            return replace(self, findings=self.findings // 2)
        if self.digest:
            return replace(self, digest=False)
        return replace(self, cards=self.cards - 1) if self.cards else None


@lru_cache(maxsize=64)
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # What is filled in is text for a model, not HTML, and is never itself read as a template.
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["data"] = fence.data
    environment.filters["code"] = fence.code
    return environment.get_template(f"{name}.md")


def fill(name: str, **values: object) -> str:
    """Fill in one of the prompts."""
    return str(_template(name).render(**values)).strip()


def build_messages(
    history: History,
    task: Task,
    *,
    form: Format,
    limit: int,
    digest: str = "",
    ideas: Sequence[Idea] = (),
    literature: Sequence[Paper] = (),
) -> list[Message]:
    """Make a system and a user message of at most `limit` tokens. Raises `ProposalError` when the rules are longer."""
    detail: Detail | None = Detail()
    effects = constant_effects(history)
    while detail is not None:
        rules = system_text(history, form, ideas[: detail.bank], literature, detail.literature)
        parts = task_parts(history, task, detail, digest, ideas, effects)
        cuts = (len(parts[0]), len(parts[0]) + len(parts[1]))
        messages: list[Message] = [
            {"role": "system", "content": rules, "cuts": (len(rules),)},
            {"role": "user", "content": "".join(parts), "cuts": cuts},
        ]
        if tokens_in(messages) <= limit:
            return messages
        detail = detail.less()
    raise ProposalError(
        f"program.md, the contract and the train file are longer than the model's context of about {limit} tokens.",
        fix="choose a model with a longer context, or say --context-tokens if the server's is longer than assumed",
    )


def system_text(
    history: History,
    form: Format,
    ideas: Sequence[Idea] = (),
    literature: Sequence[Paper] = (),
    characters: int = Detail.literature,
) -> str:
    """Write the rules: program.md, the contract, the format of an answer, the literature and the idea bank."""
    return fill(
        "system",
        budget=_seconds(history.budget_seconds),
        program=history.program.strip(),
        contract=fill("contract"),
        categories=", ".join(CATEGORIES),
        format=fill(form),
        literature=literature_text(literature, characters),
        bank=bank_text(ideas),
    )


def task_text(
    history: History,
    task: Task,
    detail: Detail,
    digest: str,
    ideas: Sequence[Idea],
    effects: Sequence[ConstantEffect] | None = None,
    *,
    file: bool = True,
    lead: str = "",
) -> str:
    """Write the best file, the cards, the state of the run and the task (see `task_parts`)."""
    return "".join(task_parts(history, task, detail, digest, ideas, effects, file=file, lead=lead)).strip()


def task_parts(
    history: History,
    task: Task,
    detail: Detail,
    digest: str,
    ideas: Sequence[Idea],
    effects: Sequence[ConstantEffect] | None = None,
    *,
    file: bool = True,
    lead: str = "",
) -> tuple[str, str, str]:
    """Write three parts, by how long they stay the same: the best file, the cards, and the state with the task.

    `effects` are given where they were fitted already. The task begins with `lead`; without `file` no train file is
    shown.
    """
    if effects is None:
        effects = constant_effects(history) if detail.effects else ()
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    cards = cards_of(history.attempts, sources, detail)
    best, base, predictions = history.incumbent, task.base, score_predictions(history.attempts)
    near = nearest_ideas(ideas, history, task.demand.closed, detail.ideas) if detail.ideas else []
    other = base.experiment != best.experiment
    best_shown = file and (detail.best_too or not other)
    first = fill("file", number=best.experiment, source=fence.code(best.source, "python")) if best_shown else ""
    second = fill("tried", cards=cards, forgotten=len(history.attempts) - len(cards)) if cards else ""
    third = fill(
        "task",
        device=history.device,
        backend=history.backend,
        preset=history.preset,
        budget=_seconds(history.budget_seconds),
        vocabularies=", ".join(map(str, history.vocabularies)),
        best=_best(history),
        noise=_noise(history),
        text=_text(history),
        step=_step(best.metrics),
        profile=_profile(best.metrics),
        curve=fence.escaped(str(best.metrics.get("loss_curve") or "")),
        time=(best.metrics.get("profile") or "") if detail.digest else "",
        standing=_standing(history.attempts),
        near_misses=_near_misses(history),
        effects=[str(one) for one in effects[: detail.effects]],
        predictions=str(predictions) if predictions else "",
        digest=digest if detail.digest else "",
        thinking=history.thinking,
        in_flight=_in_flight(history, sources, detail),
        withdrawn=[_withdrawn(one) for one in history.withdrawn],
        ideas=[idea.brief(ideas.index(idea) + 1, detail.bank) for idea in near],
        findings=_findings(history, detail),
        source=fence.code(base.source, "python") if file and other else "",
        base=base.experiment,
        # Where there is no room for the best file as a whole, a task on another file still shows how the two differ.
        to_best=fence.code(diff_of(base.source, best.source, _BEST_LINES), "diff") if file and not best_shown else "",
        best_number=best.experiment,
        lead=lead,
        task=_operator_text(history, task, sources),
        demand=task.demand.why,
    )
    return f"{first}\n\n" if first else "", f"{second}\n\n" if second else "", third


def cards_of(
    attempts: Sequence[Attempt], sources: Mapping[int, str] | None = None, detail: Detail | None = None
) -> list[Card]:
    """Make the cards of the latest and the pinned experiments, the oldest first; the latest with their diffs.

    `sources` are the train files by experiment; without them the cards have neither diffs nor changed constants. All
    experiments have a card where no `detail` limits them.
    """
    count = len(attempts)
    first = 0 if detail is None else _boundary(count, detail.cards, _CARD_STEP)
    told = count if detail is None or not detail.diffs else _boundary(count, detail.diffs, _DIFF_STEP)
    shown = [(at, one) for at, one in enumerate(attempts) if at >= first or one.pinned]
    parts = kept_parts(attempts)
    # Trials of another machine than today's are left out. A score that is still there must not look like one of today.
    here = any(one.trials for one in attempts)
    cards = []
    for at, one in shown:
        elsewhere = here and not one.trials and one.raw is None
        cards.append((at, card_of(one, sources or {}, parts, elsewhere=elsewhere)))
    return [card if at >= told else replace(card, diff="") for at, card in cards]


def _boundary(count: int, most: int, step: int) -> int:
    """Return the index of the first of `count` entries to show, at most `most`. It moves by whole steps."""
    over = max(0, count - most)
    return min(count, step * math.ceil(over / step)) if most >= step else over


def _in_flight(history: History, sources: Mapping[int, str], detail: Detail) -> list[Card]:
    """Make the cards of the experiments in flight. They are always told, so that none is proposed again."""
    cards = [card_in_flight(one, sources) for one in history.in_flight]
    return cards if detail.diffs else [replace(card, diff="") for card in cards]


def _withdrawn(one: Withdrawn) -> str:
    return without_marks(f"[{one.category}] {shortened(one.hypothesis, 300)} — {one.reason}")


def _findings(history: History, detail: Detail) -> list[Card]:
    """Return the cards of other devices' findings: untried ones first, with their diffs while there is room."""
    ordered = sorted(history.findings, key=lambda one: one.outcome != "untried")
    cards = []
    for at, one in enumerate(ordered[: detail.findings]):
        here = "untried here" if one.outcome == "untried" else f"here: {one.outcome}, experiment {one.experiment}"
        gained = f" ({one.delta:+.4f})" if one.delta is not None else ""
        told = at < _FINDING_DIFFS and one.outcome == "untried" and detail.diffs > 0
        diff = diff_of(one.before, one.after) if told else ""
        words = shortened(one.hypothesis, 300)
        line = f"{described_origin(one.origin)} [{one.category}]: {words} -> {here}{gained}"
        cards.append(Card(without_marks(line), diff))
    return cards


def _operator_text(history: History, task: Task, sources: Mapping[int, str]) -> str:
    diffs = [
        diff_of(sources.get(one.parent, ""), one.source, lines=120)
        for one in task.material
        if task.operator != "simplify" and one.parent in sources
    ]
    base = task.base
    facts = (
        card_of(base, {}, kept_parts(history.attempts)).line if base.experiment != history.incumbent.experiment else ""
    )
    return fill(
        task.operator,
        diffs=[diff for diff in diffs if diff],
        reason=base.reason,
        number=base.experiment,
        facts=facts,
        ran=_profile(base.metrics),
        best=history.incumbent.experiment,
        gains=[f"#{one.experiment}: {difference(one.raw)}" for one in task.material if one.raw is not None],
    )


def _best(history: History) -> str:
    """Write the best experiment with the mean of all its trials; those that chose it are low by selection."""
    best = history.incumbent
    trials = (*best.trials, *best.repeats)
    scores = [one.val_bpb for one in trials if one.val_bpb is not None]
    who = f"#{best.experiment}"
    if all(one.experiment != best.experiment for one in history.attempts) and history.attempts:
        # A stack under way is edited as if it had been kept. All figures are those of the file that it starts from.
        who = f"#{best.experiment}, a stack that is not measured yet; of #{best.parent}, which it starts from"
    if not scores:
        return f"{who}, val_bpb {_bpb(best)}"
    count = f"{len(scores)} trial{'' if len(scores) == 1 else 's'}"
    again = [one for one in best.repeats if one.val_bpb is not None]
    since = f"; measured again since, with no choice resting on it: {measured(again[-4:])}" if again else ""
    return f"{who}, mean {statistics.fmean(scores):.4f} of {count} ({measured(best.trials)}{since})"


def _noise(history: History) -> str:
    if history.noise is None:
        return ""
    paired = f"; a difference of two files at one seed by +-{history.paired_noise:.4f}" if history.paired_noise else ""
    return f"One trial varies by +-{history.noise:.4f} (one standard deviation){paired}"


def _text(history: History) -> str:
    """Write the size of the training text, and the share of it that a trial reads."""
    sizes = ", ".join(
        f"{tokens:,} tokens at vocabulary {size}" for size, tokens in sorted(history.train_tokens.items())
    )
    if not sizes:
        return ""
    read, size = history.incumbent.metrics.get("tokens"), constants_of(history.incumbent.source).get("VOCAB_SIZE")
    whole = history.train_tokens.get(size) if isinstance(size, int) else None
    share = f"; a trial reads {read / whole:.3g} of it" if isinstance(read, int | float) and whole else ""
    return f"Train text: {sizes}{share}"


def _step(metrics: Mapping[str, Any]) -> str:
    """Write the time of a step and its parts, as the profile sums them up."""
    found = re.search(r"^A step: (.*)\.$", str(metrics.get("profile") or ""), flags=re.M)
    steps, seconds = metrics.get("steps"), metrics.get("train_seconds")
    known = isinstance(steps, int | float) and isinstance(seconds, int | float) and steps
    whole = f"{1000 * float(seconds) / float(steps):.1f} ms" if known else ""  # type: ignore[arg-type]
    return ": ".join(part for part in (whole, fence.escaped(found.group(1)) if found else "") if part)


def _standing(attempts: Sequence[Attempt]) -> list[str]:
    """Write the effect of each change that the best file consists of, by all trials until now."""
    return [
        f"#{one.experiment} against #{one.standing.against}: {difference(one.standing)}"
        for one in attempts
        if one.standing is not None
    ]


def _near_misses(history: History) -> list[str]:
    """List changes of the best file or the one before it that were not kept and may be better, the best first."""
    near = {history.incumbent.experiment, history.incumbent.parent}
    found = [(one, one.raw) for one in open_near_misses(history) if one.raw and one.raw.against in near]
    found.sort(key=lambda pair: pair[1].value)
    return [f"#{one.experiment} ({difference(raw)} against #{raw.against})" for one, raw in found[:_NEAR_MISSES]]


def _profile(metrics: Mapping[str, Any]) -> str:
    """Return the known figures of the best file's trial."""
    forms = (
        ("tokens", "{:,.0f} tokens"),
        ("steps", "{:,.0f} steps"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("params", "{:,.0f} parameters"),
        ("peak_memory_mb", "{:,.0f} MB at its peak"),
        ("startup_seconds", "{:.1f} s of start-up"),
        ("mfu", "{:.1%} of the device's peak"),
    )
    known = [form.format(metrics[name]) for name, form in forms if isinstance(metrics.get(name), int | float)]
    return ", ".join(known)


def _bpb(attempt: Attempt) -> str:
    return "unknown" if attempt.val_bpb is None else f"{attempt.val_bpb:.6f}"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
