"""The contract suite on every backend. One that cannot run here is skipped, saying why; never in CI."""

from __future__ import annotations

import pytest
from contract_suite import Backend, ContractSuite, T, V
from prerequisites import lacking

TOY = {
    "VOCAB_SIZE": V,
    "DEPTH": 2,
    "NGRAM_ROWS": 0,
    "DIM": 64,
    "HEAD_DIM": 32,
    "SEQ_LEN": T,
    "SHORT_WINDOW": T // 2,
    "BATCH_TOKENS": 8 * T,
    "DEVICE_BATCH_ROWS": 8,
    "BATCH_ROWS": 8,
    "WARMUP_STEPS": 1,
    "LOG_EVERY": 5,
    "PRECISION": "fp32",
    "COMPILE": "off",
}
"""Constants that make a train file a toy; each file takes those it has."""


@pytest.fixture(scope="module", params=["null", "cuda", "mlx"])
def backend(request: pytest.FixtureRequest) -> Backend:
    backend = Backend(request.param, TOY)
    reason = backend.runtime.unavailable()
    if reason is not None:
        lacking(reason)
    return backend


class TestContract(ContractSuite):
    pass
