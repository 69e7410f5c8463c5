"""The loop: it learns, warm-up leaves no trace, accumulation is the whole batch, a diverged run ends."""

from functools import partial

import pytest
import torch


def test_training_lowers_the_loss(load_train, spec, make_data):
    train = load_train()
    data, clock = make_data(80)
    train.train(train.build(spec), data, clock)
    assert clock.points[0][1] == pytest.approx(4.16, abs=0.1)  # ln 64: the first prediction is uniform
    assert clock.points[-1][1] < 2.0
    assert data.warmups == 2


def test_warm_up_restores_every_weight_exactly(load_train, spec, make_data):
    train = load_train(WARMUP_STEPS=3)
    model = train.build(spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = []

    def update(*args):
        moved.append(args)
        return train.muon_update(*args)

    data, _ = make_data(1)
    train.warm_up(model, model.loss, update, data)
    assert moved and data.first_batch_at is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_that_does_not_fit_takes_half_the_rows_at_a_time_and_as_many_tokens(load_train, spec, make_data, capsys):
    train = load_train(BATCH_TOKENS=4 * 32)
    model, asked = train.build(spec), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fits = model.loss

    def loss(inputs, targets):
        asked.append(len(inputs))
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fits(inputs, targets)

    model.loss = loss
    data, clock = make_data(8)
    assert train.warm_up(model, loss, train.muon_update, data) == 1
    assert asked == [4, 2, 1, 1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    train.train(model, data, clock)
    assert clock.points[-1][0] == 2, "four passes of one row are a step"
    assert "out of memory with 4 rows a pass, trying 2" in capsys.readouterr().out


def test_a_step_that_does_not_even_fit_with_one_row_is_out_of_memory(load_train, spec, make_data):
    def loss(inputs, targets):
        raise torch.OutOfMemoryError("CUDA out of memory")

    train = load_train()
    with pytest.raises(torch.OutOfMemoryError):
        train.warm_up(train.build(spec), loss, train.muon_update, make_data(1)[0])


def test_a_run_is_the_same_with_and_without_warm_up(load_train, spec, make_data):
    ends = []
    for steps in (0, 3):
        train = load_train(WARMUP_STEPS=steps)
        data, clock = make_data(6)
        data._rows = lambda batch, seq, train=train: (
            torch.arange(batch * seq).view(batch, seq) % 64,
            torch.arange(1, batch * seq + 1).view(batch, seq) % 64,
        )
        ends.append(train.train(train.build(spec), data, clock).state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(load_train, spec):
    train = load_train()
    model = train.build(spec)
    tokens = torch.randint(0, 64, (8, 33), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    whole = torch.autograd.grad(model.loss(inputs, targets), model.head.weight)[0]
    for part in range(2):
        (model.loss(inputs[4 * part : 4 * part + 4], targets[4 * part : 4 * part + 4]) / 2).backward()
    torch.testing.assert_close(model.head.weight.grad, whole)


def test_a_step_takes_as_many_batches_as_its_tokens_need(load_train, spec, make_data):
    train = load_train(BATCH_TOKENS=4 * 4 * 32)  # four forward passes of 4 rows of 32 tokens
    data, clock = make_data(17)
    train.train(train.build(spec), data, clock)
    assert [step for step, _ in clock.points] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_ends_the_run(load_train, spec, make_data):
    train = load_train(WARMUP_STEPS=0)
    model = train.build(spec)
    model.head.weight.data.fill_(float("nan"))
    data, clock = make_data(8)
    with pytest.raises(FloatingPointError, match="at step 1"):
        train.train(model, data, clock)


def test_sizes_that_do_not_fit_are_refused_by_name(load_train, spec):
    with pytest.raises(ValueError, match="HEAD_DIM"):
        load_train(DIM=40).build(spec)


WRONG = [
    *({name: 0} for name in ("HEAD_DIM", "MLP_RATIO", "SEQ_LEN", "SHORT_WINDOW", "LOSS_CHUNK_TOKENS", "LOG_EVERY")),
    {"WINDOW_PATTERN": ""},
    {"NGRAM_LONGEST": 1, "NGRAM_ROWS": 64},
    {"PRECISION": "fp16"},
]


@pytest.mark.parametrize("constants", WRONG, ids=lambda constants: next(iter(constants)))
def test_constants_that_no_model_can_have_are_refused_by_name(load_train, spec, constants):
    with pytest.raises(ValueError, match=rf"{next(iter(constants))}.* must "):
        load_train(**constants).build(spec)


LOOKED_UP = {"DEPTH": 1, "NGRAM_ROWS": 97, "FOLLOWER_LONGEST": 2, "LATE_KEYS": 0.5, "GUESS_VOTES": 1.5}


@pytest.mark.parametrize("constants", [{"DEPTH": 2}, LOOKED_UP])
def test_the_traced_step_agrees_with_the_eager_one(load_train, spec, make_data, monkeypatch, constants):
    whole = partial(torch.compile, backend="aot_eager", fullgraph=True)  # traced and differentiated as for the compiler
    monkeypatch.setattr(torch, "compile", whole)
    ends, losses = [], []
    for compiled in ("off", "on"):
        train = load_train(COMPILE=compiled, WARMUP_STEPS=1, **constants)
        data, clock = make_data(4)
        ends.append(train.train(train.build(spec), data, clock).state_dict())
        losses.append([loss for _, loss in clock.points])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name in ends[0]:
        # AdamW turns the rounding of gradients that are all but zero into whole steps; Muon does not.
        if name.startswith("blocks.") and train.adamw_lr(name) is None:
            torch.testing.assert_close(ends[0][name], ends[1][name], atol=2e-3, rtol=1e-2)
