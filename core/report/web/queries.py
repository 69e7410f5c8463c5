"""What the dashboard asks of a ledger beyond what everybody does."""

from __future__ import annotations

from typing import Any

from autoresearch.core.store.reader import LedgerReader

HYPOTHESIS_CHARACTERS = 300


class RunLookup(LedgerReader):
    """A reader with the sums and the short rows that a page of ten thousand experiments needs."""

    def __enter__(self) -> RunLookup:
        return self

    def outcomes(self, since: float) -> list[dict[str, Any]]:
        """What a table shows of every experiment that was decided at `since` or later, by number."""
        sql = (
            "SELECT number AS n, status, val_bpb, estimate, CASE WHEN number > 0 THEN delta END AS delta, trials,"
            " category, researcher, substr(hypothesis, 1, ?) AS hypothesis, decided"
            " FROM experiments WHERE state = 'decided' AND decided >= ? ORDER BY number"
        )
        return self._rows(sql, (HYPOTHESIS_CHARACTERS, since))

    def steps(self) -> list[tuple[int, float, float]]:
        """Number, estimate and time of decision of every keep, the baseline first."""
        rows = self._rows("SELECT number, estimate, decided FROM experiments WHERE status = 'keep' ORDER BY number")
        return [(row["number"], row["estimate"], row["decided"]) for row in rows if row["estimate"] is not None]

    def sigmas(self) -> list[tuple[int, float]]:
        """The judge's idea of the noise at every decision that left one."""
        sql = (
            "SELECT number, json_extract(judged, '$.sigma') AS sigma FROM experiments"
            " WHERE state = 'decided' AND judged IS NOT NULL ORDER BY number"
        )
        return [(row["number"], float(row["sigma"])) for row in self._rows(sql) if row["sigma"] is not None]

    def wall_seconds(self) -> float | None:
        """What all trials took on the device, None before the first has ended."""
        total = self._rows("SELECT sum(json_extract(result, '$.wall_seconds')) AS total FROM trials")[0]["total"]
        return None if total is None else float(total)

    def proposal_cost(self, experiment: int) -> dict[str, Any]:
        """Calls, tokens, dollars (None: not known) and models of what led to one experiment."""
        sql = (
            "SELECT count(*) AS calls, coalesce(sum(tokens_in), 0) AS tokens_in,"
            " coalesce(sum(tokens_out), 0) AS tokens_out, sum(usd) AS usd, coalesce(sum(usd IS NULL), 0) AS unknown,"
            " group_concat(DISTINCT model) AS models FROM proposals WHERE experiment = ?"
        )
        row = self._rows(sql, (experiment,))[0]
        row["usd"] = None if row.pop("unknown") else row["usd"]
        return row
