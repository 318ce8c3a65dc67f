"""``python -m realtime plugins test``: runs the checks on one channel, and tells what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from realtime import logs, loops
from realtime.config import BUILT_IN, BusSettings, Config, parse
from realtime.conformance import AT_LAST, CHECKS, Checks
from realtime.errors import ConfigError, StartError, did_you_mean, printable
from realtime.exit_codes import ExitCode
from realtime.findings import Finding, Skipped, Trouble, gathered
from realtime.modules import Modules
from realtime.server import Server
from realtime.source import Source
from realtime.trial import DRAIN, Manners
from realtime.values import Address

#: How long the whole run may take, in seconds.
DEADLINE = 120.0
#: After so many warnings of the watchdog no more is tried.
MOST_HOLDS = 10
#: The name of a channel that the config does not have.
NOBODYS = "conformance"
#: What is always done, and done first.
STARTS = "it comes up within ten seconds, and /-/ready says so"


@dataclass
class Verdict:
    """What came of one check; ``reason`` is why it was skipped."""

    name: str
    expected: str
    did: str
    status: str = "ok"
    reason: str = ""
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class Report:
    """What is told of a run: a line for each check as soon as it is known, or JSON at the end."""

    def __init__(self, about: dict[str, Any], as_json: bool) -> None:
        self.about, self.as_json = about, as_json
        self.verdicts: list[Verdict] = []
        self._begun, self._out = time.monotonic(), sys.stdout  # where a plugin's print() does not go
        self._lock = threading.Lock()  # the end may be told by another thread
        if not as_json:
            print(
                "{channel}: plugin {plugin}, {path}, {config}".format(**about), flush=True, file=self._out
            )

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)

    def begin(self, name: str) -> None:
        """A check begins: people see that something goes on."""
        if sys.stderr and sys.stderr.isatty():
            print(f"{name} …", end="\r", file=sys.stderr, flush=True)

    def add(self, verdict: Verdict) -> None:
        """A check has ended."""
        self.verdicts.append(verdict)
        if self.as_json:
            return
        head = {"ok": "ok", "failed": "FAILED"}.get(verdict.status, verdict.status)
        self._say(f"{head:8} {verdict.name:12} {verdict.reason or verdict.expected}")
        told = [("did", verdict.did)] * bool(verdict.findings)
        told += [item for finding in verdict.findings for item in finding._asdict().items()]
        for label, text in told:
            for later, line in enumerate(text.splitlines()):
                self._say(f"    {'' if later else label + ':':10} {printable(line)}")

    def end(self) -> ExitCode:
        """The summary; returns how the command ends."""
        with self._lock:
            counts = {
                status: sum(verdict.status == status for verdict in self.verdicts)
                for status in ("ok", "failed", "skipped")
            }
            took, failed = time.monotonic() - self._begun, bool(counts["failed"])
            if self.as_json:
                checks = [
                    {**asdict(verdict), "findings": [one._asdict() for one in verdict.findings]}
                    for verdict in self.verdicts
                ]
                print(
                    json.dumps({"ok": not failed, **self.about, "checks": checks}, indent=2), file=self._out
                )
            else:
                told = ", ".join(f"{count} {status}" for status, count in counts.items())
                self._say(f"{told}; {took:.1f}s")
            return ExitCode.BAD_CONFIG if failed else ExitCode.OK


def run(
    file: Path | None,
    *,
    name: str,
    set: Sequence[tuple[str, str]],
    say: Sequence[str],
    query: Sequence[tuple[str, str]],
    message: str,
    headers: Sequence[tuple[str, str]],
    only: Sequence[str],
    as_json: bool,
) -> ExitCode:
    """Try a channel of the config, or a channel type. Returns 1 when a check fails."""
    known = ["starts", *CHECKS]
    if wrong := [check for check in only if check not in known]:
        near = did_you_mean(wrong[0], known)
        logs.say(f"{wrong[0]!r} is no check{near}", f"there are: {', '.join(known)}")
        return ExitCode.USAGE
    logs.configure("warning", "text")
    manners = Manners(say, query, message, dict(headers))
    channel, server = NOBODYS, None
    try:
        config, channel, beside = configured(file, name, set)
        server = Server(config)
        with asyncio.Runner(loop_factory=loops.factory(config.server.loop)) as runner:
            code = runner.run(_run(server, channel, beside, manners, only, as_json))
            if code is not None:
                return code
            # What does not end although it is cancelled would hold up the end of the loop, too.
            sys.stdout.flush()
            os._exit(ExitCode.BAD_CONFIG)
    except ConfigError as error:
        if channel == NOBODYS and server and server.assembly and server.plugins.offered(name) == []:
            how = "name a channel of a config that has it under plugins:"
            logs.say(f"{name} is no channel: {how} (python -m realtime plugins test CHANNEL -c FILE)")
            return ExitCode.BAD_CONFIG
        at = f"channels.{channel}"
        own = [problem.path for problem in error.problems if problem.path.startswith(at)]
        # What is wrong with what was asked for stands before what else is wrong with the config.
        for problem in sorted(error.problems, key=lambda one: one.path not in own):
            made_up = problem.source == "plugins test" and problem.path
            logs.say(f"{problem.path}: {problem.message}" if made_up else str(problem))
        if any(path != f"{at}.plugin" for path in own):
            logs.say(
                "a setting is given with --set KEY=VALUE; "
                f"`python -m realtime plugins show {name}` tells which there are"
            )
        return ExitCode.BAD_CONFIG


def configured(
    file: Path | None, name: str, settings: Sequence[tuple[str, str]]
) -> tuple[Config, str, list[str]]:
    """The config with one channel alone, listening on a free port; its name, and those of the others.

    It is the channel of this name, or the first of this type, or one that nobody has configured.
    """
    here = (file or Path("config.yaml")).absolute()
    source = Source(str(file) if file else "the built-in config", here)
    config = parse(source.read(file or BUILT_IN), source)
    of_type = [key for key, values in config.channels.items() if values.get("plugin") == name]
    channel = next(iter([name] if name in config.channels else of_type), NOBODYS)
    values = {"plugin": name, "path": f"/{NOBODYS}", **config.channels.get(channel, {})}
    values.pop("enabled", None)
    if isinstance(limits := values.get("limits"), dict):  # of those only max_message is the plugin's
        values["limits"] = {key: limits[key] for key in limits if key == "max_message"}
    for key, text in settings:
        *above, last = key.split(".")
        section = values
        for part in above:
            section[part] = dict(section.get(part) or {})
            section = section[part]
        try:
            section[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            section[last] = text
    if channel == NOBODYS:  # so that its keys have a place
        source = Source("plugins test", here, problems=source.problems)
        values = source.load(yaml.safe_dump({"channels": {channel: values}}))["channels"][channel]
    limits = {"inbound_rate": 10**6, "inbound_burst": 10**6, "connect_rate": 10**6, "connect_burst": 10**6}
    server = config.server.model_copy(
        update={
            "listen": [Address("127.0.0.1", 0)],
            "limits": config.server.limits.model_copy(update=limits | {"max_clients_per_user": None}),
            "drain": DRAIN,
            "watchdog": config.server.watchdog or 0.1,
            "hosts": [],
            "url": None,
            "tls": None,
        }
    )
    plugins, known = list(config.plugins), Modules(here.parent).found
    if not any(found.matches(str(values["plugin"])) for found in known):
        # A channel type of another name than its plugin's is known once another channel has named that.
        others = [str(other.get("plugin")) for other in config.channels.values()]
        plugins += [name for name in dict.fromkeys(others) if any(found.matches(name) for found in known)]
    return (
        replace(
            config,
            source=source,
            server=server,
            bus=BusSettings(),  # it is tried alone: others may share what an engine keeps
            plugins=plugins,
            plugin_settings=[*config.plugin_settings, *({} for _ in plugins[len(config.plugins) :])],
            channels={channel: values},
        ),
        channel,
        [other for other in config.channels if other != channel and not config.is_off(other)],
    )


async def _run(
    server: Server, name: str, beside: list[str], manners: Manners, only: Sequence[str], as_json: bool
) -> ExitCode | None:
    """Run the checks; None when something is left that does not end."""
    # A plugin that is being imported holds the event loop, so Ctrl-C interrupts it itself.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.redirect_stdout(sys.stderr):
        server.load()
    signal.signal(signal.SIGINT, ctrl_c)
    for other in beside:  # which are not here, but plugins may observe their topics, and publish to them
        server.bus.declare(other)
    checks = Checks(server, name, manners)
    found = server.channels[name].settings
    about = {
        "channel": name,
        "plugin": found.plugin,
        "path": found.path,
        "config": server.config.source.name,
    }
    report = Report(about, as_json)
    checks.tell = logs.say

    def hang(finding: Finding) -> None:
        _, did = checks.doing, CHECKS.get(checks.doing, ("it was started", None))[0]
        report.add(Verdict(checks.doing, "The event loop turns.", did, "failed", findings=[finding]))
        report.end()
        os._exit(ExitCode.BAD_CONFIG)

    over = checks.guard(hang)
    try:
        with checks.observed(), contextlib.redirect_stdout(sys.stderr):
            async with asyncio.timeout(DEADLINE):
                if await _started(checks, report):
                    await _checked(checks, report, only)
    except TimeoutError:
        finding = checks.stuck(f"the run had not ended within {DEADLINE:g}s")
        report.add(Verdict(checks.doing, "The run ends.", "all of it", "failed", findings=[finding]))
    finally:
        over.set()
        if server.ready:
            await server.stop()
    code = report.end()
    return None if checks.tasks() or checks.threads() else code


async def _started(checks: Checks, report: Report) -> bool:
    verdict, begun = Verdict("starts", STARTS, "the server was started"), time.monotonic()
    report.begin("starts")
    try:
        async with asyncio.timeout(10.0):
            await checks.server.start()
    except TimeoutError:
        verdict.findings.append(
            Finding("it had not started within 10s", "", "what is before the yield of lifespan() must end")
        )
    except (ConfigError, StartError) as error:
        verdict.findings.append(
            Finding(str(error), "", "what is before the yield of lifespan() must succeed")
        )
    verdict.status = "failed" if verdict.findings else "ok"
    verdict.seconds = round(time.monotonic() - begun, 3)
    report.add(verdict)
    return not verdict.findings


async def _checked(checks: Checks, report: Report, only: Sequence[str]) -> None:
    at_last, shut = set(AT_LAST), ""
    checks.watch_beside()
    for name, (did, method) in CHECKS.items():
        # What is looked at when all else is over is looked at in any case.
        wanted = name in only or not only or name in at_last or set(only) <= at_last
        if not wanted:
            if name == "shutdown":
                await checks.stop()
            continue
        checks.doing, checks.findings = name, []
        expected = (method.__doc__ or "").partition("\n")[0]
        verdict, begun = Verdict(name, expected, did), time.monotonic()
        report.begin(name)
        try:
            if len([record for record in checks.log if record.name == "realtime.watchdog"]) > MOST_HOLDS:
                shut = "the plugin holds the event loop again and again: see blocking"
            if shut and name not in at_last:
                raise Skipped(shut)
            await method(checks)
        except Skipped as skipped:
            verdict.status, verdict.reason = "skipped", str(skipped)
        except Trouble as trouble:
            checks.findings.append(trouble.finding)
            if name == "welcome":
                shut = "no client gets in: see welcome"
        except OSError as error:
            checks.fail(f"the server could not be reached: {error}")
        try:
            if name not in at_last:
                await checks.calm()
        except Trouble as trouble:
            checks.findings.append(trouble.finding)
        verdict.findings = gathered(checks.findings)
        checks.told |= {finding.place for finding in verdict.findings if finding.place}
        if verdict.findings:
            verdict.status = "failed"
        verdict.seconds = round(time.monotonic() - begun, 3)
        if not (set(only) <= at_last and only and name not in only):
            report.add(verdict)
