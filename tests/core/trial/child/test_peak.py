from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.backends.contract import Device
from autoresearch.core.trial.child.peak import best
from autoresearch.core.trial.device import known_peak, read_peaks, write_peaks
from autoresearch.core.trial.weights import flops_per_token

CPU = Device("cpu", "a processor", None, "bf16", "torch 2")


def test_a_measured_peak_is_remembered_by_device_and_framework(tmp_path: Path) -> None:
    write_peaks(CPU, {"fp32": 1e11, "bf16": 3e11}, tmp_path)
    other = Device("cpu", "a processor", None, "fp32", "mlx 0.32")
    write_peaks(other, {"fp32": 9e10}, tmp_path)
    assert known_peak(CPU, tmp_path) == 3e11
    assert known_peak(other, tmp_path) == 9e10
    assert known_peak(Device("cpu", "another", None, "bf16", "torch 2"), tmp_path) is None


def test_a_data_sheet_comes_before_a_measurement(tmp_path: Path) -> None:
    gpu = Device("cuda", "a card", None, "bf16", "torch 2", peak_flops=1e15)
    write_peaks(gpu, {"bf16": 7e14}, tmp_path)
    assert known_peak(gpu, tmp_path) == 1e15


@pytest.mark.parametrize("text", ["", "[]", '{"a processor / torch 2": 3}', "{"])
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "peaks.json").write_text(text)
    assert read_peaks(CPU, tmp_path) == {}
    write_peaks(CPU, {"bf16": 1.0}, tmp_path)
    assert read_peaks(CPU, tmp_path) == {"bf16": 1.0}


def test_the_fastest_size_counts_and_slow_ones_are_not_tried_twice() -> None:
    tried = []

    def products(size: int, precision: str) -> Callable[[int], None]:
        tried.append(size)
        return lambda count: time.sleep(count * (0.6 if size > 1000 else 0.001))

    flops, size = best(products, "fp32")
    assert size == 512
    assert 2 * 512**3 / 0.003 < flops < 2 * 512**3 / 0.001
    assert tried == [512, 1024]


def test_flops_are_read_off_the_shapes_of_the_weights() -> None:
    shapes = {
        "wte": (100, 8),
        "head": (100, 8),
        "value_embed": (100, 8),
        "fc": (32, 8),
        "proj": (8, 32),
        "scale": (8,),
    }
    assert flops_per_token(shapes, 100) == 6 * (100 * 8 + 2 * 32 * 8)
    assert flops_per_token({**shapes, "ngram": (4096, 8), "memory": (513, 2)}, 100) == flops_per_token(shapes, 100)
    assert flops_per_token({"wte": (100, 8)}, 100) == 6 * 800, "a tied head is the one matrix there is"
    assert flops_per_token({"bigrams": (100, 100), "bias": (100,)}, 100) is None
