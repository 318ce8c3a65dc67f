"""TLS of the server's own: what is wrong with its files, and that everything works over it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import needs
import pytest
from certificates import Authority
from conftest import Serve, make
from faults.catalogue import fault
from timing import within
from tree import PACKAGE
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from wire import EVENTS, UPGRADE, Headers, dial, eventually, lines, request, soon, text

from realtime import tls
from realtime.errors import ConfigError
from realtime.transports import connection, takeover

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
CHAT = "channels: {lobby: {plugin: chat, path: /chat}}"
CLOCK = "channels: {clock: {plugin: clock, path: /events, interval: 1h, keep_alive: 1h}}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Certificates beside the config."""
    return Authority(tmp_path)


def config(channels: str, **settings: str) -> str:
    """A config that serves these over TLS."""
    more = "".join(f", {key}: {value}" for key, value in {"key": "key.pem", **settings}.items() if value)
    return f'server: {{listen: ["127.0.0.1:0"], tls: {{cert: cert.pem{more}}}}}\n{channels}'


@asynccontextmanager
async def joined(port: int, authority: Authority, path: str = "/ws") -> AsyncIterator[ClientConnection]:
    """A WebSocket client over TLS."""
    async with connect(f"wss://localhost:{port}{path}", ssl=authority.client()) as client:
        yield client


@asynccontextmanager
async def silent(
    port: int, authority: Authority, path: str, headers: Headers = UPGRADE
) -> AsyncIterator[ssl.SSLSocket]:
    """A client that has sent its request, and reads nothing."""

    def begin() -> ssl.SSLSocket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(8)
        sock.connect(("127.0.0.1", port))
        secure = authority.client().wrap_socket(sock, server_hostname="localhost")
        secure.sendall(request(path, headers))
        return secure

    secure = await asyncio.to_thread(begin)
    with secure:
        yield secure


# What works


async def test_websocket(serve: Serve, authority: Authority) -> None:
    """A WebSocket over TLS, whose certificate a client verifies."""
    async with serve(config(ECHO)) as serving, joined(serving.port, authority) as client:
        await client.send("x")
        assert await soon(client.recv()) == "Echo: x"


async def test_events(serve: Serve, authority: Authority) -> None:
    """Server-sent events come through TLS as they are published, without waiting for more."""
    async with serve(config(CLOCK)) as serving:
        url = f"https://localhost:{serving.port}/events"
        command = [needs.curl(), "-sN", "--cacert", str(authority.ca), url]
        shown = await lines(command, 7)
    assert shown[-1].startswith("data: Current time: ")


@pytest.mark.parametrize(
    "settings", [{"cert": "both.pem", "key": ""}, {"cert": "both.pem", "key": "both.pem"}]
)
async def test_key_beside_the_certificate(
    serve: Serve, authority: Authority, settings: dict[str, str]
) -> None:
    """The key may stand in the file of the certificate, and ``key`` may be left out then."""
    text = config(ECHO, **{"key": settings["key"]}).replace("cert.pem", settings["cert"])
    async with serve(text) as serving, joined(serving.port, authority) as client:
        await client.send("x")
        assert await soon(client.recv()) == "Echo: x"


async def test_encrypted_key(serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is encrypted is opened with the password, which may come from the environment."""
    monkeypatch.setenv("TLS_PASSWORD", "sesame")
    text = config(ECHO, key="secret.pem", password='"${TLS_PASSWORD}"')
    async with serve(text) as serving, joined(serving.port, authority):
        assert "sesame" not in repr(serving.server.config)


async def test_unix_sockets_stay_plain(tmp_path: Path, authority: Authority) -> None:
    """TLS is for TCP; who comes by a unix socket is on this machine."""
    listen = f'["127.0.0.1:0", "unix:{tmp_path}/s.sock"]'
    async with make(tmp_path, config(ECHO).replace('["127.0.0.1:0"]', listen)) as server:
        async with dial(0, request("/ws", UPGRADE) + text("x"), path=f"{tmp_path}/s.sock") as wire:
            assert (await wire.head()).status == 101
            assert await wire.text() == "Echo: x"
        async with joined(server.addresses[0].port, authority):
            pass


async def test_front_page(serve: Serve, authority: Authority) -> None:
    """The URLs of the front page are those of TLS."""
    channels = "channels: {echo: {plugin: echo, path: /ws}, clock: {plugin: clock, path: /events}}"
    async with serve(config(channels)) as serving:
        url = f"https://localhost:{serving.port}/"
        shown = await lines([needs.curl(), "-s", "--cacert", str(authority.ca), url], 4)
    assert shown[2:] == [
        f"echo: wss://localhost:{serving.port}/ws",
        f"clock: https://localhost:{serving.port}/events",
    ]


@pytest.mark.parametrize(("scheme", "status"), [("https", 101), ("http", 403)])
async def test_origin(serve: Serve, authority: Authority, scheme: str, status: int) -> None:
    """With TLS of its own the server knows the scheme, so a page of http:// is of another origin."""
    async with serve(config(ECHO)) as serving:
        headers = [*UPGRADE, ("Origin", f"{scheme}://localhost")]
        async with silent(serving.port, authority, "/ws", headers) as secure:
            assert (await asyncio.to_thread(secure.recv, 100)).startswith(b"HTTP/1.1 %d " % status)


# What does not


async def test_old_versions(serve: Serve, authority: Authority) -> None:
    """A client that speaks no TLS 1.2 is refused."""
    old = authority.client()
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serve(config(ECHO)) as serving:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await soon(asyncio.open_connection("localhost", serving.port, ssl=old))


@fault(21)
@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None)])
async def test_alpn(serve: Serve, authority: Authority, offered: list[str], chosen: str | None) -> None:
    """Of the protocols that a client offers the server takes HTTP/1.1 (RFC 7301)."""
    client = authority.client()
    client.set_alpn_protocols(offered)
    async with serve(config(ECHO)) as serving:
        _, writer = await soon(asyncio.open_connection("localhost", serving.port, ssl=client))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        writer.close()
        await soon(writer.wait_closed())


@fault(54)
async def test_renegotiation(serve: Serve, authority: Authority) -> None:
    """A client cannot have the handshake done again and again on one connection."""
    openssl = needs.openssl()
    async with serve(config(ECHO)) as serving:
        process = await asyncio.create_subprocess_exec(
            *(openssl, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{serving.port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await soon(process.communicate(b"R\n"))
    assert b"no renegotiation" in output


async def test_plain_http(serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """Plain HTTP, or garbage, is hung up on at once; nothing of it is in the log."""
    caplog.set_level(logging.INFO)
    async with serve(config(ECHO)) as serving:
        for _ in range(20):
            for said in (request("/"), b"\0" * 100, b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-scanner\r\n"):
                async with dial(serving.port, said) as wire:
                    await wire.rest()
        async with dial(serving.port) as wire:
            wire.reset()
    assert caplog.text == ""


@fault(54)
async def test_silence(serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says no hello is closed when the time for the handshake is over."""
    assert tls.HANDSHAKE == 10
    monkeypatch.setattr(tls, "HANDSHAKE", 0.1)
    async with serve(config(ECHO)) as serving, dial(serving.port) as wire:
        assert await wire.rest() == b""


# Slow and stalled clients, and the end


async def test_everybody_hears(serve: Serve, authority: Authority) -> None:
    """What one says in a room all others hear, each over its own TLS."""
    async with serve(config(CHAT)) as serving, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(joined(serving.port, authority, "/chat")) for _ in range(5)
        ]
        for number, client in enumerate(clients):
            await client.send(f"n{number}")
            await soon(client.recv())
        await clients[0].send("x" * 50_000)
        for client in clients:
            while (heard := str(await soon(client.recv()))).endswith("joined the chat"):
                pass
            assert heard == "n0: " + "x" * 50_000


async def test_slow_reader(serve: Serve, authority: Authority) -> None:
    """A client that reads slowly gets all, in order, while the server holds back for it."""
    async with serve(config(CLOCK)) as serving, silent(serving.port, authority, "/events") as secure:
        clock = serving.server.channels["clock"]
        await eventually(lambda: bool(clock.clients))
        (client,) = clock.clients
        link = client._link
        assert isinstance(link, connection.Connection)
        for number in range(60):
            await serving.server.bus.publish("clock", f"{number} " + "x" * 20_000)
            await asyncio.sleep(0)
        await eventually(lambda: link.paused)
        held = link.transport.get_write_buffer_size()
        assert held <= takeover.TLS_HIGH_WATER + 128 * 1024 + 4096

        def read() -> bytes:
            data = b""
            while b"59 xxxx" not in data:
                data += secure.recv(65536)
            return data

        data = await soon(asyncio.to_thread(read))
        numbers = [data.find(b"%d xxxx" % number) for number in range(60)]
        assert numbers == sorted(numbers)
        assert -1 not in numbers
        await eventually(lambda: not link.paused)


async def test_stalled_client_delays_nobody(serve: Serve, authority: Authority) -> None:
    """While one client never reads, another gets everything; the first is closed when it is lapped."""
    text = config("channels: {clock: {plugin: clock, path: /events, lag: 50ms, lag_bytes: 64KiB}}")
    async with (
        serve(text) as serving,
        silent(serving.port, authority, "/events"),
        joined(serving.port, authority, "/events") as client,
    ):
        clock = serving.server.channels["clock"]
        await eventually(lambda: len(clock.clients) == 2)
        published = 0
        while len(clock.clients) == 2:
            await serving.server.bus.publish("clock", f"{published} " + "x" * 20_000)
            published += 1
            while not str(await soon(client.recv())).startswith(f"{published - 1} "):
                pass


@pytest.mark.parametrize("headers", [UPGRADE, EVENTS], ids=["websocket", "sse"])
async def test_client_that_never_reads_is_cut(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch, headers: Headers
) -> None:
    """A client that reads nothing and answers nothing is gone after the grace of a close."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    async with serve(config(CLOCK)) as serving, silent(serving.port, authority, "/events", headers):
        clock = serving.server.channels["clock"]
        await eventually(lambda: bool(clock.clients))
        for _ in range(100):
            await serving.server.bus.publish("clock", "x" * 20_000)
            await asyncio.sleep(0)
        for client in clock.clients:
            await client.close(1000, "done")
        await eventually(lambda: not clock.clients)


async def test_client_that_ends_its_side(
    serve: Serve,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that reads nothing, and has ended its side of TLS, is cut after the grace too."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    caplog.set_level(logging.INFO)
    async with (
        serve(config(CLOCK)) as serving,
        silent(serving.port, authority, "/events", EVENTS) as secure,
    ):
        clock = serving.server.channels["clock"]
        await eventually(lambda: bool(clock.clients))
        (client,) = clock.clients
        link = client._link
        assert isinstance(link, connection.Connection)
        while not link.transport.get_write_buffer_size():  # but less than would stop the reading
            await serving.server.bus.publish("clock", "x" * 20_000)
            await asyncio.sleep(0)

        def end() -> None:
            secure.setblocking(False)
            with suppress(ssl.SSLError):  # what it has not read comes after its end
                secure.unwrap()

        await asyncio.to_thread(end)
        await eventually(link.transport.is_closing)
        await client.close(1000, "done")
        await eventually(lambda: "left after" in caplog.text)


async def test_shutdown(serve: Serve, authority: Authority) -> None:
    """At a shutdown clients over TLS are told with 1001."""
    async with serve(config(ECHO)) as serving, joined(serving.port, authority) as client:
        await serving.server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await soon(client.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


async def test_drain_is_the_bound(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``stop()`` takes no longer than the grace, though clients over TLS read nothing."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    async with (
        serve(config(CLOCK)) as serving,
        silent(serving.port, authority, "/events"),
        silent(serving.port, authority, "/events", EVENTS),
        silent(serving.port, authority, "/-/live", ()),
    ):
        clock = serving.server.channels["clock"]
        await eventually(lambda: len(clock.clients) == 2)
        for _ in range(100):
            await serving.server.bus.publish("clock", "x" * 20_000)
            await asyncio.sleep(0)
        async with within(3):
            await serving.server.stop()


async def test_no_descriptor_is_left(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has ended holds no descriptor, whatever its clients over TLS do not answer."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    async with make(tmp_path, config(ECHO)):
        pass  # what is opened once for the whole process is open now
    gc.collect()  # what tests before have left holds none that could go in the middle
    before = len(os.listdir("/proc/self/fd"))
    async with (
        make(tmp_path, config(ECHO)) as server,
        silent(server.addresses[0].port, authority, "/ws"),
        silent(server.addresses[0].port, authority, "/-/live", ()) as idle,
    ):
        await asyncio.to_thread(idle.recv, 1)
        await server.stop()
        assert len(os.listdir("/proc/self/fd")) == before + 2  # those of the clients


async def test_client_that_vanishes(
    serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """A client whose TCP connection ends without a word of TLS has left, in one line of the log."""
    caplog.set_level(logging.INFO)
    async with serve(config(ECHO)) as serving:
        echo = serving.server.channels["echo"]
        async with silent(serving.port, authority, "/ws"):
            await eventually(lambda: bool(echo.clients))
        await eventually(lambda: not echo.clients)
        await eventually(lambda: "left after" in caplog.text)
    assert caplog.text.count("\n") == 1


# What is wrong with the files


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ("{cert: none.pem, key: key.pem}", "3:15: server.tls.cert: none.pem: not found"),
        ("{cert: ., key: key.pem}", "3:15: server.tls.cert: .: is a directory"),
        ("{cert: cert.pem, key: none.pem}", "3:30: server.tls.key: none.pem: not found"),
        (
            "{cert: garbage.pem, key: key.pem}",
            "server.tls.cert: garbage.pem has no certificate",
        ),
        ("{cert: key.pem, key: key.pem}", "server.tls.cert: key.pem has no certificate that can be read"),
        (
            "{cert: broken.pem, key: key.pem}",
            "server.tls.cert: broken.pem has no certificate",
        ),
        ("{cert: cert.pem, key: cert.pem}", "server.tls.key: cert.pem has no private key"),
        ("{cert: cert.pem}", "server.tls.cert: cert.pem has no private key; server.tls.key names the file"),
        ("{cert: cert.pem, key: brokenkey.pem}", "server.tls.key: the key or the certificate is not one"),
        ("{cert: cert.pem, key: other.pem}", "server.tls.key: the key does not belong to the certificate"),
        ("{cert: cert.pem, key: secret.pem}", "server.tls.key: the key is encrypted; server.tls.password"),
        (
            "{cert: cert.pem, key: secret.pem, password: wrong}",
            "3:52: server.tls.password: it does not open the key",
        ),
        (
            '{cert: cert.pem, key: secret.pem, password: ""}',
            "server.tls.password: it does not open the key",
        ),
        (
            f"{{cert: cert.pem, key: secret.pem, password: {'x' * 2000}}}",
            "server.tls.password: it does not open the key",
        ),
    ],
)
async def test_mistake(tmp_path: Path, authority: Authority, settings: str, wrong: str) -> None:
    """What is wrong with the files is told in its place, before anything listens."""
    server = make(tmp_path, f'server:\n  listen: ["127.0.0.1:0"]\n  tls: {settings}\n{ECHO}')
    with pytest.raises(ConfigError) as caught:
        server.load()
    (problem,) = caught.value.problems
    assert wrong in str(problem)
    assert str(problem).startswith("config.yaml:3:")


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A directory that other users may read."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_file_that_may_not_be_read(foreign: Path) -> None:
    """A key that may not be read is told with the reason."""
    Authority(foreign)
    (foreign / "key.pem").chmod(0)
    (foreign / "config.yaml").write_text(config(ECHO))
    program = """
import os
from pathlib import Path
from realtime import tls
from realtime.config import load
config = load(Path("config.yaml"))
if os.geteuid() == 0:
    os.setuid(65534)
print(tls.context(config)[1][0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=foreign,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert "server.tls.key: key.pem: permission denied" in done.stdout, done.stderr


async def test_all_mistakes_at_once(tmp_path: Path, authority: Authority) -> None:
    """Mistakes of the files and of the channels are told together."""
    server = make(
        tmp_path,
        config("channels: {x: {plugin: chta, path: /}}", key="none.pem").replace("cert.pem", "no.pem"),
    )
    with pytest.raises(ConfigError) as caught:
        server.load()
    assert [problem.path for problem in caught.value.problems] == [
        "server.tls.cert",
        "server.tls.key",
        "channels.x.plugin",
    ]


async def test_nothing_is_asked_on_the_terminal(tmp_path: Path, authority: Authority) -> None:
    """An encrypted key without a password ends the start with exit code 1 and one line; nobody is asked."""
    (tmp_path / "config.yaml").write_text(config(ECHO, key="secret.pem"))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "realtime"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "server.tls.key: the key is encrypted" in done.stderr


async def test_expired_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that has expired is served, with a warning that names the date."""
    Authority(tmp_path, expired=True)
    async with make(tmp_path, config(ECHO)):
        pass
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "server.tls.cert: cert.pem expired on 2024-02-29" in record.message
    assert record.message.startswith("config.yaml:1:")


@pytest.mark.parametrize(
    ("encoded", "end"),
    [
        (b"\x17\x0d500101000000Z", "1950-01-01"),
        (b"\x17\x0d491231235959Z", "2049-12-31"),
        (b"\x18\x0f20500101000000Z", "2050-01-01"),
        (b"\x18\x0f99991231235959Z", "9999-12-31"),
        (b"\x17\x0d509901000000Z", "None"),
        (b"", "None"),
    ],
)
def test_end_of_a_certificate(encoded: bytes, end: str) -> None:
    """The end of the validity is read in both of its forms (RFC 5280, section 4.1.2.5)."""
    der = b"\x30\x1e\x17\x0d200101000000Z" + encoded
    assert str(tls._end(der)).partition(" ")[0] == end


async def test_health_over_tls(serve: Serve, authority: Authority) -> None:
    """What is no stream is answered over TLS too."""
    async with serve(config(ECHO)) as serving:
        url = f"https://localhost:{serving.port}/-/ready"
        (shown,) = await lines([needs.curl(), "-s", "--cacert", str(authority.ca), "-w", "\n", url], 1)
    assert json.loads(shown)["ready"] is True
