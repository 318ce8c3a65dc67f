"""Measure Realtime side by side with its peers: one command that sets up, runs, prints, draws and writes.

    python benchmarks/run.py

It needs Linux, gcc and two cores; node and cargo bring two more peers. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import contenders
import report
from contenders import CONFIG, HERE, Contender, Missing, tell
from measuring import Cores, Lost, Measure, calm, many_files, measure
from workloads import WORKLOADS, Workload, value

EXAMPLES = """\
examples:
  python benchmarks/run.py                          the whole table: about half an hour
  python benchmarks/run.py --quick                  a few minutes, and figures to match
  python benchmarks/run.py --workload busy --peer floor --peer websockets --pairs 7
  python benchmarks/run.py --server ~/py313/bin/python --env PYTHONOPTIMIZE=1
  python benchmarks/run.py --against ~/py313/bin/python --workload echo
  python benchmarks/run.py --against PYTHONOPTIMIZE=1 --against 'other.yaml PYTHONOPTIMIZE=1'

workloads:
{workloads}

peers:
  {peers}

Exit codes: 0, 1 when Realtime or the floor lost a text or could not run, 2 usage, 130 Ctrl-C.
"""


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    usual = {True: "", False: " Only when it is named."}
    workloads = "\n".join(f"  {one.name:<12} {one.says}{usual[one.usual]}" for one in WORKLOADS)
    parser = argparse.ArgumentParser(
        prog="python benchmarks/run.py",
        description="Measure Realtime side by side with its peers.",
        epilog=EXAMPLES.format(workloads=workloads, peers=", ".join(contenders.ALL)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = [one.name for one in WORKLOADS]
    add("--workload", action="append", choices=names, metavar="NAME", help="this one; may be repeated")
    add(
        "--peer",
        action="append",
        choices=list(contenders.ALL),
        metavar="NAME",
        help="compare with this one; may be repeated",
    )
    add(
        "--config",
        type=Path,
        default=CONFIG,
        metavar="FILE",
        help="its config (default: the one beside this)",
    )
    add("--no-plots", action="store_true", help="draw nothing")
    return common(parser, arguments)


def common(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with the options that all have who measure Realtime beside others."""
    add = parser.add_argument
    add(
        "--against",
        action="append",
        default=[],
        metavar="WORDS",
        help="compare with another Realtime, by what is other with it: a python, a config (*.yaml),"
        " NAME=VALUE; may be repeated. Peers are then those that are named",
    )
    add("--pairs", type=int, metavar="N", help="how often each is measured (default: 5, quick: 1)")
    add("--quick", action="store_true", help="shorter runs, smaller crowds, one pair")
    add(
        "--calm",
        action="store_true",
        help="begin no run before others leave the machine alone, and do one again that they disturbed",
    )
    add(
        "--server",
        default=sys.executable,
        metavar="PYTHON",
        help="what runs Realtime (default: this python)",
    )
    add(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the environment of Realtime; may be repeated",
    )
    add("--write-readme", action="store_true", help="put the table into benchmarks/README.md, too")
    add("--out", type=Path, default=HERE, metavar="DIR", help="where the results go")
    add("--work", type=Path, default=HERE / ".bench", metavar="DIR", help="where peers are built and kept")
    found = parser.parse_args(arguments)
    if found.pairs is None:
        found.pairs = 1 if found.quick else 5
    if found.pairs < 1:
        parser.error("--pairs: at least one")
    wrong = [word for word in found.env if "=" not in word]
    if wrong:
        parser.error(f"--env: NAME=VALUE, not {wrong[0]}")
    found.work, found.out = found.work.resolve(), found.out.resolve()
    found.work.mkdir(parents=True, exist_ok=True)
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def schedule(workload: Workload, names: Sequence[str], pairs: int) -> list[list[str]]:
    """Who runs when, in groups; Realtime is the first of the names.

    In a group of three a run of Realtime stands between those of two others, and is compared with
    both. From round to round the others change places, and the order is turned round. Where each is
    compared with itself Realtime runs once in a round, and the others in every second.
    """
    ours, *others = (name for name in names if name not in workload.left_out)
    if workload.alone:
        half = max(pairs // 2, 1)
        return [[name] for at in range(pairs) for name in (ours, *(others if at < half else []))]
    groups = []
    for number in range(pairs):
        shift = number % len(others) if others else 0
        order = others[shift:] + others[:shift]
        for at in range(0, max(len(order), 1), 2):
            group = [*order[at : at + 1], ours, *order[at + 1 : at + 2]]
            groups.append(group if number % 2 == 0 else group[::-1])
    return groups


class Progress:
    """Says on stderr how far it is."""

    def __init__(self, runs: int) -> None:
        self._runs, self._done, self._began = runs, 0, time.monotonic()

    def __call__(self, workload: Workload, name: str, text: str) -> None:
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._runs - self._done)
        tell(f"[{self._done}/{self._runs}] {workload.name} {name}: {text}; {left / 60:.0f} min left")


def run_workload(
    workload: Workload, all_: Sequence[Contender], pairs: int, measure_one: Measure, progress: Progress
) -> dict[str, Any]:
    """Measure a workload with all that can do it, the first of them Realtime."""
    ours = all_[0].name
    by_name = {one.name: one for one in all_}
    left_out = {name: why for name, why in workload.left_out.items() if name in by_name}
    others = [name for name in by_name if name not in left_out and name != ours]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in [ours, *others]}
    compared: list[tuple[str, int, int]] = []
    for group in schedule(workload, list(by_name), pairs):
        done: dict[str, int] = {}
        for name in group:
            if name in left_out:
                continue
            try:
                said = measure_one(by_name[name], workload)
            except (Lost, Missing) as error:
                left_out[name] = str(error)
                progress(workload, name, f"left out: {error}")
                continue
            main = workload.tables[0].figures[0]
            progress(workload, name, f"{report.written(value(said, main.key), main.unit)} {main.title}")
            done[name] = len(runs[name])
            runs[name].append(said)
        compared += [(name, done[ours], done[name]) for name in done if name != ours and ours in done]
    for name in left_out:
        runs.pop(name, None)
    compared = [pair for pair in compared if pair[0] in runs and ours in runs]
    return {"servers": runs, "pairs": compared, "left_out": left_out}


def set_up(options: argparse.Namespace) -> tuple[list[Contender], dict[str, str]]:
    """Realtime, its variants and its peers, and who is not there and why."""
    variables = dict(word.split("=", 1) for word in options.env)
    found = [contenders.realtime(options.server, variables, options.config.resolve())]
    for words in options.against:
        found.append(contenders.variant(words, options.server, variables, options.config.resolve()))
    missing: dict[str, str] = {}
    peers = options.peer or ([] if options.against else contenders.USUAL)
    for name in dict.fromkeys(peers):
        try:
            found.append(contenders.ALL[name](options.work))
        except Missing as error:
            missing[name] = str(error)
            tell(f"{name} is left out: {error}")
    return found, missing


def without_places(arguments: Sequence[str]) -> list[str]:
    """The arguments without what is only about this machine: where to build, and where to write."""
    kept = list(arguments)
    for option in ("--work", "--out"):
        while option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return kept


def draw(results: Path, plots: Path, work: Path) -> None:
    """Draw the plots, with the matplotlib of the peers' environment."""
    python, _ = contenders.installed(work, "matplotlib")
    plots.mkdir(parents=True, exist_ok=True)
    contenders.run(python, HERE / "plot.py", results, plots)
    tell(f"the plots are in {plots}")


def run_all(
    options: argparse.Namespace,
    command: Sequence[str],
    chosen: Sequence[Workload],
    servers: Sequence[Contender],
    missing: Mapping[str, str],
    measure_one: Measure,
    file: Path,
    place: str = report.PLACE,
) -> int:
    """Measure all of them, write and print what came out; gives the exit code."""
    many_files()
    rtload = contenders.compiled(options.work, HERE / "rtload.c")
    measure_one = functools.partial(measure_one, quick=options.quick, rtload=rtload, work=options.work)
    if options.calm:
        measure_one = calm(measure_one)
    names = [one.name for one in servers]
    groups = [group for one in chosen for group in schedule(one, names, options.pairs)]
    progress = Progress(sum(map(len, groups)))
    results: dict[str, Any] = {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(without_places(command)),
        "quick": options.quick,
        "pairs": options.pairs,
        "machine": report.machine(),
        "titles": {one.name: one.title for one in servers},
        "versions": {one.name: one.made_of() for one in servers},
        "missing": missing,
        "config": contenders.whole_config(servers[0]),
        "workloads": {},
    }
    for workload in chosen:
        measured = run_workload(workload, servers, options.pairs, measure_one, progress)
        load = " ".join([workload.mode, *workload.arguments(options.quick, servers[0].streams)])
        results["workloads"][workload.name] = {"load": load, **measured}
        file.write_text(json.dumps(results, indent=1) + "\n")
    text = report.report(results, chosen)
    print(text)
    if options.write_readme:
        report.write_into(HERE / "README.md", text, place)
    tell(f"the results are in {file}")
    must = ("realtime", "one", "memory", "floor", *options.against)
    broken = [
        f"{one.name} {name}: {why}"
        for one in chosen
        for name, why in results["workloads"][one.name]["left_out"].items()
        if name in must
    ]
    for text in broken:
        tell(f"this must not be: {text}")
    return 1 if broken else 0


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    measure_one = functools.partial(measure, cores=Cores.chosen())
    servers, missing = set_up(options)
    chosen = [one for one in WORKLOADS if (one.name in options.workload if options.workload else one.usual)]
    file = options.out / "results.json"
    command = ["benchmarks/run.py", *arguments]
    code = run_all(options, command, chosen, servers, missing, measure_one, file)
    if not options.no_plots:
        draw(file, options.out / "plots", options.work)
    return code


def terminated(*_: object) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    raise KeyboardInterrupt


def ended(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command, and exit with its code."""
    signal.signal(signal.SIGTERM, terminated)
    try:
        sys.exit(main(sys.argv[1:]))
    except Missing as error:
        tell(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        tell("stopped; no server is left running")
        sys.exit(130)


if __name__ == "__main__":
    ended(main)
