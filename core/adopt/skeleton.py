"""The beginning of a train file, written from a script in upstream's form.

Imports, classes and functions are carried over as they stand, and plain constants become the constants block. The
script's statements are cut in three: what makes the model becomes `build`, the training loop with what it needs becomes
`train`, and what comes after the loop is left out. A person finishes it: lines that begin with `# TODO` say where.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from autoresearch.core.adopt.script import dotted, parse_script, scored_names
from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import BLOCK_END, BLOCK_START, read_constants
from autoresearch.core.trainfile.gate import MODULES, SEEDERS

INDENT = "    "
SIZES = ("B", "T", "batch_size", "seq_len")
"""Keywords of upstream's `make_dataloader` for the shape of a batch."""
GIVEN = ("PRESET", "VOCAB_SIZE", "MAX_SEQ_LEN")
"""Constants that the preset decides."""


@dataclass
class Parts:
    """A script's statements, sorted."""

    imports: list[str] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    """Name -> literal as it is written, with the comment behind it."""
    definitions: list[str] = field(default_factory=list)
    """Classes, functions and what they use, in order."""
    work: list[ast.stmt] = field(default_factory=list)
    """The script's steps, in order, with the names that a train file has."""


def skeleton(source: str, *, name: str, preset: str, vocab: int, seq: int) -> str:
    """Return a train file that begins with what the script, called `name`, has.

    `vocab` and `seq` are the values of VOCAB_SIZE and of the script's MAX_SEQ_LEN. Raises `SourceError` for a script
    whose training loop or model is not found.
    """
    try:
        tree = parse_script(source)
        model = next(iter(scored_names(tree)), None)
        dropped = _dropped(tree)
        parts = sort(source, tree, model, dropped)
        building, preparing, loop = cut(parts.work, model)
        return _write(name, parts, f'PRESET = "{preset}"', vocab, seq, dropped, str(model), building, preparing, loop)
    except RecursionError as error:
        raise SourceError("nothing can be carried over: the script is nested too deeply.") from error


def sort(source: str, tree: ast.Module, model: str | None, dropped: Collection[str]) -> Parts:
    """Sort a script's statements. The body of `if __name__ == "__main__"` counts as the script's own.

    What classes and functions use stays beside them, if it can be made there; `model` is made in `build`. `dropped` are
    the names of modules that a train file may not import.
    """
    parts = Parts()
    adapter = _Adapter(dropped)
    statements = [kept for node in _flat(tree) if (kept := adapter.adapt(node)) is not None]
    once = [name for node in statements for name in stored(node)]
    used = _used(statements) - {model}
    known = {*GIVEN, "True", "False", "range", "len", "min", "max", "float", "int"}
    for node in statements:
        name = _only_target(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
            if module.partition(".")[0] in MODULES:
                parts.imports.append(ast.unparse(node))
                known |= _bound(node)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts.definitions.append(_segment(source, node))
            known.add(node.name)
        elif name is not None and once.count(name) == 1 and (text := _literal(node)) is not None:
            parts.constants[name] = f"{text}{_comment(source, node)}"
            known.add(name)
        elif name is not None and loaded(node) <= known and (name in used or (name.isupper() and _runs_nothing(node))):
            parts.definitions.append(ast.unparse(node))
            known.add(name)
        else:
            parts.work.append(node)
    return parts


def cut(work: Sequence[ast.stmt], model: str | None) -> tuple[list[ast.stmt], list[ast.stmt], ast.stmt]:
    """Cut statements into what makes the model, what prepares the training, and the loop. Raises `SourceError`."""
    place = next((i for i, node in enumerate(work) if _takes_batches(node)), None)
    first = next((i for i, node in enumerate(work[:place]) if model in stored(node)), None)
    if model is None or "." in model or place is None or first is None:
        what = "training loop" if place is None else "model that is handed to evaluate_bpb"
        raise SourceError(
            f"nothing can be carried over: no {what} is made at the script's top level.",
            fix="write the file by docs/contract.md",
        )
    building, rest, loop = list(work[: first + 1]), list(work[first + 1 : place]), work[place]
    while rest and isinstance(rest[0], ast.Expr) and model in loaded(rest[0]):
        building.append(rest.pop(0))  # `model.init_weights()` right after it
    wrapping = [node for node in rest if model in stored(node) and loaded(node) - {model} <= {"torch", "mx", "nn"}]
    rest = [node for node in rest if node not in wrapping]
    preparing = [*_again(building, [*rest, loop], model), *rest]
    # Also `model = torch.compile(model)`: what `train` returns must have the names of what `build` returns.
    return (
        _without_batches([*_kept(building), *wrapping]),
        [node for node in _kept(preparing) if "spec" not in loaded(node)],
        loop,
    )


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
    return [one for node in found for one in _split(node)]


def _split(node: ast.stmt) -> list[ast.stmt]:
    """Return one import for each module where `import os, torch` asks for some that a train file may not have."""
    if not isinstance(node, ast.Import) or all(alias.name.partition(".")[0] in MODULES for alias in node.names):
        return [node]
    return [ast.copy_location(ast.Import([alias]), node) for alias in node.names]


def _dropped(tree: ast.Module) -> dict[str, str]:
    """Return the names of imports that a train file may not have, each with its import."""
    found: dict[str, str] = {}
    for node in _flat(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
            if module.partition(".")[0] not in {*MODULES, "prepare"}:
                found |= dict.fromkeys(_bound(node), ast.unparse(node))
    return found


def _bound(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the names that an import makes."""
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _used(statements: Sequence[ast.stmt]) -> set[str]:
    """Return the names that classes and functions read, and those that these are made of."""
    used: set[str] = set()
    for node in reversed(statements):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) or _only_target(node) in used:
            used |= loaded(node)
    return used


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


def _lines(source: str) -> list[str]:
    """Return the lines as the parser counts them: a form feed in a line ends none."""
    return source.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _comment(source: str, node: ast.stmt) -> str:
    """Return the comment on a statement's last line, with the blanks before it; "" where there is none."""
    line = _lines(source)[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode(errors="ignore")
    return f"  {line.strip()}" if line.strip().startswith("#") else ""


def _segment(source: str, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a definition as it is written, from its first decorator on."""
    lines = _lines(source)
    start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    text = lines[start - 1 : node.end_lineno]
    return "\n".join(line[node.col_offset :] for line in text)


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
    """Turns what a script asks of `prepare` into what a train file is given; leaves out calls of dropped modules."""

    def __init__(self, dropped: Collection[str]) -> None:
        self._dropped = set(dropped)

    def adapt(self, node: ast.stmt) -> ast.stmt | None:
        """Return the statement as a train file can have it; None where nothing is left."""
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            return node  # carried over as it is written
        changed: ast.stmt | None = self.visit(node)
        return None if changed is None else ast.fix_missing_locations(changed)

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

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Leave out a call such as `os.makedirs("out")`."""
        return None if loaded(node) & self._dropped else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Leave out a setting such as `os.environ["X"] = ...`."""
        gone = any(loaded(target) & self._dropped for target in node.targets)
        return None if gone else self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visit all parts. A body that is left empty does nothing."""
        super().generic_visit(node)
        # Any kind of node with a body, such as an `except` or a `case`; a lambda's is no list.
        if isinstance(body := getattr(node, "body", None), list) and not body:
            body.append(ast.Pass())
        if isinstance(node, ast.Try | ast.TryStar) and not node.handlers and not node.finalbody:
            node.finalbody.append(ast.Pass())
        return node


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
    name: str,
    parts: Parts,
    preset: str,
    vocab: int,
    seq: int,
    dropped: dict[str, str],
    model: str,
    building: Sequence[ast.stmt],
    preparing: Sequence[ast.stmt],
    loop: ast.stmt,
) -> str:
    """Put the file together."""
    left_out = dict.fromkeys(dropped.values())
    constants = {"VOCAB_SIZE": str(vocab), "MAX_SEQ_LEN": str(seq)}
    constants |= {key: text for key, text in parts.constants.items() if key not in GIVEN}
    body = [
        f'"""Begun by `ar adopt` from {_harmless(name)}. See docs/contract.md, and the lines with TODO."""',
        "",
        *parts.imports,
        *(f"# TODO: left out, because a train file may not import it: {text}" for text in left_out),
        "",
        f"{BLOCK_START}: what the tuner moves and a preset sets",
        preset,
        *(f"{key} = {text}" for key, text in constants.items()),
        BLOCK_END,
        "",
        "",
        "\n\n\n".join(parts.definitions),
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
        f"{INDENT}# TODO: clock.log(step=..., loss=...) in the loop draws the live curve.",
        f"{INDENT}try:",
        *_indented([loop], 2),
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


def _harmless(name: str) -> str:
    """Return a file's name with a blank for whatever could end a docstring."""
    return "".join(letter if letter.isalnum() or letter in "._-" else " " for letter in name)


def _indented(nodes: Sequence[ast.stmt], depth: int = 1) -> list[str]:
    lines = [line for node in nodes for line in ast.unparse(node).splitlines()]
    return [f"{INDENT * depth}{line}" for line in lines]
