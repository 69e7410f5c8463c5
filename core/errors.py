"""Every exception that a person may see, and the exit code of each.

Each message is one clear line: what happened, where, and how to fix it. The command line prints the line and exits with
the code; nothing else may end the process.

    ArError                 1   any foreseeable failure
    ├── UsageError          2   the command was called wrongly
    ├── PrerequisiteError   3   a backend, corpus, repository or isolation level is missing
    ├── LimitReachedError   4   a limit (hours, dollars, tries) ended the work before its goal
    ├── DataError           1   text, tokenizer, shards or manifest are missing, malformed or changed
    ├── LedgerError         1   the ledger cannot be opened, written or trusted
    │   └── LockedError     1   another process writes the ledger
    ├── IntegrityError      1   a file that decides scores or verdicts has changed since the run started
    ├── SourceError         1   git or the train file's source cannot be used
    ├── TrialError          1   a trial could not be started or observed
    └── ProposalError       1   a researcher could not make a proposal
        ├── BrokenResearcherError   its program does not work, and will not when it is asked again
        └── UnusableProposalError   it works, and what it proposed cannot be used

Other exit codes: 0 success, 129 a closed terminal, 130 Ctrl-C, 141 broken pipe, 143 SIGTERM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoresearch.core.proposal import Cost


class ArError(Exception):
    """A foreseeable failure. `str(error)` is one line for a person; `exit_code` is the code of the process."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message} Fix: {fix}")
        self.message = message
        self.fix = fix


class UsageError(ArError):
    """The command was called wrongly."""

    exit_code = 2


class PrerequisiteError(ArError):
    """A backend, a corpus, a repository or an isolation level is missing."""

    exit_code = 3


class LimitReachedError(ArError):
    """A limit (hours, dollars, tries) ended the work before its goal."""

    exit_code = 4


class DataError(ArError):
    """Text, tokenizer, shards or manifest are missing, malformed, or changed since they were prepared."""


class LedgerError(ArError):
    """The ledger cannot be opened, written or trusted."""


class LockedError(LedgerError):
    """Another process writes the ledger: a run has one writer at a time."""


class IntegrityError(ArError):
    """A file that decides scores or verdicts has changed since the run started."""


class SourceError(ArError):
    """Git or the train file's source cannot be used."""


class TrialError(ArError):
    """A trial could not be started or observed. A trial that ran and failed is a result, not an exception."""


class ProposalError(ArError):
    """A researcher could not make a proposal."""

    record = ""
    """Path of what the researcher's program has said, if it is one."""
    cost: Cost | None = None
    """Cost of what was asked of models all the same; None where nothing was."""


class BrokenResearcherError(ProposalError):
    """A researcher's program does not work, whatever it is asked: it cannot be started, fails or hangs."""


class UnusableProposalError(ProposalError):
    """A researcher works, and what it proposed cannot be used. Asked again it may propose something else."""


def system_words(error: Exception) -> str:
    """Return what the system says of an error, without its number and its file; of any other error its own words."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02X}"
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")  # the message around it ends the sentence
