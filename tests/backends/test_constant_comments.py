"""Comments of the constants hold for every preset: values are written over, comments stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parents[2] / "backends"
DEVICES = r"\b(H100|H200|B200|A100|Hopper|Mac|MacBook|M[1-5]|Xeon|RTX)\b|\b(five|5) minutes\b"


@pytest.mark.parametrize("backend", sorted(path.parent.name for path in BACKENDS.glob("*/train.py")))
def test_no_comment_of_a_constant_speaks_of_one_device_or_one_budget(backend):
    source = (BACKENDS / backend / "train.py").read_text(encoding="utf-8")
    block = source[source.index("# ---- constants") : source.index("# ---- end of constants")]
    assert [line for line in block.splitlines() if re.search(DEVICES, line.partition("#")[2])] == []
