"""The menu of structural edits: what a person would try first, as syntax-tree transforms of the train file.

Ten families, most with a way back, for both frameworks. An edit that does not fit the current source, or is in
effect already, gives None and is passed over.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import partial

from autoresearch.agent.constants import Value, read_constants
from autoresearch.agent.transforms import Transform, imported_names, with_constants, with_function_body
from autoresearch.agent.tried import tree_key


@dataclass(frozen=True)
class Edit:
    """One structural edit."""

    name: str
    """Unique on the menu."""
    category: str
    hypothesis: str
    transform: Transform
    weight: float = 1.0
    """How readily it is tried, from what has paid in public runs."""

    def apply(self, source: str) -> str | None:
        """The edited source: it parses and is another program. None when the edit does not fit."""
        if not _parses(source):
            return None
        edited = self.transform(source)
        if edited is None or not _parses(edited) or tree_key(edited) == tree_key(source):
            return None
        return edited


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def _number(source: str, name: str) -> float | None:
    constant = read_constants(source).get(name)
    value = constant.value if constant else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _constant(source: str, name: str, value: Value) -> str | None:
    return with_constants(source, {name: value})


def _windows(source: str, pattern: str) -> str | None:
    values: dict[str, Value] = {"WINDOW_PATTERN": pattern}
    seq_len, short = _number(source, "SEQ_LEN"), _number(source, "SHORT_WINDOW")
    if "S" in pattern:
        if seq_len is None or short is None or seq_len < 32:
            return None
        if short > seq_len // 2:
            values["SHORT_WINDOW"] = int(seq_len // 4)
    return with_constants(source, values)


_ACTIVATIONS = {
    "relu2": ("F.relu(x).square()", "mx.square(mx.maximum(x, 0))", "ReLU squared (Primer, arXiv:2109.08668)."),
    "gelu": ("F.gelu(x)", "nn.gelu(x)", "GELU (arXiv:1606.08415): smooth, not sparse."),
    "silu": ("F.silu(x)", "nn.silu(x)", "SiLU (arXiv:1702.03118): smooth, not sparse."),
    "relu": ("F.relu(x)", "mx.maximum(x, 0)", "ReLU: the cheapest, and sparse."),
}
"""Name -> PyTorch expression, MLX expression, docstring."""


def _activation(source: str, name: str) -> str | None:
    torch_call, mlx_call, docstring = _ACTIVATIONS[name]
    names = imported_names(source)
    if {"torch", "F"} <= names:
        call = torch_call
    elif {"mx", "nn"} <= names:
        call = mlx_call
    else:
        return None
    return with_function_body(source, "activation", ("x",), f'"""{docstring}"""\nreturn {call}')


_NORMS = {
    "pre": ("x + sublayer(norm(x))", "Where the norms stand: before the sublayer."),
    "peri": ("x + norm(sublayer(norm(x)))", "Where the norms stand: before and after the sublayer (arXiv:2502.02732)."),
    "post": (
        "x + norm(sublayer(x))",
        "Where the norms stand: after the sublayer, inside the branch (arXiv:2501.00656).",
    ),
}
"""Placement -> expression, docstring."""


def _norms(source: str, placement: str) -> str | None:
    expression, docstring = _NORMS[placement]
    return with_function_body(source, "residual", ("x", "sublayer"), f'"""{docstring}"""\nreturn {expression}')


_SHAPES = {
    "linear": ("left", "a straight line"),
    "cosine": ("0.5 * (1 - math.cos(math.pi * left))", "half a cosine"),
    "sqrt": ("1 - math.sqrt(1 - left)", "one minus a square root, steep first (arXiv:2405.18392)"),
}
"""Shape -> share of the way down that is left, docstring."""


def _schedule(source: str, shape: str) -> str | None:
    constants = read_constants(source)
    if not {"WARMDOWN", "FINAL_LR"} <= constants.keys():
        return None
    expression, words = _SHAPES[shape]
    body = f'''
        """Constant, then {words} down to FINAL_LR over the last WARMDOWN of the budget."""
        left = min(1.0, (1 - progress) / WARMDOWN) if WARMDOWN else 1.0
        multiplier = FINAL_LR + (1 - FINAL_LR) * ({expression})
    '''
    needs = "math" if "math." in expression else ""
    edited = with_function_body(source, "lr_multiplier", ("progress",), f"{body}    return multiplier", needs)
    if edited is None and "LEARNING_RATE" in constants:
        last = "    return LEARNING_RATE * multiplier"
        edited = with_function_body(source, "learning_rate", ("progress",), body + last, needs)
    return edited


def _schedule_linear(source: str) -> str | None:
    """Back from another shape of this menu. What the train file starts with is linear in its own words."""
    bent = (_schedule(source, shape) for shape in _SHAPES if shape != "linear")
    in_effect = any(tree_key(edited) == tree_key(source) for edited in bent if edited is not None)
    return _schedule(source, "linear") if in_effect else None


def _batch_ramp(source: str) -> str | None:
    batch, rows, seq_len = (_number(source, name) for name in ("BATCH_TOKENS", "DEVICE_BATCH_ROWS", "SEQ_LEN"))
    if batch is None or rows is None or seq_len is None:
        return None
    body = '"""Tokens per optimizer step: half at first, while many small steps learn most."""\n'
    body += "return BATCH_TOKENS // 2 if progress < 0.4 else BATCH_TOKENS"
    edited = with_function_body(source, "batch_tokens_at", ("progress",), body)
    if edited is None or batch // 2 >= rows * seq_len:
        return edited
    # Half a batch must hold whole forward passes.
    return None if rows % 2 else with_constants(edited, {"DEVICE_BATCH_ROWS": int(rows // 2)})


def _no_batch_ramp(source: str) -> str | None:
    return with_function_body(
        source, "batch_tokens_at", ("progress",), '"""Tokens per optimizer step."""\nreturn BATCH_TOKENS'
    )


def _mlp_ratio(source: str, change: int) -> str | None:
    ratio = _number(source, "MLP_RATIO")
    if ratio is None or not 1 <= ratio + change <= 8:
        return None
    return _constant(source, "MLP_RATIO", type(ratio)(ratio + change))


def _softcap(source: str, on: bool) -> str | None:
    cap = _number(source, "SOFTCAP")
    if cap is None or bool(cap) == on:
        return None
    return _constant(source, "SOFTCAP", 15.0 if on else 0.0)


def _qk_gain(source: str, gain: float) -> str | None:
    now = _number(source, "QK_GAIN")
    return None if now is None or abs(now - gain) < 0.05 else _constant(source, "QK_GAIN", gain)


MENU = (
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
        "activation gelu",
        "mlp",
        "GELU in the MLP: a smooth activation may suit a small model better than a sparse one.",
        partial(_activation, name="gelu"),
        0.7,
    ),
    Edit(
        "activation silu",
        "mlp",
        "SiLU in the MLP: smooth, and cheap in low precision.",
        partial(_activation, name="silu"),
        0.7,
    ),
    Edit(
        "activation relu",
        "mlp",
        "Plain ReLU in the MLP: gradients of one size while units are active.",
        partial(_activation, name="relu"),
        0.4,
    ),
    Edit(
        "activation relu2",
        "mlp",
        "ReLU squared in the MLP: sparse, and stronger than ReLU at this size.",
        partial(_activation, name="relu2"),
    ),
    Edit(
        "value embeddings all",
        "embeddings_head",
        "Value embeddings on every layer: parameters that cost almost no compute.",
        partial(_constant, name="VALUE_EMBEDS", value="all"),
        1.5,
    ),
    Edit(
        "value embeddings none",
        "simplification",
        "No value embeddings: simpler, less memory, more steps.",
        partial(_constant, name="VALUE_EMBEDS", value="none"),
        0.6,
    ),
    Edit(
        "value embeddings alternate",
        "embeddings_head",
        "Value embeddings on every second layer: most of their gain for half their cost.",
        partial(_constant, name="VALUE_EMBEDS", value="alternate"),
        0.6,
    ),
    Edit(
        "norm peri",
        "norm_residual",
        "Norms before and after each sublayer: every branch adds at one scale.",
        partial(_norms, placement="peri"),
        1.2,
    ),
    Edit(
        "norm post",
        "norm_residual",
        "Norms after each sublayer only: the branch reads the stream at its own scale.",
        partial(_norms, placement="post"),
        0.5,
    ),
    Edit(
        "norm pre",
        "norm_residual",
        "Norms before each sublayer only: fewer operations, more steps.",
        partial(_norms, placement="pre"),
        0.6,
    ),
    Edit(
        "head tied",
        "embeddings_head",
        "One matrix for embedding and head: fewer parameters to learn in a short run.",
        partial(_constant, name="TIE_HEAD", value=True),
        0.3,
    ),
    Edit(
        "head untied",
        "embeddings_head",
        "A head of its own: reading and writing tokens are different jobs.",
        partial(_constant, name="TIE_HEAD", value=False),
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
        "mlp narrower",
        "mlp",
        "A narrower MLP: more steps in the same time.",
        partial(_mlp_ratio, change=-1),
        0.8,
    ),
    Edit(
        "mlp wider",
        "mlp",
        "A wider MLP: more capacity where the compute is densest.",
        partial(_mlp_ratio, change=1),
        0.8,
    ),
    Edit(
        "schedule cosine",
        "schedule",
        "The learning rate falls along half a cosine: gentle at both ends of the descent.",
        partial(_schedule, shape="cosine"),
    ),
    Edit(
        "schedule sqrt",
        "schedule",
        "The learning rate falls as one minus a square root: fast at first, then long at small steps.",
        partial(_schedule, shape="sqrt"),
    ),
    Edit(
        "schedule linear",
        "schedule",
        "The learning rate falls in a straight line.",
        _schedule_linear,
        0.5,
    ),
    Edit(
        "softcap off",
        "loss",
        "No softcap on the logits: rare tokens may need large ones.",
        partial(_softcap, on=False),
    ),
    Edit(
        "softcap on",
        "loss",
        "A softcap of 15 on the logits keeps early steps calm.",
        partial(_softcap, on=True),
    ),
    Edit(
        "batch ramp",
        "batch_sequence",
        "Half the batch for the first 40 % of the budget: early steps learn most from being many.",
        _batch_ramp,
        1.5,
    ),
    Edit(
        "batch ramp off",
        "simplification",
        "One batch size throughout.",
        _no_batch_ramp,
        0.4,
    ),
)
"""Every edit, by families."""
