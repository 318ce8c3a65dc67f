"""What was measured, as a person reads it: tables in Markdown, and what they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contenders import OURS
from measuring import DISTURBED
from workloads import WORKLOADS, Figure, Table, Workload, at_its_limit, value

#: Between which comments of the README the table is.
PLACE = "the last table"


def machine() -> dict[str, str]:
    """What this machine is."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": model,
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def written(number: float, unit: str) -> str:
    """A number with three digits that count."""
    if unit == "share":
        return f"{number:.2f}"
    suffix = {"count": "", "ms": " ms", "kib": " KiB", "mib": " MiB"}[unit]
    if unit == "count":
        for size, letter in ((1e6, " M"), (1e3, " k")):
            if number >= size:
                number, suffix = number / size, letter
                break
        else:
            return f"{number:.0f}"
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f}{suffix}"


def ratio(ratios: Sequence[float]) -> str:
    """The median of some ratios and their range."""
    if not ratios:
        return ""

    def short(number: float) -> str:
        return f"{number:.0f}" if number >= 20 else f"{number:.1f}" if number >= 5 else f"{number:.2f}"

    median = f"**{short(statistics.median(ratios))}**"
    return median if len(ratios) == 1 else f"{median} ({short(min(ratios))} to {short(max(ratios))})"


def median(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median of a figure over the runs."""
    return statistics.median(value(said, key) for said in runs)


def ratios(measured: Mapping[str, Any], name: str, key: str) -> list[float]:
    """Realtime's figure divided by another's, for each pair of runs that stand side by side."""
    ours, theirs = measured["servers"].get(OURS, []), measured["servers"][name]
    pairs = [(a, b) for other, a, b in measured["pairs"] if other == name]
    return [value(ours[a], key) / value(theirs[b], key) for a, b in pairs]


def rows(table: Table, measured: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[list[str]]:
    """The cells of a table, the titles first."""
    main, *rest = table.figures
    compared = bool(measured["pairs"])
    yield ["", main.title, *(["Realtime ÷ it"] if compared else []), *(figure.title for figure in rest)]
    for name, runs in measured["servers"].items():
        if not runs:
            continue

        def cell(figure: Figure, runs: Sequence[Mapping[str, Any]] = runs) -> str:
            return written(median(runs, figure.key), figure.unit)

        between = [ratio(ratios(measured, name, main.key))] if compared else []
        yield [titles[name], cell(main), *between, *map(cell, rest)]


def markdown(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table with its columns in line."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        aligned = [row[0].ljust(widths[0])]
        aligned += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f"| {' | '.join(aligned)} |"
        if number == 0:
            right = (f"{'-' * (width + 1)}:" for width in widths[1:])
            yield f"|{'-' * (widths[0] + 2)}|{'|'.join(right)}|"


def section(workload: Workload, measured: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """The tables of a workload."""
    for table in workload.tables:
        yield f"### {table.title}"
        yield ""
        less = "Less is better. " if table.less_is_better else ""
        yield f"{workload.says} {less}`rtload {measured['load']}`"
        yield ""
        yield from markdown(list(rows(table, measured, titles)))
        yield ""
    limited = [titles[name] for name, runs in measured["servers"].items() if any(map(at_its_limit, runs))]
    if limited:
        yield (
            f"The load client was at its limit with {', '.join(limited)}: what is said of a second, and not"
            " of a CPU second, is a lower bound there."
        )
        yield ""
    yield from left_out({titles[name]: reason for name, reason in measured["left_out"].items()})


def left_out(reasons: Mapping[str, str]) -> Iterator[str]:
    """Who is not there and why, those together who have one reason."""
    for reason in dict.fromkeys(reasons.values()):
        who = ", ".join(name for name in reasons if reasons[name] == reason)
        yield f"Left out, {who}: {' '.join(reason.split())}."
        yield ""


def disturbance(results: Mapping[str, Any]) -> str:
    """How much of the machine others took meanwhile."""
    shares = [
        said["others"]
        for measured in results["workloads"].values()
        for runs in measured["servers"].values()
        for said in runs
    ]
    if not shares:
        return ""
    disturbed = sum(share > DISTURBED for share in shares)
    taken = statistics.median(shares)
    crowded = ""
    if taken > DISTURBED:
        what = "times, and what is said of a second and not of a CPU second"
        crowded = f" **So {what}, are of a crowded machine.**"
    return (
        f"{len(shares)} runs. Others took {taken:.0%} of the two cores (the median),"
        f" and more than {DISTURBED:.0%} in {disturbed} runs.{crowded}"
    )


def report(results: Mapping[str, Any], workloads: Sequence[Workload] = WORKLOADS) -> str:
    """All that was measured, with what it was measured on, what with, and how Realtime was set up."""
    titles = results["titles"]
    by_name = {workload.name: workload for workload in workloads}
    lines = [
        f"`{results['command']}`, {results['when']}, on {', '.join(results['machine'].values())}."
        f" {disturbance(results)}",
        "",
    ]
    if results["quick"]:
        lines += ["**This was quick: shorter and smaller than it is meant to be.**", ""]
    for name, measured in results["workloads"].items():
        lines += section(by_name[name], measured, titles)
    lines += left_out(results["missing"])
    lines += ["", "### Versions", ""]
    for name, versions in results["versions"].items():
        said = ", ".join(f"{what} {version}" for what, version in versions.items())
        lines += [f"- {titles[name]}: {said}"]
    lines += ["", "### The config of Realtime", "", "```yaml", results["config"].rstrip(), "```", ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def write_into(page: Path, text: str, place: str = PLACE) -> None:
    """Put a report where the page has its place for one, between two comments of that name."""
    source = page.read_text()
    before, begin, rest = source.partition(f"<!-- {place} -->")
    _, end, after = rest.partition(f"<!-- the end of {place} -->")
    if not begin or not end:
        raise ValueError(f"{page} has no place for a table: <!-- {place} --> … <!-- the end of {place} -->")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
