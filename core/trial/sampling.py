"""Text from trained weights, by the train file's `logits` alone.

The file is no more trusted than in a trial. A child of the audit role builds the model, is given the weights by the
core, and answers each row of tokens with the logits at one position; it never sees a prompt's text, chooses no token,
and reaches nothing. This process draws the tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.tokenizer import Tokenizer
from autoresearch.core.errors import TrialError, UsageError
from autoresearch.core.files import remove_folder
from autoresearch.core.trainfile.source_check import SourceFault, check_source
from autoresearch.core.trial.context import TrialContext
from autoresearch.core.trial.evaluation import Scorer, TooSlow
from autoresearch.core.trial.processes import ProcessSupervisor, TrialEnded
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import TrialRequest
from autoresearch.core.trial.sandbox.environment import child_variables, load_runtime
from autoresearch.core.trial.sandbox.levels import open_sandbox
from autoresearch.core.trial.weights import WeightsFault, WeightsOnDisk

MOST_PROMPTS = 16
"""Most prompts of one call: they are the rows of one batch."""


@dataclass(frozen=True)
class Drawing:
    """The settings by which the next token is drawn."""

    tokens: int = 100
    """Most tokens of a sample."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = 0.95
    """Share of the probability, from the most likely token down, that is drawn from."""
    seed: int = 0

    def next(self, logits: np.ndarray, rng: np.random.Generator) -> int:
        """Draw one token from the logits of one position, float32 (V,). Raises `ValueError` where one is not a number.

        The tokens beyond `top_p` are left out (nucleus sampling, Holtzman et al. 2020), never the most likely one.
        """
        scores = logits.astype(np.float64)
        if np.isnan(scores).any() or not np.isfinite(scores.max()):
            raise ValueError("a logit is not a finite number")
        if self.temperature == 0.0:
            return int(scores.argmax())
        weights = np.exp((scores - scores.max()) / self.temperature)
        order = np.argsort(-weights, kind="stable")
        share = np.cumsum(weights[order]) / weights.sum()
        kept = order[: 1 + int(np.searchsorted(share, self.top_p))]
        return int(rng.choice(kept, p=weights[kept] / weights[kept].sum()))


def sample(
    request: TrialRequest,
    weights: Path,
    sha256: str,
    prompts: Sequence[str],
    drawing: Drawing,
    cancel: threading.Event | None = None,
) -> list[str]:
    """Continue each prompt with the weights of `request.source`; return what was drawn, without the prompts.

    A sample ends early where the model ends its document. `request.folder` is an existing folder, in which the child
    works for the time of the call. Raises `UsageError` for prompts that do not fit, `TrialError` where the train file
    fails, and what else a trial raises.
    """
    prepared = Prepared.open(request.prepared)
    try:
        vocab = check_source(request.source, prepared.vocabularies)
    except SourceFault as fault:
        raise TrialError(f"the train file cannot be sampled: {fault}.") from fault
    prepared.quick_check(vocab)
    tokenizer = Tokenizer.open(prepared.tokenizer_path(vocab))
    if not 0 < len(prompts) <= MOST_PROMPTS:
        raise UsageError(f"{len(prompts)} prompts at once; at most {MOST_PROMPTS} are taken.", fix="sample in parts")
    rows = [[tokenizer.bos_id, *tokens.tolist()] for tokens in tokenizer.encode(list(prompts))]
    longest = max(len(row) for row in rows)
    if longest > request.eval_seq_len:
        raise UsageError(
            f"a prompt of {longest} tokens is longer than a row of {request.eval_seq_len}.", fix="shorten the prompt"
        )
    starts = [len(row) for row in rows]
    folder = Path(mkdtemp(prefix=".sample-", dir=request.folder))
    try:
        wanted = replace(request, folder=folder, score_rows=len(rows))
        _continue(wanted, prepared, vocab, weights, sha256, rows, tokenizer.bos_id, drawing, cancel)
    except TrialEnded as end:
        raise TrialError(f"the train file cannot be sampled: {end.reason}.") from end
    except (WeightsFault, ValueError) as error:
        raise TrialError(f"the train file cannot be sampled: {error}.") from error
    finally:
        remove_folder(folder)
    return [tokenizer.decode(row[start:]) for row, start in zip(rows, starts, strict=True)]


def _continue(
    request: TrialRequest,
    prepared: Prepared,
    vocab: int,
    weights: Path,
    sha256: str,
    rows: list[list[int]],
    bos: int,
    drawing: Drawing,
    cancel: threading.Event | None,
) -> None:
    """Extend the rows in place, in a sandbox of their own."""
    runtime = load_runtime(request.backend)
    with Record(request.folder, request.source) as record:
        sandbox = open_sandbox(request.isolation, (prepared.folder.absolute(), record.folder))
        with ProcessSupervisor(
            record, memory_limit_mb=request.memory_limit_mb, disk_limit_mb=2 * request.weights_limit_mb, cancel=cancel
        ) as processes:
            environment = child_variables(runtime.launch_environment(), request.environment)
            context = TrialContext(request, vocab, prepared, environment, sandbox, record, processes)
            # The second process keeps its first model: a file that compiles its own graphs would have to do so again.
            for keep in (False, True):
                drawn = [list(row) for row in rows]
                try:
                    _draw(context, weights, sha256, drawn, bos, drawing, keep)
                except TooSlow:
                    if keep:
                        raise
                    continue
                rows[:] = drawn
                return


def _draw(
    context: TrialContext, weights: Path, sha256: str, rows: list[list[int]], bos: int, drawing: Drawing, keep: bool
) -> None:
    vocab, width = context.vocab_size, context.request.eval_seq_len
    # One generator a row: what a prompt is continued with does not depend on the other prompts.
    rngs = [np.random.default_rng([drawing.seed, index]) for index in range(len(rows))]
    scorer = Scorer(context, "audit", sealed=False)  # no held-out text is shown to it
    try:
        random = np.random.default_rng(drawing.seed).integers(0, vocab, (len(rows), width)).astype(np.uint16)
        scorer.warm_up(random.tobytes() + bytes(4 * len(rows)), drawing.tokens, vocab, keep)
        scorer.hand_over(WeightsOnDisk(weights, sha256))
        going = set(range(len(rows)))
        for _ in range(drawing.tokens):
            batch, places = _batch(rows, width)
            answer = scorer.answer([batch.tobytes() + places.tobytes()], 1, vocab, None).reshape(len(rows), vocab)
            for index in sorted(going):
                token = drawing.next(answer[index], rngs[index])
                if token == bos:  # the next document would begin
                    going.discard(index)
                else:
                    rows[index].append(token)
            if not going:
                return
    finally:
        scorer.close()


def _batch(rows: Sequence[Sequence[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the last `width` tokens of each row, uint16 (B, width), and the place of the last one, int32 (B,)."""
    batch = np.zeros((len(rows), width), np.uint16)
    places = np.empty(len(rows), np.int32)
    for index, row in enumerate(rows):
        # A long row keeps its beginning-of-document token, with which every row of the training began.
        shown = row if len(row) <= width else [row[0], *row[-(width - 1) :]]
        batch[index, : len(shown)] = shown
        places[index] = len(shown) - 1
    return batch, places
