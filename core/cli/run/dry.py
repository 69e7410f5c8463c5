"""`ar loop --dry-run`: show the next step and its cost. Runs no trial, asks no model, writes nothing."""

from __future__ import annotations

import difflib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.cli.run.resolve import Choice, absolute, check_overrides, pick_run
from autoresearch.core.errors import LedgerError, ProposalError

if TYPE_CHECKING:
    from autoresearch.core.cli.run.options import ResearcherOptions
    from autoresearch.core.findings.peers import PeerRuns
    from autoresearch.core.proposal import Attempt, Finding, History, Proposal, Researcher
    from autoresearch.core.run.loop import Limits
    from autoresearch.core.store.reader import LedgerReader

STYLES = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class Estimate:
    """Time and dollars for the rest of the run. None is not known."""

    experiments: int | None
    """Experiments still to come; None without --experiments."""
    trial_seconds: float
    measured: bool
    """True if `trial_seconds` is measured in this run; else it is the training time alone."""
    hours: float | None
    usd_per_proposal: float | None
    usd_at_most: float | None
    """Highest cost of one proposal that needs no repair."""
    max_usd: float | None


def dry_run(
    settings: Settings,
    tag: str | None,
    overrides: RunOverrides,
    researcher: str,
    options: Any,
    limits: Limits,
    allow_dirty: bool,
    peers: PeerRuns | None = None,
) -> None:
    """Show what the same command without --dry-run would do."""
    from autoresearch.core.cli.run.options import make_researcher
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.config import ANOTHER_RUN

    choice = pick_run(settings, tag)
    check_overrides(settings, overrides, choice.stored, otherwise=ANOTHER_RUN)
    if choice.stored is None:
        history, folder = first_history(choice, overrides, allow_dirty, peers), None
    else:
        with open_reader(settings, choice.tag) as reader:
            history, folder = stored_history(settings, reader, peers), reader.folder
    proposer = make_researcher(researcher, options, run_folder=folder, workspace=settings.workspace)
    record: dict[str, Any] = {
        "tag": choice.tag,
        "new": choice.stored is None,
        "backend": choice.backend.name,
        "preset": choice.preset.name,
        "device": choice.device.name,
        "corpus": overrides.corpus or (choice.stored.config["corpus"] if choice.stored else choice.preset.data.corpus),
        "train_seconds": history.budget_seconds,
        "experiments": len(history.attempts) - 1,
        **next_step(proposer, history, options),
    }
    record["estimate"] = asdict(estimate(history, limits, record, options.max_usd))
    if settings.json:
        click.echo(json.dumps(record))
    else:
        show(record)


def first_history(choice: Choice, overrides: RunOverrides, allow_dirty: bool, peers: PeerRuns | None = None) -> History:
    """Make the history of a new run after its baseline, whose score is not known yet."""
    from autoresearch.core.config import runs_dir
    from autoresearch.core.findings.offered import findings_for
    from autoresearch.core.run.run import read_program, starting_source
    from autoresearch.core.store.git import Repository

    workspace, preset = choice.settings.workspace, choice.preset
    source = starting_source(Repository.open(workspace), choice.backend.name, preset, allow_dirty=allow_dirty)
    config = {
        "backend": choice.backend.name,
        "device": choice.device.name,
        "preset": preset.name,
        "train_seconds": overrides.budget or preset.train_seconds,
        "seed": overrides.seed or 0,
        "vocabularies": overrides.vocab or preset.data.vocabularies,
    }
    own = (choice.tag, choice.backend.name, choice.device.name)
    findings = findings_for(peers, runs_dir(workspace) / choice.tag, own, [])
    return unmeasured_history(config, read_program(workspace), source, findings)


def unmeasured_history(
    config: Mapping[str, Any], program: str, source: str, findings: Sequence[Finding] = ()
) -> History:
    """Make a history of nothing but a baseline, `source`, as if it had been kept without a score."""
    from autoresearch.core.proposal import Attempt
    from autoresearch.core.run.history import history_of

    facts: dict[str, Any] = {"reason": "not measured yet", "hypothesis": "baseline", "category": "baseline"}
    facts |= {"predicted_delta": None, "val_bpb": None, "estimate": None, "delta": None, "researcher": ""}
    baseline = Attempt(experiment=0, source=source, status="keep", parent=0, **facts)
    return history_of(config, program, [baseline], baseline, findings)


def stored_history(settings: Settings, reader: LedgerReader, peers: PeerRuns | None = None) -> History:
    """Make the history of a run as its ledger holds it now, with what is under way."""
    from autoresearch.core.findings.offered import findings_for
    from autoresearch.core.run.history import attempt_of, history_of, in_flight_of, with_notes, withdrawn_of
    from autoresearch.core.run.measurements import Measurements
    from autoresearch.core.run.run import read_program
    from autoresearch.core.store.remarks import marks_of

    def attempt(number: int) -> Attempt:
        row = reader.experiment(number)
        return attempt_of(row, reader.text(row.source_sha256))

    attempts = [attempt(number) for number in reader.decisions()] or [replace(attempt(0), status="keep")]
    best = reader.run().incumbent or 0
    incumbent = next((one for one in reversed(attempts) if one.experiment == best), None)
    if incumbent is None:
        raise LedgerError(
            f"{reader.path} calls experiment {best} the best one, which was never decided.",
            fix="`ar status --verify` says what is not as it was written",
        )
    config = reader.run().config
    own = (reader.run().tag, config["backend"], config["device"])
    findings = findings_for(peers, reader.folder, own, attempts)
    return history_of(
        config,
        read_program(settings.workspace),
        attempts,
        with_notes(incumbent, reader, attempts),
        findings,
        tuple(in_flight_of(row, reader.text(row.source_sha256)) for row in reader.undecided() if row.number),
        measured=Measurements(reader, config.get("machine", "")),
        marks=marks_of(reader),
        withdrawn=withdrawn_of(reader.events("withdrawn"), len(attempts)),
    )


def next_step(proposer: Researcher, history: History, options: ResearcherOptions) -> dict[str, Any]:
    """Describe the next edit, or the request that would be sent to get it."""
    proposer = proposer.next(history)
    found: dict[str, Any] = {"researcher": proposer.name, "diff": None, "hypothesis": None, "messages": None}
    call = proposer.preview(history)
    if call is not None:
        costs = {"usd_at_most": call.most_usd, "usd_per_proposal": call.usual_usd}
        return {**found, "model": call.model, "tokens": call.tokens, "messages": call.messages, **costs}
    if proposer.name == "command":
        return {**found, "command": options.agent_command, "usd_at_most": None, "usd_per_proposal": None}
    free = {"usd_at_most": 0.0, "usd_per_proposal": 0.0}
    try:
        proposal = proposer.propose(history)
    except ProposalError as error:
        return {**found, "hypothesis": f"nothing: {error.message}", **free}
    return {**found, "hypothesis": proposal.hypothesis, "diff": diff_of(proposal, history), **free}


def diff_of(proposal: Proposal, history: History) -> str:
    """Return the proposal's diff against the best file."""
    before, after = (text.splitlines(keepends=True) for text in (history.incumbent.source, proposal.source))
    return "".join(difflib.unified_diff(before, after, "train.py (best so far)", "train.py (proposed)"))


def estimate(history: History, limits: Limits, record: dict[str, Any], max_usd: float | None) -> Estimate:
    """Estimate time and dollars, from this run's own trials and calls where it has some."""
    walls = [float(wall) for one in history.attempts if (wall := one.metrics.get("wall_seconds")) is not None]
    to_come = None if limits.experiments is None else max(limits.experiments - (len(history.attempts) - 1), 0)
    return Estimate(
        experiments=to_come,
        trial_seconds=statistics.median(walls) if walls else history.budget_seconds,
        measured=bool(walls),
        hours=limits.hours,
        usd_per_proposal=record.pop("usd_per_proposal"),
        usd_at_most=record.pop("usd_at_most"),
        max_usd=max_usd,
    )


def show(record: dict[str, Any]) -> None:
    """Print the run, its next step and the cost for a person."""
    from autoresearch.core.report.wording import one_line, visible

    state = "a new run" if record["new"] else f"a run of {record['experiments']} experiments, to be continued"
    click.echo(f"{record['tag']}: {state}; {record['backend']}/{record['preset']} on {record['device']}")
    click.echo(f"text {absolute(record['corpus'])}; {record['train_seconds']:g} s of training per trial")
    if record["messages"] is not None:
        click.echo(f"\nnext: {record['model']} would be sent {record['tokens']:,} tokens:")
        for message in record["messages"]:
            click.echo(click.style(f"\n[{message['role']}]", bold=True))
            click.echo(visible(message["content"]))
    elif record.get("command"):
        click.echo(f"\nnext: an agent is started in a folder of its own: {record['command']}")
    else:
        click.echo(f"\nnext, by {record['researcher']}: {one_line(record['hypothesis'])}")
        for line in (record["diff"] or "").splitlines():
            click.echo(click.style(visible(line), fg=STYLES.get(line[:1])))
    click.echo(f"\n{estimate_line(record['estimate'])}\nnothing was run, sent or written")


def estimate_line(facts: dict[str, Any]) -> str:
    """Write the estimate in one line."""
    from autoresearch.core.report.wording import dollars, duration

    trial = duration(facts["trial_seconds"])
    parts = [f"about {trial} a trial" if facts["measured"] else f"{trial} a trial plus start-up, scoring and audit"]
    if facts["experiments"] is not None:
        whole = duration(facts["trial_seconds"] * facts["experiments"])
        parts.append(f"{facts['experiments']} experiments: {whole} or more (promising ones are trained again)")
    if facts["hours"] is not None:
        parts.append(f"at most {facts['hours']:g} h")
    usual, most = facts["usd_per_proposal"], facts["usd_at_most"]
    if most == 0:
        parts.append("$0: no model is asked")
    elif most is None and usual is None:
        parts.append("cost unknown")
    else:
        parts.append(
            f"a proposal: {dollars(usual)} so far" if usual is not None else f"a proposal: at most {dollars(most)}"
        )
        if facts["experiments"] is not None:
            parts.append(f"{dollars((usual if usual is not None else most) * facts['experiments'])} for all")
    if facts["max_usd"] is not None:
        parts.append(f"never more than {dollars(facts['max_usd'])}")
    return "; ".join(parts)
