"""A run in pandas: our notebook runs on its ledger, and upstream's way of reading results.tsv works on ours."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.columns import TSV

NOTEBOOK = Path(__file__).parents[3] / "docs" / "analysis.ipynb"


class Quoting(Widths):
    """Whose words would break a careless table."""

    words = ('"half a quote', 'says "wider" twice', "tab\tand\nline", "'single", "=HYPERLINK(1)", "\x1b[31mred")

    def propose(self, history):
        import dataclasses

        return dataclasses.replace(super().propose(history), hypothesis=self.words[len(history.attempts) - 1])


def test_the_notebook_draws_its_figures_of_a_run(tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Widths(9, 12, 8), Greedy(), Scripted({12: "crash"}), limits=Limits(3)).go()
        events = [{"event": "log", "progress": at / 10, "loss": 3 - at / 10} for at in range(10)]
        (run.folder / "trials" / "0-1" / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    monkeypatch.chdir(tmp_path / "w" / "backends")
    monkeypatch.delenv("AR_RUN", raising=False)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "the notebook is kept without outputs"
            exec(compile("".join(cell["source"]), f"analysis.ipynb:{cell['id']}", "exec"), names)
    assert len(pyplot.get_fignums()) == 3
    pyplot.close("all")
    assert names["experiments"]["status"].tolist() == ["keep", "keep", "crash", "keep"]
    assert names["best"]["estimate"] == pytest.approx(0.8)
    assert names["by_category"].loc["shape", ["tried", "kept", "failed"]].tolist() == [3, 2, 1]


def test_results_tsv_is_read_as_upstream_s_notebook_reads_its_own(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Quoting(9, 12, 11, 8, 13, 7), Greedy(), Scripted({12: "crash"}), limits=Limits(6)).go()
        table = pandas.read_csv(run.folder / "results.tsv", sep="\t")
    assert tuple(table.columns) == TSV
    assert table["status"].str.strip().str.upper().tolist() == [
        "KEEP",
        "KEEP",
        "CRASH",
        "DISCARD",
        "KEEP",
        "DISCARD",
        "KEEP",
    ]
    scores = pandas.to_numeric(table["val_bpb"], errors="coerce")
    assert scores.iloc[0] == 1.0
    assert scores[table["status"] == "keep"].min() == pytest.approx(0.7)
    assert scores[table["status"] == "crash"].isna().all()
    assert pandas.to_numeric(table["memory_gb"], errors="coerce").dtype == float
    assert table["description"].tolist()[1:5] == ['"half a quote', 'says "wider" twice', "tab and line", "'single"]
    assert table["description"].tolist()[5:] == ["'=HYPERLINK(1)", "[31mred"]
