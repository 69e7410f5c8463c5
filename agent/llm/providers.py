"""Language models behind one call, through litellm: any hosted provider, or a local server.

Keys are read from the environment by litellm and never appear in what this module raises.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autoresearch.agent.llm.deadline import within
from autoresearch.core.printable import printable, printable_line
from autoresearch.core.proposal import Cost

Message = Mapping[str, Any]
"""A message to a model: {"role": "system" | "user" | "assistant", "content": ...}.

"cuts", where there are any, are the numbers of characters of `content` after which a provider's cache may end.
"""
Cache = Literal["auto", "5m", "1h", "off"]
"""Marks for the provider's cache: in every call for so long, none, or for models that need them."""
MARKED = re.compile(r"claude", re.IGNORECASE)
"""Names of models that cache nothing without marks. Others find a common beginning by themselves."""
LONG_PAUSE_SECONDS = 240.0
"""Training time of a trial from which on a cache of five minutes would end between two calls."""
WRITE_FACTORS = {"5m": 1.25, "1h": 2.0}
"""Price of writing into a cache that holds for so long, as a multiple of the input's."""
WRITE_FACTOR = max(WRITE_FACTORS.values())
"""The largest of them."""
DEFAULT_CONTEXT_TOKENS = 32_768
"""Context assumed of a model that litellm's table does not know, in tokens."""
CHARACTERS_PER_TOKEN = 3.0
"""Characters of code in a token, a cautious estimate: prompts are trimmed too much rather than too little."""
LIST_SECONDS = 5.0
"""Seconds that a server may take to list its models."""
GRACE_SECONDS = 5.0
"""Seconds beyond a call's time limit after which it is left alone. Most clients end it by themselves before that."""
MAX_REPLY_CHARACTERS = 1_500_000
MOST_TOKENS = 10**9
"""Tokens of a prompt or a reply beyond which a server has miscounted: a hundred times the longest context there is."""
_KINDS = {
    "RateLimitError": "rate limit",
    "Timeout": "timeout",
    "APITimeoutError": "timeout",
    "APIConnectionError": "connection",
    "InternalServerError": "server",
    "ServiceUnavailableError": "server",
    "BadGatewayError": "server",
    "APIError": "server",
    "AuthenticationError": "key",
    "PermissionDeniedError": "key",
    "NotFoundError": "model",
    "ContextWindowExceededError": "context",
}


@dataclass(frozen=True)
class Price:
    """Dollars per token."""

    usd_in: float
    usd_out: float
    usd_cached: float | None = None
    """Price of input tokens that come from the provider's cache; None where it is the same or not known."""

    def of(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> float:
        """Return the dollars of a call. `tokens_cached` are among `tokens_in`."""
        cached = self.usd_in if self.usd_cached is None else self.usd_cached
        return (tokens_in - tokens_cached) * self.usd_in + tokens_cached * cached + tokens_out * self.usd_out


@dataclass(frozen=True)
class Reply:
    """A model's answer."""

    text: str
    cost: Cost
    cut: bool
    """True when it ended at the limit on output tokens."""


class CallError(Exception):
    """A call without a reply."""

    def __init__(self, kind: str, message: str, wait_seconds: float | None = None, cost: Cost | None = None) -> None:
        super().__init__(message)
        self.cost = cost
        """The bill, for instance of an empty reply; None where no bill came."""
        self.kind = kind
        """"rate limit", "timeout", "connection", "server", "key", "model", "context", "empty" or "request"."""
        self.wait_seconds = wait_seconds
        """Seconds that the server asks to wait; None where it does not say."""

    @property
    def passing(self) -> bool:
        """True when the same call may work a little later."""
        return self.kind in ("rate limit", "timeout", "connection", "server", "empty")

    @property
    def maybe_billed(self) -> bool:
        """True when the model may have written a reply that was lost on the way."""
        return self.kind in ("timeout", "connection")


OWN_HEADERS = ("anthropic", "gemini")
"""Providers whose key is not in the header Authorization, and which litellm does not ask by OpenAI's library."""


class Provider:
    """Calls models by litellm's names (`anthropic/...`, `openai/...`, `ollama/...`)."""

    def __init__(
        self,
        *,
        api_base: str | None = None,
        timeout_seconds: float = 600.0,
        prices: Mapping[str, Price] | None = None,
        context_tokens: int | None = None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
        cache: Cache = "auto",
    ) -> None:
        """`reasoning_effort` and `temperature` go to the provider as they are; None sends none."""
        self._api_base, self._timeout = api_base, timeout_seconds
        self._prices, self._context = dict(prices or {}), context_tokens
        self._wishes = {
            name: value
            for name, value in (("reasoning_effort", reasoning_effort), ("temperature", temperature))
            if value is not None
        }
        self._cache: Cache = cache
        self.pause_seconds = 0.0
        """Usual seconds between two calls, at least: they decide for how long `auto` asks a provider to cache."""

    def complete(self, model: str, messages: Sequence[Message], max_tokens: int) -> Reply:
        """Make one call, without retries. Raises `CallError`."""
        litellm = _litellm()
        more = {"api_base": self._api_base} if self._api_base else {}
        if self._api_base and model.startswith("openai/") and not os.environ.get("OPENAI_API_KEY"):
            more["api_key"] = "none"  # a local server mostly asks for no key, but the client insists on one
        more |= _bound_answers(litellm, model, self._api_base)

        def call() -> Any:
            return litellm.completion(
                model=model,
                messages=self._written(model, messages),
                max_tokens=max_tokens,
                timeout=self._timeout,
                num_retries=0,
                max_retries=0,
                drop_params=True,
                **self._wishes_for(model),
                **more,
            )

        try:
            response = within(self._timeout + GRACE_SECONDS, call)
        except TimeoutError:
            raise CallError("timeout", f"the server sent no whole reply within {self._timeout:g} seconds") from None
        except Exception as error:
            raise _call_error(error) from None
        usage = getattr(response, "usage", None)
        tokens_in, tokens_out = (_counted(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        cached = min(tokens_in, _cached(usage))
        written = min(tokens_in - cached, _written_to_cache(usage))
        price = self.price(model)
        usd = self._usd(model, response, tokens_in, tokens_out, cached, written)
        usd_uncached = None if price is None else price.of(tokens_in, tokens_out)
        if not tokens_in and not (price is not None and price.usd_in == price.usd_out == 0):
            usd = usd_uncached = None  # the server does not count: the reply was not free
        cost = Cost(tokens_in, tokens_out, usd, model, cached, usd_uncached)
        text, cut = _content(response)
        if not text.strip():
            raise CallError("empty", "the model sent an empty reply", cost=cost)
        return Reply(text[:MAX_REPLY_CHARACTERS], cost, cut or len(text) > MAX_REPLY_CHARACTERS)

    def _usd(
        self, model: str, response: Any, tokens_in: int, tokens_out: int, cached: int, written: int
    ) -> float | None:
        if model in self._prices:
            price, lifetime = self._prices[model], self._lifetime(model)
            more = 0.0 if lifetime is None else (WRITE_FACTORS[lifetime] - 1.0) * written * price.usd_in
            return price.of(tokens_in, tokens_out, cached) + more
        if self.price(model) is None:
            return None
        try:
            return float(_litellm().completion_cost(completion_response=response, model=model))
        except Exception:
            return None

    def most_usd(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Return the most dollars that a call can cost, with all of it written into a cache where that costs more."""
        price = self.price(model)
        if price is None:
            return None
        return price.of(round(tokens_in * (WRITE_FACTOR if self._lifetime(model) else 1.0)), tokens_out)

    def _lifetime(self, model: str) -> str | None:
        """Return for how long marks ask the provider to cache; None for no marks."""
        if self._cache == "off" or (self._cache == "auto" and not MARKED.search(model)):
            return None
        if self._cache == "auto":
            return "1h" if self.pause_seconds >= LONG_PAUSE_SECONDS else "5m"
        return self._cache

    def _written(self, model: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages as litellm takes them, with marks for the provider's cache where they are wanted."""
        lifetime = self._lifetime(model)
        written = []
        for message in messages:
            plain = {name: value for name, value in message.items() if name != "cuts"}
            if lifetime is not None and message.get("cuts"):
                plain["content"] = _blocks(message["content"], message["cuts"], lifetime)
            written.append(plain)
        return written

    def _wishes_for(self, model: str) -> dict[str, Any]:
        """Return the parameters to pass on. Left alone, litellm drops them for a model that it does not know."""
        if not self._wishes or _model_info(model):
            return self._wishes
        return {**self._wishes, "allowed_openai_params": list(self._wishes)}

    def price(self, model: str) -> Price | None:
        """Look up a model's price on the command line, else in litellm's table; None where neither knows."""
        if model in self._prices:
            return self._prices[model]
        info = _model_info(model)
        usd_in, usd_out = info.get("input_cost_per_token"), info.get("output_cost_per_token")
        return None if usd_in is None or usd_out is None else Price(float(usd_in), float(usd_out))

    def missing_keys(self, model: str) -> list[str]:
        """Name the environment variables that this model's provider needs and that are not set."""
        if self._api_base:
            return []
        try:
            return list(_litellm().validate_environment(model=model).get("missing_keys") or [])
        except Exception:
            return []  # a provider that litellm's check does not know; the first call will tell

    def unknown(self, model: str) -> str | None:
        """Say why there is no such model, as far as its name, and a server of the person's own, can tell.

        None where it may exist: most servers say so only when they are asked for a reply, which costs.
        """
        try:
            _litellm().get_llm_provider(model=model, api_base=self._api_base)
        except Exception:
            return "litellm knows no such provider; names are like anthropic/NAME, openai/NAME, ollama/NAME"
        listed = _listed(self._api_base) if self._api_base else ()
        plain = model.partition("/")[2] or model
        if not listed or plain in listed or model in listed:
            return None
        near = difflib.get_close_matches(plain, listed, 3, 0.0)
        return f"the server has no such model; it has {', '.join(near)}" + (" ..." if len(listed) > len(near) else "")

    def context_tokens(self, model: str) -> int:
        """Return the number of tokens that a prompt and its reply may have together."""
        return self._context or int(_model_info(model).get("max_input_tokens") or DEFAULT_CONTEXT_TOKENS)

    def assumes_context(self, model: str) -> bool:
        """Tell whether nobody has said how long the model's context is, so that DEFAULT_CONTEXT_TOKENS is assumed."""
        return not self._context and not _model_info(model).get("max_input_tokens")


def _listed(api_base: str) -> tuple[str, ...]:
    """Return the models that an OpenAI-compatible server lists; none where it does not answer so."""
    import httpx  # litellm's own client

    from autoresearch.agent.llm.bounded_client import BoundedClient

    key = os.environ.get("OPENAI_API_KEY", "")

    def ask() -> Any:
        with BoundedClient(timeout=LIST_SECONDS) as client:
            answer = client.get(f"{api_base.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"})
        return answer.raise_for_status().json()["data"]

    try:
        return tuple(printable(str(one["id"])) for one in within(2 * LIST_SECONDS, ask))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def tokens_in(messages: Sequence[Message]) -> int:
    """Estimate the number of tokens of these messages, rather too many than too few."""
    return 16 + int(sum(len(message["content"]) for message in messages) / CHARACTERS_PER_TOKEN)


def _blocks(content: str, cuts: Sequence[int], lifetime: str) -> list[dict[str, Any]]:
    """Split a text at its cuts; each part before one is marked as the end of something to cache."""
    mark = {"type": "ephemeral"} if lifetime == "5m" else {"type": "ephemeral", "ttl": lifetime}
    ends = sorted({cut for cut in cuts if 0 < cut <= len(content)})
    blocks: list[dict[str, Any]] = []
    at = 0
    for end in ends:
        blocks.append({"type": "text", "text": content[at:end], "cache_control": mark})
        at = end
    return [*blocks, {"type": "text", "text": content[at:]}] if at < len(content) else blocks


def _counted(usage: Any, name: str) -> int:
    """Return a number of tokens that a server has counted; 0, as for one that does not count, where it cannot be."""
    found = getattr(usage, name, None)
    return int(found) if isinstance(found, int | float) and 0 <= found <= MOST_TOKENS else 0


def _cached(usage: Any) -> int:
    """Return the input tokens that came from a cache, as far as the provider says."""
    details = getattr(usage, "prompt_tokens_details", None)
    return _counted(details, "cached_tokens") or _counted(usage, "cache_read_input_tokens")


def _written_to_cache(usage: Any) -> int:
    """Return the input tokens that were written into a cache, as far as the provider says."""
    details = getattr(usage, "prompt_tokens_details", None)
    return _counted(details, "cache_creation_tokens") or _counted(usage, "cache_creation_input_tokens")


def _litellm() -> Any:
    # Before the import, or it asks the network for its table of prices.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    # It warns, over several lines, where a server's answer is of another shape than it should be, and goes on.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
    return litellm


def _bound_answers(litellm: Any, model: str, api_base: str | None) -> dict[str, Any]:
    """Let litellm read a model's answers with a bounded client; return the parameters of the call for that.

    OpenAI-compatible servers, local ones above all, have it without one. Some other providers have a client of
    litellm's own, which only the time limit holds; not those whose key is in a header that it would give to any host.
    """
    from litellm.llms.custom_httpx import http_handler

    from autoresearch.agent.llm.bounded_client import BoundedClient

    # Certificates as litellm's own client takes them.
    verify = getattr(http_handler, "get_ssl_configuration", lambda: True)()
    if litellm.client_session is None:
        litellm.client_session = BoundedClient(verify=verify)
    try:
        provider = litellm.get_llm_provider(model=model, api_base=api_base)[1]
    except Exception:  # the call itself says that there is none
        return {}
    # A client for this call alone: some versions of litellm close it with its handler.
    return {"client": http_handler.HTTPHandler(client=BoundedClient(verify=verify))} if provider in OWN_HEADERS else {}


def _model_info(model: str) -> Mapping[str, Any]:
    """Return a model's row in litellm's table, without asking a server."""
    table = _litellm().model_cost
    return dict(table.get(model) or table.get(model.partition("/")[2]) or {})


def _content(response: Any) -> tuple[str, bool]:
    choices = getattr(response, "choices", None) or []
    if not choices:
        return "", False
    # JSON may hold half a surrogate pair, which no file and no ledger can.
    text = str(choices[0].message.content or "").encode("utf-8", errors="replace").decode()
    return text, choices[0].finish_reason == "length"


def _call_error(error: Exception) -> CallError:
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), "request")
    status = getattr(error, "status_code", None)
    if kind in ("request", "server") and isinstance(status, int):
        kind = {401: "key", 403: "key", 404: "model", 408: "timeout", 413: "context", 429: "rate limit"}.get(
            status, "server" if status >= 500 else "request" if kind == "request" else kind
        )
    # litellm shows where in itself it could not read a server's answer, which helps nobody.
    words = printable_line(str(error).partition("Traceback (most recent call last)")[0])
    return CallError(kind, without_keys(words)[:500], _seconds(_header(error, "retry-after")))


def _header(error: Exception, name: str) -> str | None:
    """Return a header of the server's answer. litellm keeps it beside its error, or in the response, or in neither."""
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        for found, value in dict(headers or {}).items():
            if str(found).lower() == name:
                return str(value)
    return None


def _seconds(text: str | None) -> float | None:
    try:
        return min(120.0, max(0.0, float(text))) if text else None
    except ValueError:
        return None


def without_keys(text: str) -> str:
    """Replace everything in a text that is, or looks like, a key."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name):
            text = text.replace(value, "***")
    return re.sub(r"\b(?:sk|pk|key|gsk|hf|xai)[-_][\w*.-]{6,}|Bearer \w\S*", "***", text)
