"""A simulation in pieces goes on where it was cut off."""

from __future__ import annotations

import pytest

from benchmarks._pieces import Pieces

KEYS = [("a", n, 0.5) for n in range(5)]


def doubled(key):
    if key[1] == 3:
        raise RuntimeError("cut off")
    return [2 * key[1]]


def test_pieces_are_kept_and_only_missing_ones_are_computed(tmp_path):
    path = tmp_path / "deep" / "pieces.jsonl"
    with pytest.raises(RuntimeError, match="cut off"):
        Pieces(path).compute(KEYS, doubled, 60.0, cores=1)
    assert path.read_text().count("\n") == 3
    with path.open("a") as file:
        file.write('[["a", 3, 0.5], [')
    asked = []
    again = Pieces(path)
    assert not again.compute(KEYS, doubled, -1.0, cores=1)
    assert again.compute(KEYS, lambda key: asked.append(key) or [0], 60.0, cores=1)
    assert asked == KEYS[3:]
    assert [Pieces(path)[key] for key in KEYS] == [[0], [2], [4], [0], [0]]
