"""What a config makes, and how the next takes its place: whole or not at all, and who notices."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import shelf
import wire
from certificates import Authority
from conftest import SERVER, Serve, Serving
from tokenmaker import SECRET, token
from wire import ask, eventually, posting, stream, websocket

from realtime.changes import Change, NeedsRestart
from realtime.config import Config, parse
from realtime.errors import ConfigError, StartError
from realtime.server import Server
from realtime.source import Source
from realtime.transports import connection

DICE = '''
"""Dice."""
import asyncio
from contextlib import asynccontextmanager
from realtime import Channel, hookimpl

WORD = "one"


class Dice(Channel):
    """Dice."""

    class Settings(Channel.Settings):
        sides: int = 6
        fails: bool = False

    @asynccontextmanager
    async def lifespan(self):
        if self.settings.fails:
            raise ValueError("the table is broken")
        LOG.append("begin %d" % self.settings.sides)
        yield
        LOG.append("end %d" % self.settings.sides)

    async def on_message(self, client, message):
        return await self.publish(client.topic, WORD)

    async def on_leave(self, client):
        LOG.append("leave")


LOG = []


@hookimpl
def register_channels():
    return {"dice": Dice}
'''
CONFIG = """
channels:
  dice: {plugin: dice, path: /dice}
  echo: {plugin: echo, path: /ws}
"""


Again = Callable[..., Config]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw clients do not answer a close frame; nobody waits for that."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.2)


@pytest.fixture
def again(tmp_path: Path) -> Again:
    """A config that stands where the server's did; files in ``plugins/`` are written before."""

    def again(config: str, **files: str) -> Config:
        config = textwrap.dedent(config)
        if "server:" not in config:
            config = f"{SERVER}{config}"
        for name, text in files.items():
            (tmp_path / "plugins" / f"{name}.py").write_text(text)
        file = tmp_path / "config.yaml"
        return parse(config, Source("config.yaml", file))

    return again


def told(changes: list[Change]) -> list[str]:
    """What a reload says."""
    return [str(change) for change in changes]


def log_of(serving: Serving) -> list[str]:
    """What the dice have noted, in the module that is in use."""
    log: list[str] = type(serving.server.channels["dice"]).on_leave.__globals__["LOG"]
    return log


async def test_same_again(serve: Serve, again: Again) -> None:
    """A config in which nothing is new changes nothing."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        before = dict(serving.server.channels)
        assert told(await serving.server.reload(again(CONFIG))) == ["dice: unchanged", "echo: unchanged"]
        assert before == serving.server.channels


async def test_others_notice_nothing(serve: Serve, again: Again) -> None:
    """Clients of a channel that stays are not even told."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/ws") as talker:
        await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        await talker.send(wire.text("still here"))
        assert await talker.text() == "Echo: still here"


async def test_restarted_channel_closes_its_clients(serve: Serve, again: Again) -> None:
    """A channel with another setting of its own is made again; its clients are closed with 1012."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/dice") as player:
        changes = await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        assert told(changes)[0] == "dice: restarted (sides), 1 client told to come back"
        frame = await player.frame()
        assert (frame.code, frame.reason) == (1012, "the channel has been restarted, come back")


async def test_event_stream_is_told_to_come_back(serve: Serve, again: Again) -> None:
    """A stream of events ends with bye, and with when to come back."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, stream(serving.port, "/dice") as reader:
        await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        bye = await reader.event()
        assert bye["event"] == "realtime:bye"
        assert 200 <= int(bye["retry"]) <= 2000


async def test_who_comes_back_resumes(serve: Serve, again: Again) -> None:
    """Positions stay what they are over a restart of the channel."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        async with stream(serving.port, "/dice") as reader:
            await wire.post(serving.port, "/dice", b"roll")
            first = await reader.event()
            await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        await wire.post(serving.port, "/dice", b"roll")
        async with wire.dial(
            serving.port, wire.request("/dice", [*wire.EVENTS, ("Last-Event-ID", first["id"])])
        ) as back:
            await back.head()
            assert '"outcome":"recovered"' in (await back.event())["data"]
            assert (await back.event())["id"] == first["id"].replace("-1", "-2")


async def test_new_lifespan_begins_before_the_old_one_ends(serve: Serve, again: Again) -> None:
    """The next lifespan begins, the clients leave, then the one before ends."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        async with stream(serving.port, "/dice"):
            await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        assert log_of(serving) == ["begin 6", "begin 8", "leave", "end 6"]


async def test_lifespan_that_fails_changes_nothing(serve: Serve, again: Again) -> None:
    """What cannot begin is told in its place; what had begun for the new config is ended."""
    new = """
    channels:
      first: {plugin: dice, path: /first, sides: 1}
      dice: {plugin: dice, path: /dice, fails: true}
      echo: {plugin: echo, path: /other}
    """
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/dice") as player:
        with pytest.raises(ConfigError, match=r"channels\.dice\.plugin: .*the table is broken"):
            await serving.server.reload(again(new))
        assert log_of(serving) == ["begin 6", "begin 1", "end 1"]
        await player.send(wire.text("roll"))
        assert await player.text() == "one"
        assert (await ask(serving.port, "/other"))[0].status == 404


@pytest.mark.parametrize(
    ("new", "wrong"),
    [
        ("channels: {dice: {plugin: dice, path: /dice, sydes: 1}}", "dice.sydes: unknown key"),
        ("channels: {dice: {plugin: dise, path: /dice}}", "there is no plugin 'dise'"),
        ("channels: {a: {plugin: echo, path: /a}, b: {plugin: echo, path: /a}}", "is already served by"),
        ("channels: {", "config.yaml:"),
        (f"{SERVER.replace('0', '1')}channels: {{}}", "server.listen: .*needs a restart"),
    ],
)
async def test_mistake_changes_nothing(serve: Serve, again: Again, new: str, wrong: str) -> None:
    """A config with a mistake is told, and the one before goes on."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, stream(serving.port, "/dice") as reader:
        with pytest.raises(ConfigError, match=wrong):
            await serving.server.reload(again(new))
        await wire.post(serving.port, "/dice", b"roll")
        assert (await reader.event())["data"] == "one"


async def test_broken_plugin_changes_nothing(serve: Serve, again: Again) -> None:
    """A plugin that cannot be imported any more is told with its line."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, stream(serving.port, "/dice") as reader:
        with pytest.raises(ConfigError, match=r"dice\.py:3: "):
            await serving.server.reload(again(CONFIG, dice="import realtime\n\n1 / 0\n"))
        await wire.post(serving.port, "/dice", b"roll")
        assert (await reader.event())["data"] == "one"


async def test_plugin_whose_file_has_changed(serve: Serve, again: Again) -> None:
    """A channel whose plugin is another now is made again of it."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        changes = await serving.server.reload(again(CONFIG, dice=DICE.replace('"one"', '"two"')))
        assert told(changes)[0] == "dice: restarted (its plugin)"
        async with stream(serving.port, "/dice") as reader:
            await wire.post(serving.port, "/dice", b"roll")
            assert (await reader.event())["data"] == "two"


async def test_applied_without_a_restart(serve: Serve, again: Again) -> None:
    """What only the host goes by is applied; clients notice nothing."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, stream(serving.port, "/dice") as reader:
        changes = await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, history: 3}")))
        assert told(changes)[0] == "dice: applied (history)"
        for _ in range(5):
            await wire.post(serving.port, "/dice", b"roll")
        assert (await reader.event())["data"] == "one"
        assert len(serving.server.bus.topic("dice").history()) == 3


async def test_limit_of_a_channel_is_applied(serve: Serve, again: Again) -> None:
    """A smaller ``max_message`` is for what is sent from then on."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        new = CONFIG.replace("/dice}", "/dice, limits: {max_message: 3B}}")
        await serving.server.reload(again(new))
        assert (await wire.post(serving.port, "/dice", b"roll"))[0].status == 413


@pytest.mark.parametrize(
    ("limits", "status"), [("max_clients: 0", 503), ("max_message: 3B", 413), ("topics: 0", 503)]
)
async def test_limits_of_the_server_are_applied(
    serve: Serve, again: Again, limits: str, status: int
) -> None:
    """Limits of the server are for whoever comes from then on."""
    rooms = "channels: {dice: {plugin: dice, path: '/dice/{room}'}}"
    async with serve(rooms, {"dice.py": DICE}) as serving:
        server = SERVER.replace("watchdog", f"limits: {{{limits}}}, watchdog")
        assert told(await serving.server.reload(again(f"{server}{rooms}"))) == [
            f"server: applied (limits.{limits.partition(':')[0]})",
            "dice: unchanged",
        ]
        assert (await wire.post(serving.port, "/dice/a", b"roll"))[0].status == status


async def test_hosts_are_applied(serve: Serve, again: Again) -> None:
    """``server.hosts`` holds for the next request."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        server = SERVER.replace("watchdog", "hosts: [rt.example], watchdog")
        await serving.server.reload(again(f"{server}{CONFIG}"))
        assert (await ask(serving.port, "/dice"))[0].status == 421


async def test_new_rules_have_clients_come_back(serve: Serve, again: Again) -> None:
    """Who was let in by other rules has to come back; the channel itself goes on."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/dice") as player:
        before = serving.server.channels["dice"]
        new = CONFIG.replace("/dice}", "/dice, allow: {subscribe: nobody}}")
        changes = await serving.server.reload(again(new))
        assert told(changes)[0] == "dice: applied (allow.subscribe), 1 client told to come back"
        assert await player.close_code() == 1012
        assert serving.server.channels["dice"] is before
        assert (await ask(serving.port, "/dice", wire.UPGRADE))[0].status == 403


async def test_another_key_has_whom_it_let_in_come_back(serve: Serve, again: Again) -> None:
    """With other tokens whoever came with one comes back; who came with none is left alone."""
    jwt = f"auth: {{jwt: {{key: '{SECRET}'}}}}\n"
    async with (
        serve(f"{SERVER}{jwt}{CONFIG}", {"dice.py": DICE}) as serving,
        websocket(serving.port, f"/ws?token={token(sub='alice')}") as known,
        websocket(serving.port, "/ws") as unknown,
    ):
        new = f"auth: {{jwt: {{key: '{SECRET[::-1]}'}}}}\n"
        changes = await serving.server.reload(again(f"{SERVER}{new}{CONFIG}"))
        assert told(changes)[0] == "auth: applied (jwt.key)"
        assert await known.close_code() == 1012
        await unknown.send(wire.text("hi"))
        assert await unknown.text() == "Echo: hi"


async def test_channel_that_is_new(serve: Serve, again: Again) -> None:
    """A channel that was not there is there."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        changes = await serving.server.reload(again(f"{CONFIG}  more: {{plugin: echo, path: /more}}\n"))
        assert told(changes)[2] == "more: new"
        async with websocket(serving.port, "/more") as talker:
            await talker.send(wire.text("a"))
            assert await talker.text() == "Echo: a"


@pytest.mark.parametrize("off", ["", "  dice: {plugin: dice, path: /dice, enabled: false}\n"])
async def test_channel_that_is_gone(serve: Serve, again: Again, off: str) -> None:
    """A channel that is not there any more closes its clients for good; its topics are forgotten."""
    new = f"channels:\n{off}  echo: {{plugin: echo, path: /ws}}\n"
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/dice") as player:
        await wire.post(serving.port, "/dice", b"roll")
        log = log_of(serving)
        assert told(await serving.server.reload(again(new)))[0] == "dice: gone, 1 client closed"
        assert (await player.text(), await player.close_code()) == ("one", 1000)
        assert (await ask(serving.port, "/dice"))[0].status == 404
        assert serving.server.bus.find("dice") is None
        assert log == ["begin 6", "leave", "end 6"]


async def test_channel_takes_the_path_of_another(serve: Serve, again: Again) -> None:
    """Paths may be swapped: what counts is the config as a whole."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        swapped = CONFIG.replace("/dice", "/x").replace("/ws", "/dice").replace("/x", "/ws")
        await serving.server.reload(again(swapped))
        async with websocket(serving.port, "/dice") as talker:
            await talker.send(wire.text("a"))
            assert await talker.text() == "Echo: a"


async def test_answer_that_is_under_way_is_waited_for(serve: Serve, again: Again) -> None:
    """Who POSTs to a channel that is restarted gets the answer of the one before."""
    slow = DICE.replace(
        "return await self.publish(client.topic, WORD)",
        """LOG.append('heard')
        while "begin 8" not in LOG:  # however long the reload takes until then
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        LOG.append('said')
        return await self.publish(client.topic, WORD)""",
    )
    async with serve(CONFIG, {"dice.py": slow}) as serving:
        log = log_of(serving)
        async with wire.dial(serving.port, posting("/dice", b"roll")) as poster:
            await eventually(lambda: "heard" in log)
            await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
            assert (await poster.response())[0].status == 202
    assert log == ["begin 6", "heard", "begin 8", "said", "end 6", "end 8"]


async def test_message_said_again_under_its_key(serve: Serve, again: Again) -> None:
    """A restart forgets no answer: the same message under its key is not heard twice."""
    key = [("Idempotency-Key", "a")]
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        first = await wire.post(serving.port, "/dice", b"roll", key)
        await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        assert (await wire.post(serving.port, "/dice", b"roll", key))[1] == first[1]


SERVICE = '''
"""Counts."""
from contextlib import asynccontextmanager
from realtime import Model, hookimpl

LOG = []


class Plugin:
    class Settings(Model):
        number: int = 1

    def __init__(self, settings):
        self.settings = settings

    @hookimpl
    def register_services(self, bus):
        return [self.serve()]

    @asynccontextmanager
    async def serve(self):
        LOG.append(f"begin {self.settings.number}")
        yield
        LOG.append(f"end {self.settings.number}")
'''


@pytest.mark.parametrize(
    ("entry", "change", "log"),
    [
        ("[counter]", None, ["begin 1"]),
        ("[{plugin: counter, number: 2}]", "plugin counter: restarted", ["begin 1", "begin 2", "end 1"]),
        ("[]", "plugin counter: gone", ["begin 1", "end 1"]),
    ],
)
async def test_plugin_that_is_no_channel(
    serve: Serve, again: Again, entry: str, change: str | None, log: list[str]
) -> None:
    """A plugin with a service goes on, is made again, or ends, as its entry says."""
    config = f"{CONFIG}plugins: [counter]\n"
    async with serve(config, {"dice.py": DICE, "counter.py": SERVICE}) as serving:
        plugin = serving.server.plugins.manager.get_plugin("plugin:counter")
        noted = type(plugin).serve.__wrapped__.__globals__["LOG"]  # type: ignore[union-attr]
        changes = told(await serving.server.reload(again(f"{CONFIG}plugins: {entry}\n")))
        assert [line for line in changes if line.startswith("plugin")] == ([change] if change else [])
        assert noted == log


async def test_dead_lifespan_is_mended(serve: Serve, again: Again) -> None:
    """A channel whose lifespan has ended is well again when it is restarted."""
    dying = DICE.replace(
        "        yield",
        """        if self.settings.sides == 6:
            asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
        yield""",
    )
    async with serve(CONFIG, {"dice.py": dying}) as serving:
        await eventually(lambda: bool(serving.server.lifespans.dead))
        assert (await ask(serving.port, "/-/ready"))[0].status == 503
        await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
        assert (await ask(serving.port, "/-/ready"))[0].status == 200


async def test_one_reload_after_the_other(serve: Serve, again: Again) -> None:
    """A reload that comes while one is under way waits for it."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        many = [again(CONFIG.replace("/dice}", f"/dice, sides: {sides}}}")) for sides in (7, 8, 9)]
        await asyncio.gather(*(serving.server.reload(config) for config in many))
        log = log_of(serving)
    assert log == ["begin 6", "begin 7", "end 6", "begin 8", "end 7", "begin 9", "end 8", "end 9"]


async def test_stop_while_it_reloads(serve: Serve, again: Again) -> None:
    """A reload that is given up leaves a server that can be stopped."""
    begin = 'LOG.append("begin'
    slow = DICE.replace(begin, f"await asyncio.sleep(self.settings.sides - 6)\n        {begin}")
    async with serve(CONFIG, {"dice.py": slow}) as serving:
        new = again(CONFIG.replace("/dice}", "/dice, sides: 3600}"))
        reloading = asyncio.create_task(serving.server.reload(new))
        await eventually(lambda: serving.server.lifespans.of(["channel:dice"])[1:] != [])
        reloading.cancel()
        await asyncio.wait([reloading])
        log = log_of(serving)
    assert log == ["begin 6", "end 6"]


async def test_certificate_is_read_again(serve: Serve, again: Again, tmp_path: Path) -> None:
    """A renewed certificate serves the next connection; nobody is disturbed."""
    authority = Authority(tmp_path)
    config = f"{SERVER.replace('watchdog', 'tls: {cert: cert.pem, key: key.pem}, watchdog')}{CONFIG}"

    async def certificate(port: int, authority: Authority) -> object:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.client())
        writer.close()
        return writer.get_extra_info("peercert")

    async with serve(config, {"dice.py": DICE}) as serving:
        before = await certificate(serving.port, authority)
        authority = Authority(tmp_path)
        await serving.server.reload(again(config))
        assert await certificate(serving.port, authority) != before


async def test_what_needs_another_process_is_told_apart(serve: Serve, again: Again) -> None:
    """That a restart is needed is an error of its own, for who can do it."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        with pytest.raises(NeedsRestart):
            await serving.server.reload(again(f"{SERVER.replace('127.0.0.1', 'localhost')}{CONFIG}"))


async def test_engine_stays(serve: Serve, again: Again) -> None:
    """A reload keeps the engine as it is, and its plugin with it."""
    async with serve(shelf.BUS + CONFIG, {"dice.py": DICE, **shelf.FILES}) as serving:
        engine = serving.server.bus.engine
        for sides in (7, 8):
            await serving.server.reload(
                again(shelf.BUS + CONFIG.replace("/dice}", f"/dice, sides: {sides}}}"))
            )
        assert serving.server.bus.engine is engine
        assert serving.server.plugins.engine("shelf") is type(engine)


@pytest.mark.parametrize(
    ("bus", "key"),
    [
        ("bus: {engine: shelf, key: s3cret, depth: 4}\n", "depth"),
        ("bus: {engine: shelf, key: other}\n", "key"),
        ("bus: {engine: memory}\n", "engine"),
        ("", "engine"),
    ],
)
async def test_another_engine_needs_another_process(serve: Serve, again: Again, bus: str, key: str) -> None:
    """The engine, and what is set of it, is from the start."""
    async with serve(shelf.BUS + CONFIG, {"dice.py": DICE, **shelf.FILES}) as serving:
        with pytest.raises(NeedsRestart, match=f"bus.{key}: this is new, and needs a restart") as caught:
            await serving.server.reload(again(bus + CONFIG))
        assert "s3cret" not in str(caught.value)


async def test_engine_that_is_written_anew_needs_another_process(
    serve: Serve, again: Again, tmp_path: Path
) -> None:
    """When the plugin of the engine has changed, the one that runs goes on."""
    async with serve(shelf.BUS + CONFIG, {"dice.py": DICE, **shelf.FILES}) as serving:
        engine = serving.server.bus.engine
        (tmp_path / "plugins" / "shelf.py").write_text(shelf.SOURCE.replace("how deep", "how high"))
        with pytest.raises(NeedsRestart, match=r"bus.engine: this is new, and needs a restart"):
            await serving.server.reload(again(shelf.BUS + CONFIG))
        assert serving.server.bus.engine is engine


async def test_the_same_in_other_words_is_the_same_engine(serve: Serve, again: Again) -> None:
    """A default that is written out is nothing new."""
    async with serve(shelf.BUS + CONFIG, {"dice.py": DICE, **shelf.FILES}) as serving:
        engine = serving.server.bus.engine
        await serving.server.reload(again(shelf.BUS.replace("}", ", depth: 3}") + CONFIG))
        assert serving.server.bus.engine is engine


async def test_others_have_their_turn_while_it_reloads(serve: Serve, again: Again) -> None:
    """While many channels are looked at a client is answered: a reload is made of small steps."""
    many = "".join(f"  more{number}: {{plugin: echo, path: /more{number}}}\n" for number in range(40))
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        reloading = asyncio.create_task(serving.server.reload(again(f"{CONFIG}{many}")))
        turns = 0
        while not reloading.done() and serving.server.lifespans.of(["channel:more0"]) == []:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 42
        assert len(await reloading) == 42


GATE = '''
"""Lets in, or not."""
from realtime import hookimpl


@hookimpl
def authorize(identity, action, topic):
    return action == "subscribe"
'''
SLOW_GATE = '''
"""Takes its time."""
import asyncio
from realtime import Identity, hookimpl

ASKED, GO = asyncio.Event(), asyncio.Event()


@hookimpl
async def authenticate(request):
    ASKED.set()
    await GO.wait()
    return Identity(name="mallory")
'''


async def test_new_rules_of_a_plugin_have_everybody_come_back(serve: Serve, again: Again) -> None:
    """Where a plugin is asked from now on, whoever is here comes back: nobody is left unasked."""
    async with (
        serve(CONFIG, {"dice.py": DICE, "gate.py": GATE}) as serving,
        websocket(serving.port, "/ws") as unknown,
    ):
        changes = await serving.server.reload(again(f"{CONFIG}plugins: [gate]\n"))
        assert "echo: unchanged, 1 client told to come back" in told(changes)
        assert await unknown.close_code() == 1012


async def test_plugin_that_lets_nobody_in_sends_nobody_away(serve: Serve, again: Again) -> None:
    """A plugin that only does its own work concerns no client."""
    jwt = f"auth: {{jwt: {{key: '{SECRET}'}}}}\n"
    async with (
        serve(f"{SERVER}{jwt}{CONFIG}", {"dice.py": DICE, "counter.py": SERVICE}) as serving,
        websocket(serving.port, f"/ws?token={token(sub='alice')}") as known,
    ):
        await serving.server.reload(again(f"{SERVER}{jwt}{CONFIG}plugins: [counter]\n"))
        await known.send(wire.text("hi"))
        assert await known.text() == "Echo: hi"


def asked(serving: Serving) -> tuple[asyncio.Event, asyncio.Event]:
    """That the slow gate was asked, and that it may answer."""
    module = serving.server.plugins.manager.get_plugin("plugin:gate")
    return vars(module)["ASKED"], vars(module)["GO"]


@pytest.mark.parametrize("new", ["/dice, sides: 8}", "/else}"])
async def test_who_is_coming_in_comes_in_by_what_is_served(serve: Serve, again: Again, new: str) -> None:
    """A client that was still being asked about is not let in to a channel that is served no more."""
    config = f"{CONFIG}plugins: [gate]\n"
    async with serve(config, {"dice.py": DICE, "gate.py": SLOW_GATE}) as serving:
        came, go = asked(serving)
        async with wire.dial(serving.port, wire.request("/dice", wire.UPGRADE)) as newcomer:
            await came.wait()
            await serving.server.reload(again(config.replace("/dice}", new)))
            go.set()
            assert (await newcomer.head()).status == 503
        assert len(serving.server.bus.topic("dice").members) == 0


async def test_who_is_coming_in_is_asked_about_anew(serve: Serve, again: Again) -> None:
    """Who a newcomer is says the plugin that is there when it comes in, and none that was."""
    config = f"{CONFIG}plugins: [gate]\n"
    async with serve(config, {"dice.py": DICE, "gate.py": SLOW_GATE}) as serving:
        came, go = asked(serving)
        async with wire.dial(serving.port, wire.request("/dice", wire.UPGRADE)) as newcomer:
            await came.wait()
            rules = "/dice, allow: {subscribe: authenticated}}"
            await serving.server.reload(again(CONFIG.replace("/dice}", rules)))
            go.set()
            assert (await newcomer.head()).status == 401


async def test_message_whose_body_was_late(serve: Serve, again: Again) -> None:
    """A POST whose channel was restarted while it came is told to come back, and is heard by nobody."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving:
        head, _, body = posting("/dice", b"roll").partition(b"\r\n\r\n")
        async with wire.dial(serving.port, head + b"\r\n\r\n" + body[:1]) as poster:
            await eventually(lambda: serving.server.connections.open["dice"] == 1)
            await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, sides: 8}")))
            await poster.send(body[1:])
            answer, text = await poster.response()
            assert (answer.status, text) == (503, "the config has just been read again, come back\n")


NAMED = '''
"""Two routes of one name."""
from aiohttp import web
from realtime import hookimpl


async def handle(request):
    return web.Response()


@hookimpl
def register_routes(bus):
    return [web.get("/a", handle, name="a"), web.get("/b", handle, name="a")]
'''


async def test_routes_that_cannot_be_served_together(serve: Serve, again: Again) -> None:
    """What the router would not take is found before anything has changed."""
    async with serve(CONFIG, {"dice.py": DICE, "named.py": NAMED}) as serving:
        with pytest.raises(ConfigError, match=r"plugin 'named': '/b' cannot be served"):
            await serving.server.reload(again(CONFIG.replace("/dice}", "/x}") + "plugins: [named]\n"))
        assert serving.server.channels["dice"].settings.path == "/dice"


async def test_reload_that_is_given_up_late_is_done_all_the_same(serve: Serve, again: Again) -> None:
    """Who gives up a reload that has given way does not leave two lifespans behind."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, stream(serving.port, "/dice"):
        server = serving.server
        new = again(CONFIG.replace("/dice}", "/dice, sides: 8}"))
        reloading = asyncio.create_task(server.reload(new))
        await eventually(lambda: server.config is new)
        reloading.cancel()
        await asyncio.wait([reloading])
        await eventually(lambda: len(server.lifespans.of(["channel:dice"])) == 1)
        assert log_of(serving) == ["begin 6", "begin 8", "leave", "end 6"]


async def test_stop_ends_a_reload(serve: Serve, again: Again) -> None:
    """A server that is stopped goes by no new config any more."""
    begin = 'LOG.append("begin'
    slow = DICE.replace(begin, f"await asyncio.sleep(self.settings.sides - 6)\n        {begin}")
    async with serve(CONFIG, {"dice.py": slow}) as serving:
        new = again(CONFIG.replace("/dice}", "/dice, sides: 3600}"))
        reloading = asyncio.create_task(serving.server.reload(new))
        await eventually(lambda: serving.server.lifespans.of(["channel:dice"])[1:] != [])
        log = log_of(serving)
        await serving.server.stop()
        with pytest.raises(StartError, match="shutting down"):
            await reloading
    assert log == ["begin 6", "end 6"]


async def test_channels_that_stay_are_not_made_again(serve: Serve, again: Again) -> None:
    """What a channel opens when it is made is opened once, however often the config is read."""
    making = DICE.replace(
        "    class Settings",
        """    def __init__(self, name, settings, bus):
        super().__init__(name, settings, bus)
        LOG.append("made")

    class Settings""",
        1,
    )
    async with serve(CONFIG, {"dice.py": making}) as serving:
        await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, history: 5}")))
        assert log_of(serving) == ["made", "begin 6"]


async def test_who_has_used_up_a_rate_has_done_so(serve: Serve, again: Again) -> None:
    """A reload gives nobody more messages than the limit says."""
    config = CONFIG.replace("/dice}", "/dice, limits: {inbound_rate: 1, inbound_burst: 1}}")
    async with serve(config, {"dice.py": DICE}) as serving:
        assert (await wire.post(serving.port, "/dice", b"roll"))[0].status == 202
        await serving.server.reload(again(config))
        assert (await wire.post(serving.port, "/dice", b"roll"))[0].status == 429


async def test_lifespan_that_needs_its_neighbour_at_the_end(serve: Serve, again: Again) -> None:
    """The old module is there until the last of it has ended."""
    late = DICE.replace(
        'LOG.append("end %d"', 'from .word import WORD as word\n        LOG.append(word + " %d"'
    )
    words = {"dice.py": late, "word.py": 'WORD = "ended"\n'}
    async with serve(CONFIG, words) as serving:
        first = again(CONFIG, dice=late.replace('"one"', '"two"'))
        await serving.server.reload(first)
        log = log_of(serving)
        await serving.server.reload(again(CONFIG, dice=late.replace('"one"', '"three"')))
        assert log == ["begin 6", "ended 6"]


async def test_other_key_in_the_same_file(serve: Serve, again: Again, tmp_path: Path) -> None:
    """Whoever came with a token comes back when the file of its key has another."""
    (tmp_path / "key").write_text(SECRET)
    config = f"{SERVER}auth: {{jwt: {{key_file: key}}}}\n{CONFIG}"
    async with (
        serve(config, {"dice.py": DICE}) as serving,
        websocket(serving.port, f"/ws?token={token(sub='alice')}") as known,
    ):
        (tmp_path / "key").write_text(SECRET[::-1])
        await serving.server.reload(again(config))
        assert await known.close_code() == 1012


@pytest.mark.parametrize("rule", ["origins: ['https://a.example']", "hosts: [a.example, '127.0.0.1']"])
async def test_other_pages_have_everybody_come_back(serve: Serve, again: Again, rule: str) -> None:
    """Who may connect from where is asked anew when that has changed."""
    async with serve(CONFIG, {"dice.py": DICE}) as serving, websocket(serving.port, "/ws") as unknown:
        await serving.server.reload(again(f"{SERVER.replace('watchdog', f'{rule}, watchdog')}{CONFIG}"))
        assert await unknown.close_code() == 1012


async def test_failed_reload_mends_no_lifespan(serve: Serve, again: Again) -> None:
    """A reload that fails leaves a channel as unhealthy as it was."""
    die = "asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)"
    dying = DICE.replace("        yield", f"        {die}\n        yield")
    async with serve(CONFIG, {"dice.py": dying}) as serving:
        await eventually(lambda: bool(serving.server.lifespans.dead))
        with pytest.raises(ConfigError):
            await serving.server.reload(again(CONFIG.replace("/dice}", "/dice, fails: true}")))
        assert (await ask(serving.port, "/-/ready"))[0].status == 503


async def test_server_that_does_not_run(serve: Serve, again: Again, tmp_path: Path) -> None:
    """What has not begun cannot be reloaded, and says so."""
    (tmp_path / "plugins").mkdir()
    server = Server(again("channels: {}"))
    with pytest.raises(StartError, match="only a server that runs"):
        await server.reload(again("channels: {}"))
