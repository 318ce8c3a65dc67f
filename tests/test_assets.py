"""What web pages take from the server: how it is served, how large it is, and that its types are right."""

from __future__ import annotations

import asyncio
import gzip
import re
import subprocess
from pathlib import Path

import needs
import pytest
from conftest import SERVER, Serve
from test_docs import rows, words_in
from tree import PACKAGE, checkout
from wire import Head, Wire, dial, request

from realtime.config import parse
from realtime.source import Source

WEB = PACKAGE / "web"
CONFIG = "channels: {lobby: {plugin: chat, path: /chat}}"
GZIP = (("Accept-Encoding", "gzip"),)


async def got(wire: Wire, path: str, *headers: tuple[str, str]) -> tuple[Head, bytes]:
    """The answer to a GET, with its body as it came."""
    await wire.send(request(path, headers))
    head = await wire.head()
    size = int(head.headers.get("content-length", 0))
    return head, await wire.exactly(size)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("realtime.js", "text/javascript; charset=utf-8"),
        ("realtime.d.ts", "text/typescript; charset=utf-8"),
        ("channel.js", "text/javascript; charset=utf-8"),
        ("tester.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_file_is_served(serve: Serve, name: str, content_type: str) -> None:
    """Each file is served as it is, with its type, to pages of every origin."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        head, body = await got(wire, f"/-/{name}")
    assert (head.status, body) == (200, (WEB / name).read_bytes())
    wanted = {
        "content-type": content_type,
        "cache-control": "no-cache",
        "access-control-allow-origin": "*",
        "x-content-type-options": "nosniff",
        "vary": "Accept-Encoding",
    }
    assert wanted.items() <= head.headers.items()


async def test_module_names_its_types(serve: Serve) -> None:
    """The module says where its types are."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        head, _ = await got(wire, "/-/realtime.js")
    assert head.headers["x-typescript-types"] == "./realtime.d.ts"


async def test_template_is_no_file(serve: Serve) -> None:
    """What pages are made from is served as pages only."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        assert (await got(wire, "/-/channel.html"))[0].status == 404


async def test_module_is_small(serve: Serve) -> None:
    """The module, with its comments, is under 6 KB for a browser, which takes it compressed."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        head, body = await got(wire, "/-/realtime.js", *GZIP)
    assert head.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == (WEB / "realtime.js").read_bytes()
    assert len(body) < 6000


@pytest.mark.parametrize("known", ["{}", '"other", {}'])
async def test_file_that_is_known(serve: Serve, known: str) -> None:
    """A browser that has the file is told that it is still the same, and gets no body."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        tag = (await got(wire, "/-/realtime.js"))[0].headers["etag"]
        head, body = await got(wire, "/-/realtime.js", ("If-None-Match", known.format(tag)), *GZIP)
        assert (head.status, body, head.headers["etag"]) == (304, b"", tag)
        assert (await got(wire, "/-/live"))[0].status == 200  # nothing has come after the head


async def test_file_that_has_changed(serve: Serve) -> None:
    """A browser that has another one gets this one."""
    async with serve(CONFIG) as serving, dial(serving.port) as wire:
        head, _ = await got(wire, "/-/realtime.js", ("If-None-Match", 'W/"other"'))
    assert head.status == 200


# The pages of channels

OWN = {
    "own.py": """
        from realtime import Channel, hookimpl

        class Own(Channel):
            page = "own.js"

        class Plain(Channel):
            pass

        @hookimpl
        def register_channels():
            return {"own": Own, "plain": Plain}
    """,
    "own.js": "export default () => {};",
    "own.css": "p { margin: 0 }",
    "other.js": "secret",
}
OWN_CONFIG = "channels: {mine: {plugin: own, path: /mine}, plain: {plugin: plain, path: /plain}}"


@pytest.mark.parametrize(("name", "kind"), [("own.js", "text/javascript"), ("own.css", "text/css")])
async def test_page_of_a_channel(serve: Serve, name: str, kind: str) -> None:
    """The module that a channel type names is served, and the style beside it, as other files are."""
    async with serve(OWN_CONFIG, OWN) as serving, dial(serving.port) as wire:
        head, body = await got(wire, f"/-/pages/mine/{name}")
        tag = ("If-None-Match", head.headers["etag"])
        known, _ = await got(wire, f"/-/pages/mine/{name}", tag)
    assert (head.status, body.decode(), known.status) == (200, OWN[name], 304)
    assert head.headers["content-type"] == f"{kind}; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["mine/other.js", "mine/own.py", "mine/%2e%2e%2fown.py", "plain/own.js", "nobody/own.js"]
)
async def test_nothing_else_of_a_plugin(serve: Serve, path: str) -> None:
    """No other file is served, and of no other channel."""
    async with serve(OWN_CONFIG, OWN) as serving, dial(serving.port) as wire:
        assert (await got(wire, f"/-/pages/{path}"))[0].status == 404


async def test_page_is_read_when_it_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    """Who writes a page sees it as it is now, and 404 once it is gone."""
    async with serve(OWN_CONFIG, OWN) as serving, dial(serving.port) as wire:
        file = tmp_path / "plugins" / "own.js"
        file.write_text("export default 1;")
        _, body = await got(wire, "/-/pages/mine/own.js")
        file.unlink()
        head, _ = await got(wire, "/-/pages/mine/own.js")
    assert (body, head.status) == (b"export default 1;", 404)


async def test_reload_serves_the_new_pages(serve: Serve, tmp_path: Path) -> None:
    """After a reload those of the channels of now are served, and no others."""
    async with serve(OWN_CONFIG, OWN) as serving, dial(serving.port) as wire:
        config = OWN_CONFIG.replace("mine:", "other:")
        source = Source("config.yaml", tmp_path / "config.yaml")
        await serving.server.reload(parse(f"{SERVER}{config}", source))
        statuses = [(await got(wire, f"/-/pages/{name}/own.js"))[0].status for name in ("mine", "other")]
    assert statuses == [404, 200]


# The types

#: All that the types promise, used as an application would.
CONSUMER = """
import { backoff, Closed, connect, Connection, NotConnected } from "./realtime.js";
import { RealtimeError, Refused, Unconfirmed } from "./realtime.js";
import type { Details, Down, Message, Options, Sendable, Welcome } from "./realtime.js";

interface Said { from: string; text: string }

const options: Options = { name: "alice", since: -20, transport: "sse", backoff, fetch };
options.token = async () => "t";
const chat: Connection<Said> = connect<Said>(new URL("https://rt.example/chat"), options);

chat.addEventListener("message", ({ detail }) => { const text: string = detail.data.text; void text; });
chat.addEventListener("open", ({ detail }) => { const beat = detail.heartbeat; void beat?.toFixed(); });
chat.addEventListener("gap", ({ detail }) => { const missed: number = detail.data.missed; void missed; });
chat.addEventListener("down", ({ detail }) => { const delay: number = detail.delay; void delay; });
chat.addEventListener("close", ({ detail }) => {
  if (detail instanceof Refused) { const status: number | undefined = detail.status; void status; }
  const code: number | undefined = detail.code;
  const back: boolean = detail.comesBack;
  void [code, back, detail.reason];
}, { once: true });
// @ts-expect-error: there is no such event
chat.addEventListener("massage", () => {});
// @ts-expect-error: nothing cannot be sent
void chat.send(undefined);
// @ts-expect-error: it says how it ended, and is not told
chat.closed = null;

export async function main(): Promise<void> {
  const parts: Sendable[] = ["text", new Uint8Array([1]), new ArrayBuffer(1), { a: 1 }, [1], 1, true, null];
  for (const part of parts) {
    try {
      const id: string | null = await chat.send(part, { event: "score", timeout: 1000 });
      void id;
    } catch (error) {
      if (error instanceof NotConnected || error instanceof Unconfirmed) continue;
      if (error instanceof Closed) throw new RealtimeError(`${error.code} ${error.reason}`);
    }
  }
  for await (const message of chat) {
    const { id, event, data, time }: Message<Said> = message;
    void [id?.length, event.length, data.from, time.toFixed()];
  }
  const [welcome, where, position]: [Welcome, "websocket" | "sse" | null, string | null] = [
    chat.welcome, chat.transport, chat.position,
  ];
  const down: Down = { code: 1006, reason: "", delay: backoff(1, 1006, null) };
  const close: Details["close"] = new Closed(1000);
  void [welcome, where, position, down, close];
  chat.drop();
  chat.drop({ since: "earliest" });
  chat.close();
}
"""


def test_types(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """An application that uses everything passes ``tsc --strict``, and mistakes in it are found."""
    node = needs.node()
    package = needs.node_package(tmp_path_factory, "typescript@5")
    (tmp_path / "realtime.d.ts").write_text((WEB / "realtime.d.ts").read_text())
    (tmp_path / "consumer.ts").write_text(CONSUMER)
    tsc = package / "node_modules" / "typescript" / "bin" / "tsc"
    flags = "--strict --noEmit --exactOptionalPropertyTypes --target es2022 --module esnext"
    done = subprocess.run(
        [node, tsc, *flags.split(), "--lib", "es2022,dom", "--moduleResolution", "bundler", "consumer.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def exported(file: str) -> set[str]:
    """The values that a module exports, or that its types say it does."""
    found = re.findall(r"^export (?:async )?(?:class|const|function) (\w+)", (WEB / file).read_text(), re.M)
    assert found
    return set(found)


def test_types_name_what_is_there() -> None:
    """The types and the module export the same names."""
    assert exported("realtime.d.ts") == exported("realtime.js")


def members(file: str) -> set[str]:
    """The public members of the connection."""
    body = re.search(r"^export class Connection.*?^}", (WEB / file).read_text(), re.M | re.S)
    assert body is not None
    pattern = r"^  (?:async |get |readonly )*([a-z]\w+|\[Symbol\.asyncIterator\])(?: = |\(|: )"
    return set(re.findall(pattern, body[0], re.M)) - {"constructor"}


def test_types_name_the_members() -> None:
    """The types and the module have the same members of a connection."""
    listening = {"addEventListener", "removeEventListener"}
    typed = set(re.findall(r"^  (\w+)<Type", (WEB / "realtime.d.ts").read_text(), re.M))
    assert typed == listening
    assert members("realtime.d.ts") == members("realtime.js") >= {"send", "close", "next", "position"}


def test_page_names_what_is_there() -> None:
    """The page of the reference has a row for each option, and names all that a page can use."""
    page = checkout() / "docs" / "reference" / "browser.md"
    types = (WEB / "realtime.d.ts").read_text()
    types = types.partition("export interface Options {")[2].partition("\n}")[0]
    options = re.findall(r"^  (\w+)\?: ", types, re.M)
    cells = [row[0] for row in rows(page, "## `connect(url, options)`")]
    assert [name for cell in cells for name in re.findall(r"\w+", cell)] == options
    assert (members("realtime.js") - {"[Symbol.asyncIterator]", "next"}) <= words_in(page.read_text())
    assert exported("realtime.js") <= words_in(page.read_text())


# In node

NODE = """
import { webcrypto } from "node:crypto";
import { connect } from "./realtime.mjs";
// Node 20 has both; that of Debian 12 is older.
globalThis.crypto ??= webcrypto;
globalThis.CustomEvent ??= class extends Event {
  constructor(type, { detail }) {
    super(type);
    this.detail = detail;
  }
};
const [url, transport] = process.argv.slice(2);
let WebSocket;
if (transport === "websocket") ({ default: WebSocket } = await import("ws"));
const channel = connect(url, { name: "alice", transport, WebSocket });
const id = await channel.send("hi");
for await (const message of channel) {
  if (message.id !== id) continue;
  console.log(message.event, JSON.stringify(message.data), channel.transport);
  channel.close();
}
"""


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_node(serve: Serve, tmp_path_factory: pytest.TempPathFactory, transport: str) -> None:
    """It runs in node, with a WebSocket that it is given, and ends when it is closed."""
    node = needs.node()
    directory = needs.node_package(tmp_path_factory, "ws@8")
    (directory / "realtime.mjs").write_text((WEB / "realtime.js").read_text())
    (directory / "program.mjs").write_text(NODE)
    async with serve("channels: {lobby: {plugin: chat, path: /chat}}") as serving, asyncio.timeout(30):
        command = [node, str(directory / "program.mjs"), serving.http("/chat"), transport]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode() == f'message {{"from":"alice","text":"hi"}} {transport}\n'
