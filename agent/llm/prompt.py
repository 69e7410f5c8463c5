"""The messages for a language model, made from a history within its context.

Where not everything fits, the oldest details are dropped first, the rules never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autoresearch.agent.findings import described_origin
from autoresearch.agent.llm import fence
from autoresearch.agent.llm.edits import Format
from autoresearch.agent.llm.ideas import Idea, nearest_ideas
from autoresearch.agent.llm.memory import Card, card_in_flight, card_of, diff_of, score_predictions
from autoresearch.agent.llm.operators import Task
from autoresearch.agent.llm.providers import Message, tokens_in
from autoresearch.agent.tuner.effects import ConstantEffect, constant_effects
from autoresearch.core.errors import ProposalError
from autoresearch.core.proposal import CATEGORIES, Attempt, History

FOLDER = Path(__file__).parent / "prompts"
_FINDING_DIFFS = 3
"""Number of untried findings that are shown with their diffs."""


@dataclass(frozen=True)
class Detail:
    """The amount of detail beside the rules, the file and the task, as numbers of entries."""

    cards: int = 60
    """Latest experiments, one line each."""
    diffs: int = 6
    """Latest of these cards that are shown with their diffs."""
    ideas: int = 8
    effects: int = 8
    """Constants whose effects are told."""
    findings: int = 8
    digest: bool = True

    def less(self) -> Detail | None:
        """Take one step less: diffs go first, then old cards, ideas, effects, findings, the digest, the last cards."""
        if self.diffs:
            return replace(self, diffs=self.diffs - 1)
        if self.cards > 5:
            return replace(self, cards=max(5, self.cards * 3 // 4))
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
) -> list[Message]:
    """Make a system and a user message of at most `limit` tokens. Raises `ProposalError` when the rules are longer."""
    detail: Detail | None = Detail()
    system = {"role": "system", "content": system_text(history, form)}
    effects = constant_effects(history)
    while detail is not None:
        user = {"role": "user", "content": task_text(history, task, detail, digest, ideas, effects)}
        if tokens_in([system, user]) <= limit:
            return [system, user]
        detail = detail.less()
    raise ProposalError(
        f"program.md, the contract and the train file are longer than the model's context of about {limit} tokens.",
        fix="choose a model with a longer context, or say --context-tokens if the server's is longer than assumed",
    )


def system_text(history: History, form: Format) -> str:
    """Write the rules: program.md, the contract and the format of an answer."""
    return fill(
        "system",
        budget=_seconds(history.budget_seconds),
        program=history.program.strip(),
        contract=fill("contract"),
        categories=", ".join(CATEGORIES),
        format=fill(form),
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
    """Write the state of the run and the task; `effects` are given where they were fitted already.

    The task begins with `lead`; without `file` the train file is left out.
    """
    if effects is None:
        effects = constant_effects(history) if detail.effects else ()
    cards = cards_of(history.attempts, detail.diffs)
    shown = cards[max(0, len(cards) - detail.cards) :] if detail.cards else []
    best, predictions = history.incumbent, score_predictions(history.attempts)
    near = nearest_ideas(ideas, history, task.demand.closed, detail.ideas) if detail.ideas else []
    return fill(
        "task",
        device=history.device,
        backend=history.backend,
        preset=history.preset,
        budget=_seconds(history.budget_seconds),
        vocabularies=", ".join(map(str, history.vocabularies)),
        best=f"experiment {best.experiment}, val_bpb {_bpb(best)}",
        profile=_profile(best.metrics),
        curve=fence.escaped(str(best.metrics.get("loss_curve") or "")),
        time=(best.metrics.get("profile") or "") if detail.digest else "",
        effects=[str(one) for one in effects[: detail.effects]],
        predictions=str(predictions) if predictions else "",
        digest=digest if detail.digest else "",
        cards=shown,
        forgotten=len(cards) - len(shown),
        in_flight=_in_flight(history, detail),
        ideas=[str(idea) for idea in near],
        findings=_findings(history, detail),
        source=fence.code(task.base.source, "python") if file else "",
        lead=lead,
        task=_operator_text(history, task),
        demand=task.demand.why,
    )


def cards_of(attempts: Sequence[Attempt], diffs: int = 0) -> list[Card]:
    """Make the cards of all experiments, the oldest first; the latest `diffs` of them have their diffs."""
    sources = {attempt.experiment: attempt.source for attempt in attempts} if diffs else {}
    first = len(attempts) - diffs
    return [card_of(attempt, sources if at >= first else {}) for at, attempt in enumerate(attempts)]


def _in_flight(history: History, detail: Detail) -> list[Card]:
    """Return the cards of all experiments in flight, so that none of them is proposed again."""
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    cards = [card_in_flight(one, sources) for one in history.in_flight]
    return cards if detail.diffs else [replace(card, diff="") for card in cards]


def _findings(history: History, detail: Detail) -> list[Card]:
    """Return the cards of other devices' findings: untried ones first, with their diffs while there is room."""
    ordered = sorted(history.findings, key=lambda one: one.outcome != "untried")
    cards = []
    for at, one in enumerate(ordered[: detail.findings]):
        here = "untried here" if one.outcome == "untried" else f"here: {one.outcome}, experiment {one.experiment}"
        gained = f" ({one.delta:+.4f})" if one.delta is not None else ""
        told = at < _FINDING_DIFFS and one.outcome == "untried" and detail.diffs > 0
        diff = diff_of(one.before, one.after) if told else ""
        words = " ".join(one.hypothesis.split())[:300]
        cards.append(Card(f"{described_origin(one.origin)} [{one.category}]: {words} -> {here}{gained}", diff))
    return cards


def _operator_text(history: History, task: Task) -> str:
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    diffs = [
        diff_of(sources.get(one.parent, ""), one.source, lines=120)
        for one in task.material
        if task.operator != "simplify" and one.parent in sources
    ]
    return fill(task.operator, diffs=[diff for diff in diffs if diff], reason=task.base.reason)


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
    steps, seconds = metrics.get("steps"), metrics.get("train_seconds")
    if isinstance(steps, int | float) and isinstance(seconds, int | float) and steps:
        known.append(f"{1000 * seconds / steps:.1f} ms a step")
    return ", ".join(known)


def _bpb(attempt: Attempt) -> str:
    return "unknown" if attempt.val_bpb is None else f"{attempt.val_bpb:.6f}"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
