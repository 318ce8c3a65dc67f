"""Draw the results: ``plot.py results.json DIRECTORY``, one picture for each table.

It runs in the environment of the peers, which has matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same results give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "realtime", "svg.fonttype": "none", "font.size": 10})

import matplotlib.pyplot as plt  # noqa: E402
from report import median, written  # noqa: E402
from workloads import WORKLOADS, value  # noqa: E402

OURS, THEIRS, FLOOR = "#1f6f8b", "#b8c4cc", "#5c6b73"


def main(results: Path, directory: Path) -> None:
    said = json.loads(results.read_text())
    for workload in WORKLOADS:
        measured = said["workloads"].get(workload.name)
        if measured is None or not measured["servers"]:
            continue
        for table in workload.tables:
            figure = table.figures[0]
            # The best on top.
            names = sorted(
                measured["servers"],
                key=lambda name: median(measured["servers"][name], figure.key),
                reverse=table.less_is_better,
            )
            heights = [median(measured["servers"][name], figure.key) for name in names]
            runs = [[value(run, figure.key) for run in measured["servers"][name]] for name in names]
            spread = [
                [height - min(each) for height, each in zip(heights, runs, strict=True)],
                [max(each) - height for height, each in zip(heights, runs, strict=True)],
            ]
            fig, axes = plt.subplots(figsize=(7, 0.7 + 0.36 * len(names)), layout="constrained")
            colours = [
                OURS if name == "realtime" else FLOOR if name == "floor" else THEIRS for name in names
            ]
            titles = [said["titles"][name] for name in names]
            bars = axes.barh(titles, heights, xerr=spread, color=colours, ecolor="#333333", capsize=2)
            axes.bar_label(bars, [written(height, figure.unit) for height in heights], padding=6)
            axes.margins(x=0.18)
            axes.xaxis.set_visible(False)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
            better = "" if workload.alone else f", {'less' if table.less_is_better else 'more'} is better"
            fig.suptitle(f"{table.title}: {figure.title}{better}", x=0.01, ha="left", fontsize=11)
            name = table.title.lower().replace(",", "").replace(" ", "-")
            fig.savefig(directory / f"{name}.svg", metadata={"Date": None})
            plt.close(fig)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
