"""Every exception that a person may see. One clear line each: what happened, where, and what to do.

The command line turns them into that line and an exit code; nothing else may exit the process.
"""

from __future__ import annotations


class ArError(Exception):
    """Something foreseeable went wrong. `str(error)` is one line for a person; `exit_code` is the process's."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message} Fix: {fix}")
        self.message = message
        self.fix = fix


class UsageError(ArError):
    """The command was called wrongly."""

    exit_code = 2


class PrerequisiteError(ArError):
    """Something that must be there is missing: a backend, a corpus, a repository, an isolation level."""

    exit_code = 3


class LimitReachedError(ArError):
    """A limit (hours, dollars, tries) ended the work before its goal."""

    exit_code = 4


class DataError(ArError):
    """Text, tokenizer, shards or manifest are missing, malformed or changed since they were prepared."""


class LedgerError(ArError):
    """The ledger cannot be opened, written or believed."""


class IntegrityError(ArError):
    """A file that decides scores or verdicts is not what it was when the run started."""


class SourceError(ArError):
    """Git or the train file's source cannot be used."""


class TrialError(ArError):
    """A trial could not be started or observed. (A trial that ran and failed is a result, not an exception.)"""


class ProposalError(ArError):
    """A researcher could not make a proposal."""
