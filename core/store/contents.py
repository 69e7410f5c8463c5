"""Kinds of the values in the JSON of a ledger's rows: sqlite knows it as text, and everybody reads numbers out of it.

Keys that are not named here may hold anything, because nothing is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 1e60
"""Largest size of a number. A file may answer with any loss that float32 holds (1e38), and the fourth power of a larger
one than this is infinite."""
Check = Callable[[Any], bool]
"""Tells whether a value is of a kind."""


def real(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return type(value) in (float, int) and -LARGEST <= value <= LARGEST


def amount(value: Any) -> bool:
    """Tell whether a value is a finite number that is not negative."""
    return real(value) and value >= 0


def positive(value: Any) -> bool:
    """Tell whether a value is a finite number above zero."""
    return real(value) and value > 0


def whole(value: Any) -> bool:
    """Tell whether a value is a whole number that sqlite can hold."""
    return type(value) is int and -(2**63) <= value < 2**63


def text(value: Any) -> bool:
    """Tell whether a value is text."""
    return isinstance(value, str)


def flag(value: Any) -> bool:
    """Tell whether a value is true or false."""
    return isinstance(value, bool)


def maybe(check: Check) -> Check:
    """Let a value also be None."""
    return lambda value: value is None or check(value)


def many(check: Check) -> Check:
    """Let a value be a list of values of a kind."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def table(kinds: Mapping[str, Check], *needed: str) -> Check:
    """Let a value be an object with values of these kinds, where it has them; those in `needed` are there."""
    return lambda value: isinstance(value, dict) and first_fault("", value, kinds, needed) is None


_FIGURES: dict[str, Check] = {
    **dict.fromkeys(("val_bpb", "predicted_bpb", "predicted_low", "predicted_high"), maybe(real)),
    **dict.fromkeys(("tokens", "batches", "steps", "params"), maybe(amount)),
    **dict.fromkeys(("peak_memory_mb", "tokens_per_second", "mfu"), maybe(amount)),
    **dict.fromkeys(("startup_seconds", "train_seconds", "eval_seconds", "wall_seconds", "cpu_seconds"), maybe(amount)),
    "startup_cpu_seconds": maybe(amount),
    **dict.fromkeys(("reason", "machine", "place"), maybe(text)),
}
METRICS = _FIGURES
"""The figures of an experiment's first trial."""
RESULT: dict[str, Check] = {
    **_FIGURES,
    **dict.fromkeys(("peak_host_memory_mb", "flops_per_token", "claimed_flops_per_token"), maybe(amount)),
    "claimed_bpb": maybe(real),
    **dict.fromkeys(("device", "device_kind", "isolation", "weights_sha256", "log"), maybe(text)),
    "curve": maybe(many(maybe(real))),
    "audit": maybe(
        table({"positions": whole, "max_abs": real, "mean_diff": real, "spread": real, "ok": flag}, "positions", "ok")
    ),
}
"""A trial's result (see `core.trial.request.TrialResult`)."""
_SHARE_FIGURES: dict[str, Check] = {"experiment": whole, "share": real, "error": real, "better": real}
_SHARE = table(_SHARE_FIGURES, *_SHARE_FIGURES)
JUDGED: dict[str, Check] = {
    **dict.fromkeys(("measured", "error", "incumbent", "better", "bar", "cut", "training", "throughput"), maybe(real)),
    **dict.fromkeys(("sigma", "paired", "wealth", "paid"), maybe(amount)),
    **dict.fromkeys(("dof", "paired_dof"), maybe(positive)),
    "against": maybe(whole),
    "stack": maybe(whole),
    "differences": maybe(many(real)),
    "parts": maybe(many(_SHARE)),
}
"""The facts of a judge's decision."""
ORIGIN: dict[str, Check] = {
    **dict.fromkeys(("run", "backend", "device"), text),
    "experiment": whole,
    "delta": maybe(real),
}
"""The source of a transfer (see `core.proposal.Origin`)."""
_SHORT: dict[str, Check] = {"experiment": whole, "seed": whole, "seconds": amount}
_INTERVAL: dict[str, Check] = dict.fromkeys(("delta", "low", "high"), maybe(real))
_CHANGE = table({**_INTERVAL, "experiment": whole, "description": text, "verdict": text, "probability": maybe(real)})
_CONDITION = table(
    {
        **_INTERVAL,
        **dict.fromkeys(("axis",), text),
        **dict.fromkeys(("verdict", "trend", "failed", "constant"), maybe(text)),
        **dict.fromkeys(("factor", "train_seconds"), amount),
        **dict.fromkeys(("baseline_val_bpb", "final_val_bpb"), many(real)),
        "peak_memory_mb": many(maybe(amount)),
        "values": maybe(many(real)),
    },
    "axis",
    "delta",
)
EVENTS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "followup trial": (
        {
            **dict.fromkeys(("command", "name", "split", "source"), text),
            **dict.fromkeys(("call", "seed"), whole),
            **dict.fromkeys(("wall_seconds", "peak_memory_mb", "train_seconds"), maybe(amount)),
            "machine": maybe(text),
            "val_bpb": real,
        },
        ("command", "call", "name", "val_bpb"),
    ),
    "followup excuse": ({**dict.fromkeys(("command", "source"), text), "call": whole}, ("command", "call", "source")),
    "short trial": ({**_FIGURES, **_SHORT, "subject": whole, "against": whole}, (*_SHORT, "subject", "val_bpb")),
    "screened": (
        {**_SHORT, "against": whole, "short": maybe(real), "cut": real, "anyway": maybe(amount), "passed": flag},
        (*_SHORT, "against", "short", "passed"),
    ),
    "verified": (
        {
            **dict.fromkeys(("delta", "low", "high", "claimed", "paired_noise"), maybe(real)),
            **dict.fromkeys(("experiment", "seeds", "look"), whole),
            **dict.fromkeys(("baseline_test_bpb", "final_test_bpb"), many(real)),
            "verdict": text,
        },
        ("experiment", "seeds", "delta", "low", "high", "verdict"),
    ),
    "verify started": (dict.fromkeys(("look", "seeds", "experiment"), maybe(whole)), ()),
    "ablated": (
        {"changes": many(_CHANGE), "final_val_bpb": many(real), "removed": many(whole), "source": maybe(text)},
        ("changes", "final_val_bpb", "removed"),
    ),
    "scaled": (
        {"conditions": many(_CONDITION), "experiment": whole, "seeds": whole, "verdict": text},
        ("conditions", "experiment", "verdict"),
    ),
    "stack taken apart": ({"groups": many(many(whole)), "dropped": many(whole)}, ("groups", "dropped")),
    "session": ({"pid": maybe(whole), "researcher": maybe(text), "submission": maybe(text)}, ()),
    "trial repeated": (
        {**dict.fromkeys(("k", "subject", "seed"), whole), "reason": text, "idle": flag, "slept": flag},
        ("k",),
    ),
    "trial lost": (
        {**dict.fromkeys(("k", "subject", "seed"), whole), "reason": text, "at": amount},
        ("k",),
    ),
    "withdrawn": (
        {**dict.fromkeys(("hypothesis", "category", "reason"), maybe(text)), "decided": maybe(whole)},
        (),
    ),
}
"""Kinds of the values in events, by the kind of event, and the keys that they need.

Other kinds of event are checked where they are read.
"""


def check(name: str, values: Mapping[str, Any], kinds: Mapping[str, Check], needed: tuple[str, ...] = ()) -> None:
    """Check the values of a JSON object whose column is called `name`. Raises `ValueError` with the first fault."""
    fault = first_fault(name, values, kinds, needed)
    if fault is not None:
        raise ValueError(fault)


def first_fault(
    name: str, values: Mapping[str, Any], kinds: Mapping[str, Check], needed: tuple[str, ...] = ()
) -> str | None:
    """Say in words which value is of another kind than its key's; None where all fit."""
    for key, value in values.items():
        kind = kinds.get(key)
        if kind is not None and not kind(value):
            return f"{name}.{key} is {shown(value)}"
    lacking = next((key for key in needed if key not in values), None)
    return None if lacking is None else f"{name} lacks {lacking}"


def shown(value: Any) -> str:
    """Name a value that does not fit, in a few words."""
    if isinstance(value, list | dict):
        return "a list that does not fit" if isinstance(value, list) else "an object that does not fit"
    if isinstance(value, str | bytes):
        return "text" if isinstance(value, str) else "bytes"
    if isinstance(value, int) and not isinstance(value, bool) and not real(value):
        return "a number that is too large"
    return "nothing" if value is None else str(value)
