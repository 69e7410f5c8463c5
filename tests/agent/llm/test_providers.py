"""What reaches a provider: wishes, and marks for its cache; and what its bill says."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from model_server import ModelServer

from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.providers import CallError, Price, Provider
from autoresearch.agent.llm.spending import Spending
from autoresearch.core.cli.run.options import CALLS
from autoresearch.core.cli.run.session import models_words
from autoresearch.core.proposal import Cost

MESSAGES = [
    {"role": "system", "content": "rules and bank", "cuts": (14,)},
    {"role": "user", "content": "file|cards|rest", "cuts": (5, 11)},
]
USAGE = {
    "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 800},
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-at-all")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-none-at-all")


def asked(model="openai/by-hand", pause=0.0, act=None, **options):
    with ModelServer(lambda *_: act or {"text": "hello", "usage": USAGE}) as server:
        base = server.url.removesuffix("/v1") if model.startswith("anthropic") else server.url
        provider = Provider(api_base=base, timeout_seconds=30.0, **options)
        provider.pause_seconds = pause
        return server.requests, provider.complete(model, MESSAGES, 100)


def test_effort_and_temperature_reach_a_provider_that_litellm_does_not_know():
    (request,), _ = asked(reasoning_effort="high", temperature=0.4)
    assert (request["reasoning_effort"], request["temperature"]) == ("high", 0.4)
    (request,), _ = asked()
    assert "reasoning_effort" not in request and "temperature" not in request


def test_a_server_without_marks_gets_plain_texts():
    (request,), _ = asked()
    assert request["messages"] == [{"role": one["role"], "content": one["content"]} for one in MESSAGES]


CLAUDE = {
    "raw": json.dumps(
        {
            "id": "x", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "hello"}],
            "usage": {"input_tokens": 100, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 0,
                      "output_tokens": 20},
        }
    )
}  # fmt: skip


@pytest.mark.parametrize(("cache", "pause", "mark"), [
    ("auto", 45.0, {"type": "ephemeral"}),
    ("auto", 300.0, {"type": "ephemeral", "ttl": "1h"}),
    ("1h", 45.0, {"type": "ephemeral", "ttl": "1h"}),
    ("off", 45.0, None),
])  # fmt: skip
def test_claude_gets_marks_after_rules_file_and_cards(cache, pause, mark):
    (request,), reply = asked("anthropic/claude-sonnet-4-5", pause, CLAUDE, cache=cache)
    rules, user = request["system"], request["messages"][0]["content"]
    texts = [(one["text"], one.get("cache_control")) for one in [*rules, *user]]
    if mark is None:
        assert texts == [("rules and bank", None), ("file|cards|rest", None)]
    else:
        assert texts == [("rules and bank", mark), ("file|", mark), ("cards|", mark), ("rest", None)]
    assert (reply.cost.tokens_in, reply.cost.tokens_cached) == (1000, 900)
    assert reply.cost.usd < reply.cost.usd_uncached == pytest.approx(1000 * 3e-6 + 20 * 15e-6)


def test_the_bill_tells_the_dollars_with_and_without_the_cache_and_survives_a_resume(tmp_path):
    price = Price(3e-6, 15e-6, 0.3e-6)
    with ModelServer(lambda *_: {"text": "hello", "usage": USAGE}) as server:
        provider = Provider(api_base=server.url, prices={"openai/m": price})
        models = Models(["openai/m"], provider, Spending(tmp_path / "calls.jsonl"))
        models.ask("openai/m", MESSAGES)
    bill = Spending(tmp_path / "calls.jsonl").bill
    assert (bill.tokens_in, bill.tokens_cached, bill.tokens_out) == (1000, 800, 200)
    assert bill.usd == pytest.approx(200 * 3e-6 + 800 * 0.3e-6 + 200 * 15e-6)
    assert bill.usd_uncached == pytest.approx(1000 * 3e-6 + 200 * 15e-6)


def test_a_spending_limit_counts_what_writing_a_cache_can_cost():
    marked, plain = Provider(cache="5m", prices={"m": Price(1e-6, 0)}), Provider(prices={"m": Price(1e-6, 0)})
    assert marked.most_usd("m", 1000, 0) == pytest.approx(2 * plain.most_usd("m", 1000, 0))


def test_more_cached_tokens_than_were_sent_are_not_believed():
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 10**9}}
    _, reply = asked(act={"text": "hi", "usage": usage}, prices={"openai/by-hand": Price(3e-6, 0, 0.3e-6)})
    assert reply.cost.tokens_cached == 1000 and reply.cost.usd > 0


def test_a_model_that_cannot_exist_is_known_before_anything_is_trained():
    assert "litellm knows no such provider" in str(Provider().unknown("nosuch/model"))
    assert Provider().unknown("anthropic/claude-sonnet-4-5") is None
    with ModelServer(lambda *_: {}, models=("qwen3-8b", "llama-4")) as server:
        assert Provider(api_base=server.url).unknown("openai/llama-4") is None
        why = Provider(api_base=server.url).unknown("openai/lama4")
    assert str(why).startswith("the server has no such model; it has llama-4")


def test_a_server_that_lists_nothing_is_believed():
    with ModelServer(lambda *_: {}) as server:
        assert Provider(api_base=server.url).unknown("openai/any") is None
    assert Provider(api_base="http://127.0.0.1:9/v1").unknown("openai/any") is None


def test_writing_into_a_cache_is_billed_at_its_own_price():
    usage = {**USAGE, "cache_creation_input_tokens": 150, "prompt_tokens_details": {"cached_tokens": 800}}
    for cache, factor in (("5m", 1.25), ("1h", 2.0), ("off", 1.0)):
        price = Price(3e-6, 15e-6, 0.3e-6)
        _, reply = asked(act={"text": "hi", "usage": usage}, prices={"openai/by-hand": price}, cache=cache)
        assert reply.cost.usd == pytest.approx((50 + factor * 150) * 3e-6 + 800 * 0.3e-6 + 200 * 15e-6)


def test_a_reply_of_a_server_that_does_not_count_is_not_taken_for_free(tmp_path):
    prices = {"openai/m": Price(2e-6, 10e-6)}
    with ModelServer(lambda *_: {"text": "hello", "usage": None}) as server:
        provider = Provider(api_base=server.url, prices=prices)
        models = Models(["openai/m"], provider, Spending(tmp_path / "calls.jsonl", 1.0))
        assert models.ask("openai/m", MESSAGES).cost.usd is None
        free = Provider(api_base=server.url, prices={"openai/m": Price(0.0, 0.0, 0.0)})
        assert free.complete("openai/m", MESSAGES, 100).cost.usd == 0.0
    for spending in (models.spending, Spending(tmp_path / "calls.jsonl", 1.0)):
        assert spending.committed == pytest.approx(models.most_usd("openai/m", MESSAGES))


@pytest.mark.parametrize("count", [-5, 10**30])
def test_tokens_that_no_server_can_have_counted_count_as_not_counted(count):
    usage = {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count}
    _, reply = asked(act={"text": "hi", "usage": usage}, prices={"openai/by-hand": Price(3e-6, 15e-6)})
    cost = reply.cost
    assert (cost.tokens_in, cost.tokens_out, cost.tokens_cached, cost.usd) == (0, 0, 0, None)


def test_an_answer_that_cannot_be_read_is_told_without_the_traceback_of_the_client():
    with pytest.raises(CallError, match="Invalid response object") as caught:
        asked(act={"raw": json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [None]})})
    assert "Traceback" not in str(caught.value)


def test_a_run_says_how_many_calls_had_no_known_price(tmp_path):
    run = SimpleNamespace(folder=tmp_path)
    assert models_words(run, 3) is None
    spending = Spending(tmp_path / CALLS)
    spending.end(spending.start("m", None), "reply", Cost(1000, 200, None, "m"))
    assert models_words(run, 3) == "language models: 1 call without a known price; --price gives it"
    spending.end(spending.start("m", 1.0), "reply", Cost(1000, 200, 0.6, "m", 500, 0.9))
    spending.end(spending.start("m", 1.0), "empty", Cost(1000, 200, None, "m"))
    spending.end(spending.start("m", 1.0), "timeout")
    words = models_words(run, 3)
    assert words.startswith("language models: $0.60, $0.20 an experiment")
    assert words.endswith(", and 2 calls without a known price")
