"""The feed as it runs: a process of its own at the other end of a socket."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_corpora import VOCAB

from autoresearch.core.data.client import FeedClient, FeedClock
from autoresearch.core.data.frames import END, FRAME, REQUEST, REQUEST_MAGIC, ROWS, FrameHeader, Request
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.shards import open_shard

BUDGET = 0.6


class HostRuntime:
    """Arrays stay where they are."""

    def __init__(self) -> None:
        self.synchronized = 0

    def to_device(self, tokens: np.ndarray) -> np.ndarray:
        return tokens

    def synchronize(self) -> None:
        self.synchronized += 1


class RunningFeed:
    """A feed process, the child's end of its socket, and its events."""

    def __init__(self, folder: Path, budget: float, seed: int = 0) -> None:
        self.socket, theirs = socket.socketpair()
        self._events, events = os.pipe()
        argv = [sys.executable, "-m", "autoresearch.core.data.feed", "--prepared", str(folder), "--vocab", str(VOCAB)]
        argv += ["--seed", str(seed), "--budget", str(budget)]
        argv += ["--socket-fd", str(theirs.fileno()), "--events-fd", str(events)]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno(), events])
        theirs.close()
        os.close(events)

    def events(self) -> list[dict[str, Any]]:
        """All events, once the process has ended."""
        assert self.process.wait(20) is not None
        with open(self._events, closefd=False) as pipe:
            return [json.loads(line) for line in pipe]

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer at the stream's end."""
        data = b""
        with contextlib.suppress(ConnectionResetError):  # the feed closed with requests unread; the data came before
            while len(data) < size and (part := self.socket.recv(size - len(data))):
                data += part
        return data

    def frame(self) -> FrameHeader | None:
        """Read one frame of rows whole; None when the stream ends before."""
        head = self.read(FRAME.size)
        if len(head) < FRAME.size:
            return None
        header = FrameHeader.unpack(head)
        size = 2 * header.rows * header.columns
        return header if len(self.read(size)) == size else None

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        os.close(self._events)


@contextlib.contextmanager
def feed(folder: Path, budget: float = BUDGET, seed: int = 0) -> Iterator[RunningFeed]:
    running = RunningFeed(folder, budget, seed)
    try:
        yield running
    finally:
        running.close()


def client(running: RunningFeed, budget: float = BUDGET) -> tuple[FeedClient, FeedClock, HostRuntime]:
    runtime = HostRuntime()
    data = FeedClient(running.socket, runtime=runtime, vocab_size=VOCAB, seed=0)
    clock = FeedClock(budget, lambda point: None)
    data.attach(clock)
    return data, clock, runtime


def train_documents(prepared: Prepared) -> Iterator[np.ndarray]:
    for path in prepared.train_shards(VOCAB):
        yield from open_shard(path)


def row_request(batch: int, seq: int, kind: int = ROWS, packing: int = 0) -> bytes:
    """A request that no client would send."""
    return REQUEST.pack(REQUEST_MAGIC, kind, packing, 0, batch, seq)


def test_the_clock_starts_at_the_first_batch_and_not_before(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder) as running:
        data, clock, _ = client(running)
        warmup = data.warmup(2, 8)
        inputs, targets = next(warmup)
        assert inputs.shape == targets.shape == (2, 8)
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        time.sleep(0.3)
        assert (clock.progress, clock.remaining) == (0.0, BUDGET)
        before = time.monotonic()
        next(data.batches(2, 8))
        after = time.monotonic()
        assert 0.5 * BUDGET < clock.remaining < BUDGET
        running.socket.close()
        first = running.events()[0]
        assert first["event"] == "first_batch"
        assert before < first["monotonic"] < after


def test_what_lives_before_the_first_batch_is_no_longer_looked_at_by_the_garbage_collector(
    small_prepared: Prepared,
) -> None:
    gc.unfreeze()
    with feed(small_prepared.folder, 60.0) as running:
        data, _, _ = client(running, 60.0)
        batches = data.batches(4, 64)
        assert gc.get_freeze_count() == 0
        next(batches)
        frozen = gc.get_freeze_count()
        next(batches)
        assert gc.get_freeze_count() == frozen > 10_000, "once, before the clock starts"
    gc.unfreeze()


def test_batches_end_at_the_deadline_and_are_counted_as_they_were_used(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder) as running:
        data, clock, runtime = client(running)
        infos, ends = [], []
        for inputs, targets, info in data.batches(4, 16):
            assert inputs.shape == targets.shape == (4, 16)
            infos.append(info)
            ends.append(time.monotonic())
            time.sleep(0.02)
        ended = time.monotonic()
        events = running.events()
        deadline = events[0]["monotonic"] + BUDGET
        assert ends[-1] < deadline
        # The next batch would have taken 0.02 s, so the end comes at most about one batch before the deadline.
        assert deadline - 0.1 < ended < deadline + 0.2
        assert runtime.synchronized == 1
        assert clock.progress == pytest.approx(1.0, abs=0.2)
        assert [info.tokens for info in infos] == [64 * count for count in range(1, len(infos) + 1)]
        assert events[-1] == {
            "event": "end",
            "reason": "deadline",
            "tokens": infos[-1].tokens,
            "batches": len(infos),
            "epoch": infos[-1].epoch,
        }
        assert sum(event["event"] == "progress" for event in events) >= 2
        assert list(data.batches(4, 16)) == []


def test_a_slow_step_is_not_started_shortly_before_the_deadline(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=1.0) as running:
        data, _, _ = client(running, budget=1.0)
        for _ in data.batches(1, 8):
            time.sleep(0.3)
        finished = time.monotonic()
        assert finished <= running.events()[0]["monotonic"] + 1.0 + 0.15  # one step more would end 0.2 seconds late


def test_inputs_and_targets_are_prepared_text(small_prepared: Prepared) -> None:
    from autoresearch.core.data.shards import open_shard

    shards = [open_shard(path) for path in small_prepared.train_shards(VOCAB)]
    text = b"".join(document.tobytes() for shard in shards for document in shard)
    with feed(small_prepared.folder) as running:
        inputs, targets, _ = next(client(running)[0].batches(8, 64, packing="stream"))
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        for row in targets.astype("<u2"):
            ends = np.flatnonzero(row == 1).tolist()
            for start, end in itertools.pairwise([0, *ends, len(row)]):
                assert row[start:end].tobytes() in text


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(small_prepared: Prepared) -> None:
    drawn = []
    for seed in (7, 7, 8):
        with feed(small_prepared.folder, seed=seed) as running:
            drawn.append(next(client(running)[0].batches(4, 32))[0])
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_documents_are_whole_and_end_at_the_deadline(small_prepared: Prepared) -> None:
    known = {document.tobytes() for document in train_documents(small_prepared)}
    with feed(small_prepared.folder, budget=0.3) as running:
        data, clock, runtime = client(running, budget=0.3)
        first = [document.tobytes() for document, _ in zip(data.documents(), range(len(known)), strict=False)]
        assert set(first) == known
        assert sum(1 for _ in data.documents()) > 0
        assert clock.remaining == 0.0
        assert runtime.synchronized == 1
        assert running.events()[-1]["reason"] == "deadline"


def test_documents_that_are_read_beside_rows_are_no_tokens_that_were_trained_on(small_prepared: Prepared) -> None:
    read, tokens = 0, {}
    for rows in (0, 3):
        with feed(small_prepared.folder, budget=0.5) as running:
            data, _, _ = client(running, budget=0.5)
            read = sum(len(document) for document, _ in zip(data.documents(), range(5), strict=False))
            for _ in zip(range(rows), data.batches(4, 32), strict=False):
                pass
            running.socket.shutdown(socket.SHUT_WR)
            tokens[rows] = running.events()[-1]["tokens"]
    assert tokens[0] >= read, "a file that takes documents alone packs its own rows; documents come many at a time"
    assert tokens[3] == 3 * 4 * 32


def test_shapes_may_alternate(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=5.0) as running:
        data, _, _ = client(running, budget=5.0)
        shapes = [(4, 16), (2, 32), (4, 16), (1, 8), (2, 32), (4, 16)]
        for batch, seq in shapes:
            inputs, _, _ = next(data.batches(batch, seq))
            assert inputs.shape == (batch, seq)


def test_a_child_that_asks_for_everything_at_once_gets_nothing_after_the_deadline(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=0.4) as running:
        running.socket.sendall(Request(ROWS, batch=16, seq=64).pack() * 2000)
        frames = 0
        while (header := running.frame()) is not None and header.kind != END:
            frames += 1
            assert time.monotonic() < header.deadline + 1.0  # all that was asked for takes two seconds
            time.sleep(0.001)
        assert running.read(1) == b""
        assert running.events()[-1]["reason"] == "deadline"
        assert frames > 3


def test_a_child_that_hoards_without_reading_finds_little_after_the_deadline(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=0.3) as running:
        size = 2 * 512 * 513
        running.socket.sendall(Request(ROWS, batch=512, seq=512).pack() * 50)
        events = running.events()
        assert events[-1]["reason"] == "deadline"
        # What fits into the socket's buffer, and no more: not even one of these batches.
        assert len(running.read(size)) < size
        assert events[-1]["batches"] == 0


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [
        (row_request(0, 8), "at least 1"),
        (row_request(1, 10**9), "more than"),
        (row_request(1, 8, packing=9), "packing 9"),
        (row_request(1, 8, kind=7), "kind 7"),
        (b"GET / HTTP/1.1\r\n\r\n", "is no request"),
        (bytes(range(64)), "is no request"),
    ],
)
def test_a_bad_request_is_an_event_and_ends_the_feed(
    small_prepared: Prepared, request_bytes: bytes, message: str
) -> None:
    with feed(small_prepared.folder) as running:
        running.socket.sendall(request_bytes)
        events = running.events()
        assert [event["event"] for event in events] == ["bad_request", "end"]
        assert message in events[0]["message"]
        assert running.process.returncode == 0


def test_the_client_refuses_impossible_shapes_before_asking(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder) as running:
        data, _, _ = client(running)
        for batch, seq, packing in [(0, 8, "best_fit"), (1, 10**9, "best_fit"), (1, 8, "tetris"), (-1, 8, "stream")]:
            with pytest.raises(ValueError, match=r"at least 1|more than|unknown"):
                data.batches(batch, seq, packing)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at least 1"):
            data.warmup(0, 8)
        assert next(data.batches(1, 8))[0].shape == (1, 8)


def test_closing_the_socket_ends_the_feed(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=60.0) as running:
        batches = client(running, budget=60.0)[0].batches(2, 8)
        next(batches)
        next(batches)
        running.socket.close()
        end = running.events()[-1]
        assert (end["event"], end["reason"], end["batches"], end["tokens"]) == ("end", "closed", 2, 32)


def test_the_feed_ends_when_the_supervisor_is_gone(small_prepared: Prepared) -> None:
    running = RunningFeed(small_prepared.folder, budget=60.0)
    try:
        os.close(running._events)
        assert running.process.wait(30) == 0
    finally:
        running.process.kill()
        running.socket.close()


@pytest.mark.parametrize("whole", [False, True])
def test_a_first_batch_that_comes_too_late_is_said(whole: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = FeedClient(ours, runtime=HostRuntime(), vocab_size=VOCAB, seed=0)
        header = FrameHeader(ROWS, rows=3, columns=65, tokens=192, deadline=time.monotonic() - 0.1)
        theirs.sendall(header.pack() + bytes(2 * 3 * 65 if whole else 10))
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(
            RuntimeError, match=r"before the first batch was here \(3 rows of 64 tokens\): ask for fewer"
        ):
            next(data.batches(3, 64))


def test_a_feed_that_breaks_off_is_no_quiet_end(small_prepared: Prepared) -> None:
    with feed(small_prepared.folder, budget=60.0) as running:
        batches = client(running, budget=60.0)[0].batches(2, 8)
        next(batches)
        running.process.kill()
        with pytest.raises(RuntimeError, match="broke off"):
            for _ in batches:
                pass


@pytest.mark.parametrize("vocab_exists", [True, False])
def test_changed_or_missing_shards_are_a_data_error(
    small_prepared: Prepared, tmp_path: Path, vocab_exists: bool
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_prepared.folder, folder)
    shard = folder / small_prepared.vocabulary(VOCAB).train[0].path
    if vocab_exists:
        data = bytearray(shard.read_bytes())
        data[-2] ^= 1
        shard.write_bytes(data)
    else:
        shard.unlink()
    with feed(folder) as running:
        events = running.events()
        assert events[0]["event"] == "data_error"
        assert str(shard) in events[0]["message"]
        assert "ar prepare" in events[0]["message"]
        assert events[-1]["event"] == "end"
        assert running.process.returncode == 1


def test_the_curve_never_raises() -> None:
    def broken(point: dict[str, Any]) -> None:
        raise OSError("gone")

    points: list[dict[str, Any]] = []
    FeedClock(1.0, broken).log(step=1, loss=2.0)
    FeedClock(1.0, points.append).log(step=1, loss=2.0, lr=0.5)
    assert points == [{"step": 1, "loss": 2.0, "lr": 0.5, "progress": 0.0}]


def test_the_client_imports_no_framework_and_little_else() -> None:
    code = (
        "import sys, autoresearch.core.data.client as c\n"
        "heavy = {'torch', 'mlx', 'pydantic', 'sentencepiece', 'pyarrow', 'huggingface_hub', 'click'}\n"
        "bad = heavy & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
