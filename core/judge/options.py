"""Every setting of a judge, once: the command line, a run's configuration and the judges read this class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from autoresearch.core.judge.decision import Judge

UNRECORDED = {
    "calibrate": 1,
    "stop_early": "off",
    "stacks": "off",
    "screen_seconds": 0.0,
    "screen_on": "",
    "weights_limit_mb": 8192,
}
"""Values that a run had whose configuration is older than the setting; others had the default."""


@dataclass(frozen=True)
class JudgeOptions:
    """Settings of a judge; a run keeps them in its configuration under the same names."""

    preset: str = ""
    """The run's preset, from which the prior of the noise follows. Not a setting of its own."""
    calibrate: int = 2
    """Trials of the baseline before the first experiment."""
    stop_early: Literal["on", "off"] = "on"
    """`on` to end trials without prospects early."""
    stacks: Literal["on", "off"] = "on"
    """`on` to judge changes that looked better together, where several trials run at once."""

    screen_seconds: float = 0.0
    """Training seconds of a short trial before a change's full ones; 0 for none."""
    screen_on: str = ""
    """Words of the kind of device that these trials run on; "" for the run's own. They take the whole budget where
    `screen_seconds` is 0."""

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Return the names that a person may set, each a flag of `ar loop`."""
        return tuple(one.name for one in fields(cls) if one.name != "preset")

    @classmethod
    def choose(cls, preset: str, asked: Mapping[str, Any], stored: Mapping[str, Any]) -> JudgeOptions:
        """Take each setting from `asked`, else a run's `stored` configuration ({} for a new run), else the default.

        None in `asked` is no answer; names that are no settings are passed over.
        """
        before = {**UNRECORDED, **stored} if stored else {}
        given = {name: value for name, value in asked.items() if value is not None}
        found = {**before, **given}
        return cls(preset, **{name: found[name] for name in cls.settings() if name in found})


DEFAULTS = JudgeOptions()


JUDGES = ("racing", "greedy")
"""Names of the judges, as the command line and a run's configuration have them."""


def make_judge(name: str, options: JudgeOptions) -> Judge:
    """Make the judge of that name. Raises `KeyError` for one that there is not."""
    # Imported here: the command line reads the names above for its help alone.
    from autoresearch.core.judge.greedy import Greedy
    from autoresearch.core.judge.racing import Racing

    kinds: dict[str, Callable[[JudgeOptions], Judge]] = {"racing": Racing, "greedy": Greedy}
    return kinds[name](options)
