"""The proxies that the docs put in front of the server, each with a site of a test's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import needs
from tree import ROOT
from wire import soon

HOW_TO = ROOT / "docs" / "how-to"


@asynccontextmanager
async def proxy(port: int, directory: Path, *command: str) -> AsyncIterator[int]:
    """A proxy that runs in the foreground, from the moment on that it listens."""
    with (directory / "proxy.log").open("w") as said:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=said,
            stderr=said,
            env={**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)},
        )
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.returncode is None, (directory / "proxy.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0)
                else:
                    writer.close()
                    break
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await soon(process.wait())


@asynccontextmanager
async def nginx(directory: Path, site: str, port: int) -> AsyncIterator[int]:
    """nginx with a site, in a directory of its own."""
    (directory / "nginx").mkdir()
    (directory / "nginx" / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""  # the directories of tests are for nobody else
    paths = "".join(
        f"{kind}_temp_path {directory}/nginx/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx" / "nginx.conf").write_text(
        f"daemon off;\n{user}\npid {directory}/nginx/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\ninclude site.conf;\n}}\n"
    )
    command = [needs.nginx(), "-p", f"{directory}/nginx", "-c", f"{directory}/nginx/nginx.conf"]
    async with proxy(port, directory, *command, "-e", "stderr") as listening:
        yield listening


def of_the_docs(directory: Path, port: int) -> str:
    """The site of the docs without TLS, in front of ``s.sock``."""
    lines = (HOW_TO / "nginx.conf").read_text().replace("443 ssl http2", f"127.0.0.1:{port}").splitlines()
    kept = (line for line in lines if "ssl" not in line and "[::]" not in line)
    return "\n".join(kept).replace("/run/realtime/realtime.sock", f"{directory}/s.sock")


def of_two(directory: Path, port: int) -> str:
    """The same in front of two processes, ``1.sock`` and ``2.sock``, as the docs have them."""
    text, upstream = of_the_docs(directory, port), (HOW_TO / "nginx-two.conf").read_text()
    for number in "12":
        assert upstream.count(f"unix:/run/realtime-{number}/realtime.sock ") == 1
        upstream = upstream.replace(f"/run/realtime-{number}/realtime.sock", f"{directory}/{number}.sock")
    one = f"http://unix:{directory}/s.sock:"
    assert text.count(one) == 1
    return upstream + text.replace(one, "http://realtime")
