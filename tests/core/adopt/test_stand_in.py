"""Scripts run in this process, with a feed whose clock counts batches: each takes a second of the budget."""

import importlib
import io
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from upstream_scripts import END, LOOP, TABLE, changed

from autoresearch.backends.contract import BatchInfo
from autoresearch.backends.null import runtime
from autoresearch.core.adopt.script import OFFERED, ScriptFault
from autoresearch.core.adopt.stand_in import AdoptedScript, Output, Pace, TimeBudget

VOCAB, SEQ, BUDGET = 32, 8, 10
FIRST = "x, y, epoch = next(train_loader)\n"
LOADER = 'train_loader = make_dataloader(tokenizer, 16, MAX_SEQ_LEN, "train")\n'


class CountedTime:
    """A clock and a feed. A batch takes a second, and after the budget there are no more."""

    budget = float(BUDGET)

    def __init__(self):
        self.given, self.points = 0, []

    @property
    def remaining(self):
        return max(0.0, self.budget - self.given)

    def log(self, **point):
        self.points.append(point)

    def batches(self, batch, seq):
        draw = np.random.default_rng(0)
        while self.given < self.budget:
            self.given += 1
            rows = draw.integers(0, VOCAB, (batch, seq + 1))
            yield rows[:, :-1], rows[:, 1:], BatchInfo(0, self.given * batch * seq)


@pytest.fixture(autouse=True)
def own_modules(monkeypatch):
    """What a script puts into the interpreter is taken out again."""
    for name in ("__main__", "prepare"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def adopted(tmp_path):
    def make(source, role="train", runtime=runtime):
        path = tmp_path / "train.py"
        path.write_text(source, encoding="utf-8")
        upstream = {"token_bytes": [0] + [2] * (VOCAB - 1), "bos_id": 1, "budget_seconds": BUDGET, "tokenizer": ""}
        job = {"role": role, "vocab_size": VOCAB, "eval_seq_len": SEQ, "seed": 0, "upstream": upstream}
        script = AdoptedScript(str(path), job, runtime)
        return script, script.build(SimpleNamespace(device="cpu"))

    return make


def trained(adopted, source):
    script, model = adopted(source)
    assert model is None
    time = CountedTime()
    return script, script.train(None, time, time), time


def test_the_module_has_the_offered_names(adopted):
    trained(adopted, TABLE.replace("V = tok", "import prepare\nNAMES = dir(prepare)\nV = tok"))
    assert set(OFFERED) <= set(sys.modules["__main__"].NAMES)


def test_a_loop_that_asks_whether_time_is_up_ends_with_our_clock_and_claims(adopted, capsys):
    script, model, time = trained(adopted, TABLE)
    assert type(model).__name__ == "Table" and model["logits"].any()
    assert time.given == BUDGET  # its own stopwatch has hardly begun
    assert 0 < script.claimed_bpb < 5
    assert f"{script.claimed_bpb:.6f}" in capsys.readouterr().out


def test_a_loop_that_goes_on_is_ended_when_the_batches_are_and_claims_nothing(adopted, capsys):
    script, model, time = trained(adopted, changed(("step > 1 and", "step > 999 and")))
    assert model["logits"].any()
    assert time.given == BUDGET
    assert script.claimed_bpb is None
    assert "val_bpb" not in capsys.readouterr().out


def test_a_for_loop_ends_by_itself(adopted):
    script, _, time = trained(
        adopted, changed((LOOP, "for x, y, epoch in train_loader:\n    np.add.at(counts, (x, y), 1)\n"))
    )
    assert time.given == BUDGET
    assert script.claimed_bpb is not None


@pytest.mark.parametrize(
    "handler",
    [
        "except StopIteration:\n    pass\n",
        "except Exception as error:\n    raise RuntimeError('over') from error\n",
        "except StopIteration:\n    exit(1)\n",
    ],
)
def test_a_script_that_ends_in_its_own_way_when_the_batches_do_is_measured(adopted, handler):
    caught = "try:\n" + "".join(f"    {line}\n" for line in LOOP.splitlines()) + handler
    _, model, time = trained(adopted, changed((LOOP, caught), (END, "evaluate_bpb\nif 0: evaluate_bpb(model)\n")))
    assert time.given == BUDGET and model["logits"].any()


def test_a_script_inside_a_function_is_measured(adopted):
    start = TABLE.index("tokenizer = ")
    body = "".join(f"    {line}\n" for line in TABLE[start:].splitlines())
    _, model, _ = trained(adopted, TABLE[:start] + "def main():\n" + body + "main()\n")
    assert model["logits"].any()


def test_a_replaced_metric_is_a_claim_and_the_model_is_measured(adopted):
    patched = changed((END, "prepare.evaluate_bpb = lambda *_: 0.25\n" + END.replace("= eval", "= prepare.eval")))
    patched = patched.replace(LOOP, "for x, y, _ in train_loader:\n    model['logits'] += 1\n")
    script, model, _ = trained(adopted, "import prepare\n" + patched)
    assert script.claimed_bpb == 0.25
    assert model["logits"].any()


def test_what_a_script_without_a_batch_or_a_model_lacks_is_said(adopted):
    for source, words in (
        (changed((LOOP, ""), ("x, y, epoch = next(train_loader)\n", "")), "without asking make_dataloader"),
        (changed((LOOP, ""), (END, "evaluate_bpb\n")), "without handing a model to evaluate_bpb"),
        (changed((LOOP, "raise SystemExit(3)\n")), "exit status 3$"),
        (changed((LOOP, "raise SystemExit(2)\n")), "exit status 2; it is run without arguments"),
        (changed((LOOP, ""), ("evaluate_bpb(model,", "evaluate_bpb(None,")), "is given a NoneType, which has no param"),
        (changed((LOOP, ""), ("evaluate_bpb(model,", "evaluate_bpb((lambda *a, **k: model(*a)),")), "given a function"),
    ):
        with pytest.raises(ScriptFault, match=words):
            trained(adopted, source)


PREFETCHED = """import queue, threading

waiting = queue.Queue(2)
def fetch():
    while True:
        waiting.put(next(train_loader))
threading.Thread(target=fetch, daemon=True).start()
while True:
    x, y, epoch = waiting.get()
    model(x, y)
    model["logits"][:] += 1
"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_script_may_ask_for_its_batches_in_a_thread(adopted):
    start = TABLE.index("tokenizer = ")
    inside = "".join(f"    {line}\n" for line in changed((LOOP, PREFETCHED), (FIRST, ""))[start:].splitlines())
    source = TABLE[:start] + "def main():\n" + inside + "main()\n"
    _, model, time = trained(adopted, source)
    assert model["logits"].any() and time.given == BUDGET
    _, model = adopted(source, "score")
    assert model["logits"].shape == (VOCAB, VOCAB)


def test_an_exception_of_the_script_is_its_own(adopted):
    with pytest.raises(ZeroDivisionError):
        trained(adopted, changed((LOOP, "1 / 0\n")))


def test_a_missing_gpu_is_named_whatever_words_the_framework_has(adopted):
    with pytest.raises(ScriptFault, match=r"needs an NVIDIA GPU.*line 31.*not compiled with CUDA"):
        trained(adopted, changed((LOOP, "raise AssertionError('Torch not compiled with CUDA enabled')\n")))


STUBBORN = """while True:
    try:
        next(train_loader)
        model["logits"] += 1 / 0
    except BaseException:
        break
"""


@pytest.mark.parametrize(
    "source",
    [
        TABLE,
        # The model comes after the first batch, as in the MLX port.
        changed((LOADER + FIRST, ""), ("model = Table", LOADER + FIRST + "model = Table")),
        changed((LOOP, STUBBORN)),
        changed((LOOP, "")),
        changed((LOOP, ""), (FIRST, "")),
    ],
)
def test_for_scoring_a_script_runs_until_its_model_is_there(adopted, source, capsys):
    script, model = adopted(source, "score")
    assert model["logits"].shape == (VOCAB, VOCAB)
    assert script.logits(model, np.zeros((2, SEQ), np.int64)).shape == (2, SEQ, VOCAB)
    assert "val_bpb" not in capsys.readouterr().out


def test_a_script_that_comes_to_no_model_when_it_is_run_again_is_refused(adopted):
    modelless = changed((LOOP, "del model\nfor x in train_loader:\n    del x\n"), (FIRST, ""))
    with pytest.raises(ScriptFault, match="without a model"):
        adopted(modelless, "score")
    with pytest.raises(ScriptFault, match="come to a model"):
        adopted("import prepare\n", "score")


MIXED = """
import torch
from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb, make_dataloader

vocab = Tokenizer.from_directory().get_vocab_size()
inner = torch.nn.Sequential(torch.nn.Embedding(vocab, 8), torch.nn.Linear(8, vocab))
model = torch.compile(inner, dynamic=False)
for x, y, epoch in make_dataloader(None, 4, MAX_SEQ_LEN, "train"):
    with torch.amp.autocast("cpu", dtype=torch.bfloat16):
        model(x).sum().backward()
evaluate_bpb(model, None, 4)
"""


def test_for_scoring_a_model_is_called_uncompiled_in_the_mixed_precision_of_its_training(adopted):
    torch = pytest.importorskip("torch")
    script, model = adopted(MIXED, "score", importlib.import_module("autoresearch.backends.cuda.runtime"))
    assert type(model) is torch.nn.Sequential and not model._forward_pre_hooks
    tokens = torch.zeros((2, SEQ), dtype=torch.int64)
    assert script.logits(model, tokens).dtype == torch.bfloat16
    assert model(tokens).dtype == torch.float32


def test_compiling_takes_some_random_batches_and_no_text(adopted):
    script, _ = adopted(TABLE, "compile")
    nothing = SimpleNamespace(budget=10.0, remaining=10.0)
    nothing.warmup = lambda batch, seq: iter([(np.zeros((batch, seq), int),) * 2] * 99)
    assert script.train(None, nothing, nothing)["logits"].any()


def test_the_time_budget_knows_our_clock():
    clock = SimpleNamespace(budget=100.0, remaining=100.0)
    budget = TimeBudget(clock, Pace())
    assert f"{budget}" == "100.0" and budget == 100 and hash(budget) == hash(100.0)
    assert not budget - 0 <= 150.0 or budget > 99  # before the start it is a plain number
    assert (0.0 / budget, 50.0 / budget, budget - 30) == (0.0, 0.5, 70.0)
    clock.remaining = 40.0
    assert (50.0 / budget, budget - 50.0) == (0.6, 40.0)  # a stopwatch that lags: our clock's time
    assert 2.0 / budget == 0.02  # a step's time
    assert (budget > 50.0, budget <= 50.0, budget > 50.0, budget <= 50.0) == (True, False, True, False)
    assert budget > 119.0  # a stopwatch that is ahead: it began at the import
    clock.remaining = 0.0
    assert (budget > 50.0, budget <= 50.0, budget >= 50.0, budget < 50.0) == (False, True, False, True)


def test_a_claim_is_found_in_any_amount_of_output():
    owner, clock = SimpleNamespace(claimed_bpb=None), CountedTime()
    output = Output(io.StringIO(), clock, owner)
    for _ in range(100):
        output.write("x" * 10_000)
    print("val_bpb:", "       ", 1.5, file=output)
    assert owner.claimed_bpb == 1.5
    output.write("val_bpb: 1.2")
    output.write("5\nval_bpb: nan\nval_bpb 1e999 \n")
    assert owner.claimed_bpb is None
    output.write("val_bpb: -0.5\n")
    assert owner.claimed_bpb == -0.5
    output.write("{'val_bpb': 0}\n")
    assert owner.claimed_bpb == 0
    output.write("\rstep 00012 (3.0%) | loss: 5.25 | lrm: 1.00")
    assert clock.points[-1] == {"step": 12, "loss": 5.25}
    assert math.isfinite(len(output.getvalue()))
