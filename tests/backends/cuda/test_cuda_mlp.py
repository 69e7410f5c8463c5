"""The fused MLP is used where it agrees with the plain one and saves time, and nowhere else."""

from types import SimpleNamespace

import pytest
import torch

GPU = torch.device("cuda")
WHOLE_TILES = {"DIM": 64, "DEVICE_BATCH_ROWS": 4, "PRECISION": "bf16"}


@pytest.fixture
def on_hopper(load_train, monkeypatch, spec):
    """A train file and its model on a GPU, as far as one can tell; the fused MLP agrees and saves 0.5 ms."""

    def make(**constants):
        train = load_train(**{**WHOLE_TILES, **constants})
        monkeypatch.setattr(train, "triton", SimpleNamespace())
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        monkeypatch.setattr(train, "fused_mlp_agrees", lambda device, dtype: True)
        monkeypatch.setattr(train, "fused_mlp_gain", lambda device, dtype: 0.5)
        return train, train.build(spec)

    return make


def test_it_is_used_where_it_agrees_and_saves_time(on_hopper, monkeypatch):
    train, model = on_hopper()
    assert train.fuse_mlps(model, GPU, compiled=True) == "fused MLP (0.50 ms faster a block)"
    called = []
    monkeypatch.setattr(train.FusedMLP, "apply", lambda x, fc, proj: called.append(fc) or x)
    model.hidden(torch.zeros(4, 32, dtype=torch.int64))
    assert [id(fc) for fc in called] == [id(block.mlp.fc.weight) for block in model.blocks]
    called.clear()
    model.hidden(torch.zeros(3, 32, dtype=torch.int64))
    assert not called, "it would leave part of the last tile as the memory was"


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("fused_mlp_agrees", lambda *_: False, "plain MLP (the fused one differs)"),
        ("fused_mlp_gain", lambda *_: -0.25, "plain MLP (fused 0.25 ms slower a block)"),
        ("fused_mlp_gain", lambda *_: 1 / 0, "plain MLP (ZeroDivisionError)"),
        ("triton", None, "plain MLP"),
    ],
)
def test_it_is_not_used_where_it_differs_is_slower_or_does_not_run(on_hopper, monkeypatch, name, answer, said):
    train, model = on_hopper()
    monkeypatch.setattr(train, name, answer)
    assert train.fuse_mlps(model, GPU, compiled=True) == said
    assert all("forward" not in block.mlp.__dict__ for block in model.blocks)


@pytest.mark.parametrize(
    ("capability", "device", "compiled", "constants"),
    [
        ((8, 9), GPU, True, {}),
        ((9, 0), torch.device("cpu"), True, {}),
        ((9, 0), GPU, False, {}),
        ((9, 0), GPU, True, {"PRECISION": "fp32"}),
        ((9, 0), GPU, True, {"DIM": 32}),
        ((9, 0), GPU, True, {"MLP_RATIO": 3}),
        ((9, 0), GPU, True, {"DEVICE_BATCH_ROWS": 3}),
    ],
)
def test_it_is_for_compiled_steps_in_bf16_of_whole_tiles_on_the_cards_it_is_made_for(
    on_hopper, monkeypatch, capability, device, compiled, constants
):
    train, model = on_hopper(**constants)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert train.fuse_mlps(model, device, compiled).startswith("plain MLP")


def test_training_leaves_the_model_with_its_plain_mlps(load_train, monkeypatch, spec, make_data):
    train = load_train(**WHOLE_TILES)
    model = train.build(spec)

    called = []

    def fuse(model, device, compiled):
        for block in model.blocks:
            block.mlp.forward = lambda x, mlp=block.mlp: called.append(mlp) or train.MLP.forward(mlp, x)
        return "fused MLP"

    monkeypatch.setattr(train, "fuse_mlps", fuse)
    train.train(model, *make_data(2))
    assert called
    called.clear()
    train.logits(model, torch.zeros(1, 4, dtype=torch.int64))
    assert not called


def test_a_compiler_that_cannot_take_the_fused_one_costs_a_second_warm_up(
    load_train, monkeypatch, make_data, spec, capsys
):
    train = load_train(**WHOLE_TILES)

    def broken(x):
        raise RuntimeError("no descriptors")

    def fuse(model, device, compiled):
        model.blocks[-1].mlp.forward = broken
        return "fused MLP (0.50 ms faster a block)"

    monkeypatch.setattr(train, "fuse_mlps", fuse)
    model = train.train(train.build(spec), *make_data(2))
    assert "cuda: plain MLP, no flash kernel after all (RuntimeError: no descriptors)" in capsys.readouterr().out
    assert model.blocks[-1].mlp.forward is not broken
    monkeypatch.setattr(train, "fuse_mlps", lambda *_: "plain MLP")
    model.blocks[-1].mlp.forward = broken
    with pytest.raises(RuntimeError, match="no descriptors"):
        train.train(model, *make_data(2))
