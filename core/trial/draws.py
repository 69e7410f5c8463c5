"""An audit's draw of positions: its record, and whether it follows from its random bytes.

The uniform half of a draw rests on the random bytes and on which tokens are scored, so a person with the same text can
repeat it. The other half rests on the committed likelihoods, which no record holds.
"""

from __future__ import annotations

import base64
import binascii
import re

import numpy as np

from autoresearch.core.trial.audit import Probes, generator, uniform_count
from autoresearch.core.trial.request import AuditDraw, AuditResult

_ENTROPY = re.compile(r"[0-9a-f]{32}")


class DrawFault(ValueError):  # noqa: N818
    """A recorded draw that cannot be one. `str(error)` says why."""


def record(entropy: bytes, probes: Probes, tokens: int) -> AuditDraw:
    """Return the record of a draw; `tokens` is T, the tokens of a scored row."""
    flat = np.sort(probes.rows * tokens + probes.positions).astype("<u4")
    return AuditDraw(entropy=entropy.hex(), positions=base64.b64encode(flat.tobytes()).decode("ascii"))


def drawn_positions(audit: AuditResult) -> np.ndarray:
    """Return the drawn indices n * T + t, ascending, int64 (K,). Raises `DrawFault` where they can be no draw."""
    if audit.draw is None:
        raise DrawFault("it is not recorded")
    try:
        flat = np.frombuffer(base64.b64decode(audit.draw.positions, validate=True), "<u4").astype(np.int64)
    except (binascii.Error, ValueError) as error:
        raise DrawFault("its positions cannot be read") from error
    if len(flat) != audit.positions:
        raise DrawFault(f"it has {len(flat)} positions, and {audit.positions} were audited")
    if len(flat) > 1 and int(np.diff(flat).min()) <= 0:
        raise DrawFault("it has a position twice")
    if _ENTROPY.fullmatch(audit.draw.entropy) is None:
        raise DrawFault("its random bytes are not 16 bytes")
    return flat


def check_draw(audit: AuditResult, mask: np.ndarray) -> None:
    """Check a draw against the scored rows. Raises `DrawFault` where it was not drawn from them by its random bytes.

    mask bool (N, T), true where a token is scored. numpy may draw otherwise in another version: compare only where it
    is the same.
    """
    flat = drawn_positions(audit)
    scored = np.flatnonzero(mask)
    if len(flat) > len(scored) or not np.isin(flat, scored).all():
        raise DrawFault("it has a position that is not scored")
    assert audit.draw is not None
    entropy = bytes.fromhex(audit.draw.entropy)
    # A draw of every scored token has no second half.
    count = len(flat) if len(flat) == len(scored) else uniform_count(len(flat))
    if not np.isin(generator(entropy).choice(scored, size=count, replace=False), flat).all():
        raise DrawFault("its random bytes give other positions")
