"""The kind and category of an edit, read from its syntax trees, whatever its author calls it."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from autoresearch.agent.syntax.constant_priors import PRIORS, prior_of
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.core.proposal import CATEGORIES
from autoresearch.core.trainfile.constants import is_number, literal
from autoresearch.core.trainfile.parsing import parse
from autoresearch.core.trainfile.trees import is_bare_string, statements

Kind = Literal["knob", "structural", "bold"]
KINDS: tuple[Kind, ...] = ("knob", "structural", "bold")
"""Kinds, the smallest change first."""
BOLD_LINES = 20
"""Number of statement lines added and removed that makes an edit bold."""
BOLD_UNITS = 3
"""Number of changed functions that makes an edit bold."""
_CATEGORY_PATTERNS = (
    ("attention", r"attn|attention|rope|rotary|window|head_dim|qk|mask"),
    ("mlp", r"mlp|activation|relu|gelu|silu|glu|ffn"),
    ("norm_residual", r"norm|resid|x0|skip"),
    ("embeddings_head", r"embed|wte|head|tie"),
    ("schedule", r"schedule|warmdown|warmup|lr_multiplier|learning_rate|progress"),
    ("optimizer", r"muon|adam|optim|momentum|beta|decay|newton|polar|step"),
    ("batch_sequence", r"batch|seq_len|accum|rows"),
    ("data_order", r"packing|documents|stream|shuffle"),
    ("init", r"init|reset"),
    ("loss", r"loss|softcap|entropy|logits"),
    ("precision_kernels", r"bf16|fp32|dtype|autocast|compile|kernel|precision"),
    ("vocabulary", r"vocab"),
    ("shape", r"depth|dim|width|layers|block|build|model"),
)
"""Words that speak for a category, in names or in changed lines."""


@dataclass(frozen=True)
class Change:
    """The difference between two train files."""

    kind: Kind
    category: str
    names: tuple[str, ...]
    """Constants and functions that differ."""
    shorter: bool
    """True when the new program has fewer statements."""
    sure: bool = True
    """False when the category is a guess: only constants changed whose names say nothing."""


class _WithoutNumbers(ast.NodeTransformer):
    """Turns every number into 0, and a sum or product with a number into its other side."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            body = [statement for statement in node.body if not is_bare_string(statement)]
            node.body = body or [ast.Pass()]
        if isinstance(node, ast.Constant) and (is_number(node.value) or isinstance(node.value, complex)):
            return ast.Constant(0)
        if isinstance(node, ast.UnaryOp) and _is_zero(node.operand) and isinstance(node.op, ast.USub | ast.UAdd):
            return ast.Constant(0)
        if isinstance(node, ast.BinOp):
            return node.left if _is_zero(node.right) else node.right if _is_zero(node.left) else node
        return node


def classify(before: str, after: str, claimed: str) -> Change:
    """Classify the edit between two sources, which must both parse.

    `claimed` is the category that the proposal names; it stands where it can be true.
    """
    try:
        old, new = _units(before), _units(after)
    except RecursionError:  # a program may parse whose tree is too deep to be walked
        return Change("structural", _valid(claimed, "shape"), (), False, sure=False)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    shorter = sum(map(len, new.values())) < sum(map(len, old.values()))
    if not names:
        moved = _moved_constants(before, after)
        found = {name: category for name in moved if (category := _category_of(name))}
        if not found:
            return Change("knob", _valid(claimed, "shape"), tuple(moved), False, sure=False)
        heaviest = max(found, key=lambda name: prior_of(name).weight)
        category = claimed if claimed in found.values() else found[heaviest]
        return Change("knob", category, tuple(moved), False)
    old_lines = [line for name in old for line in (name, *old[name])]
    new_lines = [line for name in new for line in (name, *new[name])]
    diff = [line for line in difflib.ndiff(old_lines, new_lines) if line[:2] in ("+ ", "- ")]
    functions = [name for name in names if "(" in name]
    bold = len(diff) >= BOLD_LINES or len(functions) >= BOLD_UNITS
    believed = _valid(claimed, "") if claimed != "simplification" or shorter else ""
    return Change("bold" if bold else "structural", believed or _derive(names, diff), tuple(names), shorter)


@lru_cache(maxsize=256)
def _units(source: str) -> dict[str, list[str]]:
    """Return top-level statements and methods by name, as lines without numbers, comments and docstrings."""
    found = statements(source)
    if found is None:
        parse(source)  # raises what is wrong with it
    units: dict[str, list[str]] = {}
    for statement in found or ():
        for name, lines in _named(statement):
            units[name] = [*units.get(name, ()), *lines]
    return units


@lru_cache(maxsize=4096)
def _named(statement: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the units of one statement, or of several on a line."""
    tree = parse(statement)
    _WithoutNumbers().visit(tree)  # in place: the module itself stays
    nodes: list[tuple[str, ast.AST]] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                inner_name = f"{node.name}.{inner.name}()" if isinstance(inner, ast.FunctionDef) else node.name
                nodes.append((inner_name, inner))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes.append((f"{node.name}()", node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            nodes.append((ast.unparse(target), node))
        else:
            nodes.append(("", node))
    return tuple((name, tuple(ast.unparse(node).split("\n"))) for name, node in nodes)


def _moved_constants(before: str, after: str) -> list[str]:
    old, new = constants_of(before), constants_of(after)
    return [name for name in new if name not in old or old[name] != new[name]]


def _category_of(name: str) -> str:
    """Return the category of a constant by its name; "" where the name says nothing."""
    prior = prior_of(name)
    if prior is not PRIORS[-1] and prior.category:
        return prior.category
    words = name.lower()
    return next((category for category, pattern in _CATEGORY_PATTERNS if re.search(pattern, words)), "")


def _derive(names: list[str], diff: list[str]) -> str:
    for text in (" ".join(names).lower(), " ".join(diff).lower()):
        counts = {category: len(re.findall(pattern, text)) for category, pattern in _CATEGORY_PATTERNS}
        best = max(counts, key=lambda category: counts[category])
        if counts[best]:
            return best
    return "shape"


def _valid(claimed: str, otherwise: str) -> str:
    return claimed if claimed in CATEGORIES else otherwise


def _is_zero(node: ast.AST) -> bool:
    return isinstance(node, ast.expr) and is_number(literal(node))
