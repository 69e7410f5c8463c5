"""A weights file from an untrusted child is believed only when it is whole and what was announced."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from autoresearch.core.trial.weights import WeightsFault, check_weights, take_weights

LIMIT = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"a": np.ones((3, 4), np.float32), "b": np.zeros(5, np.float16)}, path)
    return path


def check(path: Path, limit: int = LIMIT) -> None:
    check_weights(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), limit_bytes=limit)


def fault(path: Path, limit: int = LIMIT) -> str:
    with pytest.raises(WeightsFault) as caught:
        check(path, limit)
    return str(caught.value)


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_what_safetensors_writes_passes(path: Path) -> None:
    check(path)


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "not a regular file" in fault(link)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WeightsFault, match="not a regular file"):
        check_weights(pipe, sha256="", limit_bytes=LIMIT)


def test_a_file_that_was_cut_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])
    assert re.search("not a whole safetensors file.*not fully covered", fault(path))


def test_a_file_that_ends_within_its_header_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])
    assert "truncated" in fault(path)


def test_a_file_over_the_limit_is_refused(path: Path) -> None:
    assert "the limit is 64" in fault(path, 64)


def test_a_header_of_megabytes_is_not_read(path: Path) -> None:
    assert "header of 5242880 bytes; 4194304 are allowed" in fault(with_header(path, b" " * (5 * 2**20)), 2**24)


def test_a_header_that_is_not_json_is_refused(path: Path) -> None:
    assert re.search("not a whole safetensors file.*JSON", fault(with_header(path, b"not json")))


def test_a_tensor_of_the_wrong_size_is_refused(path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}
    assert re.search("not a whole safetensors file.*invalid shape", fault(with_header(path, header, bytes(8))))


def test_tensors_that_overlap_are_refused(path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    overlapping = with_header(path, {"a": tensor, "b": tensor}, bytes(8))
    assert re.search("not a whole safetensors file.*invalid offset", fault(overlapping))


def test_bytes_that_belong_to_no_tensor_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4))
    assert re.search("not a whole safetensors file.*not fully covered", fault(path))


def test_the_shapes_of_all_tensors_are_read(path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check_weights(path, sha256=sha256, limit_bytes=LIMIT) == {"a": (3, 4), "b": (5,)}


def test_another_hash_than_announced_is_refused(path: Path) -> None:
    with pytest.raises(WeightsFault, match="changed after it was announced"):
        check_weights(path, sha256="0" * 64, limit_bytes=LIMIT)


def test_a_work_folder_swapped_for_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("the user's file")
    work_fd = os.open(work, os.O_DIRECTORY)
    work.rename(tmp_path / "moved")
    work.symlink_to(elsewhere)
    with pytest.raises(WeightsFault, match="not there"):
        take_weights(work_fd, "weights", tmp_path / "taken")
    os.close(work_fd)
    assert (elsewhere / "weights").exists()
