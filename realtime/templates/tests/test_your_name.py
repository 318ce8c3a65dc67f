"""What the channel does, seen by its clients."""

import pytest
from realtime import ConfigError
from realtime.testing import Serve

CONFIG = """
channels:
  main:
    plugin: your-name
    path: /your-name
    welcome: Hello!
    max_length: 5
"""
PATH = "/your-name"


async def test_everybody_sees_what_one_says(serve: Serve) -> None:
    """What a client says reaches the others and itself, with its id in front."""
    async with (
        serve(CONFIG) as server,
        server.ws(PATH) as alice,
        server.ws(PATH) as bob,
    ):
        await alice.expect("Hello!")
        await bob.expect("Hello!")
        await alice.send("hi")
        await bob.expect("c1: hi")
        await alice.expect("c1: hi")


async def test_newcomer_is_welcomed_alone(serve: Serve) -> None:
    """The welcome is for the newcomer, and for nobody else."""
    async with serve(CONFIG) as server, server.ws(PATH) as alice:
        await alice.expect("Hello!")
        async with server.ws(PATH) as bob:
            await bob.expect("Hello!")
            await alice.assert_nothing()


async def test_welcome_can_be_left_out(serve: Serve) -> None:
    """With an empty `welcome` nothing is said."""
    config = CONFIG.replace("Hello!", '""')
    async with serve(config) as server, server.ws(PATH) as alice:
        await alice.assert_nothing()


async def test_what_is_too_long_is_refused(serve: Serve) -> None:
    """What is longer than `max_length` is refused, and it is said why."""
    async with serve(CONFIG) as server:
        assert (await server.post(PATH, "12345")).status == 202
        refused = await server.post(PATH, "123456")
        assert refused.status == 413
        assert "at most 5 characters" in refused.text


async def test_server_stops_while_somebody_is_connected(serve: Serve) -> None:
    """Nothing that the channel does for a client holds up the shutdown."""
    async with serve(CONFIG) as server, server.ws(PATH) as alice:
        await alice.expect("Hello!")
        await server.server.stop()
        code, _ = await alice.closed()
        assert code == 1001


async def test_mistake_in_the_config_is_told(serve: Serve) -> None:
    """A `max_length` that cannot be is told with its key before anything starts."""
    wrong = CONFIG.replace("max_length: 5", "max_length: 0")
    with pytest.raises(ConfigError, match=r"channels\.main\.max_length"):
        async with serve(wrong):
            pass
