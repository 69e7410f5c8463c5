"""Training documents in a seeded order, epoch after epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.shards import Shard, open_shard
from autoresearch.core.errors import DataError

BOS_ID = 1
"""Fixed when tokenizers are trained; leads every document."""


class EpochOrder:
    """Endless documents, each BOS + tokens, uint16 (n,). Every epoch has an order of its own, drawn from the seed."""

    def __init__(self, shards: Sequence[Shard], seed: int) -> None:
        self._shards = shards
        self._seed = seed
        self._returned: deque[np.ndarray] = deque()
        self.epoch = 0
        """Epochs that are complete."""
        counts = [len(shard) for shard in shards]
        if not sum(counts):
            raise DataError("there is no training document in the prepared corpus.", fix="run `ar prepare` again")
        self._places = np.concatenate(
            [np.stack([np.full(count, i), np.arange(count)], axis=1) for i, count in enumerate(counts)]
        ).astype(np.int32)
        self._documents = self._endless()

    @classmethod
    def open(cls, folder: Path, vocab_size: int, seed: int) -> EpochOrder:
        """Map the train shards of a prepared corpus. Raises `DataError` when one is missing or was changed."""
        prepared = Prepared.open(folder)
        prepared.quick_check(vocab_size)
        return cls([open_shard(path) for path in prepared.train_shards(vocab_size)], seed)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        return self._returned.popleft() if self._returned else next(self._documents)

    def give_back(self, pieces: Iterable[np.ndarray]) -> None:
        """Pieces to hand out again before anything new, in this order."""
        self._returned.extendleft(reversed(list(pieces)))

    def _endless(self) -> Iterator[np.ndarray]:
        bos = np.array([BOS_ID], dtype=np.uint16)
        while True:
            random = np.random.default_rng([abs(self._seed), self._seed < 0, self.epoch])
            for shard, document in random.permutation(self._places).tolist():
                start, end = self._shards[shard].offsets[document : document + 2]
                yield np.concatenate([bos, self._shards[shard].values[start:end]])
            self.epoch += 1
