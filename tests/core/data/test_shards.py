from pathlib import Path

import numpy as np
import pytest

from autoresearch.core.data.documents import offsets_of
from autoresearch.core.data.shards import open_shard, write_shard
from autoresearch.core.errors import DataError


def write(path: Path, dtype: type = np.uint16) -> Path:
    write_shard(path, np.arange(9).astype(dtype), offsets_of(np.array([2, 3, 4])))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_shard_reads_as_it_was_written(tmp_path: Path, dtype: type) -> None:
    shard = open_shard(write(tmp_path / "a", dtype))
    assert shard.values.dtype == dtype
    assert [document.tolist() for document in shard] == [[0, 1], [2, 3, 4], [5, 6, 7, 8]]
    assert not [*tmp_path.glob("*.partial")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "bytes where"),
        (lambda data: data[:20], "cut short"),
        (lambda data: b"", "cannot be read"),
        (lambda data: data + b"\0", "bytes where"),
        (lambda data: b"x" + data[1:], "is not a shard"),
        (lambda data: data[:8] + b"\7" + data[9:], "has format 7"),
        (lambda data: data[:72] + b"\x09" + data[73:], "damaged document offsets"),
    ],
)
def test_a_damaged_shard_is_refused_by_name(tmp_path: Path, damage, message: str) -> None:
    path = write(tmp_path / "shard")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        open_shard(path)
    assert str(path) in str(caught.value)
    assert "ar prepare" in str(caught.value)


def test_a_missing_shard_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone is missing"):
        open_shard(tmp_path / "gone")
