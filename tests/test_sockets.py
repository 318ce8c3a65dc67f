"""Where a server listens, and what is said when it cannot."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from conftest import make
from wire import UPGRADE, dial, request, text, websocket

from realtime.errors import StartError

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
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()[1]
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
