"""Batch sizes, sequence lengths and the order of the data."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, number
from autoresearch.agent.syntax.transforms import with_constants, with_function_body, with_loop_over
from autoresearch.core.trainfile.constants import ConstantValue


def _ramp(source: str) -> str | None:
    batch, rows, seq_len = (number(source, name) for name in ("BATCH_TOKENS", "DEVICE_BATCH_ROWS", "SEQ_LEN"))
    if batch is None or rows is None or seq_len is None:
        return None
    body = '"""Tokens per optimizer step: half at first, while many small steps learn most."""\n'
    body += "return BATCH_TOKENS // 2 if progress < 0.4 else BATCH_TOKENS"
    edited = with_function_body(source, "batch_tokens_at", ("progress",), body)
    if edited is None or batch // 2 >= rows * seq_len:
        return edited
    # Half a batch must hold whole forward passes.
    return None if rows % 2 else with_constants(edited, {"DEVICE_BATCH_ROWS": int(rows // 2)})


def _no_ramp(source: str) -> str | None:
    return with_function_body(
        source, "batch_tokens_at", ("progress",), '"""Tokens per optimizer step."""\nreturn BATCH_TOKENS'
    )


def _sequences(source: str, halve: bool) -> str | None:
    """Set rows of half or twice the length, with as many tokens per step and per pass as before."""
    seq_len, rows = number(source, "SEQ_LEN"), number(source, "DEVICE_BATCH_ROWS")
    if seq_len is None or rows is None or (seq_len < 64 if halve else rows % 2):
        return None
    values: dict[str, ConstantValue] = {
        "SEQ_LEN": int(seq_len // 2 if halve else 2 * seq_len),
        "DEVICE_BATCH_ROWS": int(2 * rows if halve else rows // 2),
    }
    short = number(source, "SHORT_WINDOW")
    if halve and short is not None and short > seq_len // 2:
        values["SHORT_WINDOW"] = int(seq_len // 2)
    return with_constants(source, values)


_BATCHES = "data.batches({rows}, SEQ_LEN)"
_STREAM = 'data.batches({rows}, SEQ_LEN, packing="stream")'


def _order(source: str, before: str, after: str) -> str | None:
    """Ask for batches in another order, where they are asked for by the constant or by what memory left of it."""
    for rows in ("DEVICE_BATCH_ROWS", "rows"):
        edited = with_loop_over(source, before.format(rows=rows), after.format(rows=rows))
        if edited is not None:
            return edited
    return None


EDITS = (
    Edit(
        "batch ramp",
        "batch_sequence",
        "Half the batch for the first 40 % of the budget: early steps learn most from being many.",
        _ramp,
        1.5,
    ),
    Edit(
        "batch ramp off",
        "simplification",
        "One batch size throughout.",
        _no_ramp,
        0.4,
    ),
    Edit(
        "sequences halved",
        "batch_sequence",
        "Rows of half the length, twice as many: cheaper attention, and more documents in every step.",
        partial(_sequences, halve=True),
    ),
    Edit(
        "sequences doubled",
        "batch_sequence",
        "Rows of twice the length, half as many: more context to learn from.",
        partial(_sequences, halve=False),
        0.5,
    ),
    Edit(
        "data in order",
        "data_order",
        "Documents one after the other instead of packed to fit: no document is held back for its length.",
        partial(_order, before=_BATCHES, after=_STREAM),
        0.5,
    ),
    Edit(
        "data packed",
        "data_order",
        "Documents packed to fit their rows: fewer of them are cut.",
        partial(_order, before=_STREAM, after=_BATCHES),
        0.5,
    ),
)
