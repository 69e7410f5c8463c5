"""Fetching from the hub, against a small server on loopback that speaks its resolve protocol."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from made_corpora import SEQ, VOCAB, prose, quiet

from autoresearch.core.data import hub
from autoresearch.core.data.hub import HUB_CORPORA, HubCorpus, fetch
from autoresearch.core.data.manifest import PrepareOptions
from autoresearch.core.data.prepare import prepare
from autoresearch.core.data.shards import open_shard
from autoresearch.core.errors import DataError

COMMIT = "c0ffee" + "0" * 34
SMALL = HubCorpus("small", "someone/small", ("shard_0.parquet", "shard_1.parquet"), ("shard_2.parquet",), 2)


def parquet(first: int, documents: int = 40) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [prose(seed, 8) for seed in range(first, first + documents)]}), sink)
    return sink.getvalue()


class Hub(http.server.ThreadingHTTPServer):
    """Serves files by name; can fail, cut off, or lie."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = {f"shard_{number}.parquet": parquet(100 * number) for number in range(3)}
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken: set[str] = set()
        self.cut_once: set[str] = set()
        self.lying: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        if "/resolve/" not in self.path:
            return self.refuse(404)
        revision, _, name = self.path.partition("/resolve/")[2].partition("/")
        self.server.asked.append((self.command, f"{revision}/{name}", self.headers.get("Range")))
        data = self.server.files.get(name)
        if data is None or revision not in ("main", COMMIT):
            return self.refuse(404)
        if name in self.server.broken:
            return self.refuse(500)
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        digest = hashlib.sha256(data).hexdigest()
        self.send_header("ETag", f'"{digest if name not in self.server.lying else "0" * 64}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if with_body and name in self.server.cut_once:
            self.server.cut_once.discard(name)
            self.wfile.write(data[start : start + len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif with_body:
            self.wfile.write(data[start:])
        return None

    def refuse(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub, "RETRY_SECONDS", 0.01)
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_shards_are_fetched_at_one_commit_and_recorded(server: Hub, tmp_path: Path) -> None:
    told: list[str] = []
    fetched = fetch(SMALL, tmp_path, None, told.append)
    assert fetched.commit == COMMIT
    assert [path.name for path in (*fetched.train, *fetched.held_out)] == sorted(server.files)
    for path in (*fetched.train, *fetched.held_out):
        assert path.read_bytes() == server.files[path.name]
        assert fetched.sha256[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {where.split("/")[0] for command, where, _ in server.asked if command == "GET"} == {COMMIT}
    assert any("3 of 3" in line for line in told)


def test_what_is_there_is_not_asked_for_again_even_without_a_network(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch(SMALL, tmp_path, None, quiet)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    server.asked.clear()
    assert fetch(SMALL, tmp_path, None, quiet) == first
    assert server.asked == []


def test_only_the_wanted_shards_are_fetched_and_the_held_out_one_always(server: Hub, tmp_path: Path) -> None:
    fetched = fetch(SMALL, tmp_path, 1, quiet)
    assert [path.name for path in fetched.train] == ["shard_0.parquet"]
    assert [path.name for path in fetched.held_out] == ["shard_2.parquet"]
    assert not (tmp_path / "small" / "shard_1.parquet").exists()
    with pytest.raises(DataError, match=r"has 2 shards\. Fix: --shards 2"):
        fetch(SMALL, tmp_path, 3, quiet)


@pytest.mark.parametrize("trouble", ["broken", "missing"])
def test_a_shard_that_fails_fails_the_command_and_the_others_are_kept(
    server: Hub, tmp_path: Path, trouble: str
) -> None:
    kept = server.files["shard_1.parquet"]
    if trouble == "broken":
        server.broken.add("shard_1.parquet")
    else:
        del server.files["shard_1.parquet"]
    with pytest.raises(DataError, match=r"shard_1\.parquet of someone/small .* could not be fetched.* Fix: check"):
        fetch(SMALL, tmp_path, None, quiet)
    server.broken.clear()
    server.files["shard_1.parquet"] = kept
    server.asked.clear()
    fetched = fetch(SMALL, tmp_path, None, quiet)
    assert fetched.train[1].read_bytes() == kept
    assert len({where for command, where, _ in server.asked if command == "GET"}) < 3


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.cut_once.add("shard_0.parquet")
    fetched = fetch(SMALL, tmp_path, None, quiet)
    assert fetched.train[0].read_bytes() == server.files["shard_0.parquet"]
    ranges = [span for command, where, span in server.asked if command == "GET" and where.endswith("shard_0.parquet")]
    assert len(ranges) >= 2
    assert any(span and span != "bytes=0-" for span in ranges[1:])


def test_what_a_killed_fetch_has_left_is_removed_by_the_next(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    get, left = file_download.http_get, []

    def get_and_keep(url: str, file: io.BufferedWriter, **more: object) -> None:
        get(url, file, **more)
        left.append(Path(file.name))
        os.link(file.name, f"{file.name}.kept")

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", get_and_keep)
        shard = fetch(SMALL, tmp_path, None, quiet).train[0]
    for path in left:
        Path(f"{path}.kept").rename(path)  # as it was when the process was killed
    shard.unlink()
    fetch(SMALL, tmp_path, None, quiet)
    assert len(left) == 3 and not list(tmp_path.rglob("*.incomplete"))


def test_what_a_killed_fetch_has_left_goes_also_where_nothing_is_missing(server: Hub, tmp_path: Path) -> None:
    fetch(SMALL, tmp_path, None, quiet)
    left = tmp_path / "small" / ".cache" / "huggingface" / "download" / "shard_1.parquet.etag.random.incomplete"
    left.write_bytes(b"half")
    with FileLock(tmp_path / ".small.lock"):  # another process may be writing just this file
        fetch(SMALL, tmp_path, None, quiet)
        assert left.exists()
    fetch(SMALL, tmp_path, 1, quiet)
    assert not left.exists()


@pytest.mark.parametrize(
    "damaged",
    [
        {"commit": 7},
        {"files": {"shard_0.parquet": 3}},
        {"files": {"shard_0.parquet": {"sha256": "0", "bytes": "1", "mtime_ns": None}}},
        {"files": [["shard_0.parquet", ["sha256"]]]},
    ],
)
def test_a_record_of_another_form_counts_as_none(server: Hub, tmp_path: Path, damaged: dict[str, object]) -> None:
    first = fetch(SMALL, tmp_path, None, quiet)
    record = tmp_path / "small" / "fetched.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | damaged))
    assert fetch(SMALL, tmp_path, None, quiet) == first


def test_a_second_fetch_waits_for_the_first_and_fetches_nothing_again(server: Hub, tmp_path: Path) -> None:
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool, FileLock(tmp_path / ".small.lock") as first:
        second = pool.submit(fetch, SMALL, tmp_path, None, told.append)
        while not told and not second.done():
            time.sleep(0.01)
        assert server.asked == []
        # The other process has them all before it lets go.
        fetch(SMALL, tmp_path / "elsewhere", None, quiet)
        shutil.copytree(tmp_path / "elsewhere" / "small", tmp_path / "small", dirs_exist_ok=True)
        server.asked.clear()
        first.release()
        assert len(second.result().train) == 2
    assert "another prepare is at work" in told[0]
    assert server.asked == []


def test_a_file_that_is_not_what_the_hub_says_is_refused(server: Hub, tmp_path: Path) -> None:
    server.lying.add("shard_2.parquet")
    with pytest.raises(DataError, match=r"shard_2\.parquet .* arrived damaged"):
        fetch(SMALL, tmp_path, None, quiet)
    assert not (tmp_path / "small" / "shard_2.parquet").exists()


def test_a_fetched_file_that_changed_is_fetched_again(server: Hub, tmp_path: Path) -> None:
    path = fetch(SMALL, tmp_path, None, quiet).train[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert fetch(SMALL, tmp_path, None, quiet).train[0].read_bytes() == server.files[path.name]


def test_no_hub_is_a_clear_error(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"someone/small \(main\) could not be fetched: .* Fix: check the network"):
        fetch(SMALL, tmp_path, None, quiet)


def test_a_hub_corpus_is_prepared_with_its_held_out_shard(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HUB_CORPORA, "small", SMALL)
    options = PrepareOptions("small", (VOCAB,), (SEQ,), 8_000, 8_000, shards=1)
    prepared = prepare(options, tmp_path, quiet)
    assert prepared.manifest.source.revision == COMMIT
    assert prepared.manifest.splits["train"].documents == 40
    held_out = {prose(seed, 8) for seed in range(200, 240)}
    for name in ("val", "test"):
        path = prepared.folder / prepared.manifest.splits[name].files[0].path  # type: ignore[index]
        assert set(open_shard(path).documents().texts()) <= held_out
    told: list[str] = []
    prepare(options, tmp_path, told.append)
    assert told == []


def test_the_last_shard_of_climbmix_is_never_trained_on() -> None:
    climbmix = HUB_CORPORA["climbmix"]
    assert climbmix.held_out == ("shard_06542.parquet",)
    assert climbmix.train[0] == "shard_00000.parquet"
    assert climbmix.train[-1] == "shard_06541.parquet"
    assert len(climbmix.train) == 6542
