"""Queries of a ledger that only the dashboard needs."""

from __future__ import annotations

from typing import Any

from autoresearch.core.events import is_number
from autoresearch.core.judge.race import FOR_LESS_CODE
from autoresearch.core.store.columns import COLUMNS, PAGE
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, experiment_row

HYPOTHESIS_CHARACTERS = 300
"""Characters of a hypothesis in the table of experiments."""


class RunQueries(LedgerReader):
    """A reader with the sums and short rows that a page of ten thousand experiments needs."""

    def __enter__(self) -> RunQueries:
        return self

    def outcomes(self, since: float) -> list[dict[str, Any]]:
        """Give the table's columns of every experiment decided at `since` (Unix seconds) or later, by number."""
        # The page's search and its chart need more than the table shows.
        names = [name for name in (*PAGE, "estimate", "researcher") if COLUMNS[name].sql]
        found = ", ".join(f"{COLUMNS[name].sql} AS {name}" for name in names)
        simpler = "coalesce(status = 'keep' AND substr(reason, 1, ?) = ?, 0) AS simpler"
        sql = (
            f"SELECT {found}, {simpler}, substr(hypothesis, 1, ?) AS description, decided"
            " FROM experiments WHERE state = 'decided' AND decided >= ? ORDER BY number"
        )
        return self._rows(sql, (len(FOR_LESS_CODE), FOR_LESS_CODE, HYPOTHESIS_CHARACTERS, since))

    def decided(self) -> list[ExperimentRow]:
        """Give every decided experiment by number, without `metrics`: parsing thousands of them takes long."""
        rows = self._stream("SELECT * FROM experiments WHERE state = 'decided' ORDER BY number")
        return [self._understood(experiment_row, {**row, "metrics": None}) for row in rows]

    def story(self, before: int, count: int) -> list[ExperimentRow]:
        """Give at most `count` decided changes with lower numbers than `before`, the latest first."""
        sql = (
            "SELECT * FROM experiments WHERE state = 'decided' AND number > 0 AND number < ?"
            " ORDER BY number DESC LIMIT ?"
        )
        return [self._understood(experiment_row, row) for row in self._rows(sql, (before, count))]

    def neighbours(self, number: int) -> tuple[int | None, int | None]:
        """Give the numbers of the experiments before and after one; None where there is none.

        A proposal that was withdrawn leaves a gap.
        """
        sql = (
            "SELECT (SELECT max(number) FROM experiments WHERE number < ?) AS before,"
            " (SELECT min(number) FROM experiments WHERE number > ?) AS after"
        )
        row = self._rows(sql, (number, number))[0]
        return row["before"], row["after"]

    def kept_or_demoted(self) -> list[ExperimentRow]:
        """Give every decided experiment that is kept or was, the baseline first."""
        sql = (
            "SELECT * FROM experiments WHERE state = 'decided' AND (status = 'keep' OR number IN"
            " (SELECT experiment FROM events WHERE kind = 'demoted')) ORDER BY number"
        )
        return [self._understood(experiment_row, row) for row in self._rows(sql)]

    def noise_estimates(self) -> list[tuple[int, float]]:
        """Give number and noise (standard deviation of a trial) of every decision at which the judge estimated it."""
        sql = (
            "SELECT number, json_extract(judged, '$.sigma') AS sigma FROM experiments"
            " WHERE state = 'decided' AND judged IS NOT NULL ORDER BY number"
        )
        return [(row["number"], float(row["sigma"])) for row in self._rows(sql) if is_number(row["sigma"])]

    def wall_seconds(self) -> float | None:
        """Sum the seconds that all trials took on the device; None before the first has ended."""
        total = self._rows("SELECT sum(json_extract(result, '$.wall_seconds')) AS total FROM trials")[0]["total"]
        return None if total is None else float(total)

    def proposal_cost(self, experiment: int) -> dict[str, Any]:
        """Sum calls, tokens and dollars (None: not known) of the proposals behind an experiment; name their models."""
        sql = (
            "SELECT count(*) AS calls, coalesce(sum(tokens_in), 0) AS tokens_in,"
            " coalesce(sum(tokens_out), 0) AS tokens_out, sum(usd) AS usd, coalesce(sum(usd IS NULL), 0) AS unknown,"
            " group_concat(DISTINCT model) AS models FROM proposals WHERE experiment = ?"
        )
        row = self._rows(sql, (experiment,))[0]
        row["usd"] = None if row.pop("unknown") else row["usd"]
        return row
