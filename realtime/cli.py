"""The command line: what can be typed, and which function does it.

What a command needs is imported when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from realtime import arguments
from realtime.exit_codes import ExitCode
from realtime.version import __version__

PROGRAM = "python -m realtime"

_EXAMPLES = """\
examples:
  python -m realtime                                  serve ./config.yaml, or a built-in one
  python -m realtime init                             write a config.yaml to begin with
  python -m realtime check                            find every mistake in it
  python -m realtime connect ws://127.0.0.1:8080/ws   type lines, see what comes back

Chat with yourself: start the server in one terminal, and in two others
  python -m realtime connect ws://127.0.0.1:8080/chat --name alice
  python -m realtime connect ws://127.0.0.1:8080/chat --name bob

"python -m realtime COMMAND --help" explains a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    # To be ended is to every command what Ctrl-C is: it closes what is open, and is no error.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for what its encoding cannot say
    try:
        code = _run(_parse(list(sys.argv[1:] if argv is None else argv)))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return ExitCode.OK
    except BrokenPipeError:
        return ExitCode.OK  # whoever read our output has enough, as `| head -1` has: no error
    except OSError as error:  # a full disk, a directory that is gone
        about = f"{error.filename}: " if error.filename else ""
        if sys.stderr is not None:
            with contextlib.suppress(OSError):
                print(f"{PROGRAM}: {about}{(error.strerror or str(error)).lower()}", file=sys.stderr)
        return ExitCode.NOT_STARTED
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed from the start
            try:
                stream.flush()
            except OSError:
                # Nobody reads it any more. What the buffer still holds must not be tried again
                # when the process ends: that would change the exit code.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until what is imported here is there: extensions in C do not survive it."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    options = vars(arguments)
    command: str = options.pop("command")
    given: Path | None = options.pop("config", None)
    if command in ("connect", "publish"):
        with _undisturbed():
            import asyncio

            from realtime import terminal

        # A command is the function of its name, and its options are the parameters.
        client: Callable[..., Coroutine[Any, Any, int]] = getattr(terminal, command)
        return asyncio.run(client(**options))
    if command == "new-plugin":
        with _undisturbed():
            from realtime import scaffold

        return scaffold.new_plugin(options["name"], directory=options["directory"], force=options["force"])
    # A link that leads nowhere is there, too: it is no reason to serve something else.
    file = given or (Path("config.yaml") if os.path.lexists("config.yaml") else None)
    if command == "serve":
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda *_: None)  # nothing has been read yet
        with _undisturbed():
            from realtime.serving import serve

        return serve(file, **options)
    if command == "token":
        with _undisturbed():
            from realtime.token import token

        return token(file, **options)
    of_one = options.pop("of_one", None)
    if of_one == "test":
        with _undisturbed():
            from realtime.verdicts import run

        return run(file, **options)
    with _undisturbed():
        from realtime import inspection

    if command == "init":
        return inspection.init(options["file"] or given or Path("config.yaml"), force=options["force"])
    look: Callable[..., int] = getattr(inspection, of_one or command)
    return look(file, **options)


class _Parser(argparse.ArgumentParser):
    """argparse's parser, with suggestions for what was mistyped."""

    def __init__(self, **options: Any) -> None:
        options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        choice = re.search(
            r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL
        )
        if choice:
            from realtime.errors import did_you_mean

            known = re.findall(r"[\w-]+", choice[3])
            what = "command" if choice[1] == "COMMAND" else f"value of {choice[1]}"
            message = f"{choice[2]!r} is no {what}{did_you_mean(choice[2], known)}"
            message += f"\nthere are: {', '.join(known)}"
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n{self.prog} --help explains it\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, commands = _parsers()
    parsed, rest = parser.parse_known_args(_with_command(arguments))
    if parsed.command == "publish" and parsed.data is None and rest:
        # argparse takes DATA for left out as soon as an option stands before it.
        first = rest.pop(0)
        parsed.data = rest.pop(0) if first == "--" and rest else first
        if first.startswith("-") and first != "--":
            parsed.data, rest = None, [first, *rest]
    if parsed.command == "token" and (parsed.given is None) is (parsed.sub is None):
        commands["token"].error("say --sub NAME for whom to make a token, or give a TOKEN to look into")
    if rest:
        from realtime.errors import did_you_mean

        command = commands[" ".join(filter(None, (parsed.command, getattr(parsed, "of_one", None))))]
        wrong = rest[0].partition("=")[0]
        known = [option for action in command._actions for option in action.option_strings]
        if wrong.startswith("-"):
            command.error(f"there is no option {wrong!r}{did_you_mean(wrong, known)}")
        command.error(f"there is an argument too many: {wrong!r}")
    return parsed


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog=PROGRAM,
        description="A realtime server that is declared in YAML and extended in Python.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"realtime {__version__}")
    _add_config(parser)
    added = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    commands: dict[str, _Parser] = {}
    below: dict[str, Any] = {}

    def command(name: str, about: str, description: str, *examples: str, config: bool = True) -> _Parser:
        lines = [f"  {PROGRAM} {example}" for example in examples]
        above, _, last = name.rpartition(" ")
        if above and above not in below:
            below[above] = commands[above].add_subparsers(
                title="of one of them", metavar="COMMAND", dest="of_one"
            )
        made = commands[name] = (below[above] if above else added).add_parser(
            last,
            help=about,
            description=description,
            epilog="\n".join(["example:" if len(lines) == 1 else "examples:", *lines]),
        )
        if config:
            _add_config(made)
        return made

    serve = command(
        "serve",
        "start the server (the default command)",
        "Start the server. Ctrl-C or SIGTERM ends it in order, a second one at once. SIGHUP has it read\n"
        "its config again: with a mistake in it everything goes on as it was.",
        "serve --listen 127.0.0.1:9000",
        "serve --reload",
        "-c rt.yaml --listen 0.0.0.0:8080 --listen unix:/run/rt.sock",
    )
    serve.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        default=[],
        help="HOST:PORT, [IPV6]:PORT or unix:PATH, instead of the config's; may be repeated",
    )
    serve.add_argument(
        "--reload",
        action="store_true",
        help="for authors: go by every change of the config and of plugins at once",
    )
    serve.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="default: info"
    )
    serve.add_argument("--log-format", choices=["text", "json"], default="text", help="default: text")

    for name, about, description, *examples in (
        (
            "check",
            "find every mistake in the config and its plugins",
            "Load the config and every plugin that it names, and tell every mistake with its place.\n"
            "Nothing is started. The exit code is 1 if there is a mistake.",
            "check",
            "-c rt.yaml check --json",
        ),
        (
            "plugins",
            "the plugins that are installed, and the channels that use them",
            "List every plugin that a config could name: files in plugins/ beside the config, those\n"
            "that come with the server, and installed packages. Only those that the config names are\n"
            "loaded.",
            "plugins",
            "plugins --json",
        ),
        (
            "plugins show",
            "all that a user needs to know of one",
            "Tell where a plugin is from, and what its channel types are and can be set, from their\n"
            "docstrings; with a piece of config to begin with.",
            "plugins show chat",
            "plugins show chat --json",
        ),
        (
            "plugins test",
            "do to one what no author does, and tell what comes of it",
            "Try a channel of the config, or a channel type with its default settings, in a server of its\n"
            "own: clients that go at any moment, read nothing, say nonsense, a thousand of them,\n"
            "and a shutdown under load. Tells of each check what was done, what happened, at which line\n"
            "of the plugin, and what to do about it. The exit code is 1 if one fails.",
            "plugins test dice",
            "plugins test lobby --say 'guest{n}' --query 'name=guest{n}'",
            "plugins test quiz --set sides=20 --message '{\"guess\": 41}'",
            "plugins test dice --only churn --only shutdown --json",
        ),
        (
            "routes",
            "the paths that are served: methods, transports, by whom",
            "List every path of the server with its methods and transports, and whose it is.",
            "routes",
            "routes --json",
        ),
        (
            "config",
            "the effective config, with the origin of each value",
            "Print the config as the server understands it, defaults included, as YAML that it takes\n"
            "again. A comment tells where each value comes from. Secrets are shown as ***.",
            "config",
            "config --json",
        ),
    ):
        shown = command(name, about, description, *examples)
        # What stands before the name of a command below is not to be undone by its default.
        default = argparse.SUPPRESS if " " in name else False
        shown.add_argument(
            "--json", dest="as_json", action="store_true", default=default, help="print JSON, for a script"
        )
        if " " in name:
            shown.add_argument(
                "name", metavar="NAME", help="a plugin, a channel type, or a channel of the config"
            )
    _add_test(commands["plugins test"])

    command(
        "schema",
        "the JSON Schema of the config, for an editor",
        "Print the JSON Schema of the config with the settings of every installed plugin. A plugin\n"
        "that cannot be loaded is told on standard error and left out.",
        "schema > config.schema.json",
    )

    token = command(
        "token",
        "make a JWT for the config's key, or look into one",
        "Make a token that this server believes (auth.jwt in the config) and print it; or print what\n"
        "is in a TOKEN, whether it is valid, and why not, with the exit code 1 then.",
        "token --sub alice --ttl 1h",
        "token --sub backend --scope editor --publish 'rooms/*'",
        "token --sub alice --sign-with private.pem",
        "token eyJhbGciOiJIUzI1NiIs…",
    )
    token.add_argument(
        "given", metavar="TOKEN", nargs="?", help="the token to look into; -: standard input"
    )
    token.add_argument("--sub", metavar="NAME", help="who it is for")
    token.add_argument("--ttl", metavar="DURATION", type=arguments.ttl, default=3600.0, help="default: 1h")
    for option, metavar, what in (
        ("scope", "NAME", "a scope, for rules such as scope:NAME"),
        (
            "subscribe",
            "TOPIC",
            "a topic that may be read, of those that allow permits; rooms/*: all below rooms",
        ),
        ("publish", "TOPIC", "a topic that may be sent to, likewise"),
    ):
        what += "; may be repeated"
        token.add_argument(f"--{option}", action="append", default=[], metavar=metavar, help=what)
    token.add_argument(
        "--sign-with",
        metavar="FILE",
        type=Path,
        help="the private key (PEM), where the config has a public one",
    )

    init = command(
        "init",
        "write a commented config to begin with",
        "Write a config with every key in it, and its JSON Schema beside it, which many editors use\n"
        "to complete and check what is typed. A config that is there is left alone.",
        "init",
        "init rt.yaml",
        config=False,
    )
    init.add_argument("file", metavar="FILE", nargs="?", type=Path, help="default: config.yaml")
    init.add_argument("--force", action="store_true", help="replace the file if it is there")

    new_plugin = command(
        "new-plugin",
        "write the package of a new plugin, with a channel, tests and CI",
        "Write a directory realtime-NAME with a package that can be installed: a small channel type with\n"
        "settings, its tests, strict types, a config that runs it, a workflow for CI. Nothing that is\n"
        "there is overwritten.",
        "new-plugin live-poll",
        "new-plugin live-poll --directory .",
        config=False,
    )
    new_plugin.add_argument(
        "name", metavar="NAME", type=arguments.plugin, help="what a config calls it: live-poll"
    )
    new_plugin.add_argument(
        "--directory", metavar="DIR", type=Path, help="where to write it; default: realtime-NAME"
    )
    new_plugin.add_argument(
        "--force", action="store_true", help="although there is another plugin of this name"
    )

    connect = command(
        "connect",
        "connect to a channel: lines in, messages out",
        "Send the lines of standard input, print each message as 'Received: …'. The end of the input\n"
        "does not end it: Ctrl-C does, --count, or the server.",
        "connect ws://127.0.0.1:8080/ws",
        "connect ws://127.0.0.1:8080/chat --name alice",
        "connect http://127.0.0.1:8080/chat --since earliest --json",
        "connect http://127.0.0.1:8080/events --count 3",
        "connect ws://127.0.0.1:8080/chat -H 'Authorization: Bearer TOKEN'",
        config=False,
    )
    connect.add_argument("url", metavar="URL", help="ws:// or wss://, or http(s):// for server-sent events")
    connect.add_argument("--name", help="the name, in a chat: a first line to send, or ?name= of http://")
    connect.add_argument(
        "--since",
        type=arguments.since,
        metavar="ID|-N|earliest",
        help="begin after this message, with the newest N, or with all that is kept",
    )
    connect.add_argument("--count", type=arguments.count, metavar="N", help="stop after N messages")
    connect.add_argument(
        "--subprotocol",
        dest="subprotocols",
        action="append",
        default=[],
        metavar="NAME",
        help="offer this WebSocket subprotocol, such as realtime.v1.json; may be repeated",
    )
    connect.add_argument(
        "--json", dest="as_json", action="store_true", help="print each message as a line of JSON"
    )
    _add_request(connect)

    publish = command(
        "publish",
        "publish one message, or a line of standard input each",
        "Publish DATA, or without it each line of standard input, and print the ids.",
        "publish http://127.0.0.1:8080/chat 'hello all' --name alice",
        "publish http://127.0.0.1:8080/news --json '{\"goal\": 1}' --event score",
        "publish ws://127.0.0.1:8080/log < lines.txt",
        config=False,
    )
    publish.add_argument("url", metavar="URL", help="http(s):// for a POST each, or ws:// or wss://")
    publish.add_argument("data", metavar="DATA", nargs="?", help="the message")
    publish.add_argument("--event", default="message", help="the event; default: message")
    publish.add_argument("--name", help="the name, in a chat")
    publish.add_argument(
        "--json", dest="as_json", action="store_true", help="the data is JSON, and not text"
    )
    _add_request(publish)
    return parser, commands


def _add_test(parser: argparse.ArgumentParser) -> None:
    for option, kind, metavar, what in (
        ("set", arguments.pair, "KEY=VALUE", "a setting, as it would stand in the config"),
        ("say", str, "TEXT", "what a WebSocket client says before it is in"),
        ("query", arguments.pair, "NAME=VALUE", "a parameter of the URL of every client"),
        ("only", str, "CHECK", "make this check, and those that are always made"),
    ):
        numbered = "; {n} in it is the client's number" if option in ("say", "query") else ""
        parser.add_argument(
            f"--{option}",
            action="append",
            default=[],
            type=kind,
            metavar=metavar,
            help=f"{what}{numbered}; may be repeated",
        )
    parser.add_argument(
        "--message",
        metavar="TEXT",
        default="hello",
        help="what a client says; an object or a list as JSON, where that can be said; default: hello",
    )
    _add_headers(parser)


def _add_request(parser: argparse.ArgumentParser) -> None:
    _add_headers(parser)
    parser.add_argument("--cafile", metavar="FILE", help="trust the certificates in this file (PEM)")


def _add_headers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        action="append",
        default=[],
        type=arguments.header,
        metavar="'NAME: VALUE'",
        help="send this header; may be repeated",
    )


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
    next_one = arguments[at] if at < len(arguments) else ""
    is_option = next_one.startswith("-") and next_one not in ("-h", "--help", "--version")
    if at == len(arguments) or is_option:  # beyond it: -c lacks its file, which argparse says
        arguments.insert(at, "serve")
    return arguments
