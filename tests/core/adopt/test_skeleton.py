import ast

import pytest
from upstream_scripts import TABLE, changed, script_named

from autoresearch.core.adopt.skeleton import skeleton
from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import read_constants
from autoresearch.core.trainfile.source_check import check_source


def written(source, name="theirs.py"):
    text = skeleton(source, name=name, preset="demo", vocab=512, seq=64)
    assert check_source(text, [512]) == 512
    return text


def function(text, name):
    (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return ast.unparse(found)


def test_a_script_for_a_gpu_is_cut_into_definitions_build_and_train():
    text = written(script_named("for_a_gpu"))
    assert read_constants(text) == {
        "PRESET": "demo", "VOCAB_SIZE": 512, "MAX_SEQ_LEN": 64, "TOTAL_BATCH_SIZE": 2**19, "DEPTH": 8,
        "DEVICE_BATCH_SIZE": 128,
    }  # fmt: skip
    assert "# tokens a step" in text
    # What classes and functions use is made before them.
    top = [node for node in ast.parse(text).body if not isinstance(node, ast.FunctionDef)]
    made = [name.id for node in top for name in ast.walk(node) if isinstance(name, ast.Name) and name.id.islower()]
    assert {"attention", "vocab_size"} <= set(made)
    assert "@torch.compile(dynamic=False, fullgraph=True)\ndef fused_step(p):" in text
    build, train = function(text, "build"), function(text, "train")
    assert "torch.manual_seed(spec.seed)" in build
    assert build.index("net.init_weights()") < build.index("torch.compile(net") < build.index("return net")
    assert "data" not in build and "optimizer" not in build
    assert "train_loader = data.batches(DEVICE_BATCH_SIZE, MAX_SEQ_LEN)" in train
    assert train.index("net = model") < train.index("autocast = ") < train.index("optimizer = ") < train.index("while")
    assert "prepare" not in text and "evaluate_bpb" not in text
    assert "import os" not in [line.strip() for line in text.splitlines()]
    assert "os." not in build + train
    assert "may not import it: import os" in text
    assert "gc.collect()" in train  # which the gate allows


def test_a_form_feed_between_definitions_shifts_no_line():
    plain = script_named("honest_mlx")
    broken = plain.replace("\nclass ", "\n\x0c\nclass ").replace("\ndef ", "\n# \u2028\ndef ")
    assert broken != plain
    assert written(broken) == written(plain)


def test_a_batch_that_comes_before_the_model_is_asked_for_in_train():
    text = written(script_named("honest_mlx"))
    assert "data" not in function(text, "build")
    assert "next(train_loader)" in function(text, "train")


def test_an_import_of_several_modules_keeps_those_that_a_train_file_may_have():
    text = written(changed(("import time\n", "import os, prepare, time\ntime.sleep(0)\n")))
    kept = [ast.unparse(node) for node in ast.parse(text).body if isinstance(node, ast.Import)]
    assert "import time" in kept and "import os" not in kept and "import prepare" not in kept
    assert "may not import it: import os\n" in text
    assert "time.sleep(0)" in text  # and what uses one of those


def test_a_handler_that_is_left_empty_does_nothing():
    save = "while True:\n    try:\n        time.sleep(0)\n    except OSError:\n        os.makedirs('x')\n"
    assert "except OSError:\n                pass" in written(
        changed(("import time\n", "import os\nimport time\n"), ("while True:\n", save))
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (changed(("while True", "if True"), ("        break\n", "        pass\n")), "no training loop"),
        (changed(("evaluate_bpb(model,", "evaluate_bpb(make(),")), "no model"),
        (changed(("evaluate_bpb(model,", "evaluate_bpb(other,")), "no model"),
        (TABLE[: TABLE.index("tokenizer = ")] + "def main():\n    evaluate_bpb(model)\nmain()\n", "no training loop"),
        (TABLE + "x = " + "-" * 900 + "1\n", "nested|parsed"),
    ],
)
def test_where_nothing_can_be_carried_over_it_says_so(source, words):
    with pytest.raises(SourceError, match=words):
        written(source)


def test_a_files_name_cannot_end_the_docstring():
    assert ast.get_docstring(ast.parse(written(TABLE, name='a"""\nimport os\\'))).startswith("Begun by")
