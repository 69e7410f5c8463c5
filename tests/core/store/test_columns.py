"""Every view of a run's results is made from the one list of columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.core.store.columns import COLUMNS, PAGE, VIEWS, columns_page

DOCS = Path(__file__).parents[3] / "docs" / "commands.md"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_only_columns_that_there_are(view):
    assert set(VIEWS[view]) <= set(COLUMNS)
    assert len(set(VIEWS[view])) == len(VIEWS[view])


def test_every_column_is_shown_somewhere():
    assert {name for names in VIEWS.values() for name in names} == set(COLUMNS)


def test_the_dashboard_reads_its_columns_from_the_ledger():
    assert [name for name in PAGE if not COLUMNS[name].sql] == ["description"]  # which it reads shortened


def test_the_docs_list_the_columns():
    assert columns_page() in DOCS.read_text(encoding="utf-8")
