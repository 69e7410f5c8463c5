"""A train file as a module in a trial's child."""

from __future__ import annotations

import inspect
import linecache
import sys
from pathlib import Path

import pytest

from autoresearch.core.trial.child.train_module import MODULE_NAME, load_train_file

FUNCTION = "def double(x):\n    return 2 * x\n"


def test_a_function_is_found_behind_form_feeds_and_separators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton and TorchScript read the source of a function by its lines."""
    monkeypatch.setitem(sys.modules, MODULE_NAME, sys.modules[__name__])
    path = tmp_path / "train.py"
    path.write_text(f'PAUSE = "a\u2028b"\n\x0c\n# \x1d\n{FUNCTION}', encoding="utf-8")
    try:
        assert inspect.getsource(load_train_file(str(path)).double) == FUNCTION
    finally:
        linecache.cache.pop(str(path), None)
