"""The model's function: windows by layer, rotary positions, causality, precision, the chunked loss."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from autoresearch.backends.cuda import runtime
from autoresearch.core.trial.child.synthetic import GivenText


def tokens_of(rows=2, seq=32, vocab=64):
    return torch.randint(0, vocab, (rows, seq), generator=torch.Generator().manual_seed(1))


def test_the_pattern_repeats_over_the_layers_and_the_last_layer_is_full(load_train):
    train = load_train(DEPTH=6, WINDOW_PATTERN="SSL", SHORT_WINDOW=8)
    assert [train.window_of(layer, 32) for layer in range(6)] == [8, 8, 32, 8, 8, 32]
    assert load_train(DEPTH=2, WINDOW_PATTERN="S").window_of(1, 32) == 32


def test_rotary_products_depend_on_the_distance_alone(load_train):
    train = load_train()
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 32, 16)
    angles = train.rotary_angles(32)
    products = (train.rotary(q, *angles) @ train.rotary(k, *angles).mT)[0, 0]
    for distance in (0, 3, 20):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert (products[20, 0] - products[20, 10]).abs() > 1e-3


def test_the_table_of_angles_is_no_weight_and_covers_the_longer_of_training_and_scoring(load_train, spec):
    longer = type(spec)(**{**spec.__dict__, "eval_seq_len": 48})
    model = load_train(PRECISION="bf16").build(longer)
    assert model.angles.shape == (2, 48, 8) and model.angles.dtype is torch.bfloat16
    assert not any("angles" in name for name in model.state_dict())
    with torch.no_grad():
        assert model(tokens_of(seq=48)).shape == (2, 48, 64)


@pytest.mark.parametrize("embeds, layers", [("alternate", [0, 2]), ("all", [0, 1, 2]), ("none", [])])
def test_value_embeddings_are_on_the_layers_that_the_constant_names(load_train, spec, embeds, layers):
    model = load_train(VALUE_EMBEDS=embeds).build(spec)
    assert [i for i, block in enumerate(model.blocks) if block.attn.value_embed is not None] == layers


def test_logits_do_not_depend_on_later_tokens_or_on_other_rows(load_train, spec):
    train = load_train()
    model = trained_a_little(train, spec)
    tokens = tokens_of()
    changed = tokens.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 64
    changed[1] = 0
    with torch.no_grad():
        before, after = train.logits(model, tokens), train.logits(model, changed)
    torch.testing.assert_close(before[0, :20], after[0, :20], atol=1e-6, rtol=0)
    assert (before[0, 20:] - after[0, 20:]).abs().max() > 1e-3


def test_a_seed_decides_the_weights(load_train, spec):
    train = load_train()
    first, again = train.build(spec).state_dict(), train.build(spec).state_dict()
    other = train.build(type(spec)(**{**spec.__dict__, "seed": 1})).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])


def test_a_tied_head_is_no_parameter_and_still_learns(load_train, spec):
    train = load_train(TIE_HEAD=True)
    model = train.build(spec)
    assert "head.weight" not in model.state_dict()
    model.loss(tokens_of(), tokens_of()).backward()
    assert model.wte.weight.grad.abs().max() > 0


def test_logits_stay_under_the_cap_and_no_cap_lets_them_out(load_train, spec):
    for cap, out in ((15.0, False), (0, True)):
        train = load_train(SOFTCAP=cap)
        model = train.build(spec)
        model.head.weight.data.mul_(1e6)
        assert (train.logits(model, tokens_of()).abs().max() > 15.0).item() is out


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_written_out_gradient_of_the_norm_is_autograds(load_train, scale):
    x = (scale * torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
    y, expected = load_train().norm(x), F.rms_norm(x, (16,), eps=1e-6)
    grad = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(y, expected)
    wanted = torch.autograd.grad(expected, x, grad)[0]
    tolerance = (wanted.abs().max() * 1e-4).item()
    torch.testing.assert_close(torch.autograd.grad(y, x, grad)[0], wanted, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("cap", [15.0, 0, 120.0])
@pytest.mark.parametrize("chunk, compiling", [(7, False), (64, False), (1000, False), (7, True), (1000, True)])
def test_the_chunked_loss_equals_the_plain_one_in_value_and_gradient(load_train, monkeypatch, cap, chunk, compiling):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)  # another way to the same numbers
    train = load_train(SOFTCAP=cap, LOSS_CHUNK_TOKENS=chunk)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 32, generator=draw, requires_grad=True)
    weight = torch.randn(64, 32, generator=draw).mul(2).requires_grad_()
    targets = torch.randint(0, 64, (64,), generator=draw)
    plain = F.cross_entropy(train.softcap(x @ weight.T), targets)
    expected = torch.autograd.grad(3 * plain, (x, weight))
    loss = train.ChunkedCrossEntropy.apply(x, weight, targets)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (x, weight)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cap", [15.0, 0])
def test_votes_are_added_after_the_cap_and_get_the_plain_losss_gradient(load_train, cap):
    train = load_train(SOFTCAP=cap, LOSS_CHUNK_TOKENS=7)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20, 32, generator=draw, requires_grad=True)
    weight = torch.randn(64, 32, generator=draw).mul(2).requires_grad_()
    targets, guesses = torch.randint(0, 64, (20,), generator=draw), torch.randint(0, 9, (20, 3), generator=draw)
    guesses[:4] = 5  # one token may be guessed several times
    votes = torch.randn(20, 3, generator=draw).mul(9).requires_grad_()
    plain = F.cross_entropy(train.softcap(x @ weight.T).scatter_add(1, guesses, votes), targets)
    expected = torch.autograd.grad(3 * plain, (x, weight, votes))
    loss = train.ChunkedCrossEntropy.apply(x, weight, targets, guesses, votes)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, (x, weight, votes)), expected, atol=1e-5, rtol=1e-4)


def test_masters_gradients_and_moments_stay_float32_when_the_compute_is_bf16(load_train, spec):
    train = load_train(PRECISION="bf16")
    model = train.build(spec)
    assert model.hidden(tokens_of())[0].dtype is torch.bfloat16
    optimizer = train.Optimizer(model)
    model.loss(tokens_of(), tokens_of()).backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    optimizer.step(0, 0.0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {stack.momentum.dtype for stack in optimizer.muon} == {torch.float32}
    moments = [moment for group in optimizer.adamw for moment in (*group.first, *group.second)]
    assert {moment.dtype for moment in moments} == {torch.float32}


def test_bf16_and_float32_agree_about_the_loss(load_train, spec):
    losses = []
    for precision in ("fp32", "bf16"):
        train = load_train(PRECISION=precision)
        losses.append(trained_a_little(train, spec).loss(tokens_of(), tokens_of()).item())
    assert abs(losses[0] - losses[1]) < 0.05


def test_flops_count_matrices_and_the_keys_that_are_seen(load_train, spec):
    train = load_train(DEPTH=1, VALUE_EMBEDS="none", WINDOW_PATTERN="L")
    matrices = 4 * 32 * 32 + 2 * 4 * 32 * 32 + 64 * 32
    assert train.flops_per_token(train.build(spec)) == pytest.approx(6 * matrices + 12 * 32 * (32 + 1) / 2)


def trained_a_little(train, spec):
    """A model whose projections are no longer zero."""
    model = train.build(spec)
    optimizer = train.Optimizer(model)
    for step in range(4):
        model.loss(tokens_of(), tokens_of().roll(-1, 1)).backward()
        optimizer.step(step, 0.0)
    return model


EVERYTHING = {
    "LATE_KEYS": 0.5,
    "HEAD_GAIN": True,
    "LAYER_READOUT": True,
    "NGRAM_ROWS": 97,
    "VALUE_NGRAM_ROWS": 89,
    "FOLLOWER_LONGEST": 3,
    "MEMORY_TOKENS": 500,
    "MEMORY_ROWS": 101,
    "MEMORY_BEST": 2,
    "GUESS_VOTES": 1.5,
    "GATED_VOTES": True,
    "DOCUMENT_BUCKETS": 4,
}


def with_a_memory(train, model):
    """The model, having read a text that repeats itself."""
    words = np.random.default_rng(0).integers(0, 64, (9, 5))
    text = words[np.random.default_rng(1).integers(0, 9, 200)].ravel().astype(np.uint16)
    model.memory.copy_(torch.from_numpy(train.memorise(text.astype(np.int64))))
    return model


def test_with_every_look_up_no_logit_depends_on_a_later_token_or_on_another_row(load_train, spec):
    train = load_train(**EVERYTHING)
    model = with_a_memory(train, trained_a_little(train, spec))
    tokens = tokens_of(vocab=7)
    changed = tokens.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 7
    changed[1] = 0
    with torch.no_grad():
        before, after = train.logits(model, tokens), train.logits(model, changed)
        again = train.logits(model, tokens)
    torch.testing.assert_close(before[0, :20], after[0, :20], atol=1e-6, rtol=0)
    assert (before[0, 20:] - after[0, 20:]).abs().max() > 1e-3
    assert torch.equal(before, again)


def test_without_them_the_model_holds_nothing_of_the_look_ups(load_train, spec):
    names = {name.split(".")[0] for name in load_train(**dict.fromkeys(EVERYTHING, 0)).build(spec).state_dict()}
    assert names == {"wte", "blocks", "resid_scale", "x0_scale", "head"}


def test_a_follower_is_what_came_after_the_last_place_with_the_longest_same_context(load_train):
    tokens = torch.tensor([[5, 1, 2, 9, 1, 2, 8, 3, 2, 7, 1, 2]])
    follower, length = load_train().followers(tokens, 3)
    #                            5  1  2  9  1  2  8  3  2  7  1  2
    assert follower.tolist() == [[0, 0, 0, 0, 2, 9, 0, 0, 8, 0, 2, 8]]
    assert length.tolist() == [[0, 0, 0, 0, 1, 2, 0, 0, 1, 0, 1, 2]]


def test_memory_holds_the_most_frequent_followers_and_how_sure_they_are(load_train):
    train = load_train(MEMORY_TOKENS=100, MEMORY_LONGEST=2, MEMORY_ROWS=4096, MEMORY_BEST=2, FOLLOWER_LONGEST=3)
    parts = ([1, 7, 4, 2, 7, 4], [1, 7, 5], [1, 7, 4], [1, 7, 4, 3], [1] + [9] * 200, [6])
    documents = [np.array(part, dtype=np.uint16) for part in parts]
    text = train.read(iter(documents))
    assert 6 not in text, "what comes after enough was read is not read"
    memory = train.memorise(text)
    (one,), (two,) = (key[0, 1:].tolist() for key in train.contexts(torch.tensor([[1, 7]]), 2))

    def remembered(context):
        _, total, *followers = memory[context % 4096].tolist()
        return total, [(one & 0xFFFF, one >> 16) for one in followers]

    assert memory[one % 4096, 0] == one and memory[two % 4096, 0] == two
    # Every document counts once, however often it has a follower: 4 came in three of them, 5 in one.
    assert remembered(one) == remembered(two) == (4, [(4, 3), (5, 1)])
    nines = train.contexts(torch.tensor([[9]]), 1)[0].item()
    assert remembered(nines) == (1, [(9, 1), (0, 0)])
    assert not memory[-1].any()
    nothing = load_train(MEMORY_TOKENS=9, MEMORY_ROWS=16)
    assert not nothing.memorise(nothing.read(iter([]))).any()


def test_no_document_is_read_twice_and_reading_ends_where_the_text_begins_again(load_train):
    train = load_train(MEMORY_TOKENS=1000)
    documents = [np.array([1, n, n], dtype=np.uint16) for n in (5, 6, 5, 7)]
    given = itertools.chain(documents, itertools.cycle(documents))
    assert train.read(given).tolist() == [1, 5, 5, 1, 6, 6, 1, 7, 7]


def test_memory_keeps_what_came_twice_before_what_came_once(load_train):
    train = load_train(MEMORY_TOKENS=9, MEMORY_LONGEST=3, MEMORY_ROWS=1)
    memory = train.memorise(np.array([7, 8, 2, 3, 7, 8, 4]))
    assert memory[0, 0] == 8 + 1, "7, 8 and both together came twice; the shorter ones go before the longer one"


def test_a_guess_adds_its_vote_to_its_own_logit_alone(load_train, spec):
    constants = {"FOLLOWER_LONGEST": 2, "MEMORY_TOKENS": 50, "MEMORY_ROWS": 64, "MEMORY_BEST": 2}
    voting, silent = load_train(GUESS_VOTES=2.0, **constants), load_train(**constants)
    models = [with_a_memory(train, train.build(spec)) for train in (voting, silent)]
    tokens = tokens_of(vocab=7)
    with torch.no_grad():
        added = voting.logits(models[0], tokens) - silent.logits(models[1], tokens)
        guesses, states = models[0].guesses(tokens)
        expected = torch.zeros_like(added).scatter_add(-1, guesses, models[0].vote[states] * (states > 0))
    assert not hasattr(models[1], "vote") or models[1].vote is None
    assert (states > 0).any() and (states == 0).any()
    torch.testing.assert_close(added, expected, atol=1e-5, rtol=0)


def test_what_was_read_is_in_memory_while_training_and_after_it(load_train, spec):
    train = load_train(MEMORY_TOKENS=60, MEMORY_ROWS=64, BATCH_TOKENS=128)
    text = np.random.default_rng(0).integers(0, 9, 60).astype(np.uint16)
    given = GivenText(text, runtime, vocab_size=64, steps=2, step_tokens=128)
    seen, log = [], given.log
    given.log = lambda **values: (seen.append(model.memory.clone()), log(**values))
    model = train.build(spec)
    train.train(model, given, given)
    whole = torch.from_numpy(train.memorise(text.astype(np.int64)))
    assert all(torch.equal(memory, whole) for memory in seen) and seen
    assert torch.equal(model.memory, whole)
    assert "told" not in model.state_dict(), "what training alone needs is not written with the weights"


def documents_of(count, length, seed=0):
    words = np.random.default_rng(seed).integers(2, 60, (count, length))
    return [np.concatenate(([1], part)) for part in words]


def test_a_token_of_the_text_that_was_read_is_guessed_as_if_it_had_not_been(load_train, spec):
    constants = {"MEMORY_TOKENS": 10**6, "MEMORY_LONGEST": 3, "MEMORY_ROWS": 2**16, "MEMORY_BEST": 4}
    train = load_train(**constants)
    # Two-token words of twelve kinds, so that contexts come again, in documents that each say a word once or twice.
    words = np.random.default_rng(0).integers(2, 60, (12, 2))
    draws = np.random.default_rng(1).integers(0, 12, (30, 40))
    documents = [np.concatenate(([1], words[draw].ravel())) for draw in draws]
    whole, less = train.build(spec), train.build(spec)
    whole.remember(np.concatenate(documents))
    row = torch.from_numpy(documents[7])[None]
    tokens, targets = row[:, :-1], row[:, 1:]
    guesses, states = whole.guesses(tokens, targets)
    less.remember(np.concatenate(documents[:7] + documents[8:]))
    others, other_states = less.guesses(tokens)

    def standing(guesses, states, t):
        return dict(zip(guesses[0, t].tolist(), states[0, t].tolist(), strict=True)).get(targets[0, t].item(), 0)

    # The target stands as it would without its document; other followers in that document are not taken away.
    alike = [standing(guesses, states, t) == standing(others, other_states, t) for t in range(tokens.size(1))]
    assert sum(alike) > 0.8 * len(alike)
    surer = whole.guesses(tokens)[1][..., 0] > states[..., 0]
    assert surer.float().mean() > 0.1, "with its own document in memory it would be surer"


def test_a_row_that_was_read_is_known_again_and_one_that_was_not_is_not(load_train, spec):
    train = load_train(MEMORY_TOKENS=10**6, MEMORY_ROWS=2**14)
    model = train.build(spec)
    documents = documents_of(20, 200)
    model.remember(np.concatenate(documents))
    read, new = (torch.from_numpy(np.stack(part))[:, 20:120] for part in (documents, documents_of(20, 200, 1)))
    assert torch.equal(model.to_forget(read[:, :-1], read[:, 1:]), read[:, 1:])
    assert (model.to_forget(new[:, :-1], new[:, 1:]) == -1).all()
    mixed = torch.stack([read[0], new[0]])
    assert (model.to_forget(mixed[:, :-1], mixed[:, 1:]) >= 0).all(dim=1).tolist() == [True, False]


def test_the_last_blocks_output_has_a_say_in_votes_where_there_are_guesses(load_train, spec):
    votes = {"FOLLOWER_LONGEST": 2, "GUESS_VOTES": 1.0, "GATED_VOTES": True}
    train = load_train(MEMORY_TOKENS=50, MEMORY_ROWS=64, MEMORY_BEST=2, **votes)
    model, tokens = with_a_memory(train, train.build(spec)), tokens_of(vocab=7)
    with torch.no_grad():
        before = train.logits(model, tokens)
        model.vote_gate[1].normal_()
        x = model.hidden(tokens)[0]
        after = train.logits(model, tokens)
        guesses, states = model.guesses(tokens)
        says = (x @ model.vote_gate[1]).view(*tokens.shape, 1) * (states[..., 1:] > 0)
        expected = before.scatter_add(-1, guesses[..., 1:], says.expand_as(guesses[..., 1:]))
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
    assert (after - before).abs().max() > 0.1


def test_late_heads_see_the_key_of_the_position_before(load_train):
    k = torch.randn(2, 4, 8, 16)
    late = load_train(LATE_KEYS=0.5).delayed(k)
    assert torch.equal(late[:, :2, 1:], k[:, :2, :-1])
    assert not late[:, :2, 0].any()
    assert torch.equal(late[:, 2:], k[:, 2:])
    assert load_train(LATE_KEYS=0.0).delayed(k) is k


def test_a_document_bucket_grows_with_the_distance_to_its_first_token(load_train):
    tokens = torch.tensor([[5, 5, 5, 1, 5, 5, 5, 5, 5, 5, 5, 1]])
    assert load_train(DOCUMENT_BUCKETS=3).document_bucket(tokens).tolist() == [[0, 1, 1, 0, 1, 1, 2, 2, 2, 2, 2, 0]]


def test_queries_and_keys_may_be_normed_before_or_after_they_are_turned(load_train):
    train = load_train()
    x = torch.randn(2, 32, 2, 3, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grad = torch.randn(2, 2, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    angles = train.rotary_angles(32)
    heads_in_place = [part[:, None, None] for part in angles]
    normed = torch.nn.functional.rms_norm(x, (16,), eps=train.NORM_EPS)
    before = train.rotary(normed, *heads_in_place).permute(2, 0, 3, 1, 4)  # as on a GPU
    after = train.norm(train.rotary(x.permute(2, 0, 3, 1, 4), *angles))  # as on a CPU
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    one, other = (torch.autograd.grad(y, x, grad, retain_graph=True)[0] for y in (before, after))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
