"""The command line. What a command needs is imported when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.version import __version__

if TYPE_CHECKING:
    from realtime.config import Config
    from realtime.server import Server

#: Exit codes: fine or stopped by a signal; the config or a plugin; usage (argparse's own); could
#: not start; ``connect`` was closed with an error.
OK, BAD_CONFIG, USAGE, NOT_STARTED, CLOSED = 0, 1, 2, 3, 4
#: How long what a plugin has left running may take to end after the shutdown, in seconds.
EXIT_GRACE = 1.0

_EXAMPLES = """\
examples:
  python -m realtime                                  serve ./config.yaml, or a built-in one
  python -m realtime -c rt.yaml --listen 0.0.0.0:80   another config, another address
  python -m realtime connect ws://127.0.0.1:8080/ws   type lines, see what comes back
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        arguments = _parser().parse_args(_with_command(list(sys.argv[1:] if argv is None else argv)))
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except KeyboardInterrupt:
        return OK
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed from the start
            try:
                stream.flush()
            except OSError:
                # Nobody reads it any more. What the buffer still holds must not be tried again
                # when the process ends: that would change the exit code.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m realtime",
        description="A realtime server that is declared in YAML and extended in Python.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"realtime {__version__}")
    _add_config(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="start the server (the default command)",
        description="Start the server. Ctrl-C or SIGTERM ends it in order, a second one at once.",
        epilog="example:\n  python -m realtime serve --listen 127.0.0.1:9000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config(serve)
    serve.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, [IPV6]:PORT or unix:PATH, instead of the config's; may be repeated",
    )
    serve.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="default: info"
    )
    serve.set_defaults(run=_serve)

    connect = commands.add_parser(
        "connect",
        help="connect to a channel: lines in, messages out",
        description="Send the lines of standard input, print each message as 'Received: …'.",
        epilog="examples:\n"
        "  python -m realtime connect ws://127.0.0.1:8080/ws\n"
        "  python -m realtime connect ws://127.0.0.1:8080/chat --name alice\n"
        "  python -m realtime connect http://127.0.0.1:8080/chat --since earliest --json\n"
        "  python -m realtime connect http://127.0.0.1:8080/events --count 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    connect.add_argument("url", metavar="URL", help="ws:// or wss://, or http(s):// for server-sent events")
    connect.add_argument("--name", help="the name, in a chat: a first line to send, or ?name= of http://")
    connect.add_argument(
        "--since",
        type=_since,
        metavar="ID|-N|earliest",
        help="begin after this message, with the newest N, or with all that is kept",
    )
    connect.add_argument("--count", type=_count, metavar="N", help="stop after N messages")
    connect.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="offer this WebSocket subprotocol, such as realtime.v1.json; may be repeated",
    )
    connect.add_argument("--json", action="store_true", help="print each message as a line of JSON")
    _add_request(connect)
    connect.set_defaults(run=_connect)

    publish = commands.add_parser(
        "publish",
        help="publish one message, or a line of standard input each",
        description="Publish DATA, or without it each line of standard input, and print the ids.",
        epilog="examples:\n"
        "  python -m realtime publish http://127.0.0.1:8080/chat 'hello all' --name alice\n"
        "  python -m realtime publish http://127.0.0.1:8080/news --json '{\"goal\": 1}' --event score\n"
        "  tail -f log | python -m realtime publish ws://127.0.0.1:8080/log",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    publish.add_argument("url", metavar="URL", help="http(s):// for a POST each, or ws:// or wss://")
    publish.add_argument("data", metavar="DATA", nargs="?", help="the message")
    publish.add_argument("--event", default="message", help="the event; default: message")
    publish.add_argument("--name", help="the name, in a chat")
    publish.add_argument("--json", action="store_true", help="the data is JSON, and not text")
    _add_request(publish)
    publish.set_defaults(run=_publish)
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="send this header; may be repeated",
    )
    parser.add_argument("--cafile", metavar="FILE", help="trust the certificates in this file (PEM)")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help="the config file; without it ./config.yaml, or else a built-in one",
    )


def _with_command(arguments: list[str]) -> list[str]:
    """``serve`` is the command when none is named."""
    at = 0
    while at < len(arguments) and arguments[at].startswith(("-c", "--config")):
        at += 2 if arguments[at] in ("-c", "--config") else 1
    if at == len(arguments) or (
        at < len(arguments)
        and arguments[at].startswith("-")
        and arguments[at] not in ("-h", "--help", "--version")
    ):
        arguments.insert(at, "serve")
    return arguments


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


def _since(text: str) -> str:
    from realtime.message import parse_since

    try:
        parse_since(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; or -20, or earliest") from None
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    # Anything else could forge another header (RFC 9110, section 5).
    if not (colon and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and value.isprintable()):
        raise argparse.ArgumentTypeError(f"expected 'Name: value', not {text!r}")
    return name, value.strip()


def _connect(arguments: argparse.Namespace) -> int:
    from realtime.terminal import connect

    _end_as_with_ctrl_c()
    return asyncio.run(
        connect(
            arguments.url,
            name=arguments.name,
            since=arguments.since,
            count=arguments.count,
            headers=arguments.header,
            subprotocols=arguments.subprotocol,
            as_json=arguments.json,
            cafile=arguments.cafile,
        )
    )


def _publish(arguments: argparse.Namespace) -> int:
    from realtime.terminal import publish

    _end_as_with_ctrl_c()
    return asyncio.run(
        publish(
            arguments.url,
            arguments.data,
            event=arguments.event,
            name=arguments.name,
            headers=arguments.header,
            as_json=arguments.json,
            cafile=arguments.cafile,
        )
    )


def _end_as_with_ctrl_c() -> None:
    """SIGTERM closes a connection as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _serve(arguments: argparse.Namespace) -> int:
    from realtime.config import Address, load
    from realtime.errors import ConfigError, StartError

    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    file: Path | None = getattr(arguments, "config", None)
    if file is None and Path("config.yaml").exists():
        file = Path("config.yaml")
    try:
        config = load(file)
        if arguments.listen:
            try:
                listen = [Address.parse(text) for text in arguments.listen]
            except ValueError as error:
                print(
                    f"python -m realtime: --listen {' '.join(arguments.listen)}: {error}", file=sys.stderr
                )
                return USAGE
            config = config.listening_on(listen)
        try:
            return asyncio.run(_run(config))
        finally:
            # What was a second signal to the loop is none to the interpreter that ends.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    except StartError as error:
        print(f"could not start: {error}", file=sys.stderr)
        return NOT_STARTED


async def _run(config: Config) -> int:
    from realtime.server import Server

    # A plugin that is being imported holds the event loop, so signals interrupt it themselves.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = Server(config)
    server.load()
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():  # a second signal: at once
            os._exit(OK)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    starting, stopping = asyncio.create_task(server.start()), asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        if starting.cancelled():
            return OK
    starting.result()
    _say(*_banner(server))
    await stopping
    _say("stopping; a second signal stops at once")
    await server.stop()
    watchdog = threading.Timer(EXIT_GRACE, _leave_behind, [asyncio.get_running_loop()])
    watchdog.daemon = True
    watchdog.start()
    return OK


def _leave_behind(loop: asyncio.AbstractEventLoop) -> None:
    """End the process although a plugin's task or thread does not end; asyncio would wait for ever."""
    left = [f"task {task.get_name()!r}" for task in asyncio.all_tasks(loop)]
    left += [
        f"thread {thread.name!r}"
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    _say(f"ended, although this would not: {', '.join(left)}")
    os._exit(OK)


def _banner(server: Server) -> list[str]:
    config, first = server.config, server.addresses[0]
    lines = [f"Realtime {__version__}, config: {config.source.name}, engine: memory"]
    width = max(map(len, server.channels), default=0)
    for name, channel in server.channels.items():
        where = f"{first} " if first.path else f"{channel.scheme}://{first}"
        about = (type(channel).__doc__ or "").partition("\n")[0]
        lines.append(f"  {name:{width}}  {where}{channel.settings.path}  {about}")
    if not server.channels:
        lines.append("  no channel is configured")
    for address in server.addresses:
        if not address.is_local:
            lines.append(
                f"WARNING: {address} is open to other machines: "
                "whoever reaches it may read and write every channel"
            )
    lines.append(f"ready on {', '.join(map(str, server.addresses))}")
    return lines


def _say(*lines: str) -> None:
    with contextlib.suppress(OSError):  # that nobody reads it is no reason not to serve
        print(*lines, sep="\n", file=sys.stderr, flush=True)
