from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed: pip install torch")


def test_a_trace_tells_forward_backward_and_optimizer_apart(tmp_path: Path) -> None:
    from autoresearch.backends.cuda.trace import TorchTrace

    w = torch.randn(256, 256, requires_grad=True)
    x = torch.randn(256, 256)
    trace = TorchTrace()
    trace.start()
    for _ in range(3):
        with trace.waiting():
            torch.randn(8)
        loss = (x @ w).square().mean()
        loss.backward()
        with torch.no_grad():
            for _ in range(20):
                w -= 1e-3 * (w.grad @ x)
        w.grad = None
    trace.stop()
    profile = trace.profile()
    assert list(profile.sections) == ["data wait", "forward", "backward", "optimizer and the rest"]
    assert all(seconds > 0 for seconds in profile.sections.values())
    assert profile.sections["optimizer and the rest"] > profile.sections["forward"], "twenty products against one"
    calls = {one.name: one.calls for one in profile.operations}
    assert calls["aten::mm"] >= 3 * (1 + 1 + 20)
    path = tmp_path / "trace.json.gz"
    trace.write(path)
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
