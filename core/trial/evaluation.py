"""The second half of a trial: fresh processes score and audit the frozen weights, and the parent does the sums.

The score child answers with the negative log-likelihood of every token, from which the parent computes the bits per
byte. The audit child is another process. It answers with logits for prefixes of the scored rows that continue with
foreign text, and the parent compares the two (see `core.trial.audit`). Neither child ever sees the number it is
measured by, and neither can talk to the other.

Before the weights, each answers one batch of random tokens, for compiling. From the moment at which it is given the
weights, all it does is on the clock: a child that takes too long is replaced by a new one, and after `TRIES` the trial
is over. Once the weights are loaded the child is sealed (see `core.trial.sandbox.sealing`), and only then does it get
held-out text. At the end some rows are asked again, in other batches: a model that has changed meanwhile is found out.

Both may be started before the weights are there, so that their frameworks are imported by then: with many cores near
the end of the training, with few while the train child imports its own. They then wait: they are told nothing, and run
none of the train file's code. This is done only at an isolation level at which the train child cannot reach them.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from autoresearch.core.data.manifest import ScoredRows
from autoresearch.core.events import Audited, Scored, Scoring
from autoresearch.core.files import remove_folder
from autoresearch.core.trial import audit, draws
from autoresearch.core.trial.audit import note_baseline, read_tolerances, tolerance_key
from autoresearch.core.trial.child.channel import Failed, LogitsShapeError, Ready
from autoresearch.core.trial.child.score import KIND_BYTES, LOADED
from autoresearch.core.trial.context import TrialContext, closed_end, closed_failure
from autoresearch.core.trial.device import cores
from autoresearch.core.trial.memory_file import MemoryFile
from autoresearch.core.trial.page_cache import evict
from autoresearch.core.trial.processes import ProcessSupervisor, TrialEnded
from autoresearch.core.trial.sandbox.levels import ISOLATING_LEVELS
from autoresearch.core.trial.sandbox.sealing import SEALED_DEVICES, SealFault, seal, why_unsealed
from autoresearch.core.trial.surprise import bigrams_of
from autoresearch.core.trial.weights import WEIGHTS, FrozenWeights, WeightsFault, drop_weights

LEAD_SECONDS = 20.0
"""Seconds before the deadline at which the two processes are started: an import at low priority takes its time."""
LEAD_SHARE = 0.5
"""Largest lead as a share of the training time."""
ENOUGH_CORES = 4
"""Processor cores from which on the two processes start beside the training. On two threads of one core their imports
took a third of a trial of 20 s, low priority or not. There, one starts before the training and the other after it."""
NEGATIVE_TOLERANCE = 1e-3
"""Nats by which a loss may be below zero: rounding in float32 can do that to a token that is certain."""
BEGIN = struct.Struct(f"<QQ{KIND_BYTES}s")
"""The first message to a waiting child: how many batches will come after the weights, whether it keeps its first model,
and the kind of device that the train child had. Its train file lies in its work folder by then."""
GO = b"\1"
"""The message that the weights lie in the work folder."""
TRIES = 3
"""Processes that may be given the same batches. A machine that stalls for seconds stalls one of them; a file that
needs the time needs it always. The last one keeps its first model, for files that compile their own graphs; it is the
second one where the first has failed for that reason."""
REPEATS = 2
"""Batches of rows that are asked again at the end; half of one are rows of the first batch."""


class TooSlow(TrialEnded):
    """A batch took longer than it may."""


class UnansweredError(TrialEnded):
    """A sealed child has failed before its first answer. An honest one fails so when it compiles or imports then."""


class ScoreFault(ValueError):  # noqa: N818
    """A score that cannot be used, with the reason in words."""


def bits_per_byte(nll: np.ndarray, mask: np.ndarray, total_bytes: int) -> float:
    """Return the score: sum of nll / (ln 2 * total_bytes), over the scored targets, summed in float64.

    nll float32 (N, T) in nats; mask bool (N, T), true where a target counts; total_bytes the raw UTF-8 bytes of the
    split's documents. Dividing by bytes makes scores of different tokenizers comparable. Raises `ScoreFault` when a
    scored value is not finite, or below zero: no probability exceeds one.
    """
    scored = nll[mask].astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(scored)))
    if bad:
        raise ScoreFault(f"the loss is not a finite number at {bad} of {scored.size} scored tokens")
    if scored.size and scored.min() < -NEGATIVE_TOLERANCE:
        raise ScoreFault(f"the loss is negative ({scored.min():.3g} nats), which no probability allows")
    return float(scored.sum() / (math.log(2) * total_bytes))


def row_batches(rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Cut rows (N, W) into arrays (batch, W).

    The last is filled up with the first rows again. One shape for all batches means one compilation, and the same
    order of sums for every row, which the audit's tolerance rests on.
    """
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        if len(part) < batch:
            part = np.concatenate([part, np.resize(rows, (batch - len(part), rows.shape[1]))])
        yield np.ascontiguousarray(part)


def batch_count(rows: int, batch: int) -> int:
    """Return how many batches `row_batches` yields for so many rows."""
    return -(-rows // batch)


class Exchange:
    """Sends batches to a child and collects its answers over one socket, without ever waiting for either.

    A batch is sent only once the one before it is answered. A child that could read ahead would find in later batches
    what it is asked for in earlier ones: the audit's longer prefixes hold the targets of the shorter ones.
    """

    def __init__(
        self, processes: ProcessSupervisor, sock: socket.socket, payloads: Iterable[bytes], count: int, width: int
    ) -> None:
        """Begin. `payloads` are `count` batches as bytes; the answer to each is `width` float32 numbers."""
        self.answer = np.empty(count * width, dtype=np.float32)
        self.expected = count * width * 4
        self.received = 0
        self._batch_bytes = width * 4
        self._sent = 0
        """Batches sent so far, the one under way included."""
        self._view = self.answer.data.cast("B")
        self._processes, self._sock = processes, sock
        self._payloads = iter(payloads)
        self._sending = memoryview(b"")
        sock.setblocking(False)
        # Two registrations of one socket: a selector takes each descriptor once, and there is something to send only
        # now and then.
        self._out = sock.dup()
        self._listening = False
        self._in: socket.socket | None = sock
        processes.listen(self._in, selectors.EVENT_READ, self._receive)
        self._send()

    @property
    def complete(self) -> bool:
        """True once every answer is in."""
        return self.received == self.expected

    def close(self) -> None:
        """Stop listening."""
        self._wait_to_send(False)
        self._out.close()
        self._stop_receiving()

    def _send(self) -> None:
        """Send what the socket takes of the present batch, or of the next one where that is answered."""
        if not self._sending and self.received >= self._sent * self._batch_bytes:
            self._sending = memoryview(next(self._payloads, b""))
            self._sent += 1
        if self._sending:
            try:
                self._sending = self._sending[self._sock.send(self._sending) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):  # the child is gone, which shows in how it ended
                self._sending = memoryview(b"")
        self._wait_to_send(bool(self._sending))

    def _receive(self) -> None:
        count = 0
        with contextlib.suppress(ConnectionResetError):
            count = self._sock.recv_into(self._view[self.received :])
        self.received += count
        if count == 0 or self.complete:  # a connection closed too early shows in how the child ended
            self._stop_receiving()
        elif not self._sending:
            self._send()

    def _wait_to_send(self, wanted: bool) -> None:
        if wanted and not self._listening:
            self._processes.listen(self._out, selectors.EVENT_WRITE, self._send)
        elif self._listening and not wanted:
            self._processes.ignore(self._out)
        self._listening = wanted

    def _stop_receiving(self) -> None:
        if self._in is not None:
            self._processes.ignore(self._in)
            self._in = None


class Scorer:
    """One child that scores or audits, started when this is made.

    Call `warm_up`, `hand_over`, `answer` as often as there are batches left, and `close` in this order.
    """

    def __init__(self, context: TrialContext, role: str, *, sealed: bool) -> None:
        """Start it. `sealed` says that it is to look up no name once it has the weights, where that can be done."""
        self._context = context
        self._socket, far = socket.socketpair()
        job = {"score_rows": context.request.score_rows, "rows_fd": far.fileno()}
        try:
            launch = context.launch(role, job, (far.fileno(),))
            self._work = launch.work
            self._child = context.processes.start(launch)
        except BaseException:
            self._socket.close()
            raise
        finally:
            far.close()
        self._ready = False
        self._allowed_first = 0.0
        self._given: MemoryFile | None = None
        """The weights in memory, until the child has them."""
        self._to_seal = sealed and context.sandbox.filtered
        self._loaded = self._sealed = self._answered = False
        self._closed = False
        """True once it may have seen held-out text, or soon will: nothing that it says is shown."""

    def warm_up(self, payload: bytes, count: int, width: int, keep: bool) -> None:
        """Give the child the train file and a batch of random tokens; wait until it has answered and built its model.

        `count` is the number of batches that will come, `width` the numbers that answer one row. Raises `TrialEnded`
        when this takes longer than the allowance for starting.
        """
        # Only now, when the train child is gone: at a weak isolation level it could have changed what lies here.
        self._context.record.renew_source(self._work)
        first = BEGIN.pack(count, keep, self._device_kind().encode()) + payload
        allowance = self._context.request.budget.startup_seconds
        limit = time.monotonic() + allowance
        exchange = Exchange(self._context.processes, self._socket, [first], 1, self._context.request.score_rows * width)
        try:
            while not (exchange.complete and self._ready):
                self._step(limit)
                if self._ready and not exchange.complete:
                    self._take_the_rest(exchange)
                if time.monotonic() > limit:
                    raise TrialEnded("timeout", f"the {self._child.role} child was not ready within {allowance:g} s")
                self._check_alive()
        finally:
            exchange.close()
        # The first answer of a process of `ar` takes a moment, in which a child with its weights would have no clock.
        kinds, level = ("", *SEALED_DEVICES), self._context.sandbox.level
        self._to_seal = self._to_seal and self._device_kind() in kinds and why_unsealed(level) is None

    def _take_the_rest(self, exchange: Exchange) -> None:
        """Receive what is left of an answer that was sent before the child said that it waits for the weights.

        Raises `TrialEnded` when that is too little: nothing more would come.
        """
        before = -1
        while before < exchange.received and not exchange.complete:
            before = exchange.received
            self._step(time.monotonic())
        if not exchange.complete:
            numbers, wanted = exchange.received // 4, exchange.expected // 4
            words = f"the {self._child.role} process answered {numbers} numbers to its first batch; expected {wanted}"
            raise TrialEnded("invalid", words)

    def hand_over(self, frozen: FrozenWeights) -> None:
        """Give the child the frozen weights, all at once: what it reads of them is on the clock, copying is not.

        Raises `WeightsFault` when they are not those that were frozen.
        """
        self._closed = True
        self._given = frozen.give(self._work, self._child.role)
        if self._given is not None:
            self._child.given = frozenset([self._given.identity()])
        # By size over a floor of bandwidth. A constant would be time in which a small file could compute.
        self._allowed_first = self._context.request.budget.weights_seconds(frozen.size)

    def answer(
        self, payloads: Iterable[bytes], count: int, width: int, progress: Callable[[int], None] | None
    ) -> np.ndarray:
        """Send all batches and return the answers, float32 (count * score_rows * width,), batch after batch.

        Each has the time of `Budget.answer_seconds`, the first also what loading the weights may take. `progress` is
        called with the number of batches done. Raises `TooSlow`, `UnansweredError`, or `TrialEnded` for another end.
        """
        try:
            return self._answers(payloads, count, width, progress)
        except TooSlow:
            raise
        except TrialEnded as end:
            if self._sealed and not self._answered and end.status == "crash":
                raise UnansweredError(end.status, end.reason) from end
            raise

    def _answers(
        self, payloads: Iterable[bytes], count: int, width: int, progress: Callable[[int], None] | None
    ) -> np.ndarray:
        rows = self._context.request.score_rows
        usual = self._allowance(rows)
        seconds, spent = (usual, 0.0) if self._loaded else (usual + self._allowed_first, self._load(usual))
        exchange = Exchange(self._context.processes, self._socket, payloads, count, rows * width)
        told = 0
        limit = time.monotonic() + seconds - spent
        try:
            while not exchange.complete:
                before = exchange.received
                self._step(limit)
                if time.monotonic() > limit and exchange.received == before:
                    self._step(time.monotonic())  # this process may have been kept waiting itself: take what is there
                # Counted by bytes received. Each finished batch starts the clock anew, so that no batch can live on the
                # time that others have saved.
                done = exchange.received * count // exchange.expected
                if done > told:
                    self._answered = True
                    seconds, told = usual, done
                    limit = time.monotonic() + seconds
                    if progress is not None:
                        progress(done)
                elif time.monotonic() > limit:
                    raise self._too_slow(seconds)
                if not exchange.complete:
                    self._check_alive()
        finally:
            exchange.close()
        return exchange.answer

    def _load(self, usual: float) -> float:
        """Let the child load the weights, seal it, and return the seconds in which it ran.

        Loading has its own allowance and the `usual` seconds of the first batch, which has what is left of both. Of the
        sealing, the time until the child stands still is on its clock, too: it could go on learning for as long as it
        puts that off. The rest is this process's own work.
        """
        started = time.monotonic()
        seconds = usual + self._allowed_first
        limit = started + seconds
        first = [GO]
        if self._given is not None:  # the message carries the file in memory
            if self._sends(self._given):
                first = []
            else:
                started = time.monotonic()
                limit = started + seconds
            self._given.close()
        exchange = Exchange(self._context.processes, self._socket, first, 1, len(LOADED) // 4)
        try:
            while not exchange.complete:
                self._step(limit)
                if time.monotonic() > limit and not exchange.complete:
                    self._step(time.monotonic())
                    if not exchange.complete:
                        raise self._too_slow(seconds)
                if not exchange.complete:
                    self._check_alive()
        finally:
            exchange.close()
        self._loaded, spent = True, time.monotonic() - started
        if self._to_seal:
            try:
                spent += seal(self._child.pid, self._context.sandbox.level)
            except SealFault as fault:
                raise TrialEnded("crash", f"the {self._child.role} process cannot be sealed: {fault}") from fault
            self._sealed = True
        return spent

    def _sends(self, weights: MemoryFile) -> bool:
        """Send the message with a file in memory; return False where its copy lies on the disk and the message is due.

        Raises `WeightsFault` when the child has something else in the place of the copy.
        """
        try:
            socket.send_fds(self._socket, [GO], [weights.fd])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is gone, which shows in how it ended
        except OSError as error:
            # A train file can see to both, and a run must not end for it: a user's processes may have so many files on
            # their way through sockets, and a child that does not read what it is sent fills this one.
            if error.errno not in (errno.ETOOMANYREFS, errno.EAGAIN):
                raise
            copy = self._work.with_name(f"{self._child.role}.weights")
            drop_weights(copy)
            with copy.open("xb") as file:
                weights.write_to(file.fileno())
            try:
                copy.replace(self._work / WEIGHTS)
            except OSError as fault:
                raise WeightsFault(f"the weights cannot be given to the {self._child.role} process") from fault
            return False
        return True

    def _device_kind(self) -> str:
        """Return what the train child said before it read the train file, or what the run asks for; "" for neither."""
        device = self._context.facts.device
        return device.kind if device else self._context.request.device_kind or ""

    def _too_slow(self, seconds: float) -> TooSlow:
        return TooSlow("timeout", f"{self._child.role} took longer than {seconds:.3g} s: one batch has no more")

    def _allowance(self, rows: int) -> float:
        """Return the seconds that one batch of so many rows may take, by the speed of the training."""
        request, facts = self._context.request, self._context.facts
        speed = facts.tokens / facts.train_seconds if facts.tokens and facts.train_seconds else None
        return request.budget.answer_seconds(rows * request.eval_seq_len, speed)

    def close(self) -> None:
        """End the process, and remove its folder: the next process could read how full the disk is."""
        if self._given is not None:
            self._given.close()
        self._socket.close()
        try:
            self._context.processes.end(self._child)
        finally:
            remove_folder(self._work)

    def _check_alive(self) -> None:
        if self._child.returncode() is not None:
            self._step(time.monotonic())
            raise closed_end(self._child)

    def _step(self, limit: float) -> None:
        """Wait a moment and hear the process. Raises what a failure means for the trial, without the child's words."""
        try:
            messages = self._context.processes.step(limit)
        # The child has seen held-out text by now. A number of its choosing in a reason would be a way to tell the
        # researcher about it.
        except TrialEnded as end:  # it took too much of something: how much is the child's to choose
            kind = "out of memory: the" if end.reason.startswith("out of memory") else "the"
            limits = "memory, processes or disk than the limit is"
            raise TrialEnded(end.status, f"{kind} {self._child.role} process took more {limits}") from None
        for source, message in messages:
            if source is self._child and isinstance(message, Ready):
                self._ready = True
            elif source is self._child and isinstance(message, Failed):
                request = self._context.request
                shape = (request.score_rows, request.eval_seq_len, self._context.vocab_size)
                if message.type == LogitsShapeError.__name__ and not self._closed:
                    raise TrialEnded("invalid", wrong_shape(message.message, shape))
                raise closed_failure(message, self._child.role, shape, request.source.count("\n") + 1)


class Evaluation:
    """Scores and audits the frozen weights of one trial."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._ready: dict[str, Scorer] = {}
        self._rng = audit.generator(audit.entropy())
        self._kept = (False,) * (TRIES - 1) + (True,)
        """One flag for each try: True when the child keeps the model that has answered the random tokens."""

    @property
    def lead_seconds(self) -> float:
        """Seconds before the deadline at which `get_ready` is to be called."""
        return min(LEAD_SECONDS, LEAD_SHARE * self._context.request.budget.train_seconds)

    def get_ready(self) -> None:
        """Start the processes that may be needed, where cores are so many that they do not take the training's time."""
        if cores() >= ENOUGH_CORES:
            self._start("score")
            if self._context.request.audit:
                self._start("audit")

    def begin(self) -> None:
        """Start the score process where cores are few: while the train child imports, a second one is idle."""
        if 1 < cores() < ENOUGH_CORES:
            self._start("score")

    def _start(self, role: str) -> None:
        """Start a process before its turn, if there will be one and the train child cannot reach it."""
        context = self._context
        if context.request.score and context.sandbox.level in ISOLATING_LEVELS and role not in self._ready:
            self._ready[role] = Scorer(context, role, sealed=True)

    def close(self) -> None:
        """End the processes that were started and not used."""
        while self._ready:
            self._ready.popitem()[1].close()

    def score(self, frozen: FrozenWeights) -> None:
        """Score the weights and audit the score; note both in the trial's measurements.

        Raises `TrialEnded` when the score cannot be used, or the audit finds that it was not computed honestly.
        """
        request, facts = self._context.request, self._context.facts
        started = time.monotonic()
        if request.audit and request.audit_below is None and cores() > 1:
            self._start("audit")  # it imports while the other one builds its model
        try:
            scored = self._context.prepared.scored_rows(request.split, self._context.vocab_size, request.eval_seq_len)
            nll = self.likelihoods(scored, frozen)
            bpb = bits_per_byte(nll, scored.mask, scored.total_bytes)
            self._context.record.event(Scored(bpb))
            if request.audit and (request.audit_below is None or bpb < request.audit_below):
                self._audit(scored, nll, frozen)
                self._context.record.event(Audited())
            facts.val_bpb = bpb  # last: a score that the audit rejects is in no result
        except (ScoreFault, WeightsFault) as fault:
            raise TrialEnded("invalid", str(fault)) from fault
        finally:
            facts.eval_seconds = time.monotonic() - started

    def likelihoods(self, scored: ScoredRows, frozen: FrozenWeights) -> np.ndarray:
        """Return the negative log-likelihood of every token of the scored rows, float32 (N, T) in nats.

        Raises `TrialEnded` when rows that are asked again are answered otherwise.
        """
        N, T = scored.mask.shape
        batch = self._context.request.score_rows
        count = batch_count(N, batch)
        again = np.stack([self._rng.choice(N, batch, replace=batch > N) for _ in range(REPEATS)])
        # Half a batch is of the first rows: what a model learns while it answers those, it has for all others.
        again[0, : batch // 2] = self._rng.choice(min(batch, N), batch // 2, replace=batch // 2 > N)
        rows = scored.rows

        def payloads() -> Iterator[bytes]:
            yield from (part.tobytes() for part in row_batches(rows, batch))
            yield from (np.ascontiguousarray(rows[take]).tobytes() for take in again)

        tokens = self._random_tokens(T + 1)
        told = self._progress(N)
        answers = self._ask("score", frozen, tokens.tobytes(), payloads, count + REPEATS, T, told)
        nll = answers.reshape(-1, T)
        first, second = nll[again.ravel()], nll[count * batch :]
        check_repeats(first, second, scored.mask[again.ravel()], _tolerance(self._context))
        return nll[:N]

    def _random_tokens(self, width: int) -> np.ndarray:
        """Draw a batch for compiling, uint16 (score_rows, width)."""
        shape = (self._context.request.score_rows, width)
        return self._rng.integers(0, self._context.vocab_size, shape).astype(np.uint16)

    def _audit(self, scored: ScoredRows, nll: np.ndarray, frozen: FrozenWeights) -> None:
        """Draw probes, ask the audit child for logits, and compare. Raises `TrialEnded` when they disagree.

        The probes are drawn after the score child has answered and is gone: until then nobody can know them.
        """
        context, request = self._context, self._context.request
        # Which pages are in memory could tell the audit child what the score child has read.
        evict([context.record.folder, context.prepared.folder])
        share = request.audit_share or (audit.EARLY_SHARE if "audit" in self._ready else audit.COST_SHARE)
        count = audit.position_count(len(scored.rows), int(scored.mask.sum()), request.score_rows, share)
        entropy = audit.entropy()
        rng = audit.generator(entropy)
        probes = audit.draw_probes(
            scored.rows, scored.mask, nll, count, rng, bigrams_of(context.prepared, context.vocab_size)
        )
        batches = audit.schedule(probes, request.score_rows, rng)
        logits = np.empty((count, context.vocab_size), np.float32)
        logits[np.concatenate(batches)] = self.logits(probes.tokens, probes.positions, batches, frozen)
        outcome, wrong = audit.compare(probes, logits, _tolerance(context))
        if outcome is not None:
            draw = draws.record(entropy, probes, scored.mask.shape[1])
            context.facts.audit = outcome.model_copy(update={"draw": draw})
        if wrong is not None:
            raise TrialEnded("invalid", wrong)
        device = context.facts.device
        if request.calibrate and request.tolerances and outcome and device:
            note_baseline(request.tolerances, tolerance_key(request.backend, device), outcome, device.precision)

    def logits(
        self, tokens: np.ndarray, positions: np.ndarray, batches: list[np.ndarray], frozen: FrozenWeights
    ) -> np.ndarray:
        """Return the audit child's logits at one position of each row, float32 (rows of all batches, V).

        tokens uint16 (K, T), positions int32 (K,); each batch holds indices of rows, int64 (score_rows,).
        """
        width, T = self._context.vocab_size, tokens.shape[1]

        def payloads() -> Iterator[bytes]:
            return (tokens[take].tobytes() + positions[take].tobytes() for take in batches)

        places = self._rng.integers(0, T, self._context.request.score_rows).astype(np.int32)
        warm = self._random_tokens(T).tobytes() + places.tobytes()
        return self._ask("audit", frozen, warm, payloads, len(batches), width, None).reshape(-1, width)

    def _ask(
        self,
        role: str,
        frozen: FrozenWeights,
        warm: bytes,
        payloads: Callable[[], Iterable[bytes]],
        count: int,
        width: int,
        progress: Callable[[int], None] | None,
    ) -> np.ndarray:
        """Return the answers of a child of that role to `count` batches. The child is gone when this returns.

        `warm` is the batch of random tokens before the weights. Raises `TrialEnded`, after `TRIES` for a slow child.
        """
        # A fresh process for every try: one that was slow has seen rows, and must not be asked the same rows again.
        tries = list(self._kept)
        while tries:
            kept = tries.pop(0)
            scorer = self._ready.pop(role, None) or Scorer(self._context, role, sealed=True)
            try:
                scorer.warm_up(warm, count, width, kept)
                scorer.hand_over(frozen)
                answers = scorer.answer(payloads(), count, width, progress)
            except TooSlow as slow:
                reason = slow.reason
            except UnansweredError:
                if kept:
                    raise
                tries = [True]  # time would not help it: it lacks what its first model has
            else:
                self._kept = (kept,) * TRIES  # what served once serves the audit, too
                return answers
            finally:
                scorer.close()
        raise TrialEnded("timeout", f"{reason}, in {TRIES} processes one after another")

    def _progress(self, rows: int) -> Callable[[int], None]:
        def tell(batches: int) -> None:
            done = min(rows, batches * self._context.request.score_rows)
            self._context.record.event(Scoring(done, rows))

        return tell


def wrong_shape(message: str, expected: tuple[int, int, int]) -> str:
    """Say which shape `logits` has and which was expected, from what a child says that has seen no held-out text.

    Of its words only numbers are taken: they are the train file's to choose.
    """
    what, wanted = "logits has the wrong shape", str(expected)
    if message.startswith("one position of"):
        what, wanted = f"{what} at one position", str(expected[2:])
    found = re.search(r"has (?:no shape|the shape (\([\d, ]{0,100}\)))", message)
    came = "" if found is None else f": {found.group(1) or 'it is not an array'}"
    return f"{what}{came}; expected {wanted}"


def check_repeats(first: np.ndarray, second: np.ndarray, mask: np.ndarray, limit: audit.Tolerance) -> None:
    """Compare two answers to the same rows, float32 (R, T) in nats, where the bool mask (R, T) is true.

    Raises `ScoreFault` when they differ by more than `limit.max_abs` at one place, or on average by more than
    `limit.mean` and what honest rounding leaves of `limit.spread` over so many places, or when the second answer is no
    finite number where the first is one. Other values that are not finite are left to `bits_per_byte`.
    """
    first, second = first[mask].astype(np.float64), second[mask].astype(np.float64)
    known = np.isfinite(first)
    if not known.any():
        return
    # No number is no excuse: a file that has seen a row before could keep its second answer to itself.
    difference = np.where(np.isfinite(second[known]), second[known], np.inf) - first[known]
    largest, mean = float(np.abs(difference).max()), float(difference.mean())
    allowed = limit.mean + audit.SIGMAS * limit.spread / math.sqrt(len(difference))
    if largest > limit.max_abs or abs(mean) > allowed:
        raise ScoreFault(
            f"audit: rows that were asked again in other batches are answered otherwise: logits depends on more "
            f"than its row (largest difference {largest:.3g} nats, allowed {limit.max_abs:.3g}; mean {mean:+.3g}, "
            f"allowed {allowed:.3g})"
        )


def _tolerance(context: TrialContext) -> audit.Tolerance:
    """Return the tolerance that the run has calibrated for this device, else the default of its precision."""
    device = context.facts.device
    if device is None:
        return audit.FP32
    default = audit.tolerance(device.precision)
    if context.request.calibrate:  # a baseline must not be held to what an earlier baseline happened to do
        return default
    return read_tolerances(context.request.tolerances).get(tolerance_key(context.request.backend, device), default)
