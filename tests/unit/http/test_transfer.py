"""Bodies that are sent from files, and answers that go to them, over TLS and without it."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from orchestratord.errors import SendError
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.http.saved_answer import SAVED, SavedAnswer, remove_left
from orchestratord.http.streamed_body import SENT, StreamedBody, open_file

DATA = os.urandom(6 << 20)
ALLOWED = Egress((parse_rule("127.0.0.1"),))


@pytest.fixture(params=["http", "https"])
def secured(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """The scheme, and the contexts of the server and of the client."""
    if request.param == "http":
        return "http", None, None
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return "https", server, client


async def exchange(
    secured: tuple[str, Any, Any], answer: bytes, extensions: dict[str, Any], length: int
) -> tuple[httpx.Response, bytes]:
    """Send a request; the answer to it, and the body that the server has read."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while len(got) < length and (piece := await reader.read(length - len(got))):
            got.extend(piece)
        writer.write(answer)
        await writer.drain()
        writer.close()

    scheme, context, trusting = secured
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    request = httpx.Request("PUT", f"{scheme}://127.0.0.1:{port}/", extensions=extensions)
    request.headers["Content-Length"] = str(length)
    client = HttpClient()
    options = SendOptions(timeout=30, egress=ALLOWED, ssl_context=trusting)
    try:
        return await client.send(request, options=options), bytes(got)
    finally:
        await client.aclose()
        server.close()


async def test_each_way(secured: tuple[str, Any, Any], tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(DATA)
    (tmp_path / "in").mkdir()
    opened = open_file("sent", [str(tmp_path)], 1 << 30)
    body = StreamedBody([b"<", opened, b">"])
    saved = SavedAnswer(str(tmp_path / "in"), "saved", 1 << 30)
    await saved.begin()
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(DATA)
    response, got = await exchange(secured, answer + DATA, {SENT: body, SAVED: saved}, body.length)
    assert got == b"<" + DATA + b">"
    assert response.content == b""
    about = await saved.finish()
    await saved.close()
    assert (tmp_path / "in/saved").read_bytes() == DATA, "as it came"
    assert about["size"] == len(DATA)
    assert os.listdir(tmp_path / "in") == ["saved"]


async def test_an_answer_that_ends_too_soon(secured: tuple[str, Any, Any], tmp_path: Path) -> None:
    saved = SavedAnswer(str(tmp_path), "saved", 1 << 30)
    await saved.begin()
    with pytest.raises(SendError, match="in the middle of the answer"):
        await exchange(
            secured, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", {SAVED: saved}, 0
        )
    await saved.close()
    assert os.listdir(tmp_path) == []


async def test_an_answer_before_the_body_is_sent(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(DATA * 8)
    body = StreamedBody([open_file("sent", [str(tmp_path)], 1 << 30)])
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()
        ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = httpx.Request("PUT", f"http://127.0.0.1:{port}/", extensions={SENT: body})
    request.headers["Content-Length"] = str(body.length)
    client = HttpClient()
    response = await client.send(request, options=SendOptions(timeout=30, egress=ALLOWED))
    assert response.status_code == 413
    await client.aclose()
    async with asyncio.timeout(30):
        await ended.wait()
    server.close()


async def test_what_is_written_is_not_removed(tmp_path: Path) -> None:
    saved = SavedAnswer(str(tmp_path), "saved", 100)
    await saved.begin()
    (tmp_path / ".orchestratord-0123456789abcdef.part").write_bytes(b"left")
    (tmp_path / ".orchestratord-0123456789abcde0.part").symlink_to("/etc/passwd")
    await asyncio.to_thread(remove_left, [str(tmp_path), str(tmp_path / "none")])
    assert len(os.listdir(tmp_path)) == 2, "the one that is written, and a link"
    saved.take(b"abc", lambda: None)
    await saved.finish()
    await saved.close()
    assert (tmp_path / "saved").read_bytes() == b"abc"


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    saved = SavedAnswer(str(tmp_path), "saved", 100)
    await saved.begin()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, saved._file)
    os.close(full)
    saved.take(b"abc", lambda: None)
    with pytest.raises(OSError, match="No space left"):
        await saved.finish()
    await saved.close()
    assert os.listdir(tmp_path) == []


async def test_the_disk_is_full_in_the_middle_of_an_answer(
    secured: tuple[str, Any, Any], tmp_path: Path
) -> None:
    saved = SavedAnswer(str(tmp_path), "saved", 1 << 30)
    await saved.begin()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, saved._file)
    os.close(full)
    head = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % (16 * len(DATA))
    response, _ = await exchange(secured, head + 16 * DATA, {SAVED: saved}, 0)
    assert (response.status_code, response.extensions["truncated"]) == (201, True)
    assert saved.size < 16 * len(DATA)
    with pytest.raises(OSError, match="No space left"):
        await saved.written()
    await saved.close()
    assert os.listdir(tmp_path) == []
