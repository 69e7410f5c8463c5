"""The columns of a run's results, each described once.

results.tsv, `--json`, the tables of the terminal and of the dashboard, and the page of the docs are made from COLUMNS.
A new column is one entry there, and its name in each view that shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from autoresearch.core.store.rows import ExperimentRow

Kind = Literal["id", "status", "bpb", "change", "count", "seconds", "amount", "text"]
"""Kind of a column, which decides its format: "bpb" is a result, "change" a difference, both in bits per byte."""
NUMERIC: tuple[Kind, ...] = ("id", "bpb", "change", "count", "seconds", "amount")
"""Kinds that views align to the right."""


@dataclass(frozen=True)
class Column:
    """One column of results."""

    name: str
    """Key in `--json`, heading in results.tsv."""
    meaning: str
    """Explanation in the docs, with the unit."""
    kind: Kind
    read: Callable[[ExperimentRow], Any]
    """Gives the value of an experiment, None where there is none."""
    heading: str = ""
    """Heading in the tables that people read, where it is not the name."""
    sql: str = ""
    """Expression over the ledger's table of experiments: the dashboard reads 10,000 of them without making rows."""
    minor: bool = False
    """Left out where the dashboard's table is narrow."""

    @property
    def title(self) -> str:
        """Heading in the tables that people read."""
        return self.heading or self.name


def _predicted(row: ExperimentRow, name: str) -> Any:
    return row.metrics.get(f"predicted_{name}")


_ALL = (
    Column("experiment", "number of the experiment; 0 is the baseline", "id", lambda row: row.number, "n", "number"),
    Column("commit", "git commit of its train file", "text", lambda row: row.commit),
    Column(
        "status",
        "keep, discard, stopped (early), crash, invalid or timeout",
        "status",
        lambda row: row.status or row.state,
        sql="status",
    ),
    Column(
        "val_bpb",
        "bits per byte of its first trial on the validation text",
        "bpb",
        lambda row: row.val_bpb,
        sql="val_bpb",
    ),
    Column(
        "estimate",
        "cautious estimate of its bits per byte, over all its trials",
        "bpb",
        lambda row: row.estimate,
        sql="estimate",
    ),
    Column(
        "change",
        "measured difference in bits per byte from the best file of its time, at equal seeds if there are any; "
        "negative is better",
        "change",
        lambda row: row.change,
        # The baseline is compared with nothing.
        sql="CASE WHEN number > 0 THEN coalesce(json_extract(judged, '$.measured'), delta) END",
        minor=True,
    ),
    Column(
        "delta",
        "the judge's cautious estimate of that difference, shrunken towards no change",
        "change",
        lambda row: row.delta,
        "cautious",
        sql="CASE WHEN number > 0 THEN delta END",
    ),
    Column(
        "predicted",
        "bits per byte that a trial which was stopped early was heading for; never a score",
        "bpb",
        lambda row: _predicted(row, "bpb"),
        minor=True,
    ),
    Column(
        "predicted_low",
        "lower end of the interval that holds the prediction with about 95 %",
        "bpb",
        lambda row: _predicted(row, "low"),
    ),
    Column(
        "predicted_high",
        "upper end of that interval",
        "bpb",
        lambda row: _predicted(row, "high"),
    ),
    Column(
        "trials",
        "number of trials that it took, those of the best file that it asked for included",
        "count",
        lambda row: row.trials,
        sql="trials",
        minor=True,
    ),
    Column("seconds", "duration of its first trial", "seconds", lambda row: row.metrics.get("wall_seconds")),
    Column(
        "memory_gb",
        "peak memory of its first trial in GiB",
        "amount",
        lambda row: None if row.peak_memory_mb is None else row.peak_memory_mb / 1024,
    ),
    Column(
        "category",
        "part of the train file that it changes",
        "text",
        lambda row: row.category,
        sql="category",
        minor=True,
    ),
    Column("description", "the change, in the researcher's words", "text", lambda row: row.hypothesis),
    Column("researcher", "proposer of the change", "text", lambda row: row.researcher, sql="researcher"),
    Column("usd", "cost of the proposal in US dollars", "amount", lambda row: row.usd),
    Column("reason", "reason for the verdict", "text", lambda row: row.reason),
    Column(
        "origin",
        "peer run and experiment that offered the change",
        "text",
        lambda row: None if row.origin is None else asdict(row.origin),
    ),
)
COLUMNS = {column.name: column for column in _ALL}
"""Every column, by name."""

TSV = ("commit", "val_bpb", "memory_gb", "status", "description")
"""Columns of results.tsv: upstream's (karpathy/autoresearch) five, in its order."""
JSON = (
    *(
        "experiment",
        "status",
        "val_bpb",
        "estimate",
        "change",
        "delta",
        "predicted",
        "predicted_low",
        "predicted_high",
        "trials",
        "commit",
        "category",
        "description",
    ),
    *("researcher", "usd", "reason", "origin"),
)
"""Keys of an experiment in `--json`."""
TABLE = ("experiment", "status", "val_bpb", "change", "seconds", "researcher", "description")
"""Columns of the terminal's table."""
PAGE = ("experiment", "status", "val_bpb", "change", "trials", "category", "description")
"""Columns of the dashboard's table."""
VIEWS = {"results.tsv": TSV, "--json": JSON, "terminal": TABLE, "dashboard": PAGE}
"""Every view by the name that the docs give it."""


def columns_page() -> str:
    """Write the docs' table of all columns in Markdown."""
    lines = [f"| column | meaning | {' | '.join(VIEWS)} |", f"|---|---|{'---|' * len(VIEWS)}"]
    for column in _ALL:
        shown = " | ".join("yes" if column.name in names else "" for names in VIEWS.values())
        lines.append(f"| `{column.name}` | {column.meaning} | {shown} |")
    return "\n".join(lines) + "\n"
