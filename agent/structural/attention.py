"""Windows, gains and positions of the attention."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, framework, number, set_constant
from autoresearch.agent.syntax.transforms import with_constants, with_function_body
from autoresearch.core.trainfile.constants import ConstantValue


def _windows(source: str, pattern: str) -> str | None:
    values: dict[str, ConstantValue] = {"WINDOW_PATTERN": pattern}
    seq_len, short = number(source, "SEQ_LEN"), number(source, "SHORT_WINDOW")
    if "S" in pattern:
        if seq_len is None or short is None or seq_len < 32:
            return None
        if short > seq_len // 2:
            values["SHORT_WINDOW"] = int(seq_len // 4)
    return with_constants(source, values)


def _qk_gain(source: str, gain: float) -> str | None:
    now = number(source, "QK_GAIN")
    return None if now is None or abs(now - gain) < 0.05 else set_constant(source, "QK_GAIN", gain)


_TORCH = ("x", "cos", "sin")
_TURNED = {
    ("torch", "all"): '''
        """Turn channel pairs of x (B, H, T, HEAD_DIM) by their position (RoFormer, arXiv:2104.09864)."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    ''',
    ("torch", "half"): '''
        """Turn the first half of the channels of x (B, H, T, HEAD_DIM) by position; the rest see content alone."""
        a, b, rest = x.split((HEAD_DIM // 4, HEAD_DIM // 4, HEAD_DIM // 2), dim=-1)
        cos, sin = cos[..., ::2], sin[..., ::2]
        return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), dim=-1)
    ''',
    ("mlx", "all"): '''
        """Turn channel pairs of x (B, H, T, HEAD_DIM) by their position (RoFormer, arXiv:2104.09864)."""
        return mx.fast.rope(x, HEAD_DIM, traditional=False, base=ROPE_BASE, scale=1.0, offset=0)
    ''',
    ("mlx", "half"): '''
        """Turn the first half of the channels of x (B, H, T, HEAD_DIM) by position; the rest see content alone."""
        return mx.fast.rope(x, HEAD_DIM // 2, traditional=False, base=ROPE_BASE, scale=1.0, offset=0)
    ''',
}
"""Framework and share of the channels -> body of `rotary`."""


def _rotary(source: str, share: str) -> str | None:
    kind, head_dim = framework(source), number(source, "HEAD_DIM")
    if kind is None or head_dim is None or head_dim % 4:
        return None
    return with_function_body(source, "rotary", _TORCH if kind == "torch" else ("x",), _TURNED[kind, share])


EDITS = (
    Edit(
        "windows full",
        "attention",
        "Full attention on every layer: short windows save little at this context length and hide context.",
        partial(_windows, pattern="L"),
    ),
    Edit(
        "windows short",
        "attention",
        "Short attention windows on three layers of four: most of what predicts the next token is near.",
        partial(_windows, pattern="SSSL"),
    ),
    Edit(
        "windows alternate",
        "attention",
        "Short and full attention windows in turns: near and far context for less compute.",
        partial(_windows, pattern="SL"),
        0.7,
    ),
    Edit(
        "qk gain up",
        "attention",
        "Sharper attention through a gain of 1.15 on normed queries and keys.",
        partial(_qk_gain, gain=1.15),
    ),
    Edit(
        "qk gain one",
        "simplification",
        "No gain on normed queries and keys.",
        partial(_qk_gain, gain=1.0),
        0.4,
    ),
    Edit(
        "rotary half",
        "attention",
        "Positions on half of each head's channels: the other half compares content at any distance.",
        partial(_rotary, share="half"),
        0.8,
    ),
    Edit(
        "rotary all",
        "attention",
        "Positions on all of each head's channels.",
        partial(_rotary, share="all"),
        0.4,
    ),
)
