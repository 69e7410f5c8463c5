"""Activation, gate and width of the MLP."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, framework, number, set_constant
from autoresearch.agent.syntax.transforms import with_function_body, with_method_bodies

_ACTIVATIONS = {
    "relu2": ("F.relu(x).square()", "mx.square(mx.maximum(x, 0))", "ReLU squared (Primer, arXiv:2109.08668)."),
    "leaky relu2": (
        "F.leaky_relu(x, 0.5).square()",
        "mx.square(mx.maximum(x, 0.5 * x))",
        "Leaky ReLU squared: no unit is ever silent.",
    ),
    "gelu": ("F.gelu(x)", "nn.gelu(x)", "GELU (arXiv:1606.08415): smooth, not sparse."),
    "silu": ("F.silu(x)", "nn.silu(x)", "SiLU (arXiv:1702.03118): smooth, not sparse."),
    "relu": ("F.relu(x)", "mx.maximum(x, 0)", "ReLU: the cheapest, and sparse."),
}
"""Name -> PyTorch expression, MLX expression, docstring."""


def _activation(source: str, name: str) -> str | None:
    torch_call, mlx_call, docstring = _ACTIVATIONS[name]
    kind = framework(source)
    if kind is None:
        return None
    call = torch_call if kind == "torch" else mlx_call
    return with_function_body(source, "activation", ("x",), f'"""{docstring}"""\nreturn {call}')


_MATRICES = {
    True: """
        super().__init__()
        hidden = max(1, round(2 * MLP_RATIO * DIM / 3))  # three matrices of two thirds: as many parameters as two
        self.fc, self.gate, self.proj = Linear(DIM, hidden), Linear(DIM, hidden), Linear(hidden, DIM)
    """,
    False: """
        super().__init__()
        self.fc, self.proj = Linear(DIM, MLP_RATIO * DIM), Linear(MLP_RATIO * DIM, DIM)
    """,
}
_PRODUCTS = {
    True: '''
        """x (B, T, D) -> (B, T, D), gated (arXiv:2002.05202)."""
        return self.proj(activation(self.gate(x)) * self.fc(x))
    ''',
    False: '''
        """x (B, T, D) -> (B, T, D)."""
        return self.proj(activation(self.fc(x)))
    ''',
}
"""Gated or not -> body of `__init__`, and of the forward pass."""


def _gate(source: str, on: bool) -> str | None:
    kind, ratio = framework(source), number(source, "MLP_RATIO")
    if kind is None or ratio is None or not (on or isinstance(ratio, int)):
        return None  # ungated, the width is the product as it is, and that must be whole
    forward = "forward" if kind == "torch" else "__call__"
    bodies = (("__init__", ("self",), _MATRICES[on]), (forward, ("self", "x"), _PRODUCTS[on]))
    return with_method_bodies(source, "MLP", bodies)


def _ratio(source: str, change: int) -> str | None:
    ratio = number(source, "MLP_RATIO")
    if ratio is None or not 1 <= ratio + change <= 8:
        return None
    return set_constant(source, "MLP_RATIO", type(ratio)(ratio + change))


EDITS = (
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
        "activation leaky relu2",
        "mlp",
        "Leaky ReLU squared in the MLP: the strength of ReLU squared, and a gradient for every unit.",
        partial(_activation, name="leaky relu2"),
    ),
    Edit(
        "mlp gated",
        "mlp",
        "A gated MLP of as many parameters: products of two features where there was one.",
        partial(_gate, on=True),
    ),
    Edit(
        "mlp ungated",
        "simplification",
        "No gate in the MLP: two large matrices instead of three.",
        partial(_gate, on=False),
        0.4,
    ),
    Edit(
        "mlp narrower",
        "mlp",
        "A narrower MLP: more steps in the same time.",
        partial(_ratio, change=-1),
        0.8,
    ),
    Edit(
        "mlp wider",
        "mlp",
        "A wider MLP: more capacity where the compute is densest.",
        partial(_ratio, change=1),
        0.8,
    ),
)
