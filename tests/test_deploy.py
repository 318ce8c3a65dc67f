"""Deploying: the files of docs/how-to are tried out, with the programs that read them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import needs
import pytest
from certificates import Authority
from command import ENVIRONMENT, Running
from conftest import make
from tree import ROOT, checkout
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import lines, soon

from realtime.config import ServerSettings
from realtime.exit_codes import ExitCode
from realtime.server import Server
from realtime.serving import EXIT_GRACE

HOW_TO = ROOT / "docs" / "how-to"
#: The address that a client comes from, which is not the proxy's own.
CLIENT = "127.0.0.2"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@asynccontextmanager
async def proxy(port: int, directory: Path, *command: str) -> AsyncIterator[int]:
    """A proxy that runs in the foreground, from the moment on that it listens."""
    with (directory / "proxy.log").open("w") as said:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=said,
            stderr=said,
            env={**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)},
        )
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.returncode is None, (directory / "proxy.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0)
                else:
                    writer.close()
                    break
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await soon(process.wait())


@asynccontextmanager
async def nginx(directory: Path, site: str, port: int) -> AsyncIterator[int]:
    """nginx with a site, in a directory of its own."""
    (directory / "nginx").mkdir()
    (directory / "nginx" / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""  # the directories of tests are for nobody else
    paths = "".join(
        f"{kind}_temp_path {directory}/nginx/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx" / "nginx.conf").write_text(
        f"daemon off;\n{user}\npid {directory}/nginx/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\ninclude site.conf;\n}}\n"
    )
    command = [needs.nginx(), "-p", f"{directory}/nginx", "-c", f"{directory}/nginx/nginx.conf"]
    async with proxy(port, directory, *command, "-e", "stderr") as listening:
        yield listening


def nginx_site(directory: Path, port: int) -> str:
    """The site of the docs, with the paths and the port of a test."""
    text = (HOW_TO / "nginx.conf").read_text()
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "    listen [::]:443 ssl http2;\n": "",
        "/etc/ssl/rt.example.pem": f"{directory}/cert.pem",
        "/etc/ssl/rt.example.key": f"{directory}/key.pem",
        "/run/realtime/realtime.sock": f"{directory}/s.sock",
        "rt.example": "localhost",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def caddy(directory: Path, port: int) -> AsyncIterator[int]:
    """Caddy with the site of the docs, with the paths, the port and the certificate of a test."""
    text = (HOW_TO / "Caddyfile").read_text()
    for old, new in {
        "unix//run/realtime/realtime.sock": f"unix/{directory}/s.sock",
        "rt.example {": f"https://localhost:{port} {{\n\ttls {directory}/cert.pem {directory}/key.pem",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (directory / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}")
    command = [needs.caddy(), "run", "--config", f"{directory}/Caddyfile", "--adapter", "caddyfile"]
    async with proxy(port, directory, *command) as listening:
        yield listening


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The proxy's certificates."""
    return Authority(tmp_path)


def behind(directory: Path) -> Server:
    """A server as the docs have it behind a proxy."""
    page = (HOW_TO / "deploy.md").read_text()
    block = re.search(r"<!-- not run: the server's part -->\n```yaml\n(server:.*?)```", page, re.DOTALL)
    assert block is not None
    text = block[1].replace("/run/realtime/realtime.sock", f"{directory}/s.sock")
    channels = """
channels:
  echo: {plugin: echo, path: /ws}
  rooms: {plugin: chat, path: "/rooms/{room}"}
  clock: {plugin: clock, path: /events, interval: 1h}
"""
    return make(directory, text.replace("url: https://rt.example", "") + channels)


Proxied = tuple[Server, int]


@pytest.fixture(params=["nginx", "caddy"])
async def proxied(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority
) -> AsyncIterator[Proxied]:
    """A server behind each of the proxies, and the proxy's port."""
    port = free_port()
    started = nginx(tmp_path, nginx_site(tmp_path, port), port) if request.param == "nginx" else None
    async with behind(tmp_path) as server, started or caddy(tmp_path, port):
        yield server, port


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a WebSocket client needs, which offers HTTP/1.1 only."""
    context = authority.client()
    context.set_alpn_protocols(["http/1.1"])
    return context


def curl(authority: Authority, *arguments: str) -> list[str]:
    """A command that asks as another machine would."""
    return [needs.curl(), "-sN", "--interface", CLIENT, "--cacert", str(authority.ca), *arguments]


# Proxies


async def test_websocket(proxied: Proxied, authority: Authority) -> None:
    """A WebSocket goes through the proxy, to and fro, and the path with it."""
    server, port = proxied
    context = trusting(authority)
    async with connect(f"wss://localhost:{port}/ws", ssl=context) as client:
        await client.send("x" * 60_000)
        assert await soon(client.recv()) == "Echo: " + "x" * 60_000
    async with connect(f"wss://localhost:{port}/rooms/caf%C3%A9?name=alice", ssl=context) as client:
        assert await soon(client.recv()) == "alice joined the chat"
        assert "rooms/café" in [topic.name for topic in server.bus.topics]


async def test_close_code(proxied: Proxied, authority: Authority) -> None:
    """The code and the reason of a close arrive."""
    server, port = proxied
    async with connect(f"wss://localhost:{port}/ws", ssl=trusting(authority)) as client:
        await server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await soon(client.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_events(proxied: Proxied, authority: Authority, version: str) -> None:
    """Each event comes through as it is published, without waiting for the next."""
    server, port = proxied
    async with asyncio.timeout(20):
        process = await asyncio.create_subprocess_exec(
            *curl(authority, version, f"https://localhost:{port}/events"), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            while not (await process.stdout.readline()).startswith(b"data: Current time: "):
                pass
            for number in range(3):
                await server.bus.publish("clock", str(number))
                while not (line := await process.stdout.readline()).startswith(b"data: "):
                    pass
                assert line == b"data: %d\n" % number
        finally:
            process.kill()
            await process.communicate()


async def test_client_is_known(proxied: Proxied, authority: Authority) -> None:
    """The client's own address arrives; what it makes up about itself does not."""
    server, port = proxied
    forged = ["-H", "X-Forwarded-For: 203.0.113.7", "-H", "X-Forwarded-Host: evil.example"]
    command = curl(authority, *forged, f"https://localhost:{port}/events")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        await soon(process.stdout.readline())
        (client,) = server.channels["clock"].clients
        assert client.remote == CLIENT
    finally:
        process.kill()
        await process.communicate()
    shown = await lines(curl(authority, *forged, f"https://localhost:{port}/"), 3)
    assert shown[2] == f"echo: wss://localhost:{port}/ws"


@pytest.mark.parametrize(("scheme", "status"), [("https", "200"), ("http", "403")])
async def test_origin(proxied: Proxied, authority: Authority, scheme: str, status: str) -> None:
    """A page of the proxy's own origin may connect, one of the same host without TLS may not."""
    _, port = proxied
    headers = ["-H", f"Origin: {scheme}://localhost:{port}", "-H", "Accept: text/event-stream"]
    command = curl(authority, "-i", *headers, f"https://localhost:{port}/events")
    assert (await lines(command, 1))[0].split()[1] == status


async def test_nginx_as_it_is(tmp_path: Path, authority: Authority) -> None:
    """With nginx's defaults, HTTP/1.0 behind it and buffers, a stream of events comes through at once."""
    port = free_port()
    site = (
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://unix:{tmp_path}/s.sock:; }} }}"
    )
    async with behind(tmp_path), nginx(tmp_path, site, port):
        shown = await lines([needs.curl(), "-sN", f"http://127.0.0.1:{port}/events"], 7)
    assert shown[6].startswith("data: Current time: ")


# systemd


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit of the docs, with a python that exists here."""
    text = (HOW_TO / "realtime.service").read_text()
    assert "/opt/realtime/bin/python" in text
    file = tmp_path / "realtime.service"
    file.write_text(text.replace("/opt/realtime/bin/python", sys.executable))
    return file


def settings(unit: Path) -> dict[str, str]:
    """The settings of a unit."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says."""
    command = [needs.systemd_analyze(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_unit_is_right(unit: Path) -> None:
    """systemd has nothing to say against the unit."""
    done = analyzed("verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_unit_is_hardened(unit: Path) -> None:
    """systemd rates the exposure of the service at 2.0 of 10 or less."""
    done = analyzed("security", "--offline=true", "--threshold=20", "--no-pager", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_knows_the_server(unit: Path) -> None:
    """What the unit says of exit codes and times is what the server does."""
    said = settings(unit)
    codes = {int(code) for code in said["RestartPreventExitStatus"].split()}
    assert codes == {ExitCode.BAD_CONFIG, ExitCode.USAGE}
    drain = ServerSettings.model_fields["drain"].default
    assert drain + EXIT_GRACE < int(said["TimeoutStopSec"].removesuffix("s"))
    assert ServerSettings().limits.max_clients < int(said["LimitNOFILE"])


async def test_unit_runs(unit: Path, tmp_path: Path) -> None:
    """The command of the unit serves on the unix socket, and ends with 0 when systemd stops it."""
    (tmp_path / "config.yaml").write_text(
        "server: {listen: ['unix:s.sock']}\nchannels: {echo: {plugin: echo, path: /ws}}\n"
    )
    command = settings(unit)["ExecStart"].replace("/etc/realtime", str(tmp_path))
    async with launched(shlex.split(command), Path("/")) as server:
        assert await server.ready() == f"unix:{tmp_path}/s.sock"
        assert await server.end(signal.SIGTERM) == 0


@asynccontextmanager
async def launched(command: list[str], directory: Path, path: str = "") -> AsyncIterator[Running]:
    """A server that was started by a command."""
    environment = {**ENVIRONMENT, **({"PYTHONPATH": path} if path else {})}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, env=environment, stderr=subprocess.PIPE
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# Docker


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile and their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (HOW_TO / "Dockerfile").read_text())
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, arguments = line.partition(" ")
            yield name, arguments


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, which begins with FROM."""
    found: list[list[tuple[str, str]]] = []
    for name, arguments in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, arguments))
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What the first stage makes of a checkout, as far as the package goes."""
    source = checkout()
    (tmp_path / "src").mkdir()
    for name, arguments in stages()[0]:
        if name == "COPY":
            *wanted, target = arguments.split()
            for one in wanted:
                there = tmp_path / "src" / target / (Path(one).name if target.endswith("/") else "")
                copy = shutil.copytree if (source / one).is_dir() else shutil.copy
                copy(source / one, there)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path / "image"),
        ".",
    ]
    subprocess.run(command, cwd=tmp_path / "src", check=True, timeout=120)
    return tmp_path / "image"


def test_image_runs_as_nobody_special() -> None:
    """The image has a user of its own, and the signal that drains."""
    last = dict(stages()[-1])
    assert last["USER"] not in ("0", "root")
    assert f"--uid {last['USER']} " in last["RUN"]
    assert last["STOPSIGNAL"] == "SIGTERM"


async def test_image_runs(image: Path, tmp_path: Path) -> None:
    """What the image has serves, is healthy by its own check, and ends in order on its signal."""
    last = dict(stages()[-1])
    (tmp_path / "etc").mkdir()
    shutil.copy(checkout() / last["COPY"].split()[0], tmp_path / "etc")
    port = str(free_port())
    command = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"].replace("8080", port))]
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2].replace("8080", port))
    assert (command[0], health[0]) == ("python", "python")

    def check() -> int:
        return subprocess.run(
            [sys.executable, *health[1:]], stderr=subprocess.DEVNULL, timeout=20
        ).returncode

    async with launched([sys.executable, *command[1:]], tmp_path / "etc", str(image)) as server:
        ready = json.loads(await server.until("ready on "))
        assert ready["message"] == f"ready on 0.0.0.0:{port}"
        assert await asyncio.to_thread(check) == 0
        assert await server.end(getattr(signal, last["STOPSIGNAL"])) == 0
    assert await asyncio.to_thread(check) != 0
