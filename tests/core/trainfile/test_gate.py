"""The static gate names the line of what a train file may not do, and lets the shipped files and usual code pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from null_trials import request

from autoresearch import backends
from autoresearch.agent.structural import MENU
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trainfile.gate import check_gate
from autoresearch.core.trainfile.source_check import SourceFault
from autoresearch.core.trial.supervisor import run_trial


def shipped(backend: str) -> str:
    return (Path(backends.__path__[0]) / backend / "train.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", ["null", "cuda", "mlx"])
def test_the_shipped_files_and_every_structural_edit_pass(backend: str) -> None:
    source = shipped(backend)
    check_gate(source)
    for edit in MENU:
        if (edited := edit.apply(source)) is not None:
            check_gate(edited)


@pytest.mark.parametrize(
    "code",
    [
        "import torch.nn.functional as F\nF.gelu",
        "import torch\ntorch.backends.cudnn.benchmark = True\ntorch.set_float32_matmul_precision('high')",
        "import torch\ntorch._dynamo.config.cache_size_limit = 64",
        "import torch\nstep = torch.compile(lambda x: x)",
        "import re\nWORD = re.compile('a+')",
        "import torch\nkind = getattr(torch, 'bfloat16')",
        "class A:\n    def __init__(self):\n        super().__init__()\n        self.load = 3",
        "def f(model, state):\n    model.load_state_dict(state)",
        "import numpy as np\ndef f(spec):\n    return np.random.default_rng(spec.seed)",
        "import time\nstarted = time.monotonic()",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 0",
        "import mlx.core as mx\nfrom mlx.utils import tree_map\nmx.compile",
        "import triton\nimport triton.language as tl",
    ],
)
def test_usual_code_passes(code: str) -> None:
    check_gate(code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os", "the import of 'os' is not allowed"),
        ("import torch.utils.cpp_extension", "cpp_extension"),
        ("from torch import hub", "'hub'"),
        ("from numpy import *", "everything"),
        ("from . import x", "relative"),
        ("import autoresearch.core.trial.audit", "autoresearch.core"),
        ("open('f')", "'open'"),
        ("eval('1')", "'eval'"),
        ("__import__('os')", "'__import__'"),
        ("x = __builtins__", "'__builtins__'"),
        ("import numpy as np\nnp.load('f')", "line 2 of train.py: np.load is not allowed"),
        ("import numpy as np\nnp.lib.npyio", "npyio"),
        ("import torch\ntorch.os", "'os'"),
        ("import torch\ngetattr(torch, 'o' + 's')", "not a literal"),
        ("import torch\ngetattr(torch, 'os')", "'os'"),
        ("().__class__.__bases__", "'__bases__'"),
        ("def f(): pass\nf.__globals__", "line 2"),
        ("try: 1 / 0\nexcept Exception as e: e.__traceback__", "'__traceback__'"),
        ("import time\ntime.monotonic = None", "time.monotonic is changed"),
        ("import torch\ntorch.nn.functional.cross_entropy = None", "is changed"),
        ("import torch\nsetattr(torch, 'exp', None)", "changes a module"),
        ("import torch\ntorch.manual_seed(3)", "fixes a seed"),
        (f"x = {'a' * 3000!r}", "3000 characters"),
        (f"x = {list(range(600))}", "600 elements"),
        (f"x = {10**200}", "bits"),
        ("\n".join(f"x{n} = {'a' * 1000!r}" for n in range(20)), "line 17"),
        ("\n".join(f"x{n} = {list(range(500))}" for n in range(10)), "number literals"),
    ],
)
def test_what_is_not_allowed_is_named(code: str, words: str) -> None:
    with pytest.raises(SourceFault) as caught:
        check_gate(code)
    assert words in str(caught.value)
    assert str(caught.value).startswith("line ")


def test_a_refused_file_costs_no_process(prepared: Prepared, tmp_path: Path) -> None:
    asked = request(prepared, tmp_path / "trial", "import socket", gate=True)
    result = run_trial(asked)
    line = asked.source.splitlines().index("import socket") + 1
    assert (result.status, result.reason) == (
        "invalid",
        f"line {line} of train.py: the import of 'socket' is not allowed",
    )
    assert result.device is None


@pytest.mark.parametrize(
    "code", ["x = " + "+".join(["1"] * 900), "x = a" + ".b" * 2500, "if a: pass\n" + "elif b: pass\n" * 2500]
)
def test_what_is_nested_too_deep_to_be_read_is_refused(code: str) -> None:
    with pytest.raises(SourceFault):
        check_gate(code + "\n")


@pytest.mark.parametrize(
    "source",
    [
        "from triton.tools import disasm",
        "import triton.tools.compile",
        "from triton.tools.tensor_descriptor import os",
        "import triton\ntriton.tools.link",
        "from triton import tools\ntools.build_extern",
        "import triton.tools.tensor_descriptor as t\nt.dataclass",
    ],
)
def test_of_tritons_tools_only_descriptors_may_be_used(source: str) -> None:
    """Others call a compiler or a disassembler."""
    check_gate("from triton.tools.tensor_descriptor import TensorDescriptor\nTensorDescriptor.from_tensor")
    with pytest.raises(SourceFault):
        check_gate(source)
