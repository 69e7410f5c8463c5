"""Servers of models and of pages that drip for ever, send without end, or answer in a shape that nobody asked for."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib

import pytest
from model_server import ModelServer

from autoresearch.agent.llm import bounded_client, literature, providers
from autoresearch.agent.llm.deadline import within
from autoresearch.agent.llm.literature import Literature
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.providers import CallError, Provider
from autoresearch.agent.llm.spending import Spending
from autoresearch.core.errors import ProposalError

MODEL = "openai/by-hand"
MESSAGES = [{"role": "user", "content": "hello"}]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
DRIP_SECONDS = 0.05
GIVE_UP_SECONDS = 20.0
"""Time after which a server here stops, so that a test without a limit fails in the end."""


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Import what a first call imports, which takes longer than any time limit here."""
    asked({"text": "hi"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-at-all")
    monkeypatch.setattr(providers, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(providers, "LIST_SECONDS", 0.3)
    monkeypatch.setattr(literature, "FETCH_SECONDS", 0.3)


@pytest.fixture
def serve():
    """Start a server that writes these bytes, then a part again and again; gives its address."""
    made = []

    def start(begin, part, pause=DRIP_SECONDS):
        def answer(connection):
            until = time.monotonic() + GIVE_UP_SECONDS
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(begin)
                    while part and time.monotonic() < until:
                        connection.sendall(part)
                        time.sleep(pause)
                except OSError:
                    pass

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        listener = socket.create_server(("127.0.0.1", 0))
        made.append(listener)
        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in made:
        listener.close()


DRIPS = {
    "the body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "the head": (b"HTTP/1.1 200 OK\r\n", b"X"),
}


@pytest.mark.parametrize("where", DRIPS)
def test_a_server_that_drips_for_ever_is_left_after_the_time_limit(serve, where):
    provider = Provider(api_base=serve(*DRIPS[where]) + "/v1", timeout_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(CallError) as caught:
        provider.complete(MODEL, MESSAGES, 100)
    assert caught.value.kind == "timeout" and caught.value.passing
    assert provider.unknown(MODEL) is None
    assert time.monotonic() - began < GIVE_UP_SECONDS / 2


def test_a_page_that_drips_for_ever_is_left_after_the_time_limit(serve, tmp_path):
    (tmp_path / "pages").write_text(serve(*DRIPS["the body"]) + "/paper\n")
    began = time.monotonic()
    with pytest.raises(ProposalError, match="cannot be fetched: no whole answer within"):
        Literature(tmp_path / "pages").fetch()
    assert time.monotonic() - began < GIVE_UP_SECONDS / 2


def packed(text, times=1):
    for _ in range(times):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        text = packer.compress(text) + packer.flush()
    return text


ENDLESS = {
    "plain": (HEAD + b"\r\n", b" " * 65536, "more than 1 MiB"),
    "packed": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + packed(b" " * 4 * 2**20), b"", "more than 1 MiB"),
    "packed twice": (HEAD + b"Content-Encoding: gzip, gzip\r\n\r\n" + packed(b" " * 2**20, 2), b"", "is packed"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_end_is_cut_off_and_said(serve, monkeypatch, kind):
    monkeypatch.setattr(bounded_client, "MOST_BYTES", 2**20)
    begin, part, said = ENDLESS[kind]
    with pytest.raises(CallError, match=said) as caught:
        Provider(api_base=serve(begin, part, 0.0) + "/v1", timeout_seconds=10.0).complete(MODEL, MESSAGES, 100)
    assert caught.value.kind == "server"


ANTHROPIC = {
    "id": "x",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 1},
}
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 1, "totalTokenCount": 11},
}
OPENAI = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
}
SENT_ON = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: {}\r\n\r\n"


@pytest.mark.parametrize(
    ("model", "answer"),
    [("openai/m", OPENAI), ("anthropic/claude-m", ANTHROPIC), ("gemini/gemini-m", GEMINI), ("azure/m", OPENAI)],
)
def test_a_key_goes_to_no_other_host_however_a_server_sends_on(monkeypatch, model, answer):
    for provider in ("ANTHROPIC", "GEMINI", "AZURE"):
        monkeypatch.setenv(f"{provider}_API_KEY", "sk-none-at-all")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-06-01")
    heard, body = [], json.dumps(answer).encode()
    far = socket.create_server(("127.0.0.1", 0))
    near = socket.create_server(("127.0.0.1", 0))
    elsewhere = f"http://localhost:{far.getsockname()[1]}/"
    answers = [
        SENT_ON.format("/again").encode(),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        SENT_ON.format(elsewhere).encode(),
    ]

    def serve():
        for said in answers:
            connection, _ = near.accept()
            with connection:
                connection.settimeout(5.0)
                heard.append(connection.recv(65536).decode())
                connection.sendall(said.replace(b"\r\nContent-Length", b"\r\nConnection: close\r\nContent-Length"))

    threading.Thread(target=serve, daemon=True).start()
    provider = Provider(api_base=f"http://127.0.0.1:{near.getsockname()[1]}", timeout_seconds=10.0)
    with near, far:
        assert provider.complete(model, MESSAGES, 100).text == "hi"
        assert "sk-none-at-all" in heard[0] and "/again" in heard[1] and "sk-none-at-all" in heard[1]
        with pytest.raises(CallError, match="the server sends calls on to localhost, which gets no key"):
            provider.complete(model, MESSAGES, 100)
        far.settimeout(0.1)
        with pytest.raises(TimeoutError):
            far.accept()


def test_a_list_of_models_that_nests_without_end_is_no_list(serve):
    deep = b"[" * 100_000 + b"]" * 100_000
    address = serve(HEAD + f"Content-Length: {len(deep)}\r\n\r\n".encode() + deep, b"")
    assert Provider(api_base=f"{address}/v1").unknown(MODEL) is None


def asked(act):
    with ModelServer(lambda *_: act) as server:
        return Provider(api_base=server.url, timeout_seconds=30.0).complete(MODEL, MESSAGES, 100)


def test_a_server_that_asks_for_time_gets_it_up_to_two_minutes():
    pauses = []
    for asked_for, least, most in (("7", 7.0, 7.0), ("1000000000", 120.0, 120.0), ("nan", 0.0, 1.0)):
        acts = [{"status": 429, "headers": {"Retry-After": asked_for}}, {"text": "hi"}]
        with ModelServer(lambda number, _, acts=acts: acts[number]) as server:
            provider = Provider(api_base=server.url)
            models = Models([MODEL], provider, Spending(), backoff_seconds=0.1, sleep=pauses.append)
            assert models.ask(MODEL, MESSAGES).text == "hi"
        assert least <= pauses.pop() <= most


def test_cached_tokens_that_are_no_number_count_as_none():
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "cache_read_input_tokens": float("nan")}
    assert asked({"text": "hi", "usage": usage}).cost.tokens_cached == 0


def test_half_a_letter_in_a_reply_is_replaced():
    raw = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    message = {"role": "assistant", "content": "a\ud800b"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    assert asked({"raw": json.dumps({**raw, "choices": [choice]})}).text == "a?b"


def test_what_a_server_says_of_an_error_steers_no_terminal():
    with pytest.raises(CallError) as caught:
        asked({"status": 400, "message": "no\x1b[2J\x07"})
    assert str(caught.value).isprintable()


def test_an_answer_of_another_shape_leaves_no_warnings_on_the_screen(recwarn):
    with pytest.raises(CallError):
        asked({"raw": json.dumps({"id": "x", "choices": [{"message": {"content": 5}}], "usage": [1]})})
    assert [one for one in recwarn if "Pydantic serializer" in str(one.message)] == []


def test_a_call_within_its_time_gives_its_result_or_its_error():
    assert within(5.0, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5.0, lambda: {}["x"])
    with pytest.raises(TimeoutError, match=r"within 0\.05 seconds"):
        within(0.05, lambda: time.sleep(1.0))
