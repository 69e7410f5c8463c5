"""Every edit of the menu, on the real train files: it fits, builds, trains a few steps and gives finite logits."""

import functools
import importlib.util
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from simulated_runs import ROOT

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.agent.tuner.space import search_space
from autoresearch.backends.contract import BatchInfo, Spec
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trainfile.fingerprint import fingerprint

EDITS = {edit.name: edit for edit in MENU}
BEFORE = {
    "activation relu2": "activation gelu",
    "value embeddings alternate": "value embeddings all",
    "norm pre": "norm peri",
    "head untied": "head tied",
    "qk gain one": "qk gain up",
    "schedule linear": "schedule cosine",
    "softcap on": "softcap off",
    "batch ramp off": "batch ramp",
    "windows full": "windows short",
    "rotary all": "rotary half",
    "mlp ungated": "mlp gated",
    "x0 on": "x0 off",
    "block sequential": "block parallel",
    "head from noise": "head from zero",
    "momentum warm-up": "momentum constant",
    "decay linear": "decay constant",
    "polar five": "polar three",
    "data packed": "data in order",
    "precision of the device": "precision full",
    "memory off": "memory on",
    "followers off": "followers on",
    "n-grams off": "n-grams on",
    "late keys off": "late keys on",
    "value n-grams off": "value n-grams on",
    "document position off": "document position on",
    "layer readout off": "layer readout on",
    "head gain off": "head gain on",
    "votes on": "memory on",
    "votes off": ("memory on", "votes on"),
    "memory of three followers": "memory on",
    "memory of one follower": ("memory on", "memory of three followers"),
    "memory of more text": "memory on",
    "gated votes on": ("memory on", "votes on"),
    "gated votes off": ("memory on", "votes on", "gated votes on"),
}
"""Edits that lead back -> what they lead back from."""
SIZES = ("mlp wider", "mlp narrower", "shape wider", "shape deeper", "sequences halved", "sequences doubled")
"""Edits that may be made again."""
TINY = {
    "VOCAB_SIZE": 48, "DEPTH": 2, "DIM": 64, "HEAD_DIM": 16, "SEQ_LEN": 64, "SHORT_WINDOW": 32, "GATE_CHANNELS": 16,
    "BATCH_TOKENS": 128, "DEVICE_BATCH_ROWS": 2, "LOSS_CHUNK_TOKENS": 64, "WARMUP_STEPS": 1, "WEIGHT_DECAY": 0.1,
    "COMPILE": "off", "LOG_EVERY": 1, "NGRAM_ROWS": 0,
}  # fmt: skip


def train_source(backend):
    return (ROOT / "backends" / backend / "train.py").read_text()


@functools.cache  # an edit of a whole file takes a tenth of a second, and several tests make all of them
def edited(source, name):
    """The source with the edit, after what it leads back from where that is needed."""
    result = EDITS[name].apply(source)
    if result is None and name in BEFORE:
        before = BEFORE[name]
        for one in (before,) if isinstance(before, str) else before:
            source = EDITS[one].apply(source)
        result = EDITS[name].apply(source)
    return result


class FewBatches:
    """Two batches of random tokens, at the beginning and near the end: what a schedule or a ramp tells apart."""

    def __init__(self, to_device, vocab):
        self.to_device, self.rng, self.vocab, self.progress = to_device, np.random.default_rng(0), vocab, 0.0
        self.losses = []
        self.clock = SimpleNamespace(budget=3.0, remaining=3.0, progress=0.0, log=self.log)

    def log(self, *, step, loss, **scalars):
        self.losses.append(loss)

    def pair(self, batch, seq):
        rows = self.rng.integers(0, self.vocab, (batch, seq + 1)).astype(np.uint16)
        return self.to_device(rows[:, :-1]), self.to_device(rows[:, 1:])

    def warmup(self, batch, seq):
        while True:
            yield self.pair(batch, seq)

    def documents(self):
        for length in (40, 60):
            yield self.rng.integers(2, self.vocab, length).astype(np.uint16)

    def batches(self, batch, seq, packing="best_fit"):
        assert packing in ("best_fit", "stream")
        for i, self.clock.progress in enumerate((0.0, 0.9), 1):
            yield *self.pair(batch, seq), BatchInfo(epoch=0, tokens=i * batch * seq)


def to_torch(tokens):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch.from_numpy(tokens.astype(np.int64))


def to_mlx(tokens):
    mx = pytest.importorskip("mlx.core")
    return mx.array(tokens.astype(np.int32))


BACKENDS = {
    "cuda": (to_torch, lambda array: array.detach().float().numpy(), "cpu"),
    "mlx": (to_mlx, lambda array: np.array(array), "cpu"),
}


def load(source, folder):
    path = folder / "edited_train.py"
    path.write_text(source)
    module_spec = importlib.util.spec_from_file_location("edited_train", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edited_file_builds_trains_and_gives_finite_logits(backend, name, tmp_path):
    to_device, to_numpy, device = BACKENDS[backend]
    to_device(np.zeros((1, 1), dtype=np.uint16))  # skips where the framework is missing
    source = train_source(backend)
    tiny = write_constants(source, {key: value for key, value in TINY.items() if key in constants_of(source)})
    result = edited(tiny, name)
    assert result is not None, f"{name} does not fit backends/{backend}/train.py"
    if fingerprint(result) == fingerprint(tiny):
        return  # it leads back to the file itself, which other tests train
    module = load(result, tmp_path)
    model = module.build(Spec(vocab_size=48, eval_seq_len=32, seed=0, device=device, tier="demo"))
    data = FewBatches(to_device, vocab=48)
    model = module.train(model, data, data.clock)
    logits = to_numpy(module.logits(model, data.pair(2, 32)[0]))
    assert logits.shape == (2, 32, 48)
    assert np.isfinite(logits).all()
    assert all(math.isfinite(loss) for loss in data.losses)


@pytest.mark.parametrize("backend", ["cuda", "mlx", "null"])
def test_an_edit_changes_the_program_keeps_the_contract_and_never_applies_twice(backend):
    source = train_source(backend)
    for name, edit in EDITS.items():
        result = edited(source, name) if backend != "null" else edit.apply(source)
        if result is None:
            continue
        assert fingerprint(result) != fingerprint(source) or name in BEFORE
        compile(result, "train.py", "exec")
        assert all(f"\ndef {function}(" in result for function in ("build", "train", "logits"))
        if name not in SIZES:
            assert edit.apply(result) is None


def test_the_menu_is_long_and_fits_both_frameworks():
    assert len(MENU) == len(EDITS) >= 50
    for backend in BACKENDS:
        source = train_source(backend)
        assert sum(edit.apply(source) is not None for edit in MENU) >= 30
        assert {edit.category for edit in MENU if edited(source, edit.name) is not None} >= {
            "attention", "mlp", "norm_residual", "embeddings_head", "optimizer", "schedule", "batch_sequence",
            "data_order", "init", "loss", "precision_kernels", "shape", "simplification",
        }  # fmt: skip


def test_an_edit_may_bring_a_constant_which_is_searched_from_then_on():
    source = train_source("cuda")
    before, after = (
        search_space(constants_of(text), constants_of(source))
        for text in (source, EDITS["schedule warm-up"].apply(source))
    )
    assert {one.name for one in after} - {one.name for one in before} == {"WARMUP"}


def test_the_schedule_of_the_null_backend_can_be_bent_in_the_same_way():
    source = train_source("null")
    bent = EDITS["schedule cosine"].apply(source)
    assert "import math" in bent and "LEARNING_RATE * multiplier" in bent
    assert EDITS["activation gelu"].apply(source) is None


@pytest.mark.parametrize("shape", ["schedule cosine", "schedule sqrt", "schedule linear"])
def test_every_schedule_starts_at_one_never_rises_and_ends_at_its_floor(shape):
    source = edited(train_source("cuda"), shape)
    body = source[source.index("def lr_multiplier") : source.index("def momentum_at")]
    names = {"math": math, "WARMDOWN": 0.75, "FINAL_LR": 0.05}
    exec(body, names)
    curve = [names["lr_multiplier"](i / 100) for i in range(101)]
    assert curve[0] == pytest.approx(1.0) and curve[-1] == pytest.approx(0.05)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(curve))


def test_edits_keep_comments_elsewhere_and_pass_over_what_they_do_not_know():
    source = train_source("cuda")
    result = EDITS["norm peri"].apply(source)
    lost = set(source.splitlines()) - set(result.splitlines())
    assert len(lost) == 2
    assert [edit.name for edit in MENU if edit.apply("x = 1\n") is not None] == []
    assert [edit.name for edit in MENU if edit.apply("def (") is not None] == []
    renamed = source.replace("def activation(x: Tensor)", "def activation(y: Tensor)")
    assert EDITS["activation gelu"].apply(renamed) is None


def test_a_ramp_halves_the_rows_when_a_batch_is_one_forward_pass():
    source = write_constants(train_source("cuda"), {"BATCH_TOKENS": 4096, "DEVICE_BATCH_ROWS": 16, "SEQ_LEN": 256})
    assert constants_of(EDITS["batch ramp"].apply(source))["DEVICE_BATCH_ROWS"] == 8
    source = write_constants(source, {"DEVICE_BATCH_ROWS": 1, "BATCH_TOKENS": 256})
    assert EDITS["batch ramp"].apply(source) is None


def test_short_windows_are_shorter_than_the_sequence():
    source = write_constants(train_source("mlx"), {"SEQ_LEN": 256, "SHORT_WINDOW": 256})
    assert constants_of(EDITS["windows short"].apply(source))["SHORT_WINDOW"] == 64


@pytest.mark.parametrize("name", [None, "rotary half"])
def test_turning_takes_heads_where_a_gpu_leaves_them(tmp_path, name):
    torch = pytest.importorskip("torch")
    source = write_constants(train_source("cuda"), {"HEAD_DIM": 32})
    train = load(source if name is None else edited(source, name), tmp_path)
    x = torch.randn(2, 5, 2, 3, 32)  # (B, T, q and k, heads, HEAD_DIM)
    cos, sin = train.rotary_angles(5)
    in_place = train.rotary(x, cos[:, None, None], sin[:, None, None])
    moved = train.rotary(x.permute(2, 0, 3, 1, 4), cos, sin)  # (q and k, B, heads, T, HEAD_DIM)
    torch.testing.assert_close(in_place.permute(2, 0, 3, 1, 4), moved)


def test_a_gate_is_not_taken_out_where_the_width_is_no_whole_multiple():
    source = train_source("cuda")
    gated = EDITS["mlp gated"].apply(source)
    assert EDITS["mlp ungated"].apply(gated) is not None
    assert EDITS["mlp ungated"].apply(write_constants(gated, {"MLP_RATIO": 2.5})) is None
