"""The static gate: what a train file may import and touch, read from its syntax tree before a device is used.

It is a courtesy, not a protection. It tells a researcher within a millisecond, and with a line number, what the sandbox
and the audit would stop later, or what they cannot see (see docs/trust.md). A file that tries to get past it does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from autoresearch.core.trainfile.source_check import SourceFault


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _words(
    "__future__ abc array bisect cmath collections contextlib copy dataclasses decimal enum fractions "
    "functools heapq itertools math numbers numpy operator random re statistics string time typing "
    "typing_extensions warnings torch triton kernels flash_attn einops mlx"
)
"""Top-level packages that may be imported. Each backend's framework and its kernels are among them."""
CONTRACT = "autoresearch.backends.contract"
NAMES = _words("open eval exec compile globals locals vars input breakpoint exit quit help")
"""Builtins that reach files, other code or the interpreter."""
DUNDERS = _words(
    "__init__ __name__ __doc__ __class__ __call__ __len__ __getitem__ __setitem__ __contains__ __iter__ "
    "__next__ __enter__ __exit__ __new__ __repr__ __str__ __post_init__ __version__ __add__ __radd__ __mul__ "
    "__rmul__ __matmul__ __sub__ __eq__ __hash__ __setattr__ __all__ __annotations__ __slots__"
)
"""Names with two underscores that ordinary classes use; any other leads into the interpreter."""
INTERPRETER = _words(
    "os _os sys _sys io _io subprocess socket ctypes _ctypes importlib builtins inspect gc pathlib shutil "
    "pickle marshal signal multiprocessing linecache runpy threading _thread f_locals f_globals f_back "
    "f_builtins f_code gi_frame cr_frame ag_frame tb_frame tofile dump"
)
"""Attributes that lead out of the model, whatever object they are asked of: modules import each other."""
FILES = _words(
    "load save savez savez_compressed savetxt loadtxt genfromtxt fromfile memmap open_memmap DataSource "
    "ctypeslib f2py from_file hub package cpp_extension load_library load_inline distributed rpc testing "
    "distutils save_safetensors save_gguf import_function export_function load_url serialization model_zoo "
    "UntypedStorage UntypedTensorStorage npyio format"
)
"""Attributes of an imported module that read or write files, compile foreign code or use the network."""
SETTINGS = frozenset(("backends", "config"))
"""Below these, a framework's attributes may be set: `torch.backends.cudnn.benchmark = True`."""
SEEDERS = frozenset(("seed", "manual_seed", "manual_seed_all", "default_rng", "RandomState", "key", "PRNGKey"))
"""Functions that take a seed: a literal there would make every trial of a file the same."""

STRING_LIMIT = 2000
"""Characters of one string or bytes literal, at most."""
DOCSTRING_LIMIT = 8000
"""Characters of one docstring, at most."""
TEXT_LIMIT = 16_000
"""Characters of all string literals together, docstrings left out, at most."""
ITEMS_LIMIT = 512
"""Elements of one literal list, tuple, set or dict, at most."""
NUMBERS_LIMIT = 4000
"""Number literals in the whole file, at most."""


def check_gate(source: str) -> None:
    """Check a source that parses. Raises `SourceFault` with the line of the first thing that is not allowed."""
    tree = ast.parse(source)
    aliases = _imported(tree)
    docstrings = _docstrings(tree)
    # Everything is looked at and the first line reported: the tree is not walked in the order of the lines.
    faults = [fault for node in ast.walk(tree) for fault in _faults(node, aliases, docstrings)]
    faults += _totals(tree, docstrings)
    if faults:
        line, words = min(faults)
        raise SourceFault(f"line {line} of train.py: {words}")


Fault = tuple[int, str]


def _faults(node: ast.AST, aliases: set[str], docstrings: set[int]) -> Iterator[Fault]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imports(node)
    elif isinstance(node, ast.Name):
        if node.id in NAMES or _hidden(node.id) or (node.id in INTERPRETER and isinstance(node.ctx, ast.Load)):
            yield node.lineno, f"{node.id!r} is not allowed: a train file touches no files and no interpreter"
    elif isinstance(node, ast.Attribute):
        yield from _attribute(node, node.attr, node.value, aliases)
        if not isinstance(node.ctx, ast.Load):
            yield from _assignment(node, aliases)
    elif isinstance(node, ast.Call):
        yield from _call(node, aliases)
    elif isinstance(node, ast.Constant):
        yield from _constant(node, docstrings)
    elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        count = len(node.keys if isinstance(node, ast.Dict) else node.elts)
        if count > ITEMS_LIMIT:
            yield node.lineno, f"a literal of {count} elements; at most {ITEMS_LIMIT}: weights and tables are learned"


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Fault]:
    if isinstance(node, ast.ImportFrom):
        if node.level:
            yield node.lineno, "a relative import: a train file stands alone"
            return
        modules, names = [node.module or ""], [alias.name for alias in node.names]
    else:
        modules, names = [alias.name for alias in node.names], []
    for module in modules:
        parts = module.split(".")
        if module != CONTRACT and (parts[0] not in MODULES or set(parts) & (INTERPRETER | FILES)):
            yield node.lineno, f"the import of {module!r} is not allowed"
    for name in names:
        if name == "*":
            yield node.lineno, "an import of everything hides what is used: name what you need"
        elif name in INTERPRETER or name in FILES or _hidden(name):
            yield node.lineno, f"the import of {name!r} is not allowed"


def _attribute(node: ast.expr, name: str, owner: ast.expr, aliases: set[str]) -> Iterator[Fault]:
    if _hidden(name) or name in INTERPRETER:
        yield node.lineno, f"the attribute {name!r} is not allowed: it leads into the interpreter"
    elif name in FILES and _root(owner) in aliases:
        yield node.lineno, f"{ast.unparse(owner)}.{name} is not allowed: it reads, writes or loads from outside"


def _assignment(node: ast.Attribute, aliases: set[str]) -> Iterator[Fault]:
    path = ast.unparse(node).split(".")
    if _root(node) in aliases and not SETTINGS & set(path[1:-1]):
        yield node.lineno, f"{'.'.join(path)} is changed: a train file leaves the modules it imports as they are"


def _call(node: ast.Call, aliases: set[str]) -> Iterator[Fault]:
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    seeds = node.args[:1] if name in SEEDERS else []
    seeds += [keyword.value for keyword in node.keywords if keyword.arg == "seed"]
    if fixed := next((seed for seed in seeds if isinstance(seed, ast.Constant)), None):
        yield node.lineno, f"{name}({fixed.value!r}) fixes a seed: draw with spec.seed, as every trial is asked to"
    if isinstance(called, ast.Name) and name in ("getattr", "setattr", "delattr") and len(node.args) >= 2:
        owner, attribute = node.args[:2]
        of_module = _root(owner) in aliases
        if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
            yield from _attribute(node, attribute.value, owner, aliases)
        elif of_module:
            yield node.lineno, f"{name} on a module with a name that is not a literal"
        if of_module and name != "getattr":
            yield node.lineno, f"{name} changes a module: a train file leaves the modules it imports as they are"


def _constant(node: ast.Constant, docstrings: set[int]) -> Iterator[Fault]:
    if isinstance(node.value, str | bytes):
        limit = DOCSTRING_LIMIT if id(node) in docstrings else STRING_LIMIT
        if len(node.value) > limit:
            yield node.lineno, f"a literal of {len(node.value)} characters; at most {limit}: text comes from the feed"
    elif isinstance(node.value, int) and node.value.bit_length() > 256:
        yield node.lineno, f"an integer literal of {node.value.bit_length()} bits: weights and tables are learned"


def _totals(tree: ast.Module, docstrings: set[int]) -> Iterator[Fault]:
    text = numbers = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in docstrings:
            text += len(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
            numbers += 1
        else:
            continue
        if text > TEXT_LIMIT:
            yield node.lineno, f"more than {TEXT_LIMIT} characters in string literals: text comes from the feed"
            return
        if numbers > NUMBERS_LIMIT:
            yield node.lineno, f"more than {NUMBERS_LIMIT} number literals: weights and tables are learned"
            return


def _imported(tree: ast.Module) -> set[str]:
    """Return the names that an import binds."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.split(".")[0] for node in nodes for alias in node.names}


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the `id` of each constant that is a docstring."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def _root(node: ast.expr) -> str | None:
    """Return the name at the left end of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in DUNDERS
