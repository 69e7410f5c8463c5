"""A script in upstream's form, read without running it: its framework, the model it scores, what it needs."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from autoresearch.core.errors import PrerequisiteError, SourceError
from autoresearch.core.trainfile.source_check import FUNCTIONS, SIZE_LIMIT_BYTES, SourceFault, parse

OFFERED = (
    "MAX_SEQ_LEN",
    "TIME_BUDGET",
    "EVAL_TOKENS",
    "VOCAB_SIZE",
    "CACHE_DIR",
    "DATA_DIR",
    "TOKENIZER_DIR",
    "Tokenizer",
    "make_dataloader",
    "evaluate_bpb",
    "get_token_bytes",
)
"""Names that the module in the place of `prepare` has."""
FRAMEWORKS = {"torch": "cuda", "mlx": "mlx"}
"""Package that a script imports -> backend that runs it."""
COMPILERS = ("torch.compile", "mx.compile", "mlx.core.compile")
HARMLESS_ON_CPU = ("is_available", "manual_seed", "manual_seed_all", "amp", "device_count", "is_initialized")
"""Names in `torch.cuda` that work, or do nothing, where there is no GPU."""


class ScriptFault(RuntimeError):  # noqa: N818
    """A script that cannot be measured, with the reason in words."""


@dataclass(frozen=True)
class Script:
    """The facts about a script that its source tells."""

    backend: str
    scored: tuple[str, ...]
    """Expressions that are handed to `evaluate_bpb` as the model, such as "model" or "trainer.ema"."""
    gpu_line: int | None
    """First line that needs an NVIDIA GPU whatever the machine has; None where the script asks first, or needs none."""
    gpu_need: str
    """The need in words, for a message."""
    compiles: bool
    """True where it has a framework compile something, which takes minutes once and less with a cache."""


def read_script(source: str) -> Script:
    """Read a script. Raises `SourceError` with the line and the reason where it is not in upstream's form."""
    tree = parse_script(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    _check_prepare(tree, imports)
    backend = _backend(imports)
    line, need = _gpu_need(tree)
    return Script(backend, scored_names(tree), line, need, _compiles(tree))


def parse_script(source: str) -> ast.Module:
    """Parse a script of at most `SIZE_LIMIT_BYTES`. Raises `SourceError`."""
    size = len(source.encode("utf-8", errors="replace"))
    if size > SIZE_LIMIT_BYTES:
        raise SourceError(f"the script has {size} bytes; the limit is {SIZE_LIMIT_BYTES}.")
    try:
        return parse(source)
    except SourceFault as fault:
        raise SourceError(f"{fault}.") from fault


def check_script(source: str, vocab: int, vocabularies: Collection[int]) -> int:
    """Check before a trial that a script parses and its vocabulary is prepared; return the vocabulary.

    Raises `SourceFault`.
    """
    try:
        parse_script(source)
    except SourceError as error:
        raise SourceFault(error.message) from error
    if vocab not in vocabularies:
        raise SourceFault(f"vocabulary {vocab} is not prepared ({', '.join(map(str, sorted(vocabularies)))})")
    return vocab


def require_gpu(script: Script, kind: str) -> None:
    """Raise `PrerequisiteError` where the script needs an NVIDIA GPU and the device, of this kind, is none."""
    if script.gpu_line is not None and kind != "cuda":
        raise PrerequisiteError(
            f"the script needs an NVIDIA GPU ({script.gpu_need}, line {script.gpu_line}), and PyTorch sees none here.",
            fix="run it on a machine with one, or let it ask torch.cuda.is_available() first",
        )


def _check_prepare(tree: ast.Module, imports: list[ast.Import | ast.ImportFrom]) -> None:
    """Raise `SourceError` unless the script imports what it must from `prepare`, and nothing that is not there."""
    asked = [(alias.name, node.lineno) for node in imports if _is_from_prepare(node) for alias in node.names]
    whole = any(isinstance(node, ast.Import) and alias.name == "prepare" for node in imports for alias in node.names)
    if not asked and not whole:
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        fix = "`ar train --file` measures a train file of ar's own contract" if defined >= set(FUNCTIONS) else None
        raise SourceError("the script imports nothing from `prepare`, so it is not in upstream's form.", fix=fix)
    for name, line in asked:
        if name not in (*OFFERED, "*"):
            there = ", ".join(OFFERED)
            raise SourceError(f"line {line} imports {name} from `prepare`, which has no such name here ({there}).")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {name for name, _ in asked}
    for name, without in (("make_dataloader", "it gets no batch"), ("evaluate_bpb", "it names no model to measure")):
        if name not in used:
            raise SourceError(f"the script never calls {name}, so {without}.", fix="see docs/adopt.md for the form")


def _is_from_prepare(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "prepare" and not node.level


def _backend(imports: list[ast.Import | ast.ImportFrom]) -> str:
    """Return the backend of the framework that the script imports. Raises `SourceError` for none, or two."""
    modules = {node.module or "" for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    found = {FRAMEWORKS[top] for module in modules if (top := module.partition(".")[0]) in FRAMEWORKS}
    if len(found) != 1:
        how = "neither PyTorch nor MLX" if not found else "both PyTorch and MLX"
        raise SourceError(f"the script imports {how}; it must use one of them.")
    return found.pop()


def scored_names(tree: ast.Module) -> tuple[str, ...]:
    """Return the first arguments of all calls of evaluate_bpb that are names or attributes of names, each once."""
    found: dict[str, None] = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        named = isinstance(call.func, ast.Name) and call.func.id == "evaluate_bpb"
        if not named and not (isinstance(call.func, ast.Attribute) and call.func.attr == "evaluate_bpb"):
            continue
        given = call.args[:1] or [word.value for word in call.keywords if word.arg == "model"]
        for value in given:
            if (text := dotted(value)) is not None:
                found[text] = None
    return tuple(found)


def dotted(node: ast.expr) -> str | None:
    """Return "a.b.c" for such an expression, None for any other."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):  # a loop: a chain may be longer than Python recurses
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else None


def _compiles(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Attribute) and dotted(node) in COMPILERS for node in ast.walk(tree))


def _gpu_need(tree: ast.Module) -> tuple[int | None, str]:
    """Return the first line that needs a GPU, and the need in words. A script that asks for one first needs none."""
    if any(isinstance(node, ast.Attribute) and node.attr == "is_available" for node in ast.walk(tree)):
        return None, ""
    found = sorted((line, need) for look in (_kernel_imports, _cuda_uses) for line, need in look(tree))
    return found[0] if found else (None, "")


def _kernel_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the imports of `kernels`, whose kernels are for GPUs; one inside `try` has something to fall back to."""
    tried = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.Try) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        if id(node) not in tried and any(name.partition(".")[0] == "kernels" for name in names):
            yield getattr(node, "lineno", 0), "attention kernels from the package `kernels`"


def _cuda_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the places that put something on "cuda", or ask the GPU for something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda" and not node.args:
                yield node.lineno, ".cuda()"
            elif (name := dotted(node.func)) is not None and name.startswith("torch.cuda."):
                if name.split(".")[2] not in HARMLESS_ON_CPU:
                    yield node.lineno, f"{name}()"
            elif dotted(node.func) in ("torch.device", "torch.set_default_device") and _is_cuda(node.args[:1]):
                yield node.lineno, f'{dotted(node.func)}("cuda")'
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "to" and _is_cuda(node.args[:1]):
                yield node.lineno, '.to("cuda")'
            elif any(word.arg == "device" and _is_cuda([word.value]) for word in node.keywords):
                yield node.lineno, 'device="cuda"'


def _is_cuda(values: list[ast.expr]) -> bool:
    texts: list[Any] = [value.value for value in values if isinstance(value, ast.Constant)]
    return any(isinstance(text, str) and text.partition(":")[0] == "cuda" for text in texts)
