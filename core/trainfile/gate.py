"""The static gate: what a train file may import and touch, read from its syntax tree before a device is used.

It is a courtesy, not a protection. It tells a researcher within a millisecond, and with a line number, what the sandbox
and the audit would stop later, or what they cannot see (see docs/trust.md). A file that tries to get past it does.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence

from autoresearch.core.trainfile.parsing import parse, parse_expression
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
NAMES = _words("open eval exec compile globals locals vars input breakpoint exit quit help license copyright credits")
"""Builtins that reach files, other code or the interpreter."""
READERS = _words("getattr setattr delattr")
"""Builtins that reach attributes by name: they are called, with a name that can be read, and not handed on."""
DUNDERS = _words(
    "__init__ __name__ __doc__ __class__ __call__ __len__ __getitem__ __setitem__ __contains__ __iter__ "
    "__next__ __enter__ __exit__ __new__ __repr__ __str__ __post_init__ __version__ __add__ __radd__ __mul__ "
    "__rmul__ __matmul__ __sub__ __eq__ __hash__ __setattr__ __all__ __slots__"
)
"""Names with two underscores that ordinary classes use; any other leads into the interpreter."""
METHODS = _words(
    "__rsub__ __truediv__ __rtruediv__ __floordiv__ __mod__ __pow__ __rmatmul__ __neg__ __pos__ __abs__ __invert__ "
    "__lt__ __le__ __gt__ __ge__ __ne__ __bool__ __int__ __float__ __index__ __reversed__ __iadd__ __isub__ __imul__ "
    "__itruediv__ __and__ __or__ __xor__ __delitem__ __aenter__ __aexit__ __torch_function__ __torch_dispatch__"
)
"""More methods that a class may define."""
INTERPRETER = _words(
    "os _os sys _sys io _io subprocess socket ctypes _ctypes importlib builtins bltns inspect gc pathlib shutil "
    "pickle marshal signal multiprocessing linecache runpy threading _thread f_locals f_globals f_back "
    "f_builtins f_code gi_frame cr_frame ag_frame tb_frame gi_code cr_code ag_code gi_yieldfrom co_consts mro"
)
"""Attributes that lead out of the model, whatever object they are asked of: modules import each other."""
EVALUATORS = _words(
    "attrgetter methodcaller Formatter get_field vformat format_map get_type_hints ForwardRef evaluate_forward_ref "
    "get_annotations _evaluate singledispatch singledispatchmethod CompilationUnit CodeGen set_codegen "
    "on_generate_code load_object import_submodule"
)
"""Attributes that evaluate text, or reach an attribute by a name that is only known when the file runs."""
WRITERS = _words(
    "tofile dump save_weights load_weights export_chrome_trace export_stacks export_memory_timeline "
    "tensorboard_trace_handler dump_snapshot _dump_snapshot start_capture export_to_dot share_memory_ "
    "_share_filename_cpu_ _share_fd_cpu_ _write_file _new_shared _new_using_filename_cpu get_local_kernel "
    "from_file fromfile to_folder save_cache_artifacts load_cache_artifacts CUDAPluggableAllocator "
    "formatwarning showwarning warn_explicit WarningMessage"
)
"""Methods that write or read files or shared memory, whatever object they are asked of."""
FILES = _words(
    "load save savez savez_compressed savetxt loadtxt genfromtxt fromregex fromfile memmap open_memmap DataSource "
    "ctypeslib f2py from_file hub package cpp_extension load_library load_inline distributed rpc testing "
    "distutils save_safetensors save_gguf import_function export_function exporter load_url serialization model_zoo "
    "UntypedStorage UntypedTensorStorage npyio format onnx _export export chdir clock_settime collect_env _C _utils "
    "_utils_internal _sources _weights_only_unpickler _storage _vendor _appdirs test _pytesttester extension "
    "_distributed_utils launch"
)
"""Attributes of an imported module that read or write files, compile foreign code or use the network."""
ONLY = {
    ("torch", "utils"): _words("checkpoint _pytree flop_counter swap_tensors set_module"),
    ("torch", "_inductor"): _words("config"),
    ("torch", "_inductor", "config", "cpp"): _words("threads simdlen min_chunk_size dynamic_threads"),
    ("torch", "_dynamo"): _words(
        "config reset allow_in_graph disable disallow_in_graph forbid_in_graph graph_break is_compiling mark_dynamic "
        "maybe_mark_dynamic mark_static mark_static_address nonstrict_trace optimize explain"
    ),
    ("torch", "fx"): _words("wrap symbolic_trace replace_pattern"),
    # Operators of its own; `Library` and `register_kernel` also take the place of the framework's.
    ("torch", "library"): _words(
        "custom_op triton_op wrap_triton register_fake register_autograd register_vmap infer_schema get_ctx"
    ),
    ("numpy", "lib"): _words("stride_tricks"),
    ("numpy", "core"): frozenset[str](),
    ("numpy", "_core"): frozenset[str](),
    ("kernels",): _words("get_kernel"),
    ("mlx",): _words("core nn optimizers utils"),
    ("triton",): _words("jit language tools Config autotune heuristics cdiv next_power_of_2 __version__"),
    ("triton", "tools"): _words("tensor_descriptor"),
    ("triton", "tools", "tensor_descriptor"): _words("TensorDescriptor"),
}
"""All that may be used of these modules."""
KERNELS = frozenset(("kernels-community/flash-attn3", "varunneal/flash-attention-3"))
"""Repositories that `kernels.get_kernel` may be asked for: the ones that the shipped file and upstream's name."""
KERNEL_LOAD = ("triton", "language", "load")
"""A kernel's own `load` reads what its arguments point to in the GPU's memory, and no file."""
SUBMODULES = _words(
    "nn functional optim utils linalg fft special cuda backends autograd func _dynamo _inductor compiler jit "
    "random core fast optimizers losses init lib ma rec char profiler library config language "
    "schedulers metal"
)
"""Names under which the frameworks keep modules of their own."""
LIKE_FUNCTIONS = _words("select trace signal code queue")
"""Names of the standard library's modules that a framework has given to functions and packages of its own."""
FOREIGN = frozenset(sys.stdlib_module_names) - MODULES - LIKE_FUNCTIONS
"""Modules of the standard library that may not be reached, through other modules either."""
SETTINGS = frozenset(("backends", "config"))
"""Below these, a framework's attributes may be set: `torch.backends.cudnn.benchmark = True`."""
SEEDERS = frozenset(("seed", "manual_seed", "manual_seed_all", "default_rng", "RandomState", "key", "PRNGKey"))
"""Functions that take a seed: a literal there would make every trial of a file the same."""
DUNDER = re.compile(r"__[a-zA-Z0-9]\w*?__")
FIELD = re.compile(r"\{\w*(\.|\[)[^\W\d]")
"""A field of `str.format` that reads an attribute or a key."""

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
    try:
        tree = parse(source)
        nodes = _all_nodes(tree)
        checker = _Checker(nodes)
        checker.visit(tree)
        # The tree is not walked in the order of its lines, so the first line is found at the end.
        faults = [*checker.faults, *_totals(nodes, checker.docstrings)]
    except (RecursionError, MemoryError) as error:  # a thousand signs, dots or branches in one expression
        raise SourceFault("expressions or branches of train.py are nested too deep to be read") from error
    if faults:
        line, words = min(faults)
        raise SourceFault(f"line {line} of train.py: {words}")


Fault = tuple[int, str]
Path = tuple[str, ...]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Tuples made once: a union is made anew, and compared slowly, for each of the file's thousands of nodes.
_NAMED = (ast.Name, ast.Attribute)
_IMPORTS = (ast.Import, ast.ImportFrom)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LITERALS = (ast.List, ast.Tuple, ast.Set, ast.Dict)
_ANNOTATED = (ast.AnnAssign, ast.arg)
_PLAIN = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop)
"""Kinds of nodes without parts and without anything to check."""


def _children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes directly below one, as `ast.iter_child_nodes` does, without signs like `Load` or `Add`."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST) and not isinstance(one, _PLAIN)]
        elif isinstance(value, ast.AST) and not isinstance(value, _PLAIN):
            found.append(value)
    return found


def _all_nodes(tree: ast.Module) -> list[ast.AST]:
    """Return every node of a file in the order of `ast.walk`, without signs like `Load` or `Add`."""
    nodes: list[ast.AST] = [tree]
    for node in nodes:
        nodes += _children(node)
    return nodes


class _Checker(ast.NodeVisitor):
    """Walks a whole file once and collects its faults."""

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        self.faults: list[Fault] = []
        self.docstrings = _docstrings(nodes)
        self._modules: set[str] = set()
        """Names that stand for a module for sure."""
        self._paths: dict[str, Path] = {}
        """Origin of each imported name: `F` -> ("torch", "nn", "functional")."""
        self._scopes: list[set[str]] = []
        """The names that each enclosing function binds; such a name is no builtin."""
        self._excepted: set[str] = set()
        # By identity: a name that is called and the same name as a value are two nodes.
        self._called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        self._collect(nodes)

    def _fault(self, node: ast.AST, words: str) -> None:
        self.faults.append((getattr(node, "lineno", 1), words))

    # ---- names that stand for modules

    def _collect(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    parts = tuple(alias.name.split("."))
                    name = alias.asname or parts[0]
                    self._paths[name] = parts if alias.asname else parts[:1]
                    self._modules.add(name)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or alias.name
                    self._paths[name] = (*(node.module or "").split("."), alias.name)
                    if alias.name in SUBMODULES:
                        self._modules.add(name)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                self._excepted.add(node.name)
        # `t = torch` gives the module another name. Twice around finds names of names; a longer chain is refused where
        # it is used, because its first links are values that are passed on.
        assignments = [node for node in nodes if isinstance(node, ast.Assign)]
        for _ in range(2):
            for node in assignments:
                if path := self._path(node.value):
                    module = self._is_module(node.value)
                    if module or path[-1][:1].isupper():
                        for target in node.targets:
                            if isinstance(target, ast.Name):
                                self._paths.setdefault(target.id, path)
                                self._modules |= {target.id} if module else set()

    def _path(self, node: ast.expr) -> Path:
        """Return the full name of `F.gelu`, ("torch", "nn", "functional", "gelu"); () where it is not of a module."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in self._paths and not self._bound(node.id):
            return (*self._paths[node.id], *reversed(parts))
        return ()

    def _is_module(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self._modules and not self._bound(node.id)
        path = self._path(node) if isinstance(node, ast.Attribute) and node.attr in SUBMODULES else ()
        # `np.random.random` is a function in a module of its name, and `triton.jit` is none at all.
        return bool(path) and path[-2:-1] != path[-1:] and path != ("triton", "jit")

    # ---- scopes

    def _bound(self, name: str) -> bool:
        return any(name in scope for scope in self._scopes)

    def visit(self, node: ast.AST) -> None:
        """Check one node and all below it."""
        self._check(node)
        if isinstance(node, _FUNCTIONS):
            # Defaults, decorators and annotations are evaluated outside of the function.
            arguments = node.args
            outside: list[ast.AST | None] = [*arguments.defaults, *arguments.kw_defaults]
            if not isinstance(node, ast.Lambda):
                outside += [*node.decorator_list, node.returns]
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            outside += [argument.annotation for argument in every if argument is not None]
            outside += getattr(node, "type_params", [])
            for argument in every:
                self._annotation(argument.annotation if argument is not None else None)
            for part in outside:
                self._below(node, part)
            body = [node.body] if isinstance(node, ast.Lambda) else node.body
            self._within(node, {a.arg for a in every if a is not None} | _bindings(body), body)
        elif isinstance(node, _COMPREHENSIONS):
            # Its first sequence is evaluated outside, too; here the names of its targets are enough.
            first = node.generators[0].iter
            self._below(node, first)
            names = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
            parts: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            for generator in node.generators:
                parts += [generator.target, *generator.ifs]
                parts += [] if generator.iter is first else [generator.iter]
            self._within(node, names, parts)
        else:
            self.generic_visit(node)

    def _within(self, node: ast.AST, names: set[str], parts: Sequence[ast.AST]) -> None:
        self._scopes.append(names)
        for part in parts:
            self._below(node, part)
        self._scopes.pop()

    def generic_visit(self, node: ast.AST) -> None:
        """Go on below a node that opens no scope."""
        for child in _children(node):
            self._below(node, child)

    def _below(self, node: ast.AST, child: ast.AST | None) -> None:
        if isinstance(child, _NAMED) and isinstance(child.ctx, ast.Load) and self._is_module(child):
            self._check_use(node, child)
        if child is not None:
            self.visit(child)

    def _check_use(self, node: ast.AST, child: ast.expr) -> None:
        """Refuse a module that is handed on: by another name its attributes can be changed unseen."""
        if isinstance(node, ast.Attribute) or (isinstance(node, ast.Call) and node.func is child):
            return  # a module cannot be called: np.random.random is a function
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            return
        if isinstance(node, ast.Compare) and all(isinstance(one, ast.Is | ast.IsNot) for one in node.ops):
            return  # `triton is not None`: a module that may be missing
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {*READERS, "hasattr"}
        if not named:
            self._fault(child, f"the module {ast.unparse(child)!r} is passed on as a value: name what you use of it")

    # ---- one node

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self._name(node)
        elif isinstance(node, ast.Constant):
            self._constant(node)
        elif isinstance(node, ast.Attribute):
            self._attribute(node, node.attr, node.value)
            if not isinstance(node.ctx, ast.Load):
                self._assignment(node)
        elif isinstance(node, ast.Call):
            self._call(node)
        elif isinstance(node, _LITERALS):
            count = len(node.keys if isinstance(node, ast.Dict) else node.elts)
            if count > ITEMS_LIMIT:
                self._fault(
                    node, f"a literal of {count} elements; at most {ITEMS_LIMIT}: weights and tables are learned"
                )
        elif isinstance(node, _IMPORTS):
            self._imports(node)
        elif isinstance(node, ast.MatchClass):
            for name in node.kwd_attrs:
                self._attribute(node, name, node.cls)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, _DEFINITIONS):
            if _hidden(node.name) and node.name not in METHODS:
                self._fault(node, f"a method {node.name!r} is not allowed: it leads into the interpreter")
            self._annotation(node.returns)
        elif isinstance(node, _ANNOTATED):
            self._annotation(node.annotation)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.level:
            self._fault(node, "a relative import: a train file stands alone")
            return
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for module in modules:
            path = tuple(module.split("."))
            outside = path[0] not in MODULES or set(path) & INTERPRETER
            if module != CONTRACT and (outside or any(_barred(path[:end]) for end in range(2, len(path) + 1))):
                self._fault(node, f"the import of {module!r} is not allowed")
        for alias in node.names if isinstance(node, ast.ImportFrom) else []:
            path = (*modules[0].split("."), alias.name)
            if alias.name == "*":
                self._fault(node, "an import of everything hides what is used: name what you need")
            elif alias.name in INTERPRETER | EVALUATORS | WRITERS or _hidden(alias.name) or _barred(path):
                self._fault(node, f"the import of {alias.name!r} is not allowed")

    def _name(self, node: ast.Name) -> None:
        if _hidden(node.id) or (node.id in NAMES and not self._bound(node.id)):
            self._fault(node, f"{node.id!r} is not allowed: a train file touches no files and no interpreter")
        elif node.id in READERS and not self._bound(node.id) and id(node) not in self._called:
            self._fault(node, f"{node.id} is passed on as a value: call it with an attribute that can be read here")

    def _attribute(self, node: ast.AST, name: str, owner: ast.expr) -> None:
        of_self = isinstance(owner, ast.Name) and owner.id == "self"
        if _hidden(name) or (
            name in INTERPRETER and not of_self and (*self._path(owner)[:1], name) != ("torch", "signal")
        ):
            self._fault(node, f"the attribute {name!r} is not allowed: it leads into the interpreter")
            return
        if name in EVALUATORS:
            self._fault(node, f"{name!r} is not allowed: it reaches attributes or evaluates text by computed names")
            return
        if name in WRITERS and not of_self:
            self._fault(node, f"{name!r} is not allowed: it writes or reads files or shared memory")
            return
        if name == "format" and not self._path(owner):
            if not isinstance(owner, ast.Constant) or not isinstance(owner.value, str):
                self._fault(node, "format of a text that is not a literal: it can read any attribute")
                return
            if FIELD.search(owner.value):
                self._fault(node, "a format field that reads an attribute or a key: use an f-string")
                return
        if name == "obj" and isinstance(owner, ast.Name) and owner.id in self._excepted:
            self._fault(node, "the attribute 'obj' of an exception is not allowed: it hands on what was asked")
            return
        if name == "__setattr__" and (self._path(owner) or (isinstance(owner, ast.Name) and owner.id == "type")):
            self._fault(node, f"{ast.unparse(owner)}.__setattr__ changes a module or a class that is not this file's")
            return
        path = self._path(owner)
        if path and (words := _barred((*path, name))):
            self._fault(node, f"{ast.unparse(owner)}.{name} is not allowed: {words}")

    def _assignment(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path and not SETTINGS & set(path[1:-1]):
            self._fault(node, f"{ast.unparse(node)} is changed: a train file leaves the modules it imports as they are")

    def _call(self, node: ast.Call) -> None:
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        seeds = node.args[:1] if name in SEEDERS else []
        seeds += [keyword.value for keyword in node.keywords if keyword.arg == "seed"]
        if fixed := next((seed for seed in seeds if isinstance(seed, ast.Constant)), None):
            self._fault(node, f"{name}({fixed.value!r}) fixes a seed: draw with spec.seed, as every trial is asked to")
        if isinstance(called, ast.Name) and name in READERS:
            self._reader(node, name)
        if isinstance(called, ast.Name) and name == "type" and len(node.args) + len(node.keywords) != 1:
            self._fault(node, "type(...) makes a class from values: write it as a class")
        if name in ("wraps", "update_wrapper") and (
            any(keyword.arg in ("assigned", "updated", None) for keyword in node.keywords)
            or len(node.args) > (1 if name == "wraps" else 2)
            or any(isinstance(argument, ast.Starred) for argument in node.args)
        ):
            self._fault(node, f"{name} with a list of attributes: it reaches attributes by computed names")
        if name == "save" and node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant):
            self._fault(node, "save writes a file: the core stores the weights")
        if self._path(called) == ("kernels", "get_kernel"):
            first = node.args[0] if node.args else None
            if not (isinstance(first, ast.Constant) and first.value in KERNELS):
                self._fault(node, f"get_kernel runs foreign code: only {' or '.join(sorted(KERNELS))}, as a literal")

    def _reader(self, node: ast.Call, name: str) -> None:
        if len(node.args) < 2 or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._fault(node, f"{name} whose arguments cannot be read here")
            return
        owner, attribute = node.args[:2]
        of_module = bool(self._path(owner))
        if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
            self._attribute(node, attribute.value, owner)
        elif of_module:
            self._fault(node, f"{name} on a module with a name that is not a literal")
        elif name == "getattr" and not _plain_name(attribute):
            self._fault(node, "getattr with a name that is not a literal: it can read any attribute")
        if of_module and name != "getattr":
            self._fault(node, f"{name} changes a module: a train file leaves the modules it imports as they are")

    def _class(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            if isinstance(statement, ast.Assign) and self._is_module(statement.value):
                self._fault(statement, f"the module {ast.unparse(statement.value)!r} is passed on as a value")
        for keyword in node.keywords:
            if keyword.arg == "metaclass" and not ast.unparse(keyword.value).endswith("ABCMeta"):
                self._fault(node, "a metaclass is not allowed: it runs code where a class is made or used")

    def _annotation(self, note: ast.expr | None) -> None:
        """Check an annotation that is written as text, which somebody may evaluate."""
        if not isinstance(note, ast.Constant) or not isinstance(note.value, str):
            return
        try:
            inner = parse_expression(note.value)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        before = len(self.faults)
        self.visit(inner.body)
        self.faults[before:] = [(note.lineno, words) for _, words in self.faults[before:]]

    def _constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str | bytes):
            docstring = id(node) in self.docstrings
            limit = DOCSTRING_LIMIT if docstring else STRING_LIMIT
            if len(value) > limit:
                self._fault(node, f"a literal of {len(value)} characters; at most {limit}: text comes from the feed")
            text = value if isinstance(value, str) else value.decode("latin-1")
            if not docstring and (found := next((name for name in DUNDER.findall(text) if _hidden(name)), None)):
                self._fault(node, f"a text with {found!r} in it is not allowed: it names a part of the interpreter")
        elif isinstance(value, int) and value.bit_length() > 256:
            self._fault(node, f"an integer literal of {value.bit_length()} bits: weights and tables are learned")


def _barred(path: Path) -> str | None:
    """Say why the last part of a full name may not be used; None where it may."""
    *before, name = path
    inside = tuple(before)
    if path == KERNEL_LOAD:
        return None
    if inside in ONLY and name not in ONLY[inside]:
        return f"of {'.'.join(inside)} a train file uses only {', '.join(sorted(ONLY[inside])) or 'nothing'}"
    if name in FILES or not ONLY.get(path, path):
        return "it reads, writes or loads from outside"
    if name.lstrip("_") in FOREIGN:
        return "it leads to another module of the standard library"
    if path[0] in sys.stdlib_module_names and name.startswith("_") and not name.startswith("__"):
        return "it is a private part of the standard library"
    return None


def _plain_name(node: ast.expr) -> bool:
    """Tell whether a computed attribute begins with letters that can be read, as `f"block{n}"` does."""
    first, *rest = node.values if isinstance(node, ast.JoinedStr) and node.values else [None]
    if not isinstance(first, ast.Constant) or not str(first.value)[:1].isalpha():
        return False
    if any(isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Constant) for part in rest):
        return False  # a constant is put in parts into a name only to hide it
    begins = str(first.value)
    return len(begins) < 2 or not any(name.startswith(begins) for name in INTERPRETER | EVALUATORS | WRITERS)


def _bindings(body: Sequence[ast.AST]) -> set[str]:
    """Return the names that a function's body binds: Python looks these up in the function alone."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere |= set(node.names)
        if not isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
            waiting += _children(node)
    return names - elsewhere


def _totals(nodes: Sequence[ast.AST], docstrings: set[int]) -> Iterator[Fault]:
    text = numbers = 0
    for node in nodes:
        if not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, str | bytes) and id(node) not in docstrings:
            text += len(node.value)
        elif isinstance(node.value, int | float | complex):
            numbers += 1
        else:
            continue
        if text > TEXT_LIMIT:
            yield node.lineno, f"more than {TEXT_LIMIT} characters in string literals: text comes from the feed"
            return
        if numbers > NUMBERS_LIMIT:
            yield node.lineno, f"more than {NUMBERS_LIMIT} number literals: weights and tables are learned"
            return


def _docstrings(nodes: Sequence[ast.AST]) -> set[int]:
    """Return the `id` of each constant that is a docstring."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in nodes if isinstance(node, owners)]
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def _hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in DUNDERS
