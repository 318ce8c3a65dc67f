"""Where it listens and whom it believes: TLS, unix sockets, several listeners, proxies, pages."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
import stat
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from certificates import Authority
from needs import curl
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from acceptance.world import (
    FOREIGN,
    FORGED,
    GREETING,
    HOST,
    NAMES,
    OTHER_HOST,
    PATIENCE,
    PORT,
    REMOTE,
    SITE,
    Home,
    Process,
    started,
)

ECHO = "channels: {echo: {plugin: echo, path: /ws}, lobby: {plugin: chat, path: /chat, history: 10}}\n"
#: How a WebSocket is opened at the site, and the site by another scheme and by another port.
WS_SITE = SITE.replace("http", "ws", 1)
OTHER_SCHEME = f"http{SITE[5:]}" if SITE[4] == "s" else f"https{SITE[4:]}"
OTHER_PORT = f"{SITE}0" if SITE[-1].isdigit() else f"{SITE}:8443"
#: The first address that a config names: a port of its own choice, and a socket's file.
HERE = f'"{HOST}:{PORT}"'


def server(**settings: str) -> str:
    """A config with these settings of the server, written as YAML."""
    inside = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return f"server: {{{inside}}}\n{ECHO}"


class Answer(NamedTuple):
    """What was answered to a request."""

    status: int
    text: str


async def asked(
    sock: socket.socket, method: str, path: str, headers: list[tuple[str, str]], body: str = ""
) -> Answer:
    """One request over a socket, with these headers word for word, and its answer."""
    sock.settimeout(PATIENCE)

    def ask() -> Answer:
        connection = http.client.HTTPConnection("ignored")
        connection.sock = sock
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body.encode())))
        connection.endheaders(body.encode())
        with closing(connection.getresponse()) as response:
            return Answer(response.status, response.read().decode())

    return await asyncio.to_thread(ask)


def peer(address: str, source: str = HOST) -> socket.socket:
    """A connection from an address of this machine."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE, source_address=(source, 0))


def unix_peer(path: Path) -> socket.socket:
    """A connection to a unix socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


async def echoed(address: str, **options: Any) -> str:
    """What the echo of a server answers over a WebSocket."""
    scheme = "wss" if "ssl" in options else "ws"
    async with connect(f"{scheme}://{address}/ws", open_timeout=PATIENCE, **options) as ws:
        await ws.send(GREETING)
        return str(await ws.recv())


# TLS


@pytest.fixture
def authority(home: Home) -> Authority:
    """Who gave the certificates in the directory."""
    return Authority(home.directory)


async def test_wss(home: Home, authority: Authority) -> None:
    """With a certificate it speaks ``wss://``, and the banner says so."""
    home.write(server(tls="{cert: cert.pem, key: key.pem}"))
    async with home.server() as process:
        address = await process.ready()
        assert f"wss://{address}/chat" in process.text
        assert await echoed(address, ssl=authority.client()) == f"Echo: {GREETING}"


async def test_https(home: Home, authority: Authority) -> None:
    """With a certificate ``curl`` reads and posts by ``https://``."""
    home.write(server(tls="{cert: both.pem}"))
    async with home.serving() as address:
        url = f"https://{address}/chat?name={quote(NAMES[0])}"
        options = ["-sS", "--cacert", str(authority.ca)]
        async with started(curl(), *options, "-N", url, cwd=home.directory) as reading:
            await reading.line(lambda line: line == "event: realtime:join")
            async with started(curl(), *options, "-d", GREETING, url, cwd=home.directory) as posting:
                assert await posting.ended() == 0
            said = await reading.line(lambda line: '"text"' in line)
            assert json.loads(said.removeprefix("data: ")) == {"from": NAMES[0], "text": GREETING}


async def test_no_http_where_there_is_tls(home: Home, authority: Authority) -> None:
    """Where it speaks TLS it answers nothing to a request without, and serves others on."""
    home.write(server(tls="{cert: cert.pem, key: key.pem}"))
    async with home.serving() as address:
        with peer(address) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert b"HTTP/" not in await asyncio.to_thread(plain.recv, 65536)
        assert await echoed(address, ssl=authority.client()) == f"Echo: {GREETING}"


async def test_old_tls(home: Home, authority: Authority) -> None:
    """A client that speaks no newer TLS than 1.1 is turned away."""
    home.write(server(tls="{cert: cert.pem, key: key.pem}"))
    old = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with home.serving() as address:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await echoed(address, ssl=old)


async def test_a_wrong_certificate(home: Home, authority: Authority) -> None:
    """A key that does not belong to the certificate is told in its place, and nothing starts."""
    home.write(server(tls="{cert: cert.pem, key: other.pem}"))
    ran = await home.ran("serve", "--listen", f"{HOST}:{PORT}")
    assert ran == (1, [], "config.yaml:1:37: server.tls.key: the key does not belong to the certificate\n")


async def test_an_expired_certificate(home: Home) -> None:
    """A certificate that has expired is a warning with its date."""
    Authority(home.directory, expired=True)
    home.write(server(tls="{cert: cert.pem, key: key.pem}"))
    async with home.server() as process:
        await process.line(lambda line: "WARNING" in line and "cert.pem expired on 2024-02-29" in line)


# Unix sockets


@pytest.mark.parametrize(("settings", "mode"), [({}, 0o660), ({"socket_mode": '"0600"'}, 0o600)])
async def test_the_mode_of_a_unix_socket(home: Home, settings: dict[str, str], mode: int) -> None:
    """The file of a unix socket has the mode that the config says, whatever the umask."""
    home.write(server(listen='["unix:s"]', **settings))
    async with home.server(listen=()):
        found = (home.directory / "s").stat().st_mode
    assert (stat.S_ISSOCK(found), stat.S_IMODE(found)) == (True, mode)


async def test_a_unix_socket(home: Home) -> None:
    """Over a unix socket, beside TLS too, it serves a WebSocket as it is, and its file goes with it."""
    Authority(home.directory)
    file = home.directory / "s"
    home.write(server(listen='["unix:s"]', tls="{cert: cert.pem, key: key.pem}"))
    async with home.server(listen=()) as process:
        assert await process.addresses() == [f"unix:{file}"]
        async with unix_connect(str(file), "ws://localhost/ws") as ws:
            await ws.send(GREETING)
            assert await ws.recv() == f"Echo: {GREETING}"
    assert not file.exists()


async def test_the_file_of_a_killed_server(home: Home) -> None:
    """The file that a killed server has left is replaced."""
    file = home.directory / "s"
    home.write(server(listen='["unix:s"]'))
    async with home.server(listen=()) as process:
        await process.killed()
    assert file.is_socket()
    async with home.server(listen=()):
        with unix_peer(file) as sock:
            assert (await asked(sock, "GET", "/-/ready", [("Host", "here")])).status == 200


async def test_a_unix_socket_that_is_taken(home: Home) -> None:
    """A unix socket on which somebody answers is left alone: one line, and exit code 3."""
    file = home.directory / "s"
    home.write(server(listen='["unix:s"]'))
    async with home.server(listen=()):
        ran = await home.ran("serve")
        assert ran == (3, [], f"could not start: unix:{file} is in use\n")
        with unix_peer(file) as sock:
            assert (await asked(sock, "GET", "/-/ready", [("Host", "here")])).status == 200


async def test_a_file_that_is_no_socket(home: Home) -> None:
    """A file that is no socket is left alone: one line, and exit code 3."""
    home.write(server(listen='["unix:s"]'), {"s": GREETING})
    ran = await home.ran("serve")
    assert (ran.code, len(ran.errors.splitlines())) == (3, 1)
    assert (home.directory / "s").read_text() == GREETING


# Several listeners


async def test_several_listeners(home: Home) -> None:
    """It listens at once wherever the config says, names each, and all lead to the same room."""
    file = home.directory / "s"
    home.write(server(listen=f'[{HERE}, "{OTHER_HOST}:0", "unix:s"]'))
    async with home.server(listen=()) as process:
        first, second, third = await process.addresses()
        assert third == f"unix:{file}"
        async with (
            connect(f"ws://{first}/chat?name={quote(NAMES[0])}") as one,
            connect(f"ws://{second}/chat?name={quote(NAMES[1])}") as two,
            unix_connect(str(file), f"ws://localhost/chat?name={quote(NAMES[2])}") as three,
        ):
            for ws in (one, two, three):
                async with asyncio.timeout(PATIENCE):
                    while await ws.recv() != f"{NAMES[2]} joined the chat":
                        pass
            await one.send(GREETING)
            heard = [await ws.recv() for ws in (one, two, three)]
            assert heard == [f"{NAMES[0]}: {GREETING}"] * 3


async def test_one_listener_that_cannot_be(home: Home) -> None:
    """If it cannot listen on one of them it starts on none, and says on which."""
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        home.write(server(listen=f'["unix:s", "{address}"]'))
        ran = await home.ran("serve")
    assert ran == (3, [], f"could not start: {address} is in use\n")
    assert not (home.directory / "s").exists()


async def test_the_command_line_says_where(home: Home) -> None:
    """``--listen``, twice, stands for what the config says."""
    home.write(server(listen='["unix:s"]'))
    async with home.server(listen=(f"{HOST}:0", f"{OTHER_HOST}:0")) as process:
        assert [address.partition(":")[0] for address in await process.addresses()] == [HOST, OTHER_HOST]
        assert not (home.directory / "s").exists()


async def test_open_to_other_machines(home: Home) -> None:
    """To listen beyond this machine is a warning that names the address, before it is ready."""
    async with home.server(listen=("0.0.0.0:0",)) as process:
        address = await process.ready()
        warning = await process.line(lambda line: line.startswith("WARNING: "))
        assert address in warning


# As seen from outside


async def test_url_in_the_banner(home: Home) -> None:
    """The banner shows the channels with ``server.url``."""
    home.write(server(url=SITE))
    async with home.server() as process:
        banner = process.text
    assert re.search(f"lobby +{re.escape(WS_SITE)}/chat", banner)


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_url_on_the_front_page(home: Home, accept: str) -> None:
    """The front page shows the channels with ``server.url``, to a program and to a browser."""
    home.write(server(url=SITE))
    async with home.serving() as address:
        with peer(address) as sock:
            page = await asked(sock, "GET", "/", [("Host", address), ("Accept", accept)])
    assert page.status == 200
    assert f"lobby: {WS_SITE}/chat" in page.text
    assert address not in page.text


async def test_front_page_without_url(home: Home) -> None:
    """Without ``server.url`` the front page shows the channels at the host that was asked."""
    home.write(server())
    async with home.serving() as address:
        with peer(address) as sock:
            page = await asked(sock, "GET", "/", [("Host", "rt.local:81")])
    assert re.search("lobby: (http|ws)://rt.local:81/chat", page.text)


# Proxies

#: At this level the log has the requests that went well, too.
DEBUG = ("--log-level", "debug")


async def logged(process: Process, sock: socket.socket, *headers: tuple[str, str]) -> str:
    """The address that stands in the log for a client, of whom a proxy has told with these headers."""
    url = f"/chat?name={quote(NAMES[0])}"
    answer = await asked(sock, "POST", url, [("Host", "here"), *headers], GREETING)
    assert answer.status == 202
    assert json.loads(answer.text)["id"]
    line = await process.line(lambda line: " lobby: post c" in line)
    found = re.search(r" from (.*) was answered 202$", line)
    assert found, line
    return found[1]


async def test_a_client_that_plays_the_proxy(home: Home) -> None:
    """``X-Forwarded-For`` from somebody who is not trusted is nothing: the log has whence it came."""
    home.write(server(trusted_proxies=f'["{HOST}"]'))
    async with home.server(*DEBUG) as process:
        with peer(await process.ready(), OTHER_HOST) as sock:
            assert await logged(process, sock, ("X-Forwarded-For", FORGED)) == OTHER_HOST


async def test_nobody_is_trusted_by_default(home: Home) -> None:
    """Without ``trusted_proxies`` nobody is believed, on the same machine neither."""
    home.write(server())
    async with home.server(*DEBUG) as process:
        with peer(await process.ready()) as sock:
            assert await logged(process, sock, ("X-Forwarded-For", FORGED)) == HOST


async def test_a_trusted_proxy(home: Home) -> None:
    """A trusted proxy is believed: the log has the client's own address."""
    home.write(server(trusted_proxies=f'["{HOST}/32"]'))
    async with home.server(*DEBUG) as process:
        with peer(await process.ready()) as sock:
            assert await logged(process, sock, ("X-Forwarded-For", REMOTE)) == REMOTE


@pytest.mark.parametrize(
    "values",
    [[f"{FORGED}, {REMOTE}"], [FORGED, REMOTE], [f"{FORGED}, {REMOTE}, {OTHER_HOST}"]],
    ids=["one header", "two headers", "two proxies"],
)
async def test_what_the_client_has_made_up(home: Home, values: list[str]) -> None:
    """What a client tells its proxy of where it comes from is not believed, but what the proxy adds."""
    home.write(server(trusted_proxies=f'["{HOST}", "{OTHER_HOST}"]'))
    async with home.server(*DEBUG) as process:
        with peer(await process.ready()) as sock:
            headers = [("X-Forwarded-For", value) for value in values]
            assert await logged(process, sock, *headers) == REMOTE


async def test_a_proxy_at_a_unix_socket(home: Home) -> None:
    """With ``unix`` in the list a proxy at the unix socket is believed."""
    home.write(server(listen='["unix:s"]', trusted_proxies="[unix]"))
    async with home.server(*DEBUG, listen=()) as process:
        with unix_peer(home.directory / "s") as sock:
            assert await logged(process, sock, ("X-Forwarded-For", REMOTE)) == REMOTE


async def test_a_websocket_behind_a_proxy(home: Home) -> None:
    """The log of a WebSocket behind a trusted proxy has the client's own address."""
    home.write(server(trusted_proxies=f'["{HOST}"]'))
    async with home.server(*DEBUG) as process:
        address = await process.ready()
        async with connect(f"ws://{address}/ws", additional_headers={"X-Forwarded-For": REMOTE}):
            pass
        await process.line(lambda line: " echo: websocket c" in line and f" from {REMOTE} left " in line)


@pytest.mark.parametrize(("source", "host"), [(HOST, "proxied.example"), (OTHER_HOST, "rt.local")])
async def test_the_host_and_the_scheme(home: Home, source: str, host: str) -> None:
    """Links have the host and the scheme that a trusted proxy tells, and of nobody else."""
    home.write(server(trusted_proxies=f'["{HOST}"]'))
    told = [("X-Forwarded-Host", "proxied.example"), ("X-Forwarded-Proto", "https")]
    async with home.serving() as address:
        with peer(address, source) as sock:
            page = await asked(sock, "GET", "/", [("Host", "rt.local"), *told])
    tls = "s" if host == "proxied.example" else ""
    assert re.search(rf"lobby: (http|ws){tls}://{host}/chat", page.text)


# Pages of browsers


#: What the config says, the page that connects, and whether it may; ``{host}`` is the server's own.
PAGES = [
    ("same", "http://{host}", True),
    ("same", FOREIGN, False),
    ("same", "http://127.0.0.1", False),
    ("same", "null", False),
    ("same", SITE, False),
    ("any", FOREIGN, True),
    ("any", "null", True),
    (f"[{SITE}]", SITE, True),
    (f"[{SITE}]", OTHER_PORT, False),
    (f"[{SITE}]", OTHER_SCHEME, False),
    (f"[{SITE}]", FOREIGN, False),
]


@pytest.mark.parametrize(("origins", "page", "may"), PAGES)
async def test_a_page_that_opens_a_websocket(home: Home, origins: str, page: str, may: bool) -> None:
    """``origins`` says which pages may open a WebSocket; others are refused with 403 and a sentence."""
    home.write(server(origins=origins))
    async with home.serving() as address:
        origin = Origin(page.format(host=address))
        if may:
            assert await echoed(address, origin=origin) == f"Echo: {GREETING}"
        else:
            with pytest.raises(InvalidStatus) as refused:
                await echoed(address, origin=origin)
            assert refused.value.response.status_code == 403
            assert b"may not connect here" in (refused.value.response.body or b"")


@pytest.mark.parametrize(("page", "status"), [("http://{host}", 202), (FOREIGN, 403)])
async def test_a_page_that_posts(home: Home, page: str, status: int) -> None:
    """A page of another origin may not post, and one of the same may."""
    home.write(server())
    async with home.serving() as address:
        with peer(address) as sock:
            headers = [("Host", address), ("Origin", page.format(host=address))]
            answer = await asked(sock, "POST", f"/chat?name={quote(NAMES[0])}", headers, GREETING)
    assert answer.status == status


async def test_a_page_that_reads(home: Home) -> None:
    """A page of another origin may not open a stream of events."""
    async with home.serving() as address:
        with peer(address) as sock:
            headers = [("Host", address), ("Origin", FOREIGN), ("Accept", "text/event-stream")]
            answer = await asked(sock, "GET", "/events", headers)
    assert (answer.status, "may not connect here" in answer.text) == (403, True)


async def test_a_page_of_the_site(home: Home) -> None:
    """With ``server.url`` pages of that site are its own."""
    home.write(server(url=SITE))
    async with home.serving() as address:
        assert await echoed(address, origin=Origin(SITE)) == f"Echo: {GREETING}"


@pytest.mark.parametrize(("source", "may"), [(HOST, True), (OTHER_HOST, False)])
async def test_a_page_behind_a_proxy(home: Home, source: str, may: bool) -> None:
    """Behind a trusted proxy the same origin is that of the host that it tells, and of nobody else."""
    home.write(server(trusted_proxies=f'["{HOST}"]'))
    told = {"X-Forwarded-Host": "proxied.example", "X-Forwarded-Proto": "https"}
    async with home.serving() as address:
        page = echoed(
            address,
            origin=Origin("https://proxied.example"),
            additional_headers=told,
            local_addr=(source, 0),
        )
        if may:
            assert await page == f"Echo: {GREETING}"
        else:
            with pytest.raises(InvalidStatus, match="403"):
                await page
