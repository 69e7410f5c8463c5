"""Fixtures that more than one room uses."""

from __future__ import annotations

import compileall
import json
import os
from pathlib import Path

import pytest
from disk_waits import without_disk_waits
from library_text import copy_library
from warm_ar import run_ar

from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare

SMALL = PrepareOptions(corpus="", vocabularies=(512,), seq_lens=(256,), val_bytes=20_000, test_bytes=20_000)

LIBRARY_BYTES = 400_000
"""Half of it is held out by the preset demo of the null backend."""
ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, where the environment forbids that Python leaves compiled files.

    A test starts up to dozens of processes, and each would compile all that it imports.
    """
    without_disk_waits()
    if not hasattr(config, "workerinput"):
        for name in ("core", "agent", "backends", "benchmarks", "tests/helpers"):
            compileall.compile_dir(ROOT / name, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: one that began last would run alone, beside a worker with nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A corpus of a few hundred kilobytes (this Python's own sources), prepared once: vocabulary 512, rows of 256."""
    return small_corpus(tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for loops in processes of their own: `text` is their corpus, and `data` is their AR_DATA_DIR.

    The first loop prepares the corpus there for all that follow, which takes longer than a trial.
    """
    folder = tmp_path_factory.mktemp("library")
    copy_library(folder / "text", LIBRARY_BYTES)
    return folder


@pytest.fixture(scope="session")
def baseline_run(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace to copy, whose run `t` holds its baseline alone: null backend, trials of 0.3 s, the greedy judge."""
    workspace = tmp_path_factory.mktemp("baseline") / "w"
    environment = {**os.environ, "AR_DATA_DIR": str(library / "data")}
    run_ar(["init", str(workspace)], environment).check_returncode()
    where = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace), "loop", "--tag", "t", "-n", "0"]
    what = ["--corpus", str(library / "text"), "--budget", "0.3", "--judge", "greedy"]
    run_ar([*where, *what], environment, timeout=250.0).check_returncode()
    return workspace


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
