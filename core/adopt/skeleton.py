"""The beginning of a train file, written from a script in upstream's form.

Imports, classes and functions are carried over as they stand, and plain constants become the constants block. The
script's statements are cut in three: what makes the model becomes `build`, the training loop with what it needs becomes
`train`, and what comes after the loop is left out. A person finishes it: lines that begin with `# TODO` say where.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoresearch.core.adopt.script import dotted, parse_script, scored_names
from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import BLOCK_END, BLOCK_START, read_constants
from autoresearch.core.trainfile.gate import MODULES, SEEDERS

INDENT = "    "
SIZES = ("B", "T", "batch_size", "seq_len")
"""Keywords of upstream's `make_dataloader` for the shape of a batch."""


@dataclass
class Parts:
    """A script's statements, sorted."""

    imports: list[ast.stmt] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    """Name -> literal as it is written."""
    definitions: list[ast.stmt] = field(default_factory=list)
    """Classes, functions, and assignments that run nothing."""
    work: list[ast.stmt] = field(default_factory=list)
    """What the script does, in order."""
    dropped: list[str] = field(default_factory=list)
    """Imports that a train file has no use for, or may not have."""


def skeleton(source: str, *, name: str, preset: str, vocab: int, seq: int) -> str:
    """Return a train file that begins with what the script, called `name`, has.

    `vocab` and `seq` are the values of VOCAB_SIZE and of the script's MAX_SEQ_LEN. Raises `SourceError` for a script
    whose training loop or model is not found.
    """
    tree = parse_script(source)
    parts = sort(source, tree)
    model = next(iter(scored_names(tree)), None)
    place = next((i for i, node in enumerate(parts.work) if _takes_batches(node)), None)
    if model is None or "." in model or place is None:
        what = "training loop" if place is None else "model that it hands to evaluate_bpb"
        raise SourceError(
            f"nothing can be carried over: no {what} stands at the script's top level.",
            fix="write the file by docs/contract.md",
        )
    before = [_adapted(node) for node in parts.work[:place]]
    made = max((i for i, node in enumerate(before) if model in stored(node)), default=None)
    if made is None:
        raise SourceError(
            f"nothing can be carried over: {model} is made nowhere before the training loop.",
            fix="write the file by docs/contract.md",
        )
    building, rest = before[: made + 1], before[made + 1 :]
    # `model.init_weights()` right after it belongs to it.
    while rest and isinstance(rest[0], ast.Expr) and model in loaded(rest[0]):
        building.append(rest.pop(0))
    preparing = [
        node for node in _kept(_again(building, [*rest, parts.work[place]], model)) if "spec" not in loaded(node)
    ]
    building = _without_batches(_kept(building))
    constants = {
        "PRESET": f'"{preset}"',
        "VOCAB_SIZE": str(vocab),
        "MAX_SEQ_LEN": str(seq),
        **{key: text for key, text in parts.constants.items() if key not in ("PRESET", "VOCAB_SIZE", "MAX_SEQ_LEN")},
    }
    return _write(source, name, parts, constants, model, building, [*preparing, *_kept(rest)], parts.work[place])


def sort(source: str, tree: ast.Module) -> Parts:
    """Sort a script's statements. The body of `if __name__ == "__main__"` counts as the script's own."""
    parts = Parts()
    plain: set[str] = set()
    for node in _flat(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _sort_import(node, parts)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts.definitions.append(node)
        elif (name := _only_target(node)) is not None and not parts.work and (text := _literal(node)) is not None:
            parts.constants[name] = text
            plain.add(name)
        elif name is not None and not parts.work and _runs_nothing(node) and loaded(node) <= plain:
            parts.definitions.append(node)
            plain.add(name)
        else:
            parts.work.append(node)
    return parts


def stored(node: ast.AST) -> set[str]:
    """Return the names that a statement assigns."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def loaded(node: ast.AST) -> set[str]:
    """Return the names that a statement reads."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _flat(tree: ast.Module) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for index, node in enumerate(tree.body):
        if index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # the docstring
        if isinstance(node, ast.If) and "__name__" in loaded(node.test):
            found += node.body
        else:
            found.append(node)
    return found


def _sort_import(node: ast.Import | ast.ImportFrom, parts: Parts) -> None:
    """Keep an import that a train file may have; note any other but that of `prepare`."""
    module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
    if module.partition(".")[0] in MODULES:
        parts.imports.append(node)
    elif module.partition(".")[0] != "prepare":
        parts.dropped.append(ast.unparse(node))


def _only_target(node: ast.stmt) -> str | None:
    """Return the name that `NAME = ...` assigns; None for any other statement."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _literal(node: ast.stmt) -> str | None:
    """Return what a constants block can hold of an assignment to a capital name; None where it can hold it not."""
    name = _only_target(node)
    if name is None or not name.isupper() or not isinstance(node, ast.Assign):
        return None
    text = ast.unparse(node.value)
    try:
        held = read_constants(f"{BLOCK_START}\n{name} = {text}\n{BLOCK_END}\n")
    except SourceError:
        return None
    return text if name in held else None


def _runs_nothing(node: ast.stmt) -> bool:
    """Tell whether an assignment's value is made of literals and names alone."""
    kinds = ast.Call | ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr | ast.Attribute | ast.Subscript
    return not any(isinstance(one, kinds) for one in ast.walk(node))


def _takes_batches(node: ast.stmt) -> bool:
    """Tell whether a statement is a loop that takes batches, by `next` or by going through a loader."""
    if not isinstance(node, ast.While | ast.For):
        return False
    calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
    return any(dotted(call.func) == "next" for call in calls) or (
        isinstance(node, ast.For) and any("load" in name for name in loaded(node.iter))
    )


class _Adapter(ast.NodeTransformer):
    """Turns what a script asks of `prepare` into what a train file is given."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = dotted(node.func) or ""
        if called.endswith("get_vocab_size"):
            return ast.Name("VOCAB_SIZE", ast.Load())
        if called.endswith("make_dataloader"):
            named = [word.value for word in node.keywords if word.arg in SIZES]
            sizes = [*node.args[1:3], *named]
            return ast.Call(ast.Attribute(ast.Name("data", ast.Load()), "batches", ast.Load()), sizes[:2], [])
        if called.rpartition(".")[2] in SEEDERS and all(isinstance(value, ast.Constant) for value in node.args):
            node.args = [ast.Attribute(ast.Name("spec", ast.Load()), "seed", ast.Load())]
        return node


def _adapted(node: ast.stmt) -> ast.stmt:
    return ast.fix_missing_locations(_Adapter().visit(node))


def _kept(nodes: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Leave out what has no use in a train file: the tokenizer and what is printed."""
    return [
        node
        for node in nodes
        if not loaded(node) & {"Tokenizer", "tokenizer"}
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and dotted(node.value.func) == "print")
    ]


def _without_batches(nodes: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Leave out of `build` what asks for training text: there is none yet."""
    kept, gone = [], {"data"}
    for node in nodes:
        if loaded(node) & gone:
            gone |= stored(node)
        else:
            kept.append(node)
    return kept


def _again(building: Sequence[ast.stmt], later: Sequence[ast.stmt], model: str) -> list[ast.stmt]:
    """Return the statements of `build` whose names the training needs as well, and that the model is not made in."""
    wanted = set().union(*(loaded(node) for node in later))
    found: list[ast.stmt] = []
    for node in reversed(building):
        if stored(node) & wanted and model not in stored(node) | loaded(node):
            found.insert(0, node)
            wanted |= loaded(node)
    return found


def _write(
    source: str,
    name: str,
    parts: Parts,
    constants: Mapping[str, str],
    model: str,
    building: Sequence[ast.stmt],
    preparing: Sequence[ast.stmt],
    loop: ast.stmt,
) -> str:
    """Put the file together."""
    left_out = [f"# TODO: left out, because a train file may not import it: {text}" for text in parts.dropped]
    carried = [ast.get_source_segment(source, _whole(node), padded=True) or "" for node in parts.definitions]
    body = [
        f'"""Begun by `ar adopt` from {ascii(name)[1:-1]}. See docs/contract.md, and the lines with TODO."""',
        "",
        *(ast.unparse(node) for node in parts.imports),
        *left_out,
        "",
        f"{BLOCK_START}: what the tuner moves and a preset sets",
        *(f"{key} = {text}" for key, text in constants.items()),
        BLOCK_END,
        "",
        "",
        "\n\n\n".join(carried),
        "",
        "",
        "def build(spec):",
        f'{INDENT}"""Return a fresh model."""',
        *_indented(building),
        f"{INDENT}return {model}",
        "",
        "",
        "def train(model, data, clock):",
        f'{INDENT}"""Train until the batches end, and return the model to score."""',
        *([] if model == "model" else [f"{INDENT}{model} = model"]),
        f"{INDENT}TIME_BUDGET = clock.budget",
        f"{INDENT}# TODO: clock.progress is the used share of the budget; one that leaves steps out lags behind.",
        *_indented(preparing),
        f"{INDENT}try:",
        *_indented([_adapted(loop)], 2),
        f"{INDENT}except StopIteration:  # the batches are over",
        f"{INDENT * 2}pass",
        f"{INDENT}return {model}",
        "",
        "",
        "def logits(model, tokens):",
        f'{INDENT}"""Predict the next token: (B, T) -> (B, T, V)."""',
        f"{INDENT}# TODO: in the mixed precision of the training, where it has one.",
        f"{INDENT}return model(tokens)",
        "",
    ]
    return "\n".join(body)


def _whole(node: ast.stmt) -> ast.stmt:
    """Begin a definition at its first decorator, which `get_source_segment` leaves out."""
    decorators = getattr(node, "decorator_list", [])
    if decorators:
        node.lineno, node.col_offset = decorators[0].lineno, decorators[0].col_offset - 1
    return node


def _indented(nodes: Sequence[ast.stmt], depth: int = 1) -> list[str]:
    lines = [line for node in nodes for line in ast.unparse(node).splitlines()]
    return [f"{INDENT * depth}{line}" for line in lines]
