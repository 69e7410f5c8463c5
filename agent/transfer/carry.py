"""A change that was kept on one device, as an edit of another device's train file.

Constants are carried by name, an edit of the menu by its name, other code where both files have the same functions. A
change that fits none of these ways is left to a language model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.agent.structural import MENU, Edit
from autoresearch.agent.syntax.constant_priors import idle_constants, prior_of, repair
from autoresearch.agent.syntax.constants import constants_of, numbers_of, unread_constants
from autoresearch.agent.transfer.functions import with_functions
from autoresearch.core.proposal import Finding
from autoresearch.core.trainfile.constants import ConstantValue, is_number, write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.trees import parsed

_NEVER = frozenset({"PRESET"})
"""Constants that describe a file and do not change its program."""
_Moves = dict[str, tuple[ConstantValue, ConstantValue]]
"""Values before and after, by constant."""


@dataclass(frozen=True)
class CarriedFinding:
    """A finding's change, made on this device's train file."""

    source: str
    summary: str
    """The change as it is here, such as `MUON_LR 0.02 -> 0.03`."""
    left_out: tuple[str, ...]
    """Constants of the finding that have no counterpart here."""
    parameters: Mapping[str, float | int | str | bool]


@dataclass(frozen=True)
class _Code:
    """This device's source with the finding's code."""

    source: str
    edit: Edit | None = None
    """The menu's edit that the finding is."""
    brings: frozenset[str] = frozenset()
    """Constants that this edit sets by itself."""


def carry(finding: Finding, source: str, vocabularies: Sequence[int] = ()) -> CarriedFinding | None:
    """Make the finding's change on `source`; None where nothing of it can be made, or all of it is there already.

    Code is carried whole or not at all. `vocabularies` are those prepared here, the values that VOCAB_SIZE may take.
    """
    moves = _moves(finding.before, finding.after)
    code = _with_code(finding, moves, source)
    if code is None:
        return None
    here = constants_of(code.source)
    open_moves = {name: pair for name, pair in moves.items() if name not in code.brings}
    wanted = {
        name: value
        for name, (was, became) in open_moves.items()
        if name in here and (value := counterpart(name, was, became, here[name], vocabularies)) is not None
    }
    # What nothing would read here is no change: a trial of it would measure the noise.
    idle = idle_constants({**here, **wanted}) | unread_constants(code.source)
    values = _fitted(code.source, {name: value for name, value in wanted.items() if name not in idle})
    carried = write_constants(code.source, values)
    if parsed(carried) is None or fingerprint(carried) == fingerprint(source):
        return None
    changes = [_described(name, here[name], value, moves.get(name)) for name, value in values.items()]
    if code.source != source:
        changes.insert(0, code.edit.hypothesis.rstrip(".") if code.edit else f"the code of {finding.origin}")
    left_out = [name for name, (_, became) in open_moves.items() if name not in values and here.get(name) != became]
    parameters = {**values, **({"edit": code.edit.name} if code.edit else {})}
    return CarriedFinding(carried, ", ".join(changes), tuple(left_out), parameters)


def _described(
    name: str, now: ConstantValue, value: ConstantValue, there: tuple[ConstantValue, ConstantValue] | None
) -> str:
    same = there is None or (_same(there[0], now) and _same(there[1], value))
    return f"{name} {now} -> {value}" + ("" if same or there is None else f" (there {there[0]} -> {there[1]})")


def _moves(before: str, after: str) -> _Moves:
    """Return the constants that both files have with different values."""
    old, new = constants_of(before), constants_of(after)
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name in old and name not in _NEVER and not _same(old[name], value)
    }


def _same(one: ConstantValue, other: ConstantValue) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _with_code(finding: Finding, moves: _Moves, source: str) -> _Code | None:
    """Return the source with the finding's code; None where it does not fit."""
    by_menu = _from_menu(finding, moves, source)
    if by_menu is not None:
        return by_menu
    only_code = write_constants(finding.after, {name: was for name, (was, _) in moves.items()})
    if fingerprint(only_code) == fingerprint(finding.before):
        return _Code(source)  # the finding changes constants alone
    code = with_functions(finding.before, only_code, source)
    return None if code is None else _Code(code)


def _from_menu(finding: Finding, moves: _Moves, source: str) -> _Code | None:
    """Apply the menu's edit that made the finding, if the finding is still that edit and it fits here."""
    edit = next((edit for edit in MENU if edit.name == finding.parameters.get("edit")), None)
    again = edit.apply(finding.before) if edit is not None else None
    if edit is None or again is None:
        return None
    rest = {name: became for name, (_, became) in moves.items() if name in constants_of(again)}
    if fingerprint(write_constants(again, rest)) != fingerprint(finding.after):
        return None  # re-applied beside another change, it has become more than the edit
    edited = edit.apply(source)
    return None if edited is None else _Code(edited, edit, frozenset(_moves(finding.before, again)))


def counterpart(
    name: str, was: ConstantValue, became: ConstantValue, now: ConstantValue, vocabularies: Sequence[int] = ()
) -> ConstantValue | None:
    """Choose the value for `name`, which is `now` here, when it went from `was` to `became` there; None: no value.

    The same value where both began with the same. Else a number keeps its ratio, 1 - x for momenta and their like;
    whole numbers stay whole, powers of two powers of two. Where the ratio leads beyond what a constant may be, it is
    the same value again. Text and switches have no ratio, and nothing has one to zero.
    """
    prior = prior_of(name)
    if prior.scale == "choice":
        return became if became in vocabularies else None
    if _same(now, was) or _same(now, became):
        return became
    if not (is_number(was) and is_number(became) and is_number(now)) or not was or not now or became / was < 0:
        return None
    # A momentum of 0.9 that went to 0.95 has halved its distance to 1: that ratio is what carries over, not 0.95 / 0.9.
    if prior.scale == "complement" and max(was, became, now) < 1 and min(was, became, now) >= 0:
        return round(1 - float(f"{(1 - now) * (1 - became) / (1 - was):.2g}"), 6)
    value = now * became / was
    if not prior.low <= value <= prior.high:
        return became
    if not isinstance(now, int):
        return float(f"{value:.3g}")
    if all(_is_power_of_two(one) for one in (was, became, now)):
        return int(2 ** max(0, round(math.log2(value))))
    return round(value) if abs(value) >= 1 or not became else int(math.copysign(1, value))


def _is_power_of_two(value: ConstantValue) -> bool:
    return isinstance(value, int) and value >= 2 and not value & (value - 1)


def _fitted(source: str, wanted: Mapping[str, ConstantValue]) -> dict[str, ConstantValue]:
    """Return the values of `wanted` that are new, and those that must move with them so that sizes fit together."""
    constants, now = constants_of(source), numbers_of(source)
    fitted = repair({**now, **{name: value for name, value in wanted.items() if is_number(value)}})
    # A number that repair would change in the file as it stands is left alone: it has nothing to do with the finding.
    settled = repair(now)
    moved = {**wanted, **{name: fitted[name] for name in now if name in wanted or fitted[name] != settled[name]}}
    return {name: value for name, value in moved.items() if not _same(constants[name], value)}
