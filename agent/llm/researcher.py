"""The researcher that asks language models: it reads program.md and the history, and edits the train file.

Everything that it keeps between proposals is in the history, in the run's account and in the digest, so a run can be
resumed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoresearch.agent.findings import named_finding
from autoresearch.agent.llm.edits import Edited, Format, apply_reply
from autoresearch.agent.llm.fallback import stand_in
from autoresearch.agent.llm.ideas import Idea
from autoresearch.agent.llm.literature import Literature, quoted
from autoresearch.agent.llm.memory import Digest, changed_constants, shortened
from autoresearch.agent.llm.models import Models, total
from autoresearch.agent.llm.operators import DROPPED, Operator, Task, choose_task
from autoresearch.agent.llm.prompt import build_messages, cards_of, fill
from autoresearch.agent.llm.providers import CallError, Message, Reply, tokens_in
from autoresearch.agent.llm.quotas import GUESSED, next_demand
from autoresearch.agent.llm.replies import EditError, Header, holds_edit, read_header, split_proposals
from autoresearch.agent.llm.spending import OverBudgetError
from autoresearch.agent.llm.taxonomy import Change, classify
from autoresearch.agent.syntax.source_keys import tried_programs
from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.errors import ArError, ProposalError
from autoresearch.core.proposal import (
    TITLE,
    Attempt,
    CallPreview,
    Cost,
    FailedProposalError,
    History,
    InFlight,
    Proposal,
    Researcher,
)
from autoresearch.core.trainfile.fingerprint import fingerprint

MAX_REPAIRS = 3
"""Number of turns that a model gets to mend its edit; then it is asked for the whole file, once."""
_PRIOR = {"blocks": (2.7, 3), "whole": (1.8, 3)}
"""Prior of each format: replies that could be applied, and all replies."""
_MALFORMED = {"no edit", "broken block", "not found", "ambiguous", "overlap", "elision", "syntax"}
"""Kinds of failures that the format may be to blame for."""
_QUOTED = 12_000
"""Number of characters of a bad reply that are shown to the model again."""
MOST_IN_A_REPLY = 4
"""Largest number of proposals that one reply is asked for: with more, later ones are thin."""
REPLY_TOKENS = 1200
"""Tokens assumed of a proposal in a reply, thoughts included."""
LEAST_SAVING = 0.25
"""Least share of the dollars of single calls that one call must save to be preferred: single ones come sooner, and each
sees what the others are about."""
_ONE_AT_A_TIME: tuple[Operator, ...] = ("debug", "follow_up")
"""Tasks about one experiment, of which no second one is given while the first is in the making."""


@dataclass
class _Talk:
    """One proposal in the making: its task, and the costs and problems so far."""

    history: History
    task: Task
    tried: frozenset[str]
    costs: list[Cost] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    dropped: int | None = None
    """Number of the bold change that the model gave up in this turn."""
    several: int = 1
    """Proposals that one reply is asked for."""
    others: list[str] = field(default_factory=list)
    """Parts of the last reply that hold the proposals after its first one."""

    def drop(self) -> None:
        """Give up a follow-up: the best file is edited instead."""
        self.dropped = self.task.base.experiment
        self.task = replace(self.task, operator="improve", base=self.history.incumbent, material=())

    @property
    def cost(self) -> Cost:
        return total(self.costs)

    def bill(self, cost: Cost | None) -> None:
        """Add the cost of a call without a usable reply."""
        self.costs += [cost] if cost is not None else []


class LLM(Researcher):
    """Asks language models for edits, and mends their replies with them."""

    name = "llm"
    thinks_ahead = True
    reads_profiles = True

    def __init__(
        self,
        models: Models,
        *,
        digest: Digest | None = None,
        ideas: Callable[[], Sequence[Idea]] = tuple,
        literature: Literature | None = None,
    ) -> None:
        """`ideas` is called before every proposal, so that a person's file may change during a run."""
        self.models, self.digest, self._ideas = models, digest or Digest(), ideas
        self._literature = literature or Literature()
        # Several proposals are made at once, in threads.
        self._lock = threading.Lock()
        self._asked: dict[tuple[Operator, int], int] = {}
        """Number of repairs and follow-ups of an experiment that were asked for, and not known to have failed."""
        self._dropped: set[int] = set()
        """Bold changes that a model gave up, whether or not what it proposed instead became an experiment."""
        self._digest_lock = threading.Lock()
        self._digest_failed = 0
        """Newest experiment that was decided when no model could write the digest."""

    def propose(self, history: History) -> Proposal:
        """Propose a model's edit, or one made without a model where its replies cannot be used.

        Raises `FailedProposalError`, with the cost until then, when no model answers.
        """
        self._literature.fetch()
        self.models.provider.pause_seconds = history.budget_seconds
        talk = _Talk(history, self._take_task(history), tried_programs(history))
        return self._propose_or_give_back(talk)

    def _propose_or_give_back(self, talk: _Talk) -> Proposal:
        """Propose; where that fails, let the task be given again, and let no error lose what was paid."""
        try:
            return self._propose(talk)
        except ProposalError:
            self._give_back(talk.task)
            raise
        except ArError as error:  # such as the person's ideas.toml, edited during the run
            self._give_back(talk.task)
            raise FailedProposalError(error.message, cost=talk.cost, fix=error.fix) from error
        except Exception as error:
            self._give_back(talk.task)
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise FailedProposalError(words, cost=talk.cost) from error

    def batch_size(self, history: History, wanted: int) -> int:
        """Return how many proposals one reply should hold: more than one where the prompt is most of what a call costs.

        For the usual task alone, in blocks, with a known price, and once the run's calls have shown how long prompts
        are and how much of them comes from a cache: the prompt is then paid once for all of them.
        """
        name, count = self.models.order(history.attempts, history.seed)[0], min(wanted, MOST_IN_A_REPLY)
        price, bill = self.models.provider.price(name), self.models.spending.bill
        if count < 2 or price is None or not bill.calls or self.best_format(name) != "blocks":
            return 1
        if choose_task(history).operator != "improve":
            return 1
        prompt = price.of(round(bill.tokens_in / bill.calls), 0, round(bill.tokens_cached / bill.calls))
        saved = (count - 1) * prompt / (count * (prompt + price.of(0, REPLY_TOKENS)) or 1.0)
        return count if saved >= LEAST_SAVING else 1

    def propose_batch(self, history: History, count: int) -> Sequence[Proposal]:
        """Propose a model's edits, all from one reply and each of another category. The first carries the cost.

        An edit after the first that cannot be used is left out; the first is mended as a single one is.
        """
        self._literature.fetch()
        self.models.provider.pause_seconds = history.budget_seconds
        talk = _Talk(history, self._take_task(history), tried_programs(history))
        talk.several = count if talk.task.operator == "improve" else 1
        first = self._propose_or_give_back(talk)
        return [first, *self._other_proposals(talk, first)]

    def _other_proposals(self, talk: _Talk, first: Proposal) -> Iterator[Proposal]:
        """Yield what can be used of the reply's further proposals: new programs, in categories of their own."""
        model, categories = str(first.parameters.get("model", "")), {first.category}
        talk.tried |= {fingerprint(first.source)}
        for text in talk.others[: talk.several - 1]:  # a reply may hold more lines that look like beginnings
            header = read_header(text)
            try:
                edited = apply_reply(text, talk.task.base.source, tried=talk.tried, whole=False)
                change = self._check(edited, header, talk)
            except EditError:
                continue
            if change.category in categories:
                continue
            categories.add(change.category)
            talk.tried |= {fingerprint(edited.source)}
            free = replace(talk, costs=[Cost(model=model)], problems=[])
            yield _proposal(edited, change, header, free, model, quoted(header.hypothesis, self._literature.read()))

    def _take_task(self, history: History) -> Task:
        """Choose a task that no other proposal in the making has; repairs and follow-ups are noted as asked for."""
        with self._lock:
            seen = _made(history)
            taken = {key for key, count in self._asked.items() if count > seen.get(key, 0)}
            taken |= {("follow_up", number) for number in self._dropped}
            task = choose_task(history, taken)
            key = (task.operator, task.base.experiment)
            if task.operator in _ONE_AT_A_TIME:
                self._asked[key] = seen.get(key, 0) + 1
            return task

    def _give_back(self, task: Task) -> None:
        """Let a repair or follow-up be asked for again: this one brought nothing."""
        with self._lock:
            key = (task.operator, task.base.experiment)
            if key in self._asked:
                self._asked[key] -= 1

    def _propose(self, talk: _Talk) -> Proposal:
        history, attempts = talk.history, talk.history.attempts
        names = self.models.order(attempts, history.seed)
        self._renew_digest(talk, names)
        over: OverBudgetError | None = None
        for name in names:
            try:
                proposal = self._within_context(name, talk)
            except CallError as error:
                talk.bill(error.cost)
                talk.problems.append(f"{name}: {error.kind}: {error}")
                continue
            except OverBudgetError as error:
                talk.bill(error.cost)
                over = error  # a cheaper model may still fit
                continue
            except ProposalError as error:
                talk.problems.append(f"{name}: {error}")
                continue
            return proposal if proposal is not None else self._without_model(talk)
        if over is not None:
            raise FailedProposalError(over.message, cost=talk.cost, fix=over.fix)
        raise FailedProposalError(
            f"no model answered. {'; '.join(talk.problems)}.",
            cost=talk.cost,
            fix="check the key in the environment, --model and --api-base; or go on with --researcher tuner",
        )

    def preview(self, history: History) -> CallPreview:
        """Describe the next call: the model and its messages. Nothing is sent."""
        name = self.models.order(history.attempts, history.seed)[0]
        messages = self._messages(name, history, choose_task(history), self.models.context_tokens(name))
        most, count = self.models.most_usd(name, messages), tokens_in(messages)
        return CallPreview(name, list(messages), count, most, self.models.spending.usd_per_call(name))

    def _messages(self, name: str, history: History, task: Task, limit: int) -> list[Message]:
        form, digest = self.best_format(name), self.digest.read()
        return build_messages(
            history,
            task,
            form=form,
            limit=limit,
            digest=digest,
            ideas=self._ideas(),
            literature=self._literature.read(),
        )

    def _within_context(self, name: str, talk: _Talk) -> Proposal | None:
        """Ask this model for a proposal; shorten the prompt where the server finds it too long."""
        limit = self.models.context_tokens(name)
        # A server counts tokens otherwise than the estimate does. Half, then a quarter of the limit, is shorter by more
        # than any such error.
        for share in (1, 2):
            try:
                return self._from_model(name, talk, limit // share)
            except CallError as error:
                if error.kind != "context":
                    raise
                talk.bill(error.cost)
        return self._from_model(name, talk, limit // 4)

    def _from_model(self, name: str, talk: _Talk, limit: int) -> Proposal | None:
        """Ask this model for a proposal, and to mend it where needed; return None when that fails."""
        form = self.best_format(name)
        messages = self._messages(name, talk.history, talk.task, limit)
        if talk.several > 1:
            more = fill("several", count=talk.several)
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{more}"}
        for turn in range(MAX_REPAIRS + 2):
            reply = self.models.ask(name, messages)
            talk.costs.append(reply.cost)
            if talk.several > 1 and turn == 0:
                text, *talk.others = split_proposals(reply.text)
                reply = replace(reply, text=text)
            header = read_header(reply.text)
            if header.drop and talk.task.operator == "follow_up":
                with self._lock:
                    self._dropped.add(talk.task.base.experiment)
                talk.drop()
                if not holds_edit(reply.text):
                    messages = self._messages(name, talk.history, talk.task, limit)
                    continue
            try:
                edited = _apply(reply, talk)
                change = self._check(edited, header, talk)
            except EditError as error:
                if error.kind in _MALFORMED:
                    self.models.spending.judge_format(name, form, False)
                talk.problems.append(f"{error.kind}: {error}")
                # The last try asks for the whole file: it cannot fail to be found in the file.
                if turn == MAX_REPAIRS:
                    form = "whole"
                messages = _repair_messages(messages, reply.text, str(error), form, limit)
                continue
            self.models.spending.judge_format(name, edited.format, True)
            return _proposal(edited, change, header, talk, name, quoted(header.hypothesis, self._literature.read()))
        return None

    def best_format(self, model: str) -> Format:
        """Choose the format in which more of this model's replies could be applied."""

        def rate(form: Format) -> float:
            ok, count = self.models.spending.format_record(model, form)
            return (ok + _PRIOR[form][0]) / (count + _PRIOR[form][1])

        return "blocks" if rate("blocks") >= rate("whole") else "whole"

    def _check(self, edited: Edited, header: Header, talk: _Talk) -> Change:
        """Classify the edit. Raises `EditError` when it breaks a quota."""
        task = talk.task
        before = task.base.source if task.operator == "follow_up" else talk.history.incumbent.source
        change = classify(before, edited.source, header.category)
        breach = task.demand.breach(change)
        if breach is not None:
            raise EditError("quota", breach)
        return change

    def _without_model(self, talk: _Talk) -> Proposal:
        """Make a proposal without a model, whose replies could not be used."""
        why = talk.problems[-1].split("\n")[0] if talk.problems else "it gave nothing usable"
        found = stand_in(talk.history, next_demand(talk.history.attempts, talk.history.in_flight), talk.tried)
        if found is None:
            message = f"the model's replies could not be used: {why}"
            raise FailedProposalError(message.rstrip(".") + ".", cost=talk.cost, fix="try another --model")
        proposal, change = found.proposal, found.change
        return replace(
            proposal,
            category=change.category,
            researcher=Tuner.name,
            cost=talk.cost,
            parameters={
                **proposal.parameters,
                **({} if change.sure else {GUESSED: True}),
                **({} if talk.dropped is None else {DROPPED: talk.dropped}),
                "kind": change.kind,
                "operator": "stand_in",
                **_model_of(talk),
            },
        )

    def _renew_digest(self, talk: _Talk, names: Sequence[str]) -> None:
        """Have the digest written anew when it is due; the run goes on without one."""
        # One at a time: the others go on with the page as it is.
        if not self._digest_lock.acquire(blocking=False):
            return
        try:
            attempts = talk.history.attempts
            if self.digest.due(attempts, self._digest_failed):
                newest = max(one.experiment for one in attempts)
                self._digest_failed = 0 if self._write_digest(talk, names) else newest
        finally:
            self._digest_lock.release()

    def _write_digest(self, talk: _Talk, names: Sequence[str]) -> bool:
        """Have the digest written by the first model that answers; return whether one did."""
        attempts = talk.history.attempts
        cards, page = cards_of(attempts), self.digest.read()
        for name in names:
            limit, kept = self.models.context_tokens(name), len(cards)
            text = fill("digest", digest=page, cards=cards)
            # The latest half of the cards is kept: the page itself stands for the earlier ones.
            while tokens_in([{"content": text}]) > limit and kept > 1:
                kept //= 2
                text = fill("digest", digest=page, cards=cards[-kept:])
            try:
                reply = self.models.ask(name, [{"role": "user", "content": text}])
            except (CallError, OverBudgetError) as error:
                talk.bill(error.cost)
                continue
            talk.costs.append(reply.cost)
            self.digest.write(reply.text[:8000], attempts)
            return True
        return False


def _made(history: History) -> Mapping[tuple[Operator, int], int]:
    """Count the repairs and follow-ups of each experiment that the history holds."""
    proposed: list[Attempt | InFlight] = [*history.attempts, *history.in_flight]
    return Counter(
        (operator, int(one.parameters["base"]))
        for one in proposed
        for operator in _ONE_AT_A_TIME
        if one.parameters.get("operator") == operator and isinstance(one.parameters.get("base"), int)
    )


def _apply(reply: Reply, talk: _Talk) -> Edited:
    try:
        return apply_reply(reply.text, talk.task.base.source, tried=talk.tried)
    except EditError as error:
        if reply.cut:
            raise EditError(error.kind, f"Your reply was too long and was cut off. Answer shorter. {error}") from None
        raise


def _repair_messages(messages: Sequence[Message], reply: str, problem: str, form: Format, limit: int) -> list[Message]:
    """Return the conversation so far, the bad reply and its problem; drop the oldest turns where not all fit."""
    said = reply if len(reply) <= _QUOTED else reply[:_QUOTED] + "\n[cut]"
    wrong = {"role": "user", "content": fill("repair", problem=problem, format=fill(form))}
    first, turns = list(messages[:2]), [*messages[2:], {"role": "assistant", "content": said or "(nothing)"}, wrong]
    while len(turns) > 2 and tokens_in([*first, *turns]) > limit:
        turns = turns[2:]
    if tokens_in([*first, *turns]) > limit:
        turns = [{"role": "assistant", "content": said[:1000] or "(nothing)"}, wrong]
    return [*first, *turns]


def _proposal(
    edited: Edited, change: Change, header: Header, talk: _Talk, model: str, literature: str = ""
) -> Proposal:
    task = talk.task
    parameters: dict[str, float | int | str | bool] = {
        "model": model,
        "kind": change.kind,
        "operator": task.operator,
        "base": task.base.experiment,
        "format": edited.format,
        "rung": edited.rungs[-1],
        "repairs": len(talk.problems),
    }
    if task.operator == "debug":
        parameters["root"] = task.base.parameters.get("root", task.base.experiment)
    if talk.dropped is not None:
        parameters[DROPPED] = talk.dropped
    if not change.sure:
        parameters[GUESSED] = True
    if literature:
        parameters["literature"] = literature
    if header.risk:
        parameters["risk"] = header.risk[:200]
    # A repair or a follow-up of a finding is still about that finding.
    origin = named_finding(talk.history, header.finding)
    if origin is None and task.operator in ("debug", "follow_up"):
        origin = task.base.origin
    title = changed_constants(task.base.source, edited.source) or ", ".join(change.names[:3])
    if title:
        parameters[TITLE] = shortened(title, 60)
    names = ", ".join(change.names[:4])
    return Proposal(
        source=edited.source,
        hypothesis=header.hypothesis or f"{task.operator}: changes {names}",
        category=change.category,
        predicted_delta=header.predicted_delta,
        cost=talk.cost,
        researcher=LLM.name,
        parameters=parameters,
        origin=origin,
    )


def _model_of(talk: _Talk) -> Mapping[str, str]:
    model = talk.cost.model
    return {"model": model.split(", ")[-1]} if model else {}
