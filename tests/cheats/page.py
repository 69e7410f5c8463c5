"""The rows of whole runs as docs/cheats.md: one line a cheat, with what stopped it on each backend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

BACKENDS = ("null", "cuda", "mlx")
HEAD = """# Every cheat, and what stopped it

Written by `make cheats KEEP=rows.jsonl PAGE=docs/cheats.md`. Each cheat is added to the backend's real train file
(tiny constants, a second of training; `cuda` and `mlx` on a CPU), and runs with the static gate off; the column *gate*
says whether the gate would have refused it before anything ran. After each trial no process was left and no file
outside its folder had changed. [trust.md](trust.md) describes the layers; *crash* means that Python itself refused,
*ignored* that nothing the cheat said or left behind was believed, and that the score is honest. The rows were run in
pieces on two CPU cores, many of them beside other work, so the seconds are rough.
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    backend: str
    level: str
    kind: str
    """"gate on", "gate off" or "honest 0", by its seed."""
    name: str
    layer: str
    seconds: float
    reason: str
    wrong: str = ""
    """In words, where it is not as it should be."""
    open: bool = False
    """Whether a level weaker than bubblewrap did not stop it."""

    def shown(self) -> str:
        """As a line of text."""
        layer = "passed" if self.kind.startswith("honest") and not self.wrong else self.layer
        layer = "OPEN" if self.open else layer
        return f"{self.kind:9} {layer:8} {self.seconds:5.1f} s  {self.name:58} {self.reason}"


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown: cheats, honest variants, weaker levels, the run that goes on."""
    best = [row for row in rows if row.level == "bubblewrap"]
    parts = [HEAD, *_cheats(best), *_honest(best), *_weaker(rows)]
    parts += [f"\n## A run of cheats at level {row.level}\n\n{row.reason}.\n" for row in rows if row.kind == "a run"]
    return "\n".join(parts)


def _cheats(rows: Sequence[Row]) -> list[str]:
    off = {(row.name, row.backend): row for row in rows if row.kind == "gate off"}
    on = {row.name for row in rows if row.kind == "gate on" and row.layer == "gate"}
    names = list(dict.fromkeys(name for name, _ in off))
    lines = ["## Cheats at level bubblewrap\n", _counts(rows), ""]
    lines += ["| cheat | gate | " + " | ".join(BACKENDS) + " | reason |", "|---|---|" + "---|" * len(BACKENDS) + "---|"]
    for name in names:
        mine = [off.get((name, backend)) for backend in BACKENDS]
        cells = ["" if row is None else f"{_layer(row)}, {row.seconds:.1f} s" for row in mine]
        reason = next(row.reason for row in mine if row is not None)
        refused = "refuses" if name in on else ""
        lines.append(f"| {name} | {refused} | " + " | ".join(cells) + f" | {_cell(reason)} |")
    return lines


def _layer(row: Row) -> str:
    return "**works**" if row.layer == "nothing" else row.layer


def _counts(rows: Sequence[Row]) -> str:
    words = []
    for backend in BACKENDS:
        for kind, said in (
            ("gate on", "refused of those that the gate must see"),
            ("gate off", "stopped by its layer"),
        ):
            some = [row for row in rows if (row.backend, row.kind) == (backend, kind)]
            good = sum(not row.wrong and row.layer != "nothing" for row in some)
            words.append(f"- `{backend}`, {kind}: {good} of {len(some)} {said}")
    return "\n".join(words)


def _honest(rows: Sequence[Row]) -> list[str]:
    lines = ["\n## Honest variants\n", "| variant | backend | seeds | flagged | val_bpb | largest audit difference |"]
    lines.append("|---|---|---:|---:|---|---|")
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.kind.startswith("honest"):
            found.setdefault((row.backend, row.name), []).append(row)
    for (backend, name), some in found.items():
        bpb = ", ".join(row.reason.removeprefix("val_bpb ").split(",")[0] for row in some)
        largest = max(
            (row.reason.partition("largest ")[2].split(",")[0] for row in some), key=lambda text: float(text or 0)
        )
        lines.append(
            f"| {name} | {backend} | {len(some)} | {sum(bool(row.wrong) for row in some)} | {bpb} | {largest} |"
        )
    return lines


def _weaker(rows: Sequence[Row]) -> list[str]:
    lines = []
    for level in ("landlock", "seatbelt", "process"):
        some = [row for row in rows if row.level == level and row.kind == "gate off"]
        if some:
            lines.append(f"\n## Cheats at level {level}, the gate off\n")
            for backend in BACKENDS:
                mine = [row for row in some if row.backend == backend]
                names = "; ".join(row.name for row in mine if row.open) or "none"
                if mine:
                    lines.append(f"- `{backend}`: {len(mine)} run, not stopped: {names}")
    return lines


def _cell(text: str) -> str:
    """Without the folders of the machine that it ran on."""
    return re.sub(r"'/[^' ]*/", "'.../", text).replace("|", "\\|")
