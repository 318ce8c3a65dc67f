"""One run: a server on one core, the load client on another, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import HERE, Contender, Missing
from workloads import Workload

#: How long a server may take until it listens, and a run of the load client, in seconds.
START, RUN = 30.0, 180.0
#: From which share of the two cores on others are said to have disturbed.
DISTURBED = 0.1
#: How long to wait for a machine that does nothing else, in seconds, and how often to do a run again.
CALM_WITHIN, ATTEMPTS = 300.0, 3


class Lost(Exception):
    """The load client says that something did not arrive, or the server ended."""


@dataclass(frozen=True)
class Cores:
    """Where the server runs, and where the load."""

    server: int
    load: int

    @classmethod
    def chosen(cls) -> Cores:
        """The first two that this process may use."""
        if not hasattr(os, "sched_getaffinity"):
            raise Missing("the benchmarks need Linux")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Missing("the benchmarks need two cores, one for the server and one for the load")
        return cls(cores[0], cores[1])


def many_files() -> None:
    """Let this process and its children open as many files as ten thousand clients need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def child(
    command: Sequence[str], cores: Collection[int], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process on these cores, in a group of its own, which is killed with all that it started.

    What it says goes into a file, ``log`` with the ending ``.out``, and its errors into ``log``.
    """
    with log.open("w") as errors, log.with_suffix(".out").open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    try:
        yield process
    finally:
        # There is nothing to lose; a room of a thousand that is left in order takes seconds.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_lines(log: Path) -> str:
    """The end of what a process wrote."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-5:])


@contextmanager
def serving(contender: Contender, cores: Collection[int], log: Path) -> Iterator[tuple[int, int]]:
    """A server that listens; gives its port and the id of its process."""
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in contender.command]
    with child(command, cores, log, contender.environment) as process:
        until = time.monotonic() + START
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=START):
                break
            if process.poll() is not None:
                raise Lost(f"the server ended before it listened:\n{last_lines(log)}")
            if time.monotonic() > until:
                raise Lost(f"the server does not listen after {START:g} s:\n{last_lines(log)}")
            time.sleep(0.02)
        yield port, process.pid
        if process.poll() is not None:
            raise Lost(f"the server ended:\n{last_lines(log)}")


def busy(cores: Cores) -> float:
    """How long the two cores have worked for anybody, stolen time included, in seconds."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in (f"cpu{cores.server}", f"cpu{cores.load}"):
            user, nice, system, _, _, irq, softirq, steal = map(int, times[:8])
            total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def own() -> float:
    """How long this process and its children that have ended have worked, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def driven(command: Sequence[str], cores: Collection[int], work: Path) -> dict[str, Any]:
    """What the load client says in the end."""
    log = work / "load.log"
    with child(command, cores, log, {}) as process:
        try:
            process.wait(RUN)
        except subprocess.TimeoutExpired:
            raise Lost(f"it has not come to an end in {RUN:g} s") from None
        if process.returncode == 0:
            found: dict[str, Any] = json.loads(log.with_suffix(".out").read_text())
            return found
        why = last_lines(log) or f"the load client ended with {process.returncode}"
    raise (Lost if process.returncode == 1 else Missing)(why.removeprefix("rtload: "))


def load(
    contender: Contender, workload: Workload, quick: bool, rtload: Path, cores: Cores, work: Path
) -> dict[str, Any]:
    """Start the server and put the load on it."""
    with serving(contender, {cores.server}, work / "server.log") as (port, pid):
        where = (str(rtload), workload.mode, "127.0.0.1", str(port), workload.path)
        options = workload.arguments(quick, contender.streams)
        return driven([*where, *options, f"pid={pid}"], {cores.load}, work)


def measure(
    contender: Contender,
    workload: Workload,
    quick: bool,
    rtload: Path,
    cores: Cores,
    work: Path,
    load: Callable[[Contender, Workload, bool, Path, Cores, Path], dict[str, Any]] = load,
) -> dict[str, Any]:
    """What the load client says of one run; ``others`` is the share of the cores that others took."""
    before, began = busy(cores) - own(), time.monotonic()
    said = load(contender, workload, quick, rtload, cores, work)
    others = (busy(cores) - own() - before) / (time.monotonic() - began) / 2
    return {**said, "others": round(max(others, 0.0), 3)}


#: What measures: :func:`measure`, with some of the arguments behind the first two given.
Measure = Callable[..., dict[str, Any]]


def calm(measure_one: Measure) -> Measure:
    """The same, when others leave the machine alone; and again when they did not meanwhile, a few times."""
    cores = Cores.chosen()

    def measured(*arguments: Any, **options: Any) -> dict[str, Any]:
        for _ in range(ATTEMPTS):
            until = time.monotonic() + CALM_WITHIN
            while time.monotonic() < until:
                before = busy(cores)
                time.sleep(1)
                if busy(cores) - before < 2 * DISTURBED:
                    break
            said = measure_one(*arguments, **options)
            if said["others"] < DISTURBED:
                break
        return said

    return measured
