"""A connection to Redis: commands, pushes, and every way to have none any more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from redises import RedisServer, redis_server
from servers import closed_port
from wire import eventually, soon

from realtime.engines import resp
from realtime.engines.resp import Connection, Lost, RedisError, Where

#: How long a test waits for a connection that will come, in seconds.
WITHIN = 8.0

Pushed = Callable[[list[Any]], bool | None]


class Losses(list[Lost]):
    """What a connection has said of its end."""

    def __call__(self, lost: Lost) -> None:
        self.append(lost)


def unexpected(lost: Lost) -> None:
    """The connection is not to end before the test does."""
    if "over" not in str(lost):
        raise lost


@asynccontextmanager
async def connected(
    url: str, pushed: Pushed | None = None, lost: Callable[[Lost], None] = unexpected
) -> AsyncIterator[Connection]:
    """A connection that ends with the block."""
    over = asyncio.Event()

    def end(why: Lost) -> None:
        over.set()
        lost(why)

    where = Where.parse(url)
    connection = await Connection.open(where, name="test", within=WITHIN, pushed=pushed, lost=end)
    try:
        yield connection
    finally:
        connection.abort("the test is over")
        await soon(over.wait())


@asynccontextmanager
async def subscribed(server: RedisServer, pushed: Pushed) -> AsyncIterator[Connection]:
    """A connection that has subscribed to ``news``, whose messages are handed on."""
    there = asyncio.Event()

    def push(message: list[Any]) -> bool | None:
        if message[0] == b"subscribe":
            there.set()
            return None
        return pushed(message)

    async with connected(server.url, push) as connection:
        connection.tell("SUBSCRIBE", "news")
        await soon(there.wait())
        yield connection


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            writer.write(answer)
            await reader.read()  # until the end
            writer.close()
            await writer.wait_closed()
        served.remove(writer)

    served: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await eventually(lambda: not served)


async def refusal(url: str, within: float = WITHIN) -> str:
    """Why there is no connection."""
    losses = Losses()
    with pytest.raises(Lost) as caught:
        await soon(Connection.open(Where.parse(url), name="test", within=within, lost=losses))
    assert losses == []
    return str(caught.value)


async def error(url: str) -> RedisError:
    """The error with which Redis answers who connects."""
    with pytest.raises(RedisError) as caught:
        await soon(Connection.open(Where.parse(url), name="test", within=WITHIN, lost=unexpected))
    return caught.value


#: Publishes numbers, and their size in bytes, without letting anybody read meanwhile.
PUBLISH = "for i = 1, ARGV[1] do redis.call('PUBLISH', 'news', i .. string.rep(' ', ARGV[2])) end"


async def publish(server: RedisServer, count: int, padding: int = 0) -> None:
    """Publish the numbers from 1."""
    async with connected(server.url) as connection:
        await soon(connection.ask("EVAL", PUBLISH, 0, count, padding))


# Where it is


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://cache", Where("cache")),
        ("REDIS://127.0.0.1:7000/3", Where("127.0.0.1", 7000, db=3)),
        ("redis://:secret@cache/", Where("cache", password="secret")),
        ("redis://ann:p%40ss%2F%23@[::1]:1", Where("::1", 1, user="ann", password="p@ss/#")),
        ("rediss://cache", Where("cache", tls=True)),
        ("unix:///run/redis.sock", Where(port=0, path="/run/redis.sock")),
        ("unix://:secret@/run/r.sock?db=2", Where(port=0, path="/run/r.sock", password="secret", db=2)),
    ],
)
def test_url(url: str, where: Where) -> None:
    """A URL says where Redis is, and is the same when it was shown, but for the password."""
    assert Where.parse(url) == where
    assert (
        Where.parse(str(where).replace("***", where.password or "").replace("p@ss/#", "p%40ss%2F%23"))
        == where
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("127.0.0.1:6379", "does not begin with redis://"),
        ("http://cache", "does not begin with redis://"),
        ("redis:cache", "does not begin with redis://"),
        ("", "does not begin with redis://"),
        ("redis://", "names no host"),
        ("redis://[::1", "is no URL"),
        ("redis://cache:port", "port is no number"),
        ("redis://cache:0", "names no port"),
        ("redis://cache:99999", "port is no number"),
        ("redis://cache/news", "database is no number"),
        ("redis://cache/-1", "database is no number"),
        ("redis://cache?timeout=1", "parameter that is not known"),
        ("redis://ann@cache", "user without a password"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///", "three slashes"),
        ("unix:///run/redis.sock?db=x", "database is no number"),
    ],
)
def test_url_is_wrong(url: str, why: str) -> None:
    """What cannot be used of a URL is said in a sentence."""
    with pytest.raises(ValueError, match=why):
        Where.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@cache/news",
        "redis://:s3cret/@cache",
        "redis://:s3cret#@cache",
        "redis://:s3cret?@cache",
        "redis://:s3cret@[::1",
        "redis://:s3cret@cache\u2100",
        "http://:s3cret@cache",
    ],
)
def test_password_is_not_shown_by_a_mistake(url: str) -> None:
    """What is said of a URL that is wrong has nothing of its password."""
    with pytest.raises(ValueError, match=r"^it") as caught:
        Where.parse(url)
    assert "s3cret" not in str(caught.value)


def test_password_is_not_shown() -> None:
    """Neither the string of a place nor its representation has the password."""
    where = Where.parse("redis://ann:s3cret@cache")
    assert str(where) == "redis://ann:***@cache:6379/0"
    assert "s3cret" not in repr(where)


# What is asked


async def test_answers_in_order(tmp_path: Path) -> None:
    """Every command gets its own answer, of whatever kind."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        asked = [connection.ask("ECHO", number) for number in range(1000)]
        kinds = [
            connection.ask("SET", b"k\x00", "é"),
            connection.ask("GET", b"k\x00"),
            connection.ask("GET", "nothing"),
            connection.ask("LRANGE", "nothing", 0, -1),
            connection.ask("INCRBY", "n", 7),
        ]
        assert await soon(asyncio.gather(*asked)) == [b"%d" % number for number in range(1000)]
        assert await soon(asyncio.gather(*kinds)) == [b"OK", "é".encode(), None, [], 7]


async def test_one_turn_is_one_write(tmp_path: Path) -> None:
    """A hundred commands of one turn of the event loop reach Redis in one read."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:

        async def reads() -> int:
            stats = (await soon(connection.ask("INFO", "stats"))).decode()
            return int(stats.partition("total_reads_processed:")[2].split()[0])

        before = await reads()
        await soon(asyncio.gather(*[connection.ask("ECHO", number) for number in range(100)]))
        assert await reads() - before == 2  # the second is of this INFO


async def test_errors_have_a_code(tmp_path: Path) -> None:
    """An error of Redis is raised where it was asked for, and only there."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        wrong, unknown = connection.ask("EVALSHA", "0" * 40, 0), connection.ask("ZEBRA")
        right = connection.ask("PING")
        with pytest.raises(RedisError, match=r"^NOSCRIPT No matching script") as caught:
            await soon(wrong)
        assert caught.value.code == "NOSCRIPT"
        with pytest.raises(RedisError) as caught:
            await soon(unknown)
        assert caught.value.code == "ERR"
        assert await soon(right) == b"PONG"


async def test_full_memory_has_a_code(tmp_path: Path) -> None:
    """A Redis that takes no more says OOM."""
    async with redis_server(tmp_path, "--maxmemory", "1b") as server, connected(server.url) as connection:
        with pytest.raises(RedisError) as caught:
            await soon(connection.ask("SET", "k", "v"))
        assert caught.value.code == "OOM"


async def test_cancelled_command_does_not_shift_the_answers(tmp_path: Path) -> None:
    """The answer that nobody waits for any more is nobody's, be it an error."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        first, second, third = connection.ask("ECHO", 1), connection.ask("ZEBRA"), connection.ask("ECHO", 3)
        first.cancel()
        second.cancel()
        assert await soon(third) == b"3"


async def test_backlog(tmp_path: Path) -> None:
    """What a Redis that does not read is asked is counted, until it was sent."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        server.pause()
        asked = [connection.ask("ECHO", "x" * 100_000) for _ in range(200)]
        assert connection.backlog > 20_000_000
        await asyncio.sleep(0)
        assert connection.backlog > 0
        server.resume()
        await soon(asyncio.gather(*asked))
        assert connection.backlog == 0


# How it begins


async def test_who_is_there(tmp_path: Path) -> None:
    """A connection has a name, and knows the process and the version of its Redis."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        said = await server.command("INFO", "server")
        assert f"run_id:{connection.run_id}" in said
        assert f"redis_version:{connection.version}" in said
        assert await soon(connection.ask("CLIENT", "GETNAME")) == b"test"
        assert connection.info["maxmemory_policy"] == "noeviction"


async def test_small_commands_are_sent_at_once(tmp_path: Path) -> None:
    """Neither end of the connection waits for more to send, and the kernel looks after a silent one."""
    async with redis_server(tmp_path) as server, connected(server.url) as connection:
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_database(tmp_path: Path) -> None:
    """What is asked is asked of the database of the URL."""
    async with redis_server(tmp_path) as server:
        async with connected(f"redis://127.0.0.1:{server.port}/3") as connection:
            await soon(connection.ask("SET", "k", "v"))
        assert await server.command("-n", "3", "GET", "k") == "v"


async def test_database_that_is_not_there(tmp_path: Path) -> None:
    """A database that Redis has not is its error."""
    async with redis_server(tmp_path) as server:
        assert str(await error(f"redis://127.0.0.1:{server.port}/99")) == "ERR DB index is out of range"


async def test_password(tmp_path: Path) -> None:
    """A password is given; the wrong one, and none, are told apart."""
    async with redis_server(tmp_path, "--requirepass", "p@ss/word") as server:
        at = f"127.0.0.1:{server.port}/1"
        async with connected(f"redis://:p%40ss%2Fword@{at}") as connection:
            assert await soon(connection.ask("PING")) == b"PONG"
        assert (await error(f"redis://:wrong@{at}")).code == "WRONGPASS"
        assert (await error(f"redis://{at}")).code == "NOAUTH"


async def test_user(tmp_path: Path) -> None:
    """A user of its own comes in by name, and may do what it may do."""
    async with redis_server(tmp_path) as server:
        await server.command("ACL", "SETUSER", "ann", "on", ">sesame", "~rt:*", "+@all", "-flushall")
        async with connected(f"redis://ann:sesame@127.0.0.1:{server.port}") as connection:
            assert await soon(connection.ask("ACL", "WHOAMI")) == b"ann"
            with pytest.raises(RedisError, match=r"^NOPERM"):
                await soon(connection.ask("FLUSHALL"))
        assert (await error(f"redis://bob:sesame@127.0.0.1:{server.port}")).code == "WRONGPASS"


async def test_unix_socket(tmp_path: Path) -> None:
    """Redis can be at a path."""
    path = tmp_path / "r.sock"
    async with redis_server(tmp_path, "--unixsocket", str(path)), connected(f"unix://{path}?db=2") as there:
        assert await soon(there.ask("PING")) == b"PONG"
    assert await refusal(f"unix://{tmp_path}/none.sock") == f"there is no socket {tmp_path}/none.sock"


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is spoken with a Redis whose certificate is trusted, and with no other."""
    authority, port = Authority(tmp_path), closed_port()
    files = ["--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    tls = ["--tls-port", str(port), *files, "--tls-auth-clients", "no"]
    async with redis_server(tmp_path, *tls) as server:
        assert "certificate is not to be trusted" in await refusal(f"rediss://127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        async with connected(f"rediss://127.0.0.1:{port}") as connection:
            assert await soon(connection.ask("ECHO", "x" * 1_000_000)) == b"x" * 1_000_000
        assert "TLS" in await refusal(f"redis://127.0.0.1:{port}")
        assert "TLS" in await refusal(f"rediss://127.0.0.1:{server.port}", within=0.3)


async def test_authorities_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again does not read the certificates of all authorities anew, which takes long."""
    read: list[None] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: read.append(None))
    Path(tmp_path, "ca.pem").touch()  # noqa: ASYNC240  # an empty file
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # no other test has this one
    with socket.socket() as taken:  # which does not listen, and nobody else can
        taken.bind(("127.0.0.1", 0))
        for _ in range(3):
            await refusal(f"rediss://127.0.0.1:{taken.getsockname()[1]}")
    assert read == [None]


async def test_loading(tmp_path: Path) -> None:
    """A Redis that still loads its data says so."""
    options = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    async with redis_server(tmp_path, *options) as server:
        await server.command("EVAL", "for i = 1, 5000 do redis.call('SET', i, i) end", "0")
        await server.command("SAVE")
        await server.kill()
        starting = asyncio.create_task(server.start())
        while True:
            with contextlib.suppress(Lost):
                assert (await error(server.url)).code == "LOADING"
                break
        starting.cancel()


async def test_nothing_listens() -> None:
    """A port at which nothing listens refuses the connection, under a name with two addresses, too."""
    with socket.socket() as taken:  # which does not listen, and nobody else can
        taken.bind(("127.0.0.1", 0))
        for begin in ("redis://127.0.0.1", "redis://localhost", "rediss://127.0.0.1"):
            said = await refusal(f"{begin}:{taken.getsockname()[1]}")
            assert said == "nothing listens there: the connection was refused"


async def test_name_is_not_known() -> None:
    """A name that nobody knows is said to be that."""
    assert await refusal("redis://nobody.invalid") == "the name nobody.invalid is not known"


async def test_no_name_at_all() -> None:
    """What cannot be a name is not known either."""
    assert await refusal(f"redis://{'x' * 64}.example") == f"the name {'x' * 64}.example is not known"


async def test_paused_redis_is_not_waited_for(tmp_path: Path) -> None:
    """A Redis that takes the connection and says nothing has its time."""
    async with redis_server(tmp_path) as server:
        server.pause()
        assert await refusal(server.url, within=0.2) == "no answer for 0.2s"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is no Redis: it says 'HTTP/1.1 400 Bad Request'"),
        (b"\x00\xff\x07", "it is no Redis: it says '\\\\x00\ufffd\\\\x07'"),
        (b"+OK\r\n+OK\r\n", "it is no Redis: it does not say its version"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", "it wants TLS: its URL begins with rediss://"),
        (b"*4294967295\r\n", "it is no Redis: it says '*4294967295'"),
        (b":1\r\n" * 9, "Redis answered what nobody had asked"),
    ],
)
async def test_no_redis_at_all(answer: bytes, why: str) -> None:
    """What speaks another protocol is no Redis."""
    async with saying(answer) as url:
        assert await refusal(url) == why


async def test_too_many_clients(tmp_path: Path) -> None:
    """A Redis that has no room says so, or hangs up before it is heard."""

    async def fill(url: str) -> None:
        async with connected(url):
            await fill(url)

    async with redis_server(tmp_path, "--maxclients", "3") as server:
        with pytest.raises((RedisError, Lost), match=r"max number of clients|closed|broke"):
            await fill(server.url)


# What is pushed


async def test_pushes_in_order(tmp_path: Path) -> None:
    """A hundred thousand messages come, in order."""
    got: list[int] = []
    async with redis_server(tmp_path) as server, subscribed(server, lambda m: got.append(int(m[2]))):
        await publish(server, 100_000)
        await eventually(lambda: len(got) == 100_000)
        assert got == list(range(1, 100_001))


async def test_pushes_of_each_kind(tmp_path: Path) -> None:
    """What answers a subscription is pushed, as messages are."""
    got: list[list[Any]] = []
    async with redis_server(tmp_path) as server, connected(server.url, got.append) as connection:
        connection.tell("SUBSCRIBE", "a", "b")
        connection.tell("PING", "x")
        connection.tell("SSUBSCRIBE", "s")
        connection.tell("UNSUBSCRIBE", "a")
        await eventually(lambda: len(got) == 5)
        await server.command("PUBLISH", "b", "1")
        await server.command("SPUBLISH", "s", "2")
        await eventually(lambda: len(got) == 7)
    assert got == [
        [b"subscribe", b"a", 1],
        [b"subscribe", b"b", 2],
        [b"pong", b"x"],
        [b"ssubscribe", b"s", 1],
        [b"unsubscribe", b"a", 1],
        [b"message", b"b", b"1"],
        [b"smessage", b"s", b"2"],
    ]


async def test_enough_for_a_turn(tmp_path: Path) -> None:
    """Where a message is enough for a turn the next one comes in the next, and nothing is lost."""
    got: list[int] = []
    held: list[bool] = []

    def pushed(message: list[Any]) -> bool:
        got.append(int(message[2]))
        loop.call_soon(lambda count: held.append(len(got) == count), len(got))
        return True

    loop = asyncio.get_running_loop()
    async with redis_server(tmp_path) as server, subscribed(server, pushed):
        await publish(server, 1000)
        await eventually(lambda: len(held) == 1000)
    assert got == list(range(1, 1001))
    assert all(held)


async def test_pause(tmp_path: Path) -> None:
    """A connection that is paused reads nothing: what is too much stays with Redis until it goes on."""
    got: list[int] = []

    def pushed(message: list[Any]) -> None:
        got.append(int(message[2]))
        if len(got) == 3:
            connection.pause()

    async with redis_server(tmp_path) as server, subscribed(server, pushed) as connection:
        await publish(server, 200, 100_000)
        await eventually(lambda: len(got) == 3)
        waits = (await server.command("CLIENT", "LIST", "TYPE", "pubsub")).partition(" omem=")[2]
        assert int(waits.split()[0]) > 5_000_000
        assert len(got) == 3
        connection.resume()
        await eventually(lambda: len(got) == 200)
    assert got == list(range(1, 201))


async def test_resumed_at_once(tmp_path: Path) -> None:
    """Going on in the turn of the pause loses nothing."""
    got: list[int] = []

    def pushed(message: list[Any]) -> None:
        got.append(int(message[2]))
        connection.pause()
        connection.resume()

    async with redis_server(tmp_path) as server, subscribed(server, pushed) as connection:
        await publish(server, 1000)
        await eventually(lambda: len(got) == 1000)
    assert got == list(range(1, 1001))


# How it ends


async def test_killed_redis_loses_every_command(tmp_path: Path) -> None:
    """When Redis is killed every command that waits is lost, and the end is told once."""
    losses = Losses()
    async with redis_server(tmp_path) as server, connected(server.url, lost=losses) as connection:
        # Redis has read all of them, and is at the first.
        asked = [connection.ask("BLPOP", "nothing", 0)] + [connection.ask("ECHO", n) for n in range(100)]
        while "cmd=blpop" not in await server.command("CLIENT", "LIST"):
            pass
        await server.kill()
        answers = await soon(asyncio.gather(*asked, return_exceptions=True))
        assert {type(answer) for answer in answers} == {Lost}
        await eventually(lambda: bool(losses))
        connection.abort("again")
        with pytest.raises(Lost):
            await soon(connection.ask("PING"))
        connection.tell("PING")
        connection.pause()
        connection.resume()
        assert len(losses) == 1


async def test_why_it_was_lost(tmp_path: Path) -> None:
    """A connection that Redis has closed says so, whenever it is asked."""
    losses = Losses()
    async with redis_server(tmp_path) as server, connected(server.url, lost=losses) as connection:
        await server.command("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda: bool(losses))
        assert str(losses[0]) == "Redis closed the connection"
        with pytest.raises(Lost, match=r"^Redis closed the connection$"):
            await soon(connection.ask("PING"))


async def test_reset_connection_is_lost() -> None:
    """A connection that was reset is lost, too."""
    losses = Losses()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        opening = asyncio.create_task(
            Connection.open(Where("127.0.0.1", port), name="test", within=WITHIN, lost=losses)
        )
        peer, _ = await soon(asyncio.get_running_loop().sock_accept(listening))
        peer.setblocking(False)
        await soon(asyncio.get_running_loop().sock_recv(peer, 65536))
        info = b"redis_version:7\r\nrun_id:1\r\n"
        peer.send(b"+OK\r\n$%d\r\n%b\r\n" % (len(info), info))
        connection = await soon(opening)
        asked = connection.ask("PING")
        await asyncio.sleep(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(Lost, match=r"^the connection to Redis broke: [Cc]onnection reset by peer$"):
            await soon(asked)


async def test_aborted(tmp_path: Path) -> None:
    """Who ends a connection says why, and what waits is told; what is asked afterwards is lost at once."""
    losses = Losses()
    async with redis_server(tmp_path) as server, connected(server.url, lost=losses) as connection:
        server.pause()
        asked = connection.ask("PING")
        connection.abort("no answer for 3s")
        with pytest.raises(Lost, match=r"^no answer for 3s$"):
            await soon(connection.ask("PING"))
        with pytest.raises(Lost, match=r"^no answer for 3s$"):
            await soon(asked)
        assert [str(lost) for lost in losses] == ["no answer for 3s"]


async def test_abort_ends_the_pushes(tmp_path: Path) -> None:
    """Nothing is handed on after the connection was ended."""
    got: list[Any] = []
    losses = Losses()

    def pushed(message: list[Any]) -> None:
        got.append(message)
        if message[0] == b"message":
            connection.abort("enough")

    async with redis_server(tmp_path) as server, connected(server.url, pushed, losses) as connection:
        connection.tell("SUBSCRIBE", "news")
        await eventually(lambda: len(got) == 1)
        await publish(server, 1000)
        await eventually(lambda: bool(losses))
        assert len(got) == 2
        assert str(losses[0]) == "enough"


async def test_nobody_waits_for_what_is_lost(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """A command whose answer nobody waits for is lost in silence."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    losses = Losses()
    async with redis_server(tmp_path) as server, connected(server.url, lost=losses) as connection:
        connection.ask("PING")
        connection.abort("the end")
        connection.ask("PING")
        await eventually(lambda: bool(losses))
        del connection
    assert said == []


async def test_huge_message_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message larger than may be held ends the connection, while many smaller ones do not."""
    monkeypatch.setattr(resp, "MAX_MESSAGE", 1024 * 1024)
    losses = Losses()
    got: list[Any] = []
    async with redis_server(tmp_path) as server, connected(server.url, got.append, losses) as connection:
        connection.tell("SUBSCRIBE", "news")
        await eventually(lambda: len(got) == 1)
        await publish(server, 10, 900_000)
        await eventually(lambda: len(got) == 11)
        await publish(server, 1, 4_000_000)
        await eventually(lambda: bool(losses))
        assert str(losses[0]) == "Redis sent a message that is larger than 1 MiB"
        assert len(got) == 11


async def test_huge_answer_of_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be no larger in small parts."""
    monkeypatch.setattr(resp, "MAX_MESSAGE", 1024 * 1024)
    losses = Losses()
    async with redis_server(tmp_path) as server, connected(server.url, lost=losses) as connection:
        many = "for i = 1, 400 do redis.call('RPUSH', 'k', unpack(ARGV)) end"
        await soon(connection.ask("EVAL", many, 0, *range(1000)))
        with pytest.raises(Lost, match="larger than 1 MiB"):
            await soon(connection.ask("LRANGE", "k", 0, -1))


async def test_garbage_in_the_middle() -> None:
    """What is no protocol ends a connection that was a good one."""
    losses = Losses()
    info = b"redis_version:7\r\n"
    answer = b"+OK\r\n$%d\r\n%b\r\n" % (len(info), info)
    async with saying(answer) as url, connected(url, lost=losses) as connection:
        connection.data_received(b"zebra")
        await eventually(lambda: bool(losses))
    assert str(losses[0]).startswith("what came is not the protocol of Redis: Protocol error")


async def test_subscription_that_is_refused(tmp_path: Path) -> None:
    """A channel that the user may not hear ends the connection, in the words of Redis."""
    losses = Losses()
    async with redis_server(tmp_path) as server:
        await server.command("ACL", "SETUSER", "ann", "on", ">sesame", "resetchannels", "+@all")
        url = f"redis://ann:sesame@127.0.0.1:{server.port}"
        async with connected(url, lambda _: None, losses) as connection:
            connection.tell("SUBSCRIBE", "news")
            await eventually(lambda: bool(losses))
    assert str(losses[0]).startswith("Redis says: NOPERM")


async def test_mistake_of_who_takes_the_pushes(tmp_path: Path) -> None:
    """An error of whoever takes the messages ends the connection, and is reported."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    losses = Losses()

    def pushed(message: list[Any]) -> None:
        raise ZeroDivisionError

    async with redis_server(tmp_path) as server, connected(server.url, pushed, losses) as connection:
        connection.tell("SUBSCRIBE", "news")
        await eventually(lambda: bool(losses))
    assert str(losses[0]) == "what came could not be taken: ZeroDivisionError()"
    assert isinstance(said[0]["exception"], ZeroDivisionError)
