"""Literature that a person gives: folders and lists of addresses, good and hostile."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from autoresearch.agent.llm.literature import Literature, Paper, literature_text, quoted
from autoresearch.core.errors import ProposalError, UsageError


@pytest.fixture
def site():
    pages = {
        "/good": ("text/html; charset=utf-8", b"<html><script>evil()</script><p>Hash <b>tables</b></p>help</html>"),
        "/pdf": ("application/pdf", b"%PDF"),
        "/odd": ("text/plain; charset=no-such", b"plain"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            kind, body = pages.get(self.path, (None, b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def listed(folder, *lines):
    path = folder / "papers.txt"
    path.write_text("\n".join(["# mine", "", *lines]))
    return path


def test_a_folder_is_read_in_order_under_plain_names(tmp_path):
    (tmp_path / "b.md").write_text("two")
    (tmp_path / "a dir").mkdir()
    (tmp_path / "a dir" / "x [1].txt").write_text("one")
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    assert Literature(tmp_path).fetch() == (Paper("a-dir-x-1-.txt", "one"), Paper("b.md", "two"))


def test_pages_are_fetched_once_and_stay(tmp_path, site):
    address, asked = site
    given, kept = listed(tmp_path, f"{address}/good", f"{address}/odd"), tmp_path / "kept"
    assert Literature(given, kept).read() == () and asked == []
    papers = Literature(given, kept).fetch()
    assert [one.text for one in papers] == ["Hash tables\nhelp\n", "plain"]
    assert Literature(given, kept).fetch() == papers and len(asked) == 2


def test_proposals_that_are_made_at_once_fetch_a_page_once(tmp_path, site):
    address, asked = site
    literature, together = Literature(listed(tmp_path, f"{address}/good"), tmp_path / "kept"), threading.Barrier(6)

    def fetch(_):
        together.wait()
        return literature.fetch()

    with ThreadPoolExecutor(6) as pool:
        assert {papers[0].text for papers in pool.map(fetch, range(6))} == {"Hash tables\nhelp\n"}
    assert len(asked) == 1


@pytest.mark.parametrize(("page", "said"), [("pdf", "is application/pdf, no text"), ("none", "404")])
def test_a_page_that_is_no_text_is_named(tmp_path, site, page, said):
    with pytest.raises(ProposalError, match=said):
        Literature(listed(tmp_path, f"{site[0]}/{page}")).fetch()


@pytest.mark.parametrize("line", ["file:///etc/passwd", "etc/passwd", "ftp://host/x", "https://a b"])
def test_a_line_that_is_no_web_address_is_refused_before_anything_is_read(tmp_path, line):
    with pytest.raises(UsageError, match=r"line 3: .* is not an address"):
        Literature(listed(tmp_path, line))


def test_an_empty_folder_and_an_empty_list_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no text"):
        Literature(tmp_path)
    with pytest.raises(UsageError, match="holds 0 addresses"):
        Literature(listed(tmp_path))


def test_long_texts_are_cut_and_short_ones_leave_their_share_to_them():
    papers = [Paper("long", "x" * 1000), Paper("short", "brief")]
    text = literature_text(papers, 200)
    assert text.startswith("[long]\n" + "x" * 195 + "\n[cut]") and text.endswith("[short]\nbrief")
    assert literature_text(papers, 0) == "" and literature_text((), 100) == ""


def test_a_hypothesis_names_what_it_draws_on():
    papers = [Paper("a.md", ""), Paper("b.md", "")]
    assert quoted("Tables of pairs, after [b.md].", papers) == "b.md" and quoted("My own.", papers) == ""


def test_a_pipe_in_the_place_of_a_list_of_addresses_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "list")
    with pytest.raises(UsageError, match="cannot be read: it is a pipe, not a file"):
        Literature(tmp_path / "list")


def test_two_texts_never_share_a_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.md").write_text("one")
    (tmp_path / "a-b.md").write_text("two")
    papers = Literature(tmp_path).read()
    assert len({one.name for one in papers}) == 2
    assert "one" in literature_text(papers, 100) and "two" in literature_text(papers, 100)


def test_a_server_that_speaks_no_http_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ProposalError, match=r"127\.0\.0\.1.* cannot be fetched"):
            Literature(listed(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}/x")).fetch()
