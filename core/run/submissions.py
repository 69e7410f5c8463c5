"""Train files from outside: taken from the inbox into the ledger, and judged there as any proposal is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoresearch.core.errors import ProposalError
from autoresearch.core.events import ProposalRefused
from autoresearch.core.proposal import Cost, History, Proposal, Researcher
from autoresearch.core.run.run import Run
from autoresearch.core.store.inbox import SUBMISSION, Inbox, MalformedSubmissionError, Submission
from autoresearch.core.store.liveness import is_alive
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trainfile.fingerprint import fingerprint

SUBMIT = "submit"
"""Researcher of every submitted experiment, in the ledger and in messages."""
SESSION = "session"
"""Kind of the ledger's event that begins an invocation of the loop."""


class Outside(Researcher):
    """Proposes nothing: a loop with it runs what is submitted, and waits for more."""

    name = SUBMIT
    proposes = False
    thinks_ahead = True

    def propose(self, history: History) -> Proposal:
        """Raise `ProposalError`: the loop does not ask."""
        raise ProposalError("experiments are submitted from outside, with `ar submit`.")


class Submissions:
    """Takes the submissions of one run, each exactly once."""

    def __init__(self, run: Run) -> None:
        """Delete the files that a crash has left of submissions which the ledger holds."""
        self._run, self._inbox = run, Inbox(run.folder)
        for identity in self._inbox.waiting():
            if run.ledger.submission(identity) is not None:
                self._inbox.drop(identity)

    def take(self) -> Iterator[ProposalRefused]:
        """Make an experiment of every waiting submission, the earliest first; yield the refusal of each other one."""
        for identity in self._inbox.waiting():
            if self._run.ledger.submission(identity) is None:
                try:
                    refused = self._record(self._inbox.read(identity))
                except MalformedSubmissionError as error:
                    refused = self._refuse(identity, "failed", str(error))
                except OSError:
                    continue  # its author has taken it back
                if refused is not None:
                    yield refused
            # Only now: a crash before this line finds it in the ledger, and repeats nothing but the deletion.
            self._inbox.drop(identity)

    def _record(self, submission: Submission) -> ProposalRefused | None:
        run = self._run
        before = run.ledger.tried_as(fingerprint(submission.source))
        if before is not None:
            reason = f"experiment {before} tried this source already"
            return self._refuse(submission.identity, "repeated", reason, before)
        proposal = Proposal(
            source=submission.source,
            hypothesis=submission.hypothesis,
            category=submission.category,
            predicted_delta=submission.predicted_delta,
            cost=Cost(usd=None, model=SUBMIT),
            researcher=SUBMIT,
            parameters={SUBMISSION: submission.identity},
        )
        run.propose(proposal, run.program(), self._parent(submission.parent))
        return None

    def _parent(self, named: int) -> int:
        """Return the experiment that was the best when the file was submitted, where this run has kept it."""
        ledger = self._run.ledger
        kept = ledger.has_experiment(named) and ledger.experiment(named).status == "keep"
        return named if kept else self._run.incumbent_number()

    def _refuse(self, identity: str, kind: str, reason: str, experiment: int | None = None) -> ProposalRefused:
        self._run.ledger.refuse(
            kind,
            reason,
            researcher=SUBMIT,
            cost=Cost(),
            program=self._run.program(),
            submission=identity,
            experiment=experiment,
        )
        return ProposalRefused(kind, reason)


def running_session(reader: LedgerReader) -> dict[str, Any] | None:
    """Return the session event of the loop that runs now: "pid", "researcher", "submission"; None where none does.

    A process that has opened the run and does not loop yet gives None: its state is still that of the last one.
    """
    run = reader.run()
    if run.state != "running" or not is_alive(run):
        return None
    sessions = reader.events(SESSION)
    last = sessions[-1] if sessions else {}
    return last if last.get("pid") == run.pid else None
