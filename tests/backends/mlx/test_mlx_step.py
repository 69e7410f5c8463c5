from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten


def flat(tree) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in tree_flatten(tree)}


def stepper_of(module, spec, compiled: bool):
    model = module.build(spec)
    return module.Stepper(model, module.Optimizer(model), compiled)


def test_a_compiled_step_equals_an_eager_one_and_follows_the_schedule(train_file, tokens, spec) -> None:
    module = train_file(VALUE_EMBEDS="all", DEPTH=1)
    results = []
    for compiled in (False, True):
        stepper = stepper_of(module, spec, compiled)
        losses = []
        for step in range(3):
            inputs, targets = map(mx.array, tokens(seed=step))
            schedule = module.schedule_at(step, step / 3)  # another learning rate each time: none may be frozen
            losses.append(stepper.finish([], inputs, targets, mx.array(1.0), schedule))
            mx.eval(losses, stepper.state)
        results.append((np.array(mx.stack(losses)), flat([stepper.model.parameters(), stepper.optimizer.state])))
    (eager_losses, eager), (compiled_losses, compiled) = results
    np.testing.assert_allclose(compiled_losses, eager_losses, rtol=1e-5)
    for name, value in eager.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-4, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True])
def test_micro_batches_add_up_to_the_whole_batch(train_file, tokens, spec, compiled) -> None:
    module = train_file()
    inputs, targets = map(mx.array, tokens(rows=4))
    whole = stepper_of(module, spec, False)
    loss, gradients = whole.add([], inputs, targets, mx.array(1.0))
    parts = stepper_of(module, spec, compiled)
    so_far = parts.add([], inputs[:2], targets[:2], mx.array(0.5))
    so_far_loss, so_far_gradients = parts.add(so_far, inputs[2:], targets[2:], mx.array(0.5))
    assert so_far_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    mx.eval(parts.state)  # of the model nothing may be left inside the compiled graph
    for name, value in gradients.items():
        np.testing.assert_allclose(np.array(so_far_gradients[name]), np.array(value), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("batch_tokens", [96, 192])
def test_warming_up_leaves_no_trace(train_file, counted, spec, batch_tokens) -> None:
    module = train_file(BATCH_TOKENS=batch_tokens)
    stepper = stepper_of(module, spec, False)
    before = flat([stepper.model.parameters(), stepper.optimizer.state])
    module.warm_up(stepper, counted(1)[0])
    after = flat([stepper.model.parameters(), stepper.optimizer.state])
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_warming_up_runs_every_graph_that_a_growing_batch_will_need(train_file, counted, spec) -> None:
    module = train_file(WARMUP_STEPS=1)
    module.batch_tokens_at = lambda progress: 96 if progress < 0.5 else 288
    stepper, seen = stepper_of(module, spec, False), set()
    add, finish = stepper.add, stepper.finish
    stepper.add = lambda so_far, *rest: seen.add(("add", len(so_far))) or add(so_far, *rest)
    stepper.finish = lambda so_far, *rest: seen.add(("finish", len(so_far))) or finish(so_far, *rest)
    module.warm_up(stepper, counted(1)[0])
    assert seen == {("finish", 0), ("add", 0), ("add", 2), ("finish", 2)}


def test_training_starts_from_the_weights_that_were_built(train_file, counted, spec) -> None:
    module = train_file()
    model = module.build(spec)
    built, seen = flat(model.parameters()), {}
    data, clock = counted(1, on_first=lambda: seen.update(flat(model.parameters())))
    module.train(model, data, clock)
    assert all(np.array_equal(built[name], seen[name]) for name in built)


@pytest.mark.parametrize("batch_tokens", [96, 192])
def test_training_learns_and_uses_every_batch(train_file, counted, spec, batch_tokens) -> None:
    module = train_file(BATCH_TOKENS=batch_tokens, HEAD_LR=0.02, MOMENTUM_WARMUP_STEPS=0)
    data, clock = counted(40)
    module.train(module.build(spec), data, clock)
    assert clock.used == 40
    assert len(clock.points) == 40 * 96 // batch_tokens
    assert clock.points[0]["loss"] == pytest.approx(np.log(61), abs=0.05)
    assert clock.points[-1]["loss"] < 2.5
    assert clock.points[-1]["step"] == len(clock.points)


@pytest.mark.parametrize(("every", "shown"), [(1, [1, 2]), (2, [1, 2]), (10, [1, 2])])
def test_batches_of_a_step_that_is_not_finished_show_no_point_twice(train_file, counted, spec, every, shown) -> None:
    module = train_file(BATCH_TOKENS=2 * 96, LOG_EVERY=every)
    data, clock = counted(5)
    module.train(module.build(spec), data, clock)
    assert [point["step"] for point in clock.points] == shown


def test_a_loss_that_is_not_finite_stops_the_run(train_file, counted, spec) -> None:
    module = train_file()
    model = module.build(spec)
    model.wte.weight = model.wte.weight * float("nan")
    data, clock = counted(5)
    with pytest.raises(FloatingPointError, match="training loss is nan at step 1"):
        module.train(model, data, clock)


def test_a_cpu_compiles_only_where_the_budget_pays_for_it(train_file) -> None:
    module = train_file()
    assert module.compiles("metal", 20) and module.compiles("cpu", 300) and not module.compiles("cpu", 20)
    assert train_file(COMPILE="on").compiles("cpu", 1) and not train_file(COMPILE="off").compiles("metal", 300)


def test_precision_follows_the_device(train_file) -> None:
    module = train_file()
    assert (module.compute_dtype("metal"), module.compute_dtype("cpu")) == (mx.bfloat16, mx.float32)
    assert train_file(PRECISION="fp32").compute_dtype("metal") == mx.float32


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_of_a_table_move_alike_from_a_batch_and_from_its_halves(train_file, tokens, spec, compiled) -> None:
    module = train_file(NGRAM_ROWS=40, VALUE_NGRAM_ROWS=30)
    inputs, targets = map(mx.array, tokens(rows=4))
    tables = []
    for halves in (False, True):
        stepper = stepper_of(module, spec, compiled)
        so_far, share = [], mx.array(0.5 if halves else 1.0)
        if halves:
            so_far = stepper.add([], inputs[:2], targets[:2], share)
        rest = slice(2 if halves else 0, None)
        mx.eval(stepper.finish(so_far, inputs[rest], targets[rest], share, module.schedule_at(0, 0.0)), stepper.state)
        tables.append(np.array(stepper.model.ngram.weight))
    assert np.abs(tables[0]).max() > 0
    np.testing.assert_allclose(tables[1], tables[0], atol=1e-4 * np.abs(tables[0]).max())


def test_without_gradients_in_it_memory_is_filled_from_whole_documents_before_training(
    train_file, counted, spec
) -> None:
    module = train_file(MEMORY_TOKENS=30, MEMORY_ROWS=64)
    model = module.build(spec)
    assert model.memory.dtype == mx.int32
    assert not np.array(model.memory).any()
    data, clock = counted(2)
    data.documents = lambda: iter([np.tile(np.array([5, 6, 7], dtype=np.uint16), 12)])
    module.train(model, data, clock)
    assert set((np.array(model.memory)[:, 2] & 0xFFFF).tolist()) == {0, 5, 6, 7}


def test_what_was_read_is_in_memory_while_training_and_after_it(train_file, counted, spec) -> None:
    module = train_file(MEMORY_TOKENS=30, MEMORY_ROWS=64, FOLLOWER_LONGEST=2, GUESS_VOTES=1.0)
    model, text = module.build(spec), np.arange(30) % 7
    data, clock = counted(2)
    data.documents = lambda: iter([text.astype(np.uint16)])
    seen, log = [], clock.log
    clock.log = lambda **point: (seen.append(np.array(model.memory)), log(**point))
    module.train(model, data, clock)
    np.testing.assert_array_equal(seen[0], module.memorise(text))
    np.testing.assert_array_equal(np.array(model.memory), module.memorise(text))


def test_a_compiled_step_forgets_what_was_read_after_it_was_compiled(train_file, counted, tokens, spec) -> None:
    shape = {"SEQ_LEN": 120, "BATCH_TOKENS": 480}
    module = train_file(MEMORY_TOKENS=500, MEMORY_ROWS=2**14, GUESS_VOTES=3.0, GATED_VOTES=True, **shape)
    inputs, targets = tokens(seq=120)
    text = np.concatenate([inputs, targets[:, -1:]], axis=1)
    losses = {}
    for compiled in (False, True):
        stepper = stepper_of(module, spec, compiled)
        module.warm_up(stepper, counted(1)[0])
        stepper.model.remember(text.reshape(-1))
        forgotten = stepper.model.to_forget(mx.array(inputs), mx.array(targets))
        np.testing.assert_array_equal(np.array(forgotten), targets)
        schedule = module.schedule_at(0, 0.0)
        losses[compiled] = stepper.finish([], mx.array(inputs), mx.array(targets), mx.array(1.0), schedule).item()
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    plain = module.build(spec)
    plain.memory = stepper.model.memory
    assert plain.loss(mx.array(inputs), mx.array(targets)).item() < losses[False] - 0.5, "known by heart"


def test_a_gpu_gets_its_next_batch_before_the_last_one_is_waited_for(train_file, counted, spec, monkeypatch) -> None:
    train = train_file(LOG_EVERY=2)
    data, clock = counted(6)
    model, events, losses = train.build(spec), [], []
    dispatch, wait = train.hand_over, train.wait_for

    def handed_over(device, remaining, loss, *others):
        losses.append(loss)
        events.append(("handed over", len(losses)))
        dispatch(device, remaining, loss, *others)

    def waited_for(clock, loss, point):
        events.append(("waited for", next(i for i, one in enumerate(losses, 1) if one is loss)))
        wait(clock, loss, point)

    monkeypatch.setattr(train, "hand_over", handed_over)
    monkeypatch.setattr(train, "wait_for", waited_for)
    model.device = "gpu"
    train.train(model, data, clock)
    assert events.index(("handed over", 2)) < events.index(("waited for", 1)) < events.index(("handed over", 3))
    assert events[-2:] == [("waited for", 5), ("waited for", 6)]
    on_gpu = clock.points
    monkeypatch.undo()
    data, clock = counted(6)
    train.train(train.build(spec), data, clock)
    assert [point["step"] for point in on_gpu] == [1, 3, 5, 6]
    assert on_gpu == clock.points
