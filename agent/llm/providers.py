"""Language models behind one call, through litellm: any hosted provider, or a local server.

Keys are read from the environment by litellm and never appear in what this module raises.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.core.proposal import Cost

Message = Mapping[str, str]
"""A message to a model: {"role": "system" | "user" | "assistant", "content": ...}."""
DEFAULT_CONTEXT_TOKENS = 32_768
"""Context assumed of a model that litellm's table does not know, in tokens."""
CHARACTERS_PER_TOKEN = 3.0
"""Characters of code in a token, a cautious estimate: prompts are trimmed too much rather than too little."""
MAX_REPLY_CHARACTERS = 1_500_000
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

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Return the dollars of a call."""
        return tokens_in * self.usd_in + tokens_out * self.usd_out


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


class Provider:
    """Calls models by litellm's names (`anthropic/...`, `openai/...`, `ollama/...`)."""

    def __init__(
        self,
        *,
        api_base: str | None = None,
        timeout_seconds: float = 600.0,
        prices: Mapping[str, Price] | None = None,
        context_tokens: int | None = None,
    ) -> None:
        self._api_base, self._timeout = api_base, timeout_seconds
        self._prices, self._context = dict(prices or {}), context_tokens

    def complete(self, model: str, messages: Sequence[Message], max_tokens: int) -> Reply:
        """Make one call, without retries. Raises `CallError`."""
        litellm = _litellm()
        more = {"api_base": self._api_base} if self._api_base else {}
        if self._api_base and model.startswith("openai/") and not os.environ.get("OPENAI_API_KEY"):
            more["api_key"] = "none"  # a local server mostly asks for no key, but the client insists on one
        try:
            response = litellm.completion(
                model=model,
                messages=[dict(message) for message in messages],
                max_tokens=max_tokens,
                timeout=self._timeout,
                num_retries=0,
                max_retries=0,
                drop_params=True,
                **more,
            )
        except Exception as error:
            raise _call_error(error) from None
        usage = getattr(response, "usage", None)
        tokens_in = int(getattr(usage, "prompt_tokens", 0) or 0)
        tokens_out = int(getattr(usage, "completion_tokens", 0) or 0)
        cost = Cost(tokens_in, tokens_out, self._usd(model, response, tokens_in, tokens_out), model)
        text, cut = _content(response)
        if not text.strip():
            raise CallError("empty", "the model sent an empty reply", cost=cost)
        return Reply(text[:MAX_REPLY_CHARACTERS], cost, cut or len(text) > MAX_REPLY_CHARACTERS)

    def _usd(self, model: str, response: Any, tokens_in: int, tokens_out: int) -> float | None:
        if model in self._prices:
            return self._prices[model].of(tokens_in, tokens_out)
        if self.price(model) is None:
            return None
        try:
            return float(_litellm().completion_cost(completion_response=response, model=model))
        except Exception:
            return None

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

    def context_tokens(self, model: str) -> int:
        """Return the number of tokens that a prompt and its reply may have together."""
        return self._context or int(_model_info(model).get("max_input_tokens") or DEFAULT_CONTEXT_TOKENS)


def tokens_in(messages: Sequence[Message]) -> int:
    """Estimate the number of tokens of these messages, rather too many than too few."""
    return 16 + int(sum(len(message["content"]) for message in messages) / CHARACTERS_PER_TOKEN)


def _litellm() -> Any:
    # Before the import, or it asks the network for its table of prices.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return litellm


def _model_info(model: str) -> Mapping[str, Any]:
    """Return a model's row in litellm's table, without asking a server."""
    table = _litellm().model_cost
    return dict(table.get(model) or table.get(model.partition("/")[2]) or {})


def _content(response: Any) -> tuple[str, bool]:
    choices = getattr(response, "choices", None) or []
    if not choices:
        return "", False
    return str(choices[0].message.content or ""), choices[0].finish_reason == "length"


def _call_error(error: Exception) -> CallError:
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), "request")
    status = getattr(error, "status_code", None)
    if kind in ("request", "server") and isinstance(status, int):
        kind = {401: "key", 403: "key", 404: "model", 408: "timeout", 413: "context", 429: "rate limit"}.get(
            status, "server" if status >= 500 else "request" if kind == "request" else kind
        )
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return CallError(kind, without_keys(" ".join(str(error).split()))[:500], _seconds(headers.get("retry-after")))


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
