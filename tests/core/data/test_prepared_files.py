"""The feeder reads the same manifest as everybody, without the library that validates it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.prepared_files import MANIFEST, checked_shards
from autoresearch.core.errors import DataError

VOCAB = 512


@pytest.fixture
def copy(prepared: Prepared, tmp_path: Path) -> Path:
    return shutil.copytree(prepared.folder, tmp_path / "prepared")


def test_it_finds_the_shards_that_the_validated_manifest_names(prepared: Prepared) -> None:
    assert checked_shards(prepared.folder, VOCAB) == prepared.train_shards(VOCAB) != []


def test_it_refuses_what_the_validated_manifest_refuses(copy: Path) -> None:
    files = list(Prepared.open(copy).vocabulary(VOCAB).files())
    for record in files:
        path = copy / record.path
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DataError, match="has changed since it was prepared") as quick:
            Prepared.open(copy).quick_check(VOCAB)
        with pytest.raises(DataError) as plain:
            checked_shards(copy, VOCAB)
        assert str(plain.value) == str(quick.value)
        path.write_bytes(content)  # another time, the same content
        checked_shards(copy, VOCAB)
    with pytest.raises(DataError, match="vocabulary 7 is not prepared"):
        checked_shards(copy, 7)
    (copy / files[0].path).unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        checked_shards(copy, VOCAB)


@pytest.mark.parametrize("text", ["", "[]", '{"vocabularies": [{"size": 512}]}', '{"vocabularies": 5}', "\xff"])
def test_a_manifest_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="is not a prepared corpus"):
        checked_shards(tmp_path, VOCAB)
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="cannot be read"):
        checked_shards(tmp_path, VOCAB)


def test_starting_the_feeder_imports_no_pydantic() -> None:
    command = "import json, sys, autoresearch.core.data.feed; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert "numpy" in json.loads(done.stdout) and "pydantic" not in json.loads(done.stdout)
