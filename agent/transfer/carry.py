"""A change that was kept on one device, as an edit of another device's train file.

Constants are carried by name, an edit of the menu by its name, other code where both files have the same functions.
What fits in none of these ways is left to a language model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from autoresearch.agent.syntax.constant_priors import fact_of
from autoresearch.agent.syntax.constants import Value, read_constants, write_constants
from autoresearch.agent.syntax.source_keys import tree_key
from autoresearch.agent.syntax.trees import parsed
from autoresearch.agent.transfer.functions import with_functions
from autoresearch.agent.tuner.observations import numbers
from autoresearch.agent.tuner.space import repair
from autoresearch.agent.tuner.structural import MENU, Edit
from autoresearch.core.proposal import Finding

_NEVER = frozenset({"PRESET"})
"""Constants that say something about a file rather than to its program."""
Moved = dict[str, tuple[Value, Value]]
"""Constant -> before, after."""
_Code = tuple[str, Edit | None, frozenset[str]]


@dataclass(frozen=True)
class Carried:
    """The counterpart of a finding."""

    source: str
    words: str
    """What it changes here."""
    left_out: tuple[str, ...]
    """Constants of the finding that have no counterpart here."""
    parameters: Mapping[str, float | int | str | bool]


def carry(finding: Finding, source: str, vocabularies: Sequence[int] = ()) -> Carried | None:
    """The finding's edit, made on `source`; None where nothing of it can be made, or all of it is there already.

    Code is carried whole or not at all. `vocabularies` are those prepared here, the values that VOCAB_SIZE may take.
    """
    moved = _moved(finding.before, finding.after)
    edited = _with_code(finding, moved, source)
    if edited is None:
        return None
    code, by_menu, by_code = edited
    here = {name: constant.value for name, constant in read_constants(code).items()}
    open_ones = {name: pair for name, pair in moved.items() if name not in by_code}
    wanted = {
        name: value
        for name, (was, became) in open_ones.items()
        if name in here and (value := counterpart(name, was, became, here[name], vocabularies)) is not None
    }
    values = _fitted(code, wanted)
    carried = write_constants(code, values)
    if parsed(carried) is None or tree_key(carried) == tree_key(source):
        return None
    words = [_in_words(name, here[name], value, moved.get(name)) for name, value in values.items()]
    if code != source:
        words.insert(0, by_menu.hypothesis.rstrip(".") if by_menu else f"the code of {finding.origin}")
    left_out = [name for name, (_, became) in open_ones.items() if name not in values and here.get(name) != became]
    return Carried(
        carried, ", ".join(words), tuple(left_out), {**values, **({"edit": by_menu.name} if by_menu else {})}
    )


def _in_words(name: str, now: Value, value: Value, there: tuple[Value, Value] | None) -> str:
    same = there is None or (_same(there[0], now) and _same(there[1], value))
    return f"{name} {now} -> {value}" + ("" if same or there is None else f" (there {there[0]} -> {there[1]})")


def _moved(before: str, after: str) -> Moved:
    """Constants of both files whose values differ."""
    old, new = read_constants(before), read_constants(after)
    return {
        name: (old[name].value, constant.value)
        for name, constant in new.items()
        if name in old and name not in _NEVER and not _same(old[name].value, constant.value)
    }


def _same(one: Value, other: Value) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _with_code(finding: Finding, moved: Moved, source: str) -> _Code | None:
    """The source with the finding's code, the menu's edit that it is, and the constants that come with it."""
    only_code = write_constants(finding.after, {name: was for name, (was, _) in moved.items()})
    changes_code = tree_key(only_code) != tree_key(finding.before)
    by_menu = _from_menu(finding, moved, source)
    if by_menu is not None or not changes_code:
        return by_menu or (source, None, frozenset())
    code = with_functions(finding.before, only_code, source)
    return None if code is None else (code, None, frozenset())


def _from_menu(finding: Finding, moved: Moved, source: str) -> _Code | None:
    """The menu's edit that it was made with, on `source`, if that is what the finding still is and if it fits there."""
    edit = next((edit for edit in MENU if edit.name == finding.parameters.get("edit")), None)
    again = edit.apply(finding.before) if edit is not None else None
    if edit is None or again is None:
        return None
    brings = _moved(finding.before, again)
    rest = {name: became for name, (_, became) in moved.items() if name in read_constants(again)}
    if tree_key(write_constants(again, rest)) != tree_key(finding.after):
        return None  # re-applied beside another change, it has become more than the edit
    edited = edit.apply(source)
    return None if edited is None else (edited, edit, frozenset(brings))


def counterpart(name: str, was: Value, became: Value, now: Value, vocabularies: Sequence[int] = ()) -> Value | None:
    """What `name`, `now` here, should become here when it went from `was` to `became` there; None: nothing follows.

    The same value where both began with the same. Else a number keeps its ratio, 1 - x for momenta and their like;
    whole numbers stay whole, powers of two powers of two. Where the ratio leads beyond what a constant may be, it is
    the same value again. Text and switches have no ratio, and nothing has none to zero.
    """
    fact = fact_of(name)
    if fact.scale == "choice":
        return became if became in vocabularies else None
    if _same(now, was) or _same(now, became):
        return became
    if not (_is_number(was) and _is_number(became) and _is_number(now)) or not was or not now or became / was < 0:
        return None
    if fact.scale == "complement" and max(was, became, now) < 1 and min(was, became, now) >= 0:
        return round(1 - float(f"{(1 - now) * (1 - became) / (1 - was):.2g}"), 6)
    value = now * became / was
    if not fact.low <= value <= fact.high:
        return became
    if not isinstance(now, int):
        return float(f"{value:.3g}")
    if all(_is_power_of_two(one) for one in (was, became, now)):
        return int(2 ** max(0, round(math.log2(value))))
    return round(value) if abs(value) >= 1 or not became else int(math.copysign(1, value))


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_power_of_two(value: Value) -> bool:
    return isinstance(value, int) and value >= 2 and not value & (value - 1)


def _fitted(source: str, wanted: Mapping[str, Value]) -> dict[str, Value]:
    """What of `wanted` is new, and what must move with it so that sizes fit together."""
    constants = read_constants(source)
    now = numbers(constants)
    fitted, settled = (
        repair({**now, **{name: value for name, value in wanted.items() if _is_number(value)}}),
        repair(now),
    )
    moved = {**wanted, **{name: fitted[name] for name in now if name in wanted or fitted[name] != settled[name]}}
    return {name: value for name, value in moved.items() if not _same(constants[name].value, value)}
