"""Fixtures for the tests of this folder."""

import pytest
from made_corpora import options, quiet, write_corpus

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.prepare import prepare


@pytest.fixture(scope="session")
def small_prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A prepared corpus that tests only read."""
    root = tmp_path_factory.mktemp("small")
    return prepare(options(write_corpus(root / "corpus")), root / "data", quiet)
