"""Measure what it costs to span processes: from a publish in one process to the delivery in another.

    python benchmarks/across.py

It needs Linux, two cores, gcc and redis-server. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import contenders
import run
from contenders import HERE, PEERS, Contender, Missing, tell
from measuring import Cores, driven, measure, serving
from workloads import Figure, Table, Workload

CONFIG = HERE / "across.yaml"
#: What is added to the config where the processes are joined by Redis.
BUS = '\nbus: {engine: redis, url: "${REDIS:-redis://127.0.0.1:6379/0}"}\n'
#: Between which comments of the README the table is.
PLACE = "the table across processes"
EXAMPLES = """\
examples:
  python benchmarks/across.py                       the whole table: a quarter of an hour
  python benchmarks/across.py --quick               two minutes, and figures to match
  python benchmarks/across.py --with socketio       beside python-socketio only
  python benchmarks/across.py --against PYTHONPATH=../other-checkout

Exit codes: 0, 1 when Realtime lost a text or could not run, 2 usage, 130 Ctrl-C.
"""


def tables(title: str) -> tuple[Table, ...]:
    """What is told of a workload: the time at a fixed rate, and what goes at most."""
    steady = (
        Figure("steady.other_p50_ms", "p50, other process", "ms"),
        Figure("steady.other_p99_ms", "p99, other process", "ms"),
        Figure("steady.p50_ms", "p50, same process", "ms"),
        Figure("steady.p99_ms", "p99, same process", "ms"),
        Figure("steady.here", "CPU of the first", "share"),
        Figure("steady.there", "of the other", "share"),
        Figure("steady.redis", "of Redis", "share"),
        Figure("steady.client", "of the load client", "share"),
    )
    most = (
        Figure("during.per_cpu_s", "deliveries per CPU second"),
        Figure("during.per_s", "deliveries per second"),
        Figure("during.texts_per_s", "texts per second"),
        Figure("during.other_p50_ms", "p50, other process", "ms"),
        Figure("during.other_p99_ms", "p99, other process", "ms"),
        Figure("during.here", "CPU of the first", "share"),
        Figure("during.there", "of the other", "share"),
        Figure("during.redis", "of Redis", "share"),
        Figure("during.client", "of the load client", "share"),
        Figure("rss_mib", "resident", "mib"),
    )
    return (
        Table(f"{title}: the time until it is there", steady, less_is_better=True),
        Table(f"{title}: as many as go", most),
    )


OPTIONS = {"size": 128, "cpu": 3, "secs": 6, "warm": 0.5, "window": 256}
QUICK = {"cpu": 0.5, "secs": 1, "warm": 0.1}
WORKLOADS = (
    Workload(
        "room",
        "A room of 200, 100 of them at each process. 50 of those at the first talk, 128 bytes a text: 100"
        " texts a second, and then 256 on their way.",
        "across",
        "/room",
        {**OPTIONS, "conns": 200, "talkers": 50, "rate": 100},
        QUICK,
        tables("A room across processes"),
    ),
    Workload(
        "few",
        "The same with 20 clients, 10 at each process, and 200 texts a second: about what a publish costs.",
        "across",
        "/room",
        {**OPTIONS, "conns": 20, "talkers": 10, "rate": 200},
        QUICK,
        tables("A few across processes"),
    ),
)


@dataclass(frozen=True)
class Several(Contender):
    """A server of which there are one or more processes, with or without Redis between them."""

    processes: int = 2
    #: The Redis that joins them; None where there is none.
    redis: Contender | None = None
    #: The path of its room, where that is another one, and options for the load client.
    path: str = ""
    options: Mapping[str, int] = field(default_factory=dict)


def of(contender: Contender, **options: Any) -> Several:
    """A contender as one that may have several processes."""
    redis = options.get("redis")
    versions = {**contender.versions, **(redis.versions if redis else {})}
    return Several(**{**vars(contender), "versions": versions, **options})


def redis(work: Path) -> Contender:
    """A Redis that keeps nothing on a disk."""
    program = contenders.need("redis-server", "apt-get install redis-server")
    said = contenders.run(program, "--version")
    version = said.partition("v=")[2].partition(" ")[0]
    quiet = ("--save", "", "--appendonly", "no", "--dir", str(work), "--loglevel", "warning")
    command = [program, "--bind", "127.0.0.1", "--port", "{port}", *quiet]
    return Contender("redis", "Redis", command, {"Redis": version})


def load(
    contender: Contender, workload: Workload, quick: bool, rtload: Path, cores: Cores, work: Path
) -> dict[str, Any]:
    """Start Redis and the servers, and put the load on them.

    The first process has a core, and the second the other one; Redis and the load client go where there is
    room.
    """
    assert isinstance(contender, Several)
    both = {cores.server, cores.load}
    options = dict(contender.options)
    with ExitStack() as stack:
        if contender.redis:
            port, options["redis"] = stack.enter_context(serving(contender.redis, both, work / "redis.log"))
            url = f"redis://127.0.0.1:{port}/0"
            command = [part.replace("{redis}", url) for part in contender.command]
            environment = {**contender.environment, "REDIS": url}
            contender = replace(contender, command=command, environment=environment)
        servers = [
            stack.enter_context(serving(contender, {core}, work / f"server{core}.log"))
            for core in (cores.server, cores.load)[: contender.processes]
        ]
        (first, pid), (options["second"], also) = servers[0], servers[-1]
        options["pid"] = pid
        if also != pid:
            options["also"] = also
        where = (str(rtload), workload.mode, "127.0.0.1", str(first), contender.path or workload.path)
        added = (f"{name}={value}" for name, value in options.items())
        return driven([*where, *workload.arguments(quick, ""), *added], both, work)


def set_up(options: argparse.Namespace) -> tuple[list[Contender], dict[str, str]]:
    """Realtime on two processes, and what it is compared with; and who is not there and why."""
    joined = redis(options.work)
    config = options.work / "across-redis.yaml"
    config.write_text(CONFIG.read_text() + BUS)
    variables = dict(word.split("=", 1) for word in options.env)
    python = options.server
    found: list[Contender] = [
        of(contenders.realtime(python, variables, config, title="Realtime, two processes"), redis=joined)
    ]
    for words in options.against:
        found.append(of(contenders.variant(words, python, variables, config), redis=joined))
    missing: dict[str, str] = {}
    for name in options.with_ or ([] if options.against else OTHERS):
        try:
            if name == "one":
                one = contenders.realtime(python, variables, config, name, "Realtime, one, with Redis")
                found.append(of(one, redis=joined, processes=1))
            elif name == "memory":
                one = contenders.realtime(python, variables, CONFIG, name, "Realtime, one, memory")
                found.append(of(one, processes=1))
            else:
                found.append(socketio(options.work, name, joined))
        except Missing as error:
            missing[name] = str(error)
            tell(f"{name} is left out: {error}")
    return found, missing


def socketio(work: Path, name: str, joined: Contender) -> Several:
    """python-socketio: two processes with its Redis manager, or one."""
    packages = ("python-socketio", "python-engineio", "redis", "hiredis", "aiohttp", "uvloop")
    python, versions = contenders.installed(work, *packages)
    command = [str(python), str(PEERS / "on_socketio.py"), "{port}"]
    path, speaks = "/socket.io/?EIO=4&transport=websocket", {"socketio": 1}
    if name == "socketio":
        title = "python-socketio, two processes"
        command += ["{redis}"]
        return Several(name, title, command, versions, redis=joined, path=path, options=speaks)
    title = "python-socketio, one, memory"
    return Several(name, title, command, versions, processes=1, path=path, options=speaks)


#: What Realtime on two processes is compared with.
OTHERS = ("one", "memory", "socketio", "socketio-memory")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/across.py",
        description="Measure Realtime on two processes with Redis, and what that costs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [one.name for one in WORKLOADS]
    parser.add_argument("--workload", action="append", choices=names, help="this one; may be repeated")
    parser.add_argument(
        "--with",
        dest="with_",
        action="append",
        choices=OTHERS,
        help="compare with this one: Realtime on one process with Redis or with its memory, python-socketio"
        " on two or on one; may be repeated",
    )
    return run.common(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    measure_one = functools.partial(measure, cores=Cores.chosen(), load=load)
    servers, missing = set_up(options)
    chosen = [one for one in WORKLOADS if not options.workload or one.name in options.workload]
    command, file = ["benchmarks/across.py", *arguments], options.out / "across.json"
    return run.run_all(options, command, chosen, servers, missing, measure_one, file, PLACE)


if __name__ == "__main__":
    run.ended(main)
