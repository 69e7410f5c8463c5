import contextlib

import pytest
from upstream_scripts import TABLE, changed, script_named

from autoresearch.core.adopt.script import read_script, require_gpu
from autoresearch.core.errors import PrerequisiteError, SourceError

TORCH = changed(("import numpy as np", "import numpy as np\nimport torch"))
FORM = "from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader"


@pytest.mark.parametrize(
    ("name", "backend"),
    [("honest_torch", "cuda"), ("honest_mlx", "mlx"), ("faked_metric", "mlx"), ("looks_ahead", "mlx")],
)
def test_a_script_says_which_backend_it_wants_and_which_model_it_scores(name, backend):
    found = read_script(script_named(name))
    assert (found.backend, found.scored, found.gpu_line, found.compiles) == (backend, ("model",), None, False)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import torch\nprint('hello')\n", "imports nothing from `prepare`"),
        ("def build(spec): ...\ndef train(m, d, c): ...\ndef logits(m, t): ...\n", "ar train --file"),
        (TORCH.replace(FORM, FORM + ", list_parquet_files"), "imports list_parquet_files from `prepare`"),
        (TABLE, "neither PyTorch nor MLX"),
        (TORCH + "import mlx.core\n", "both PyTorch and MLX"),
        (TORCH.replace("make_dataloader", "evaluate_bpb"), "never calls make_dataloader"),
        (TORCH.replace("evaluate_bpb", "make_dataloader"), "never calls evaluate_bpb"),
        (TORCH + "def broken(:\n", "syntax error"),
        (TORCH + "#" * 2**18, "the limit is"),
        (TORCH + "x = " + "(" * 5000 + ")" * 5000, "nested"),
        (TORCH + "x = " + "-" * 100_000 + "1", "nested too deeply"),
        (TORCH + "\0", "null"),
        ("", "imports nothing from `prepare`"),
    ],
)
def test_a_file_in_another_form_is_refused_in_one_line(source, words):
    with pytest.raises(SourceError) as refused:
        read_script(source)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_scored_model_may_be_an_attribute_or_a_keyword():
    source = TORCH.replace("evaluate_bpb(model,", "evaluate_bpb(trainer.ema,")
    source += "prepare.evaluate_bpb(model=model, tokenizer=tokenizer)\nevaluate_bpb(GPT(), tokenizer, 4)\n"
    assert set(read_script(source).scored) == {"trainer.ema", "model"}


def test_upstreams_own_start_names_the_kernel_first():
    script = read_script(script_named("for_a_gpu"))
    assert (script.scored, script.compiles) == (("net",), True)
    with pytest.raises(PrerequisiteError, match=r"attention kernels from the package `kernels`, line 12"):
        require_gpu(script, "cpu")


@pytest.mark.parametrize(
    "line",
    [
        "device = torch.device('cuda')",
        "model.cuda()",
        "x = x.to('cuda:0')",
        "x = torch.zeros(3, device='cuda')",
        "torch.cuda.synchronize()",
        "cap = torch.cuda.get_device_capability()",
        "from kernels import get_kernel",
        "import kernels",
    ],
)
def test_a_script_that_takes_a_gpu_for_granted_is_refused_without_one(line):
    script = read_script(TORCH + line + "\n")
    assert script.gpu_line == TORCH.count("\n") + 1
    with pytest.raises(PrerequisiteError, match=rf"needs an NVIDIA GPU .*line {script.gpu_line}"):
        require_gpu(script, "cpu")
    require_gpu(script, "cuda")


@pytest.mark.parametrize(
    "line",
    [
        "device = 'cuda' if torch.cuda.is_available() else 'cpu'\nmodel.to(device)\ntorch.cuda.synchronize()",
        "torch.cuda.manual_seed(42)",
        "try:\n    from kernels import get_kernel\nexcept ImportError:\n    get_kernel = None",
    ],
)
def test_a_script_that_asks_first_needs_no_gpu(line):
    assert read_script(TORCH + line + "\n").gpu_line is None


def test_a_chain_of_attributes_is_read_however_long_or_refused_in_words():
    for length in (500, 50_000):
        with contextlib.suppress(SourceError):
            assert read_script(f"{TORCH}evaluate_bpb(a{'.b' * length})\n").backend == "cuda"


def test_compiling_is_noticed():
    assert read_script(TORCH + "model = torch.compile(model)\n").compiles
    assert read_script(TORCH + "@torch.compile(dynamic=False)\ndef f(x): ...\n").compiles
    assert not read_script(TORCH + "import re\nre.compile('x')\n").compiles
