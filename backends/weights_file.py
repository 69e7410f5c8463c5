"""Writing a weights file one tensor after another, in place: for models whose tables take gigabytes.

The safetensors library wants all tensors in host memory at once, and puts a new file in the place of the old one: it
cannot write into a file in memory that another process has made.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16"}
NAMES |= {"int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL"}
NAMES |= {"complex64": "C64"}
"""numpy's name of a type of numbers -> the format's."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that is to be written."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's name of its type of numbers."""
    numbers: Callable[[], np.ndarray]
    """Returns the numbers in host memory, contiguous, when it is their turn."""


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file (https://github.com/huggingface/safetensors#format).

    Raises ValueError for a type of numbers that the format lacks.
    """
    header, end = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise ValueError(f"{name} is of {tensor.dtype}, which cannot be written as weights")
        start, end = end, end + int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight bytes
    with path.open("wb", buffering=0) as file:
        _write(file, len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            _write(file, tensor.numbers().reshape(-1).view(np.uint8).data)


def _write(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of it: one call to the system takes 2 GiB at most."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
