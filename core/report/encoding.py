"""Data as JSON that every browser reads."""

from __future__ import annotations

import json
import math
from typing import Any


def encode(data: Any) -> str:
    """As JSON. A number that is not finite, which JSON does not know, becomes null."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data
