"""Deploying: the files of docs/how-to are tried out, with the programs that read them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
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
from proxying import HOW_TO, nginx, of_two, proxy
from redises import redis_server
from servers import closed_port
from tree import ROOT, checkout
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import LINES, PATIENCE, ask, eventually, lines, post, soon

from realtime.config import ServerSettings
from realtime.exit_codes import ExitCode
from realtime.server import Server
from realtime.serving import EXIT_GRACE

#: The address that a client comes from, which is not the proxy's own.
CLIENT = "127.0.0.2"


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
    port = closed_port()
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
    port = closed_port()
    site = (
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://unix:{tmp_path}/s.sock:; }} }}"
    )
    async with behind(tmp_path), nginx(tmp_path, site, port):
        shown = await lines([needs.curl(), "-sN", f"http://127.0.0.1:{port}/events"], 7)
    assert shown[6].startswith("data: Current time: ")


async def test_either_of_two(tmp_path: Path) -> None:
    """With the site for two processes whichever is there answers, POSTs too, as soon as it is there."""
    port = closed_port()
    async with nginx(tmp_path, of_two(tmp_path, port), port):
        for there in (1, 2, 1):
            config = f"""
            server: {{listen: ["unix:{tmp_path}/{there}.sock"], trusted_proxies: [unix]}}
            channels: {{topics: {{plugin: topics, path: "/topics/{{topic...}}"}}}}
            """
            async with make(tmp_path, config):
                assert (await ask(port, "/topics/a", LINES))[0].status == 200
                assert (await post(port, "/topics/a", b"x"))[0].status == 202


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


def test_unit_of_two(tmp_path: Path) -> None:
    """The docs make a right unit for two processes of that for one, and each has sockets of its own."""
    page = (HOW_TO / "scale-out.md").read_text()
    pattern = r"^(sed -e .*? docs/how-to/realtime.service) > \S+/(realtime@.service)$"
    made = re.search(pattern, page, re.MULTILINE | re.DOTALL)
    assert made
    text = subprocess.run(made[1], shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    file = tmp_path / made[2]
    file.write_text(text.replace("/opt/realtime/bin/python", sys.executable))
    done = analyzed("verify", "--man=no", file)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    upstream = (HOW_TO / "nginx-two.conf").read_text()
    for number in "12":
        said = {name: value.replace("%i", number) for name, value in settings(file).items()}
        socket, address = re.findall(r"--listen (\S+)", said["ExecStart"])
        assert socket == f"unix:/run/{said['RuntimeDirectory']}/realtime.sock"
        assert f"server {socket} " in upstream
        assert address in page


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
    port = str(closed_port())
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


# Redis


def of_redis() -> list[str]:
    """What the docs have for a ``redis.conf``: its blocks."""
    page = (HOW_TO / "scale-out.md").read_text()
    return re.findall(r"^```ini\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


async def test_redis_takes_its_settings(tmp_path: Path) -> None:
    """A Redis runs with the settings that the docs have for it, and has them."""
    wanted = [line.split(maxsplit=1) for line in of_redis()[0].splitlines() if not line.startswith("#")]
    options = [word for name, value in wanted for word in (f"--{name}", *value.split())]
    async with redis_server(tmp_path, *options) as redis:
        for name, _ in wanted:
            assert (await redis.command("config", "get", name)).startswith(name)
        assert await redis.command("config", "get", "maxmemory-policy") == "maxmemory-policy\nnoeviction"


async def test_redis_user_may_what_it_does(tmp_path: Path) -> None:
    """What the user of the docs may do in Redis is what the server does there: no less, and no more."""
    _, name, *rules = of_redis()[1].split()
    (password,) = (rule[1:] for rule in rules if rule.startswith(">"))
    async with redis_server(tmp_path, "--user", name, *rules) as redis:
        url = f"redis://{name}:{password}@127.0.0.1:{redis.port}/1"
        config = f"""
        server: {{listen: ["127.0.0.1:0"]}}
        bus: {{engine: redis, url: "{url}"}}
        channels:
          topics: {{plugin: topics, path: "/topics/{{topic...}}"}}
          chat: {{plugin: chat, path: /chat}}
        """
        async with make(tmp_path, config) as server:
            port = server.addresses[0].port
            key = ("Idempotency-Key", "k")
            async with connect(f"ws://127.0.0.1:{port}/chat?name=alice") as alice:
                assert await soon(alice.recv()) == "alice joined the chat"
                assert await redis.command("script", "flush") == "OK"  # so it has to be sent again, whole
                assert (await post(port, "/topics/a", b"x", [key]))[0].status == 202
                await redis.command("client", "kill", "type", "pubsub")  # so it has to be looked at the log
                await alice.send("hi")
                assert await soon(alice.recv()) == "alice: hi"
            assert (await post(port, "/topics/a", b"x", [key]))[0].status == 202
            await eventually(lambda: not server.bus.topic("chat").here)
            server.bus.forget("topics")
            async with asyncio.timeout(PATIENCE):
                while "topics" in await redis.command("pubsub", "channels"):
                    pass
        assert await redis.command("acl", "log") == ""
        said = await redis.command("info", "commandstats")
    used = set(re.findall(r"cmdstat_([^:]+):", said))
    ours = {"ping", "acl|log", "script|flush", "client|kill", "pubsub|channels"}
    assert used - ours == {rule[1:] for rule in rules if rule.startswith("+")}
