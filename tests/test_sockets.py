"""Where a server listens, and what is said when it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import make
from servers import closed_port
from wire import UPGRADE, close, dial, eventually, request, soon, text, websocket

from realtime import sockets
from realtime.errors import StartError
from realtime.values import Address

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


def listening(*addresses: object) -> str:
    """A config that listens there."""
    return f"server: {{listen: {json.dumps([str(address) for address in addresses])}}}\n{ECHO}"


async def test_port_in_use(tmp_path: Path) -> None:
    """A port that somebody has is named."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(StartError, match=rf"^127\.0\.0\.1:{port} is in use$"):
            await make(tmp_path, listening(f"127.0.0.1:{port}")).start()


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("192.0.2.1:8080", "192.0.2.1:8080 is no address of this machine"),
        (
            "unix:/nowhere/at/all.sock",
            "unix:/nowhere/at/all.sock cannot be made: there is no such directory",
        ),
    ],
)
async def test_address_that_cannot_be_listened_on(tmp_path: Path, address: str, wrong: str) -> None:
    """What is wrong with an address is said in one line that names it."""
    with pytest.raises(StartError) as caught:
        await make(tmp_path, listening(address)).start()
    assert str(caught.value) == wrong


async def test_second_address_that_fails_frees_the_first(tmp_path: Path) -> None:
    """When one address cannot be had none is kept."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        taken = sock.getsockname()[1]
        free = closed_port()
        with pytest.raises(StartError):
            await make(tmp_path, listening(f"127.0.0.1:{free}", f"127.0.0.1:{taken}")).start()
        socket.create_server(("127.0.0.1", free)).close()


async def test_several_addresses(tmp_path: Path) -> None:
    """All addresses of the list are served, IPv6 too."""
    path = tmp_path / "s.sock"
    async with make(tmp_path, listening("127.0.0.1:0", "[::1]:0", f"unix:{path}")) as server:
        v4, v6, unix = server.addresses
        assert str(v6) == f"[::1]:{v6.port}"
        assert str(unix) == f"unix:{path}"
        for host, port in (("127.0.0.1", v4.port), ("::1", v6.port)):
            async with websocket(port, "/ws", text("x"), host=host) as wire:
                assert await wire.text() == "Echo: x"
        async with dial(0, request("/ws", UPGRADE) + text("x"), path=str(path)) as wire:
            assert (await wire.head()).status == 101
            assert await wire.text() == "Echo: x"
    assert not path.exists()


async def test_name_of_a_host(tmp_path: Path) -> None:
    """``localhost`` is every address that it stands for."""
    async with make(tmp_path, listening("localhost:0")) as server:
        assert {address.host for address in server.addresses} <= {"127.0.0.1", "::1"}
        assert server.addresses


async def test_stale_unix_socket(tmp_path: Path) -> None:
    """The file that a killed server has left is replaced."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert path.exists()
    async with (
        make(tmp_path, listening(f"unix:{path}")),
        dial(0, request("/-/live"), path=str(path)) as wire,
    ):
        assert (await wire.response())[0].status == 200


async def test_unix_socket_in_use(tmp_path: Path) -> None:
    """A unix socket that somebody answers on is left alone."""
    path = tmp_path / "s.sock"
    async with make(tmp_path, listening(f"unix:{path}")):
        with pytest.raises(StartError, match=r"s\.sock is in use$"):
            await make(tmp_path, listening(f"unix:{path}")).start()
        async with dial(0, request("/-/live"), path=str(path)) as wire:
            assert (await wire.response())[0].status == 200


async def test_file_that_is_no_socket(tmp_path: Path) -> None:
    """A file that stands in a unix socket's place is not removed."""
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(StartError):
        await make(tmp_path, listening(f"unix:{path}")).start()
    assert path.read_text() == "precious"


@pytest.mark.parametrize(("settings", "mode"), [("", 0o660), (', socket_mode: "0600"', 0o600)])
async def test_mode_of_a_unix_socket(tmp_path: Path, settings: str, mode: int) -> None:
    """A unix socket is for the user and the group of the server, unless the config says otherwise."""
    path = tmp_path / "s.sock"
    text = listening(f"unix:{path}").replace("}\n", f"{settings}}}\n", 1)
    async with make(tmp_path, text):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


async def test_all_addresses_of_both_families(tmp_path: Path) -> None:
    """``0.0.0.0`` and ``[::]`` go together, on one port."""
    port = closed_port()
    async with make(tmp_path, listening(f"0.0.0.0:{port}", f"[::]:{port}")):
        for host in ("127.0.0.1", "::1"):
            async with dial(port, request("/-/live"), host=host) as wire:
                assert (await wire.response())[0].status == 200


async def test_nothing_stays_when_one_fails(tmp_path: Path) -> None:
    """When one of several addresses cannot be had no file of a unix socket stays."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        taken = sock.getsockname()[1]
        with pytest.raises(StartError) as caught:
            await make(tmp_path, listening(f"unix:{tmp_path}/s.sock", f"127.0.0.1:{taken}")).start()
    assert str(caught.value) == f"127.0.0.1:{taken} is in use"
    assert list(os.scandir(tmp_path)) == []


@pytest.mark.parametrize(("soft", "room"), [(20_000, 19_900), (1024, 924), (64, 32), (2, 1)])
def test_room_for_connections(monkeypatch: pytest.MonkeyPatch, soft: int, room: int) -> None:
    """A hundred descriptors are kept back, and of few of them half."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert sockets.descriptors() == room


async def test_what_the_kernel_is_told(tmp_path: Path) -> None:
    """Every connection has, from the start, its bound in the kernel, and how long that waits."""
    async with make(tmp_path, ECHO) as server, dial(server.addresses[0].port, request("/-/live")):
        http: Any = server._runner.server  # type: ignore[union-attr]
        await eventually(lambda: bool(http.connections))
        sock = http.connections[0].transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == sockets.TCP_USER_TIMEOUT
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == sockets.NOTSENT_LOWAT


async def test_file_of_the_next_server_stays(tmp_path: Path) -> None:
    """A server that ends does not take the file of the one that has come after it."""
    path = tmp_path / "s.sock"
    first = make(tmp_path, listening(f"unix:{path}"))
    await first.start()
    async with dial(0, request("/ws", UPGRADE), path=str(path)) as wire:
        assert (await wire.head()).status == 101
        stopping = asyncio.create_task(first.stop())
        await eventually(lambda: not os.access(path, os.F_OK))
        async with make(tmp_path, listening(f"unix:{path}")):
            await wire.frame()
            await wire.send(close(1001))
            await soon(stopping)
            await first.stop()
            async with dial(0, request("/-/live"), path=str(path)) as other:
                assert (await other.response())[0].status == 200


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_name_that_is_none(host: str) -> None:
    """A name that no DNS could have cannot be listened on, and says so."""
    with pytest.raises(StartError, match="is no address that can be found"):
        sockets.bind(Address(host, 80), 0o660)
