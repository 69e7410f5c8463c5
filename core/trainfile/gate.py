"""The static gate: what a train file may import and touch, read from its syntax tree before a device is used.

It is a courtesy, not a protection. It tells a researcher within a millisecond, and with a line number, what the sandbox
and the audit would stop later, or what they cannot see (see docs/trust.md). A file that tries to get past it does.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from autoresearch.core.trainfile.parsing import parse, parse_expression
from autoresearch.core.trainfile.source_check import SourceFault


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _words(
    "__future__ abc array bisect cmath collections contextlib copy dataclasses decimal enum fractions "
    "functools gc heapq itertools math numbers numpy operator random re statistics string time typing "
    "typing_extensions warnings torch triton kernels flash_attn einops mlx"
)
"""Top-level packages that may be imported. Each backend's framework and its kernels are among them."""
CONTRACT = "autoresearch.backends.contract"
NAMES = _words("open eval exec compile globals locals vars input breakpoint exit quit help license copyright credits")
"""Builtins that reach files, other code or the interpreter."""
READERS = _words("getattr setattr delattr")
"""Builtins that reach attributes by name: they are called, with a name that can be read, and not handed on."""
DUNDERS = _words(
    "__init__ __name__ __class__ __call__ __len__ __getitem__ __setitem__ __contains__ __iter__ "
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
OF_SELF = frozenset(("signal",))
"""Names among these that a class may give to attributes of its own. A function can be called with any `self`, such as
a traceback."""
EVALUATORS = _words(
    "attrgetter methodcaller Formatter get_field vformat format_map get_type_hints ForwardRef evaluate_forward_ref "
    "get_annotations _evaluate singledispatch singledispatchmethod CompilationUnit CodeGen set_codegen "
    "on_generate_code load_object import_submodule recompile get_source_lines_and_file getsource getsourcelines "
    "getsourcefile findsource getdoc user_stack _convert_ global_enum _getcategory _setoption _processoptions"
)
"""Attributes that evaluate text, or reach a module or an attribute by a name that is only known when the file runs."""
WRITERS = _words(
    "tofile dump save_weights load_weights export_chrome_trace export_stacks export_memory_timeline "
    "tensorboard_trace_handler dump_snapshot _dump_snapshot start_capture export_to_dot share_memory_ "
    "_share_filename_cpu_ _share_fd_cpu_ _write_file _new_shared _new_using_filename_cpu get_local_kernel "
    "from_file fromfile to_folder save_cache_artifacts load_cache_artifacts CUDAPluggableAllocator "
    "XPUPluggableAllocator "
    "formatwarning showwarning warn_explicit WarningMessage memmap open_memmap loadtxt savetxt genfromtxt fromregex "
    "savez savez_compressed DataSource load_library load_inline load_url debug_dump load_nvprof parse_nvprof_trace "
    "export_memory_timeline_raw export_memory_timeline_html ExecutionTraceObserver load_compiled_function GdsFile "
    "load_metallib metal_capture PyTorchFileReader PyTorchFileWriter _new_with_file _set_from_file _load_from_bytes"
)
"""Methods that write or read files or shared memory, whatever object they are asked of."""
FILES = _words(
    "load save savez savez_compressed savetxt loadtxt genfromtxt fromregex fromfile memmap open_memmap DataSource "
    "ctypeslib f2py from_file hub package cpp_extension load_library load_inline distributed rpc testing "
    "distutils save_safetensors save_gguf import_function export_function exporter load_url serialization model_zoo "
    "UntypedStorage UntypedTensorStorage npyio format onnx _export export chdir clock_settime collect_env _C _utils "
    "_utils_internal _sources _weights_only_unpickler _storage _vendor _appdirs test _pytesttester extension "
    "_distributed_utils launch _guards _logging _library _ops _subclasses _decomp _prims _refs _jit_internal _awaits "
    "_classes _custom_op _custom_ops _dispatch _lazy _meta_registrations _numpy _python_dispatcher _tensor_docs "
    "_torch_docs _strobelight _vmap_internals _compile _import_dotted_name import_ir_module "
    "import_ir_module_from_buffer parse_ir DeserializationStorageContext SerializationStorageContext "
    "ScriptModuleSerializer LiteScriptModule ThroughputBenchmark gds prepare_multiprocessing_environment mrecords "
    "tests conftest testutils _examples _pyinstaller xeon numa _fa3 _fa4 _native _deprecation_utils"
)
"""Attributes of an imported module that read or write files, compile foreign code or use the network."""
ONLY = {
    ("torch", "utils"): _words("checkpoint _pytree flop_counter swap_tensors set_module"),
    # Its keys, such as `GetAttrKey`, read any attribute by a name that is computed.
    ("torch", "utils", "_pytree"): _words(
        "PyTree TreeSpec register_pytree_node tree_all tree_any tree_flatten tree_flatten_with_path tree_iter "
        "tree_leaves tree_leaves_with_path tree_map tree_map_ tree_map_only tree_map_only_ tree_map_with_path "
        "tree_structure tree_unflatten"
    ),
    # The rest of it reads the source of what it is given, and runs in threads.
    ("torch", "jit"): _words(
        "script script_if_tracing trace trace_module ignore unused export annotate isinstance freeze Final Attribute "
        "ScriptModule ScriptFunction is_scripting is_tracing optimize_for_inference strict_fusion set_fusion_strategy"
    ),
    ("torch", "_higher_order_ops"): _words("associative_scan cond flex_attention scan while_loop"),
    # The rest of it writes what it has found out into a file.
    ("torch", "cuda", "tunable"): _words("enable is_enabled tuning_enable tuning_is_enabled"),
    ("torch", "_inductor"): _words("config"),
    ("torch", "_inductor", "config", "cpp"): _words("threads simdlen min_chunk_size dynamic_threads"),
    ("torch", "_functorch"): _words("config"),
    ("torch", "_dynamo"): _words(
        "config reset allow_in_graph disable disallow_in_graph forbid_in_graph graph_break is_compiling mark_dynamic "
        "maybe_mark_dynamic mark_static mark_static_address nonstrict_trace optimize"
    ),
    # A graph becomes code by the `repr` of the constants in it, which a file may write itself.
    ("torch", "fx"): _words("wrap"),
    # Operators of its own; `Library` and `register_kernel` also take the place of the framework's.
    ("torch", "library"): _words(
        "custom_op triton_op wrap_triton register_fake register_autograd register_vmap infer_schema get_ctx"
    ),
    ("numpy", "lib"): _words("stride_tricks"),
    # `as_strided` reads and writes any memory of the process.
    ("numpy", "lib", "stride_tricks"): _words("sliding_window_view broadcast_arrays broadcast_shapes broadcast_to"),
    # `fields` and `Field` change the names from which `dataclass` writes the code that it runs.
    ("dataclasses",): _words("dataclass field asdict astuple replace is_dataclass InitVar KW_ONLY MISSING"),
    # `replace` gives an object attributes of any name (Python 3.13).
    ("copy",): _words("copy deepcopy Error error"),
    # The rest of it hands out the objects of the whole process.
    ("gc",): _words("collect enable disable isenabled freeze unfreeze get_threshold set_threshold"),
    ("numpy", "core"): frozenset[str](),
    ("numpy", "_core"): frozenset[str](),
    ("kernels",): _words("get_kernel"),
    ("mlx",): _words("core nn optimizers utils"),
    ("triton",): _words("jit language tools Config autotune heuristics cdiv next_power_of_2 __version__"),
    ("triton", "tools"): _words("tensor_descriptor"),
    ("triton", "tools", "tensor_descriptor"): _words("TensorDescriptor"),
}
"""All that may be used of these modules."""
RAW = frozenset({
    ("numpy", "info"), ("numpy", "source"), ("numpy", "lookfor"), ("numpy", "recarray"), ("numpy", "chararray"),
    ("numpy", "rec"), ("mlx", "core", "as_strided"), ("triton", "language", "str_to_ty"),
    ("contextlib", "redirect_stdout"), ("contextlib", "redirect_stderr"),
})  # fmt: skip
"""Full names of what reads other modules' texts, evaluates one, or reads memory that does not belong to an array."""
FRAMEWORKS = _words("torch numpy np mlx mx ndarray")
"""Names under which the frameworks' modules keep the frameworks themselves, and numpy's class of arrays. Whatever a
value is that has one of them, it hands on what could not be checked there."""
KERNELS = frozenset(("kernels-community/flash-attn3", "varunneal/flash-attention-3"))
"""Repositories that `kernels.get_kernel` may be asked for: the ones that the shipped file and upstream's name."""
KERNEL_LOAD = ("triton", "language", "load")
"""A kernel's own `load` reads what its arguments point to in the GPU's memory, and no file."""
SUBMODULES = _words(
    "nn functional optim utils linalg fft special cuda backends autograd func _dynamo _inductor compiler jit "
    "random core fast optimizers losses init lib ma rec char profiler library config language "
    "schedulers metal "
    # Most of the frameworks' modules import the framework itself: by another name it could be used unseen.
    "accelerator activation amp anomaly_mode ao array_utils aten bit_generator classes clip_grad container "
    "convert_parameters dispatcher distributions dlpack dtypes emath exceptions fake_quantize forward_ad frontend "
    "function functions futures fx grad_mode graphs introspect jiterator lr_scheduler masked memory mixins mlx "
    "modules monitor mps mtia mtrand mx nccl nested normalization np numpy nvtx observer operators ops opt_einsum "
    "overrides parallel parametrizations parametrize profiler_util quantization quantized quasirandom "
    "return_types scimath sparse stateless storage streams stride_tricks swa_utils torch torch_version tunable "
    "version xpu contextlib dataclasses enum"
)
"""Names under which the frameworks keep modules of their own."""
PRIVATE_OF_TORCH = re.compile(
    r"_(dynamo|inductor|functorch|higher_order_ops|VF|adaptive|addmm|aminmax|amp|assert|batch|cast|cdist|check|chunk"
    r"|conj|convert|convolution|copy|cslt|cummax|cummin|dim|dyn|efficientzerotensor|embedding|empty|euclidean|fft"
    r"|fill|flash|foreach|fused|grid|grouped|histogramdd|index|int|linalg|log|logcumsumexp|masked|mixed|mkldnn|native"
    r"|neg|nested|pack|pad|philox|prelu|reshape|resize|rowwise|safe|saturate|scaled|segment|shape|softmax|sparse|stack"
    r"|standard|sym|thnn|to|transform|trilinear|unique|unsafe|values|weight|wrapped)(_|$)"
)
"""Private names of PyTorch's first module that may be used: its operators, by the first word of their names, and parts
that have rules of their own. Among the others are functions that import any module."""
PUBLIC_ONLY = frozenset(("accelerator", "autograd", "compiler", "cuda", "mps", "mtia", "profiler", "storage", "xpu"))
"""Modules of PyTorch of which no private name is used: some write files."""
LIKE_FUNCTIONS = _words("select trace signal code queue")
"""Names of the standard library's modules that a framework has given to functions and packages of its own."""
FOREIGN = frozenset(sys.stdlib_module_names) - MODULES - LIKE_FUNCTIONS
"""Modules of the standard library that may not be reached, through other modules either."""
SETTINGS = frozenset(("backends", "config"))
"""Below these, a framework's attributes may be set: `torch.backends.cudnn.benchmark = True`."""
CONFIG_METHODS = _words("load_config save_config save_config_portable codegen_config patch install_config_module")
"""Functions of PyTorch's settings: `load_config` runs code that bytes name, and `patch` sets what it is given."""
RISKY_SETTING = re.compile(
    r"^_|cxx|(^|_)dir($|_)|path$|root$|home$|custom_((pre_|post_)?pass|partitioner|runtime|op_libs|backend)|_hook$|upload"
    r"|remote|dump|save_|external_|override$|log_file|_output$|^(aot_inductor|skipfiles)"
)
"""Settings of PyTorch's compilers that name a program to run, a place for files, or a function that changes code."""
INDUCTOR_CONFIG = ("torch", "_inductor", "config")
SEEDERS = frozenset(("seed", "manual_seed", "manual_seed_all", "default_rng", "RandomState", "key", "PRNGKey"))
"""Functions that take a seed: a literal there would make every trial of a file the same."""
MATCHING = frozenset(("bool", "bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"))
"""Classes of which a pattern's one part without a name is the object itself."""
ENUMS = frozenset(("Enum", "IntEnum", "StrEnum", "ReprEnum", "Flag", "IntFlag"))
"""Classes of `enum`: with more than a value they make a class of values, which may hold hidden names."""
MAIN = "__main__"
"""A text with two underscores that leads nowhere: `if __name__ == "__main__"` ends many files, and never holds here."""
NAMING = frozenset(("named_children", "named_modules", "named_parameters", "named_buffers"))
"""Methods of a model that yield (name, part): by such a name a part of it may be replaced."""
DUNDER = re.compile(r"__[a-zA-Z0-9]\w*?__")
FIELD = re.compile(r"\{\w*(\.|\[)[^\W\d]")
"""A field of `str.format` that reads an attribute or a key."""

STRING_LIMIT = 2000
"""Characters of one string or bytes literal, at most."""
DOCSTRING_LIMIT = 8000
"""Characters of one docstring, at most."""
ROUNDS = 8
"""Times that all assignments are looked through for further names of a module, at most. Once is enough, and once more
to see that nothing is left, unless functions that run one after the other stand in another order."""
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


@dataclass(frozen=True)
class _Scope:
    """The names of one function, comprehension or class statement."""

    names: set[str]
    """Names that it binds: no builtins and no modules, here and in the functions inside it."""
    outer: set[str]
    """Names that mean here what they mean at the file's top level, or a module: whatever a scope around this binds."""


_ScopeNode: TypeAlias = (
    ast.FunctionDef
    | ast.AsyncFunctionDef
    | ast.Lambda
    | ast.ListComp
    | ast.SetComp
    | ast.DictComp
    | ast.GeneratorExp
    | ast.ClassDef
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# Tuples made once: a union is made anew, and compared slowly, for each of the file's thousands of nodes.
_SCOPES = (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)
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
        self._called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        self.faults: list[Fault] = []
        self.docstrings = _docstrings(nodes)
        self._modules: set[str] = set()
        """Names that stand for a module for sure."""
        self._paths: dict[str, list[Path]] = {}
        """Origins of each imported name: `F` -> ("torch", "nn", "functional"). Several where it is imported twice, of
        which any may be the one that counts."""
        self._scopes: list[_Scope] = []
        """The enclosing scopes, the innermost last."""
        self._scope_of: dict[int, _Scope] = {}
        """Results of `_names_of`, by the identity of the scope's node."""
        self._parents = {id(child): node for node in nodes for child in _children(node)}
        self._trees: list[ast.Expression] = []
        """Trees of annotations in text: a node of one that is gone could leave its identity to another."""
        self._classes: dict[str, list[ast.ClassDef]] = {}
        """Class statements by name."""
        self._functions: set[str] = set()
        """Names of functions that the file defines."""
        self._bindings: Counter[str] = Counter()
        """Number of times that each name is bound, imports and class statements aside."""
        self._shared: set[str] = set()
        """Names that are bound from inside another scope, as `nonlocal` and `:=` in a comprehension do."""
        self._bound_in: dict[int, tuple[Counter[str], dict[str, list[ast.expr | None]]]] = {}
        """Results of `_scope`, by the identity of the scope's node."""
        # By identity: a name that is called and the same name as a value are two nodes.
        self._called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        self._collect(nodes)

    def _fault(self, node: ast.AST, words: str) -> None:
        self.faults.append((getattr(node, "lineno", 1), words))

    # ---- names that stand for modules

    def _collect(self, nodes: Sequence[ast.AST]) -> None:
        imported: list[tuple[ast.AST, str]] = []
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    parts = tuple(alias.name.split("."))
                    name = alias.asname or parts[0]
                    self._stands_for(name, parts if alias.asname else parts[:1])
                    self._modules.add(name)
                    imported.append((node, name))
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or alias.name
                    self._stands_for(name, (*(node.module or "").split("."), alias.name))
                    if alias.name in SUBMODULES:
                        self._modules.add(name)
                    imported.append((node, name))
            elif isinstance(node, _DEFINITIONS):
                self._functions.add(node.name)
            elif isinstance(node, ast.ClassDef):
                self._classes.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.Global | ast.Nonlocal):
                self._shared |= set(node.names)
            elif isinstance(node, ast.NamedExpr):
                self._shared.add(node.target.id)
            self._bindings.update(_bound_here(node))
        for node, name in imported:
            self._means_module(node, name)
        # `t = torch` gives the module another name, and `u = t` a third one. They need not stand in the order in which
        # they run, so this goes on until it finds no more.
        assignments = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.value, _NAMED)]
        for _ in range(ROUNDS):
            before = len(assignments)
            assignments = [node for node in assignments if not self._renames(node)]
            if len(assignments) == before:
                return
        self._fault(nodes[0], "modules get other names in a chain too long to follow: use them by their own names")

    def _renames(self, node: ast.Assign) -> bool:
        """Note the names that an assignment gives to a module or an imported class; tell whether it is one."""
        self._scopes = [self._names_of(scope) for scope in self._around(node)]
        module = self._is_module(node.value)
        paths = [path for path in self._paths_of(node.value) if module or path[-1][:1].isupper()]
        self._scopes = []
        for target in node.targets if paths else ():
            if isinstance(target, ast.Name):
                for path in paths:
                    self._stands_for(target.id, path)
                self._modules |= {target.id} if module else set()
                self._means_module(node, target.id)
        return bool(paths)

    def _stands_for(self, name: str, path: Path) -> None:
        """Note what a name may stand for."""
        known = self._paths.setdefault(name, [])
        if path not in known:
            known.append(path)

    def _means_module(self, node: ast.AST, name: str) -> None:
        """Note that a name is bound to a module, or what is imported of one, where a node stands."""
        around = self._around(node)
        # `nonlocal` binds it further out; where it does so is not looked up.
        for scope in around if name in self._shared else around[-1:]:
            self._names_of(scope).outer.add(name)

    def _around(self, node: ast.AST) -> list[_ScopeNode]:
        """Return the scopes around a node, the innermost last: functions, comprehensions and class statements."""
        found: list[_ScopeNode] = []
        parent = self._parents.get(id(node))
        while parent is not None:
            if isinstance(parent, _SCOPES):
                found.insert(0, parent)
            parent = self._parents.get(id(parent))
        return found

    def _paths_of(self, node: ast.expr) -> list[Path]:
        """Return the full names of `F.gelu`, [("torch", "nn", "functional", "gelu")]; none where it is of no module."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in self._paths and not self._bound(node.id):
            return [(*path, *reversed(parts)) for path in self._paths[node.id]]
        return []

    def _is_module(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self._modules and not self._bound(node.id)
        paths = self._paths_of(node) if isinstance(node, ast.Attribute) and node.attr in SUBMODULES else []
        # `np.random.random` is a function in a module of its name, and `triton.jit` is none at all.
        return any(path[-2:-1] != path[-1:] and path != ("triton", "jit") for path in paths)

    # ---- scopes

    def _bound(self, name: str) -> bool:
        for scope in reversed(self._scopes):
            if name in scope.outer:
                return False
            if name in scope.names:
                return True
        return False

    def _names_of(self, node: _ScopeNode) -> _Scope:
        """Return the names of a function, a comprehension or a class statement."""
        if id(node) not in self._scope_of:
            self._scope_of[id(node)] = _names_in(node)
        return self._scope_of[id(node)]

    def visit(self, node: ast.AST) -> None:
        """Check one node and all below it."""
        self._check(node)
        if isinstance(node, _FUNCTIONS):
            # Defaults, decorators and annotations are evaluated outside of the function.
            arguments = node.args
            every = _arguments(arguments)
            outside: list[ast.AST | None] = [*arguments.defaults, *arguments.kw_defaults]
            if not isinstance(node, ast.Lambda):
                outside += [*node.decorator_list, node.returns]
            outside += [argument.annotation for argument in every]
            outside += getattr(node, "type_params", [])
            for argument in every:
                self._annotation(argument.annotation)
            for part in outside:
                self._below(node, part)
            self._within(node, [node.body] if isinstance(node, ast.Lambda) else node.body)
        elif isinstance(node, _COMPREHENSIONS):
            # Its first sequence is evaluated outside, too.
            first = node.generators[0].iter
            self._below(node, first)
            parts: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            for generator in node.generators:
                parts += [generator.target, *generator.ifs]
                parts += [] if generator.iter is first else [generator.iter]
            self._within(node, parts)
        elif isinstance(node, ast.ClassDef):
            for part in (*node.decorator_list, *node.bases, *node.keywords, *getattr(node, "type_params", [])):
                self._below(node, part)
            self._within(node, node.body)
        else:
            self.generic_visit(node)

    def _within(self, node: _ScopeNode, parts: Sequence[ast.AST]) -> None:
        self._scopes.append(self._names_of(node))
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
        named = isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
        if named and not self._in_class(node):
            return  # another name, which is known; as an attribute of a class it would not be
        if isinstance(node, ast.Compare) and all(isinstance(one, ast.Is | ast.IsNot) for one in node.ops):
            return  # `triton is not None`: a module that may be missing
        asked = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {*READERS, "hasattr"}
        if not asked:
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
            plain = isinstance(node.cls, ast.Name) and node.cls.id in MATCHING and not self._bindings[node.cls.id]
            if node.patterns and not plain:
                self._fault(
                    node, f"a pattern of {ast.unparse(node.cls)} without names: name the attributes, as in A(x=1)"
                )
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, _DEFINITIONS):
            if _hidden(node.name) and node.name not in METHODS:
                self._fault(node, f"a method {node.name!r} is not allowed: it leads into the interpreter")
            self._annotation(node.returns)
        elif isinstance(node, _ANNOTATED):
            self._annotation(node.annotation)

    def _in_class(self, node: ast.AST) -> bool:
        """Tell whether what a node binds becomes an attribute of a class."""
        return any(isinstance(scope, ast.ClassDef) for scope in self._around(node)[-1:])

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.level:
            self._fault(node, "a relative import: a train file stands alone")
            return
        if self._in_class(node):
            self._fault(node, "an import in a class makes a module an attribute: import at the top of the file")
            return
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for module in modules:
            path = tuple(module.split("."))
            outside = path[0] not in MODULES or set(path[module == "gc" :]) & INTERPRETER
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
        elif node.id == "type" and isinstance(node.ctx, ast.Load) and not self._bound("type"):
            if id(node) not in self._called and not self._compared(node) and not self._annotates(node):
                self._fault(node, "type is passed on as a value: it makes classes from values; write them as classes")
        elif isinstance(node.ctx, ast.Load):
            self._origin(node)

    def _attribute(self, node: ast.AST, name: str, owner: ast.expr) -> None:
        of_self = isinstance(owner, ast.Name) and owner.id == "self"
        of_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
        usual = (of_self and name in OF_SELF) or (name == "signal" and self._is_torch(owner))
        if (_hidden(name) and not (of_super and name in METHODS)) or (name in INTERPRETER and not usual):
            self._fault(node, f"the attribute {name!r} is not allowed: it leads into the interpreter")
            return
        if name in EVALUATORS:
            self._fault(node, f"{name!r} is not allowed: it reaches attributes or evaluates text by computed names")
            return
        if name in WRITERS:
            self._fault(node, f"{name!r} is not allowed: it writes or reads files or shared memory")
            return
        if name == "format" and not self._paths_of(owner):
            if not isinstance(owner, ast.Constant) or not isinstance(owner.value, str):
                self._fault(node, "format of a text that is not a literal: it can read any attribute")
                return
            if FIELD.search(owner.value):
                self._fault(node, "a format field that reads an attribute or a key: use an f-string")
                return
        written = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        method = name == "numpy" and id(node) in self._called  # a tensor's: no module can be called
        if name in FRAMEWORKS and not (of_self or written or method or self._paths_of(owner)):
            self._fault(node, f"the attribute {name!r} is not allowed: it may be the framework, by another name")
            return
        if name == "obj":
            self._fault(node, "the attribute 'obj' is not allowed: an exception's hands on what was asked")
            return
        read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if name == "__class__" and read and not self._compared(node):
            self._fault(
                node, "__class__ is passed on as a value: it makes classes from values; name the class you mean"
            )
            return
        if name == "__setattr__" and not of_super:
            self._setter(node, owner)
            return
        if words := next((words for path in self._paths_of(owner) if (words := _barred((*path, name)))), None):
            self._fault(node, f"{ast.unparse(owner)}.{name} is not allowed: {words}")
        elif isinstance(node, ast.Attribute):
            self._origin(node)

    def _is_torch(self, node: ast.expr) -> bool:
        return any(path[0] == "torch" for path in self._paths_of(node))

    def _setter(self, node: ast.AST, owner: ast.expr) -> None:
        """Check an object's own setter: `object.__setattr__(self, "x", value)` is what a frozen dataclass needs."""
        call = self._parents.get(id(node))
        if self._paths_of(owner) or (isinstance(owner, ast.Name) and owner.id == "type"):
            self._fault(node, f"{ast.unparse(owner)}.__setattr__ changes a module or a class that is not this file's")
        elif (
            not isinstance(call, ast.Call) or call.func is not node or len(call.args) != 3 or not _is_text(call.args[1])
        ):
            self._fault(node, "__setattr__ with a name that is not a literal: it can change any attribute")
        else:
            self._attribute(call, call.args[1].value, call.args[0])  # type: ignore[attr-defined]

    def _origin(self, node: ast.Name | ast.Attribute) -> None:
        """Check an imported name that may be used in certain places alone."""
        for path in self._paths_of(node):
            self._origin_of(node, path)

    def _origin_of(self, node: ast.Name | ast.Attribute, path: Path) -> None:
        parent = self._parents.get(id(node))
        if path == ("dataclasses", "dataclass"):
            outer = self._parents.get(id(parent)) if isinstance(parent, ast.Call) and not parent.args else parent
            used = parent if isinstance(parent, ast.Call) else node
            if not isinstance(outer, ast.ClassDef) or used not in outer.decorator_list:
                self._fault(
                    node, "dataclass is called or passed on: it runs code that it makes of names; decorate with it"
                )
            elif not self._is_static(outer, set()):
                self._fault(outer, "a dataclass whose base is not a class statement of this file, or imported")
        elif path == ("dataclasses", "field"):
            outer = self._parents.get(id(parent)) if isinstance(parent, ast.Call) and parent.func is node else None
            if not isinstance(outer, ast.AnnAssign) or not isinstance(self._parents.get(id(outer)), ast.ClassDef):
                self._fault(
                    node, "field stands alone as the value of an annotated name in a class: `x: int = field(...)`"
                )
        elif path[-1].endswith(("Meta", "EnumType")) and not isinstance(parent, ast.keyword | ast.Attribute):
            self._fault(node, f"{path[-1]} makes classes from values: write them as classes")
        elif path == ("numpy", "ndarray") and not self._compared(node) and not self._annotates(node):
            self._fault(node, "numpy.ndarray makes arrays of any memory: use np.zeros, np.empty or np.frombuffer")

    def _is_static(self, node: ast.ClassDef, seen: set[str]) -> bool:
        """Tell whether all bases of a class come from class statements of this file, or are imported.

        `seen` takes the names of bases that were looked at.
        """
        for base in node.bases:
            inner = base.value if isinstance(base, ast.Subscript) else base
            name = inner.id if isinstance(inner, ast.Name) else None
            if self._paths_of(inner) or name in ("object", "Exception") or name in seen:
                continue
            if name is None or self._bindings[name] or name not in self._classes:
                return False
            seen.add(name)
            if not all(self._is_static(one, seen) for one in self._classes[name]):
                return False
        return True

    def _is_enum(self, node: ast.expr) -> bool:
        """Tell whether a name stands for a class of `enum`, or for one of this file's that comes from it."""
        waiting, seen = [node], set[str]()
        while waiting:
            one = waiting.pop()
            if paths := self._paths_of(one):
                if any(path[0] == "enum" and path[-1] in ENUMS for path in paths):
                    return True
            elif isinstance(one, ast.Name) and one.id not in seen:
                seen.add(one.id)
                waiting += [base for found in self._classes.get(one.id, []) for base in found.bases]
        return False

    def _compared(self, node: ast.AST) -> bool:
        """Tell whether a class is only compared, read a name of, shown, or looked up, and not passed on."""
        parent = self._parents.get(id(node))
        if isinstance(parent, ast.Attribute):
            return parent.attr not in ("__class__", "__call__", "__new__", "__init__")
        if isinstance(parent, ast.Tuple):
            return self._compared(parent)
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and parent.func is not node:
            return (
                parent.func.id in ("isinstance", "issubclass", "print", "str", "repr")
                and not self._bindings[parent.func.id]
            )
        subscript = isinstance(parent, ast.Subscript) and parent.slice is node
        return subscript or isinstance(parent, ast.Compare | ast.FormattedValue)

    def _annotates(self, node: ast.AST) -> bool:
        """Tell whether a node is part of an annotation."""
        parent = self._parents.get(id(node))
        while isinstance(parent, ast.Subscript | ast.BinOp | ast.Tuple | ast.List | ast.Attribute):
            node, parent = parent, self._parents.get(id(parent))
        if isinstance(parent, ast.arg | ast.AnnAssign):
            return parent.annotation is node
        return isinstance(parent, _DEFINITIONS) and parent.returns is node

    def _assignment(self, node: ast.Attribute) -> None:
        if any(not SETTINGS & set(path[1:-1]) for path in self._paths_of(node)):
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
        if isinstance(called, ast.Name) and name == "type" and not self._bound("type"):
            if len(node.args) + len(node.keywords) != 1:
                self._fault(node, "type(...) makes a class from values: write it as a class")
            elif not self._compared(node):
                self._fault(node, "type(...) is passed on as a value: compare it, or name the class you mean")
        if self._is_enum(called) and (
            node.keywords or len(node.args) > 1 or any(isinstance(argument, ast.Starred) for argument in node.args)
        ):
            self._fault(node, f"{name}(...) makes a class from values: write it as a class")
        if name in ("wraps", "update_wrapper") and (
            any(keyword.arg in ("assigned", "updated", None) for keyword in node.keywords)
            or len(node.args) > (1 if name == "wraps" else 2)
            or any(isinstance(argument, ast.Starred) for argument in node.args)
        ):
            self._fault(node, f"{name} with a list of attributes: it reaches attributes by computed names")
        if name == "save" and node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant):
            self._fault(node, "save writes a file: the core stores the weights")
        backend = next((keyword.value for keyword in node.keywords if keyword.arg == "backend"), None)
        if (
            name == "compile"
            and isinstance(backend, ast.Lambda | ast.Call | ast.Name)
            and not self._is_setting(backend)
        ):
            self._fault(
                node, "compile with a backend of the file's own: it is handed code to change; give a name, as text"
            )
        if name == "compile" and any(keyword.arg is None for keyword in node.keywords):
            self._fault(node, "compile with options that cannot be read here: write them as `name=value`")
        for keyword in node.keywords:
            if keyword.arg == "options":
                self._options(node, keyword.value, compiles=name == "compile")
        if ("kernels", "get_kernel") in self._paths_of(called):
            first = node.args[0] if node.args else None
            if not (isinstance(first, ast.Constant) and first.value in KERNELS):
                self._fault(node, f"get_kernel runs foreign code: only {' or '.join(sorted(KERNELS))}, as a literal")

    def _options(self, node: ast.Call, value: ast.expr, *, compiles: bool) -> None:
        """Check the settings that a call hands to PyTorch's compiler, or to whatever passes them on."""
        keys = value.keys if isinstance(value, ast.Dict) else [None]
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                path = (*INDUCTOR_CONFIG, *key.value.split("."))
                lengths = range(len(INDUCTOR_CONFIG) + 1, len(path) + 1)
                if words := next((found for length in lengths if (found := _barred(path[:length]))), None):
                    self._fault(node, f"the option {key.value!r} is not allowed: {words}")
            elif compiles and not (isinstance(value, ast.Constant) and value.value is None):
                self._fault(node, "compile with options that cannot be read here: write them as `{'name': value}`")

    def _reader(self, node: ast.Call, name: str) -> None:
        if len(node.args) < 2 or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._fault(node, f"{name} whose arguments cannot be read here")
            return
        owner, attribute = node.args[:2]
        of_module = bool(self._paths_of(owner))
        if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
            self._attribute(node, attribute.value, owner)
        elif of_module:
            self._fault(node, f"{name} on a module with a name that is not a literal")
        elif _plain_name(attribute):
            pass
        elif name == "getattr":
            self._fault(node, "getattr with a name that is not a literal: it can read any attribute")
        elif (names := self._looped_names(attribute)) is None:
            self._fault(
                node,
                f"{name} with a name that is not a literal: it can change any attribute; to replace a part of a model, "
                f"take the name from its named_children(), or use add_module or set_submodule",
            )
        else:
            for one in names:
                self._attribute(node, one, owner)
        if of_module and name != "getattr":
            self._fault(node, f"{name} changes a module: a train file leaves the modules it imports as they are")

    def _looped_names(self, node: ast.expr) -> list[str] | None:
        """Return the names that loops give to a variable, but those of a model's parts; None where others may be."""
        if not isinstance(node, ast.Name) or node.id in self._shared:
            return None
        loops: list[ast.expr | None] = []
        bound, scope = 0, self._parents.get(id(node))
        while scope is not None and not bound:  # the innermost scope that binds it is the one that Python reads
            if isinstance(scope, (*_FUNCTIONS, *_COMPREHENSIONS, ast.Module)):
                if id(scope) not in self._bound_in:
                    self._bound_in[id(scope)] = _scope(scope)
                counts, sources = self._bound_in[id(scope)]
                bound, loops = counts[node.id], sources.get(node.id, [])
            scope = self._parents.get(id(scope))
        if not loops or len(loops) != bound:
            return None
        found: list[str] = []
        for values in loops:
            if isinstance(values, ast.Call) and isinstance(values.func, ast.Attribute) and values.func.attr in NAMING:
                if self._bindings[values.func.attr]:  # a method of this file's own may yield any name
                    return None
            elif isinstance(values, ast.Tuple | ast.List) and all(_is_text(one) for one in values.elts):
                found += [one.value for one in values.elts]  # type: ignore[attr-defined]
            else:
                return None
        return found

    def _is_setting(self, node: ast.expr) -> bool:
        """Tell whether a node is a name that only plain values are assigned to, or an argument."""
        return isinstance(node, ast.Name) and not self._paths_of(node) and node.id not in self._functions

    def _class(self, node: ast.ClassDef) -> None:
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
        # As if it stood in the text's place: what may stand in an annotation alone is looked up there.
        for one in ast.walk(inner.body):
            self._parents |= {id(child): one for child in _children(one)}
        self._parents[id(inner.body)] = ast.arg("", inner.body)
        self._trees.append(inner)
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
            named = () if docstring or text == MAIN else DUNDER.findall(text)
            if found := next((name for name in named if _hidden(name)), None):
                self._fault(node, f"a text with {found!r} in it is not allowed: it names a part of the interpreter")
        elif isinstance(value, int) and value.bit_length() > 256:
            self._fault(node, f"an integer literal of {value.bit_length()} bits: weights and tables are learned")


def _barred(path: Path) -> str | None:
    """Say why the last part of a full name may not be used; None where it may."""
    *before, name = path
    inside = tuple(before)
    if path == KERNEL_LOAD:
        return None
    if path in RAW:
        return "it shows other modules' texts, or memory that is not an array's"
    if inside in ONLY and name not in ONLY[inside]:
        return f"of {'.'.join(inside)} a train file uses only {', '.join(sorted(ONLY[inside])) or 'nothing'}"
    if "config" in inside[1:] and (name in CONFIG_METHODS or RISKY_SETTING.search(name)):
        return "it sets what the compiler runs, reads or writes"
    if path[0] == "torch" and name.startswith("_") and not name.startswith("__"):
        private = len(path) == 2 and not PRIVATE_OF_TORCH.match(name)
        if private or (len(path) > 2 and path[1] in PUBLIC_ONLY):
            return "it is a private part of PyTorch"
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


def _names_in(node: _ScopeNode) -> _Scope:
    """Return the names of a scope: what Python looks up there alone, and what it looks up at the file's top level.

    Names that are imported, or bound to a module, are added later.
    """
    if isinstance(node, _COMPREHENSIONS):
        # The names of its targets are enough.
        return _Scope({n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}, set())
    if isinstance(node, ast.ClassDef):
        return _Scope(set(), _bindings(node.body)[2])  # it binds attributes, which the functions in it do not see
    names, elsewhere, outer = _bindings([node.body] if isinstance(node, ast.Lambda) else node.body)
    return _Scope({argument.arg for argument in _arguments(node.args)} | (names - elsewhere), outer)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [argument for argument in every if argument is not None]


def _bindings(body: Sequence[ast.AST]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that a body binds, those that it says belong elsewhere, and which of these are global."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    outer: set[str] = set()
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
            outer |= set(node.names) if isinstance(node, ast.Global) else set()
        if not isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
            waiting += _children(node)
    return names, elsewhere, outer


def _scope(scope: ast.AST) -> tuple[Counter[str], dict[str, list[ast.expr | None]]]:
    """Return how often each name is bound in a function, a comprehension or the file, without the scopes inside it.

    Beside that, what loops give to each name, as `_loop_names` tells it.
    """
    counts: Counter[str] = Counter()
    loops: dict[str, list[ast.expr | None]] = {}
    waiting = _children(scope)
    while waiting:
        node = waiting.pop()
        counts.update([] if isinstance(node, ast.Attribute) else _bound_here(node))
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            for name, values in _loop_names(node.target, node.iter):
                loops.setdefault(name, []).append(values)
        if not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)):
            waiting += _children(node)
    return counts, loops


def _bound_here(node: ast.AST) -> list[str]:
    """Return the names that one node binds, imports and class statements aside; attributes that it sets, too."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, ast.Attribute):
        return [] if isinstance(node.ctx, ast.Load) else [node.attr]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, (*_DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return list(node.names) if isinstance(node, ast.Global | ast.Nonlocal) else []


def _loop_names(target: ast.expr, values: ast.expr) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield each name that a loop binds, with what gives its values: a tuple or list of literals, or a call."""
    call = isinstance(values, ast.Call)
    if isinstance(target, ast.Name):
        yield target.id, None if call else values
    elif isinstance(target, ast.Tuple | ast.List):
        for place, one in enumerate(target.elts):
            if isinstance(one, ast.Name):
                yield one.id, values if call and place == 0 else _column(values, place)


def _column(values: ast.expr, place: int) -> ast.expr | None:
    """Return the parts at one place of a literal list of tuples, as a list; None where it is none."""
    rows = values.elts if isinstance(values, ast.Tuple | ast.List) else [None]
    parts = [row.elts[place] for row in rows if isinstance(row, ast.Tuple | ast.List) and place < len(row.elts)]
    return ast.List(parts, ast.Load()) if len(parts) == len(rows) else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


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
