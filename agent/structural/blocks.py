"""The structure of the blocks: norms, residuals, order, depth and width."""

from __future__ import annotations

from functools import partial

from autoresearch.agent.structural.edit import Edit, framework, number, switch_constant
from autoresearch.agent.syntax.transforms import parameters_of, with_constants, with_function_body, with_method_bodies
from autoresearch.core.trainfile.constants import ConstantValue

_NORMS = {
    "pre": ("x + sublayer(norm(x))", "Add a sublayer's output to its input; the norm stands before the sublayer."),
    "peri": (
        "x + norm(sublayer(norm(x)))",
        "Add a sublayer's output to its input; norms stand before and after the sublayer (arXiv:2502.02732).",
    ),
    "post": (
        "x + norm(sublayer(x))",
        "Add a sublayer's output to its input; the norm stands after it, inside the branch (arXiv:2501.00656).",
    ),
}
"""Placement -> expression, docstring."""


def _norms(source: str, placement: str) -> str | None:
    expression, docstring = _NORMS[placement]
    return with_function_body(source, "residual", ("x", "sublayer"), f'"""{docstring}"""\nreturn {expression}')


def _order(source: str, parallel: bool) -> str | None:
    kind = framework(source)
    forward = "forward" if kind == "torch" else "__call__"
    parameters = parameters_of(source, "Block", forward)
    if kind is None or parameters[:2] != ("self", "x"):
        return None
    attention = f"self.attn({', '.join(('h', *parameters[2:]))})"
    if parallel:
        body = f"h = norm(x)\nreturn x + {attention} + self.mlp(h)"
    else:
        body = f"x = residual(x, lambda h: {attention})\nreturn residual(x, self.mlp)"
    text = f'"""x (B, T, D) -> (B, T, D)."""\n{body}'
    return with_method_bodies(source, "Block", ((forward, parameters, text),))


def _reshaped(source: str, heads: int) -> str | None:
    """Add or remove heads, and change the number of layers so that the blocks keep about as many parameters."""
    dim, head_dim, depth = (number(source, name) for name in ("DIM", "HEAD_DIM", "DEPTH"))
    if dim is None or head_dim is None or depth is None or dim + heads * head_dim <= 0:
        return None
    width = int(dim + heads * head_dim)
    layers = round(depth * (dim / width) ** 2)
    if not 1 <= layers <= 2 * depth or layers == depth:
        return None
    values: dict[str, ConstantValue] = {"DIM": width, "DEPTH": layers}
    return with_constants(source, values)


EDITS = (
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
        "x0 off",
        "norm_residual",
        "The blocks' input starts without a share of the token embedding, and learns how much it wants.",
        partial(switch_constant, name="X0_INIT", value=0.0),
        0.5,
    ),
    Edit(
        "x0 on",
        "norm_residual",
        "The blocks' input starts with a tenth of the token embedding.",
        partial(switch_constant, name="X0_INIT", value=0.1),
    ),
    Edit(
        "block parallel",
        "shape",
        "Attention and MLP side by side from one norm (arXiv:2204.02311): half as many steps in sequence.",
        partial(_order, parallel=True),
        0.8,
    ),
    Edit(
        "block sequential",
        "shape",
        "First attention, then MLP: the MLP works on what the attention has found.",
        partial(_order, parallel=False),
        0.5,
    ),
    Edit(
        "shape wider",
        "shape",
        "A head more and fewer layers: the same parameters in larger products, which run faster.",
        partial(_reshaped, heads=1),
    ),
    Edit(
        "shape deeper",
        "shape",
        "A head fewer and more layers: the same parameters in more steps of computation.",
        partial(_reshaped, heads=-1),
        0.7,
    ),
)
