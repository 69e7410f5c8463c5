"""The terms on which an adopted script runs: inside a sandbox, with one vocabulary, and told no more than it needs."""

from __future__ import annotations

from typing import Any

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.tokenizer import Tokenizer
from autoresearch.core.errors import PrerequisiteError

NO_SANDBOX = "process"
"""Isolation level at which a child can read what its user can read."""


def require_sandbox(level: str) -> None:
    """Raise `PrerequisiteError` where the isolation level is no sandbox: no gate reads an adopted script first."""
    if level == NO_SANDBOX:
        raise PrerequisiteError(
            "a script from elsewhere runs in a sandbox only, and here there is none (isolation level 'process').",
            fix="install bubblewrap; `ar doctor` says what each level needs",
        )


def choose_vocabulary(prepared: Prepared, wanted: Any) -> int:
    """Return the vocabulary that a script is given: the preset's where it is prepared, else the largest one."""
    there = prepared.vocabularies
    return int(wanted) if wanted in there else max(there)


def told(prepared: Prepared, vocab: int, budget_seconds: float) -> dict[str, Any]:
    """Return what the workers of an adopted script are told: the tokens' bytes, the first token, and the budget."""
    tokenizer = Tokenizer.open(prepared.tokenizer_path(vocab))
    return {
        "token_bytes": tokenizer.token_bytes(),
        "bos_id": tokenizer.bos_id,
        "budget_seconds": budget_seconds,
    }
