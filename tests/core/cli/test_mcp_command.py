"""`ar mcp`, asked by the MCP library's own client over stdio."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("mcp", reason="the MCP library is not installed")

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.server.mcpserver.exceptions import ToolError

from autoresearch.core.cli.context import Settings
from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.mcp_server import Tools, run_ar
from autoresearch.core.store.reader import LedgerReader

RATE = "LEARNING_RATE = 0.25"


def finish(coroutine):
    """Run to the end in a thread: a browser of other tests may have an event loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture
def server(library, tmp_path):
    """A fresh workspace, and how to start the server on it."""
    workspace = tmp_path / "w"
    assert ar(["init", str(workspace), "--quiet"]) == 0
    (workspace / "ar.toml").write_text(f'[submit]\ncorpus = "{library}/text"\njudge = "greedy"\n')
    shared = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace)]
    environment = {**os.environ, "AR_DATA_DIR": str(library / "data")}
    arguments = ["-m", "autoresearch.core.cli.main", *shared, "mcp"]
    return workspace, StdioServerParameters(command=sys.executable, args=arguments, env=environment)


async def call(client, tool, **arguments):
    """What a tool returns: its object, or its text; an error's text begins with "Error"."""
    answer = await client.call_tool(tool, arguments)
    text = answer.content[0].text if answer.content else ""
    structured = answer.structured_content
    return text if structured is None or answer.is_error else structured.get("result", structured)


def test_an_agent_reads_submits_and_goes_on_from_the_verdict(server):
    workspace, parameters = server

    async def research():
        async with Client(parameters) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"brief", "submit", "result", "results", "best_file", "profile", "ideas"}
            resources = {str(one.uri) for one in (await client.list_resources()).resources}
            assert resources == {"ar://program.md", "ar://contract.md"}
            program = (await client.read_resource("ar://program.md")).contents[0].text
            assert program == (workspace / "program.md").read_text()
            assert "the first `ar submit` will start" in await call(client, "brief")
            assert (await call(client, "profile")).startswith("Error")
            best = await call(client, "best_file")
            assert best["measured"] is False and RATE in best["source"]

            said = []

            async def progress(_done, _total, message):
                said.append(message)

            source = best["source"].replace(RATE, "LEARNING_RATE = 0.4")
            answer = await client.call_tool(
                "submit", {"why": "--faster", "source": source, "predict": -0.1}, progress_callback=progress
            )
            record = answer.structured_content
            assert (record["state"], record["experiment"]) == ("decided", 1), record
            assert any("experiment 0, trial 1: training" in line for line in said)
            assert [one["experiment"] for one in await call(client, "results")] == [0, 1]
            assert (await call(client, "result", name="1"))["status"] == record["status"]
            assert (await call(client, "result"))["submission"] == record["submission"]
            assert "experiment" in await call(client, "profile")

            for arguments, words in (
                ({"source": source, "path": "x"}, "two train files"),
                ({"path": "/etc/passwd"}, "outside the workspace"),
                ({"path": "../data"}, "outside the workspace"),
                ({"source": "x("}, "syntax error"),
                ({"source": source, "category": "luck"}, "no category"),
            ):
                told = await call(client, "submit", why="x", **arguments)
                assert told.startswith("Error") and words in told, told
            assert all("SwiGLU" in idea for idea in await call(client, "ideas", search="SwiGLU"))

    finish(asyncio.wait_for(research(), 200))
    (ledger,) = (workspace / "runs").glob("*/ledger.sqlite")
    with LedgerReader(ledger.parent) as reader:
        assert [row.hypothesis for row in reader.experiments()] == ["baseline", "--faster"]


def test_without_a_workspace_the_server_does_not_start(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ar(["mcp"]) == 3
    assert "is not a workspace" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 10_000_000])
def test_a_text_that_no_process_can_be_given_is_an_error_of_the_tool(text):
    async def quiet(_line):
        pass

    with pytest.raises(ToolError, match="cannot be given this text"):
        finish(run_ar(["submit", f"--why={text}"], quiet))


def test_a_path_that_is_none_is_an_error_of_the_tool(tmp_path):
    tools = Tools(Settings(workspace=tmp_path), None)
    with pytest.raises(ToolError, match="cannot be a path"):
        finish(tools.submit(None, "why", path="a\0b"))


def test_a_name_that_is_very_long_is_an_error_of_the_tool(tmp_path):
    async def quiet(_line):
        pass

    assert ar(["--quiet", "init", str(tmp_path / "w")]) == 0
    with pytest.raises(ToolError, match=r"'aaa.*' is neither a submission") as caught:
        finish(run_ar(["--workspace", str(tmp_path / "w"), "result", "--", "a" * 100_000], quiet))
    assert len(str(caught.value)) < 200


def test_a_message_that_is_very_long_is_read_to_its_end():
    async def quiet(_line):
        pass

    with pytest.raises(ToolError, match=r"there is no command 'aaa"):
        finish(run_ar(["a" * 100_000], quiet))
