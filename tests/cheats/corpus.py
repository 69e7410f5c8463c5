"""All cheats by group, and one or two of each kind for those who have less time."""

# ruff: noqa: E501

from __future__ import annotations

import bending_time
import breaking_out
import frameworks
import looking_ahead
from cheating import Cheat

GROUPS = {"breaking out": breaking_out, "bending time": bending_time, "looking ahead": looking_ahead}
CHEATS = [cheat for module in GROUPS.values() for cheat in module.CHEATS]
SAMPLE = {
    "validation rows by their path", "the root of process 1", "write to the ledger", "a second model in the compile cache",
    "a server of this machine", "the environments of other processes", "a daemon", "a full disk", "memory as files",
    "bits in the session's keyring", "System V shared memory", "the mode of a file", "pages in the cache, by mincore",
    "names that do not exist, looked up by a daemon",
    "the scored tokens over UDP to a helper", "the kernel's settings", "a starved guard and a daemon",
    "the user's files for everyone",
    "a clock that runs slow", "hoarded batches, trained on after the deadline", "a forged score event", "forged weights",
    "a pipe for weights", "the next token, a little", "a norm over the sequence", "the row below",
    "a table of what was scored, in memory", "learns while it is scored", "only when a whole row looks natural",
    "only in the process that is called score", "a thousandth of a nat less", "infinite logits",
    "the validation text as a literal",
}  # fmt: skip


def cheats(backend: str) -> list[Cheat]:
    """Every cheat on a backend."""
    return [*CHEATS, *frameworks.cheats(backend)]


def sample() -> list[Cheat]:
    """One or two of each kind."""
    return [cheat for cheat in CHEATS if cheat.name in SAMPLE]
