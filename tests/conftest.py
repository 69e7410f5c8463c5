"""Fixtures that more than one room uses."""

from __future__ import annotations

import compileall
import json
from pathlib import Path

import pytest
from disk_waits import without_disk_waits

from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare

SMALL = PrepareOptions(corpus="", vocabularies=(512,), seq_lens=(256,), val_bytes=20_000, test_bytes=20_000)

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, where the environment forbids that Python leaves compiled files.

    A test starts up to dozens of processes, and each would compile all that it imports.
    """
    without_disk_waits()
    if not hasattr(config, "workerinput"):
        for name in ("core", "agent", "backends", "benchmarks", "tests/helpers"):
            compileall.compile_dir(ROOT / name, quiet=2)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A corpus of a few hundred kilobytes (this Python's own sources), prepared once: vocabulary 512, rows of 256."""
    return small_corpus(tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("data"))


def small_corpus(folder: Path, data_dir: Path, vocabularies: tuple[int, ...] = (512,)) -> Prepared:
    """The corpus of the `prepared` fixture: its documents in `folder`, what is prepared from them in `data_dir`."""
    folder.mkdir(parents=True, exist_ok=True)
    library = Path(json.__file__).parent.parent
    for name in ("argparse", "ast", "dataclasses", "datetime", "inspect", "subprocess", "tarfile", "typing"):
        text = (library / f"{name}.py").read_text(encoding="utf-8")
        parts = text.split("\nclass ")  # shorter documents, so that a split by documents has something to choose from
        for index, part in enumerate(parts):
            (folder / f"{name}-{index:03}.txt").write_text(part, encoding="utf-8")
    options = PrepareOptions(**{**vars(SMALL), "corpus": str(folder), "vocabularies": vocabularies})
    return prepare(options, data_dir, lambda _: None)
