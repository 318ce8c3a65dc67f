"""The examples as strangers have them: their wheels beside the server's, and nothing of the checkout."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chromium import browser, tab
from tree import ROOT, checkout
from websockets.asyncio.client import connect
from wire import post, stream

from acceptance.conftest import run
from acceptance.world import INSTALLING, Home, environment, started

EXAMPLES = ROOT / "examples"
NAMES = sorted(place.name for place in EXAMPLES.glob("realtime-*"))
#: As the config has them.
SECRET, PASSWORD = "only-for-trying-this-out", "correct horse battery staple"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, in which nothing was built."""
    checkout()
    place = tmp_path_factory.mktemp("examples") / "examples"
    left_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*")
    return Path(shutil.copytree(EXAMPLES, place, ignore=left_out))


@pytest.fixture(scope="module")
def beside(python: Path, place: Path) -> Path:
    """The python of an environment that has the wheels of the examples, and finds that of the server."""
    sources = [place / name for name in NAMES]
    building = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w")
    run(sys.executable, *building, place / "wheels", *sources)
    venv.create(place / "venv", with_pip=False, symlinks=True)
    made = place / "venv" / "bin" / "python"
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    server = subprocess.run(where, env=environment(), check=True, capture_output=True, text=True).stdout
    (own,) = (place / "venv").glob("lib/python*/site-packages")
    (own / "server.pth").write_text(server)
    wheels = [f"{wheel}[test]" for wheel in sorted((place / "wheels").glob("*.whl"))]
    run(sys.executable, "-m", "pip", "--python", made, "install", "-q", "--prefer-binary", *wheels)
    return made


@pytest.fixture
def together(beside: Path, tmp_path: Path) -> Home:
    """An empty directory to serve from, with the environment that has all of them."""
    return Home(beside, tmp_path)


@asynccontextmanager
async def serving(home: Home) -> AsyncIterator[str]:
    """A server with the examples' own config; gives ``HOST:PORT``."""
    async with home.server("-c", str(EXAMPLES / "config.yaml")) as server:
        yield await server.ready()


def port_of(address: str) -> int:
    """The port of ``HOST:PORT``."""
    return int(address.rpartition(":")[2])


async def test_poll_of_people_and_programs(together: Home) -> None:
    """Somebody votes by WebSocket, somebody whom the config knows by POST, and a stream shows both."""
    known = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    async with (
        serving(together) as address,
        stream(port_of(address), "/polls/lunch") as watcher,
        connect(f"ws://{address}/polls/lunch") as voter,
    ):
        assert await voter.recv() == "Where do we eat? pizza 0, sushi 0"
        await voter.send("pizza")
        assert await voter.recv() == "Where do we eat? pizza 1, sushi 0"
        headers = [("Authorization", f"Basic {known}")]
        head, _ = await post(port_of(address), "/polls/lunch", b"sushi", headers)
        assert head.status == 202
        told = [json.loads((await watcher.event())["data"])["votes"] for _ in range(3)]
    assert told == [{"pizza": 0, "sushi": 0}, {"pizza": 1, "sushi": 0}, {"pizza": 1, "sushi": 1}]


async def test_page_of_a_poll(together: Home) -> None:
    """A person votes on the page, and sees the votes of others."""
    async with (
        serving(together) as address,
        browser() as chromium,
        tab(chromium, f"http://{address}/polls/lunch") as page,
        connect(f"ws://{address}/polls/lunch") as other,
    ):
        await page.get_by_role("button", name="pizza 0").click()
        await page.get_by_role("button", name="pizza 1").wait_for()
        await other.send("sushi")
        await page.get_by_role("button", name="sushi 1").wait_for()
        assert await page.title() == "Where do we eat?"


async def test_wrong_password(together: Home) -> None:
    """Who has another password than the config is refused, and asked for it."""
    wrong = base64.b64encode(b"alice:guess").decode()
    async with serving(together) as address:
        headers = [("Authorization", f"Basic {wrong}")]
        head, text = await post(port_of(address), "/polls/lunch", b"sushi", headers)
    assert (head.status, text) == (401, "this name and password are not known\n")


async def test_hook_of_a_service(together: Home) -> None:
    """What is posted with the right signature is seen on the channel beside; anything else is not."""
    body = b'{"passed": true}'
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    async with serving(together) as address, stream(port_of(address), "/builds") as watcher:
        for given, status in ((signature[::-1], 403), (signature, 202)):
            headers = [("X-Hub-Signature-256", f"sha256={given}"), ("X-GitHub-Event", "build")]
            head, _ = await post(port_of(address), "/hooks/builds", body, headers)
            assert head.status == status
        told = await watcher.event()
    assert (told["event"], json.loads(told["data"])) == ("build", {"passed": True})


async def test_audit_of_all_of_it(together: Home) -> None:
    """What is said until the end of the server is in the file, in its order."""
    async with serving(together) as address, connect(f"ws://{address}/polls/break") as voter:
        for choice in ("now", "later", "now"):
            await voter.send(choice)
        for _ in range(4):
            await voter.recv()
    lines = [json.loads(line) for line in (together.directory / "audit.jsonl").read_text().splitlines()]
    votes = [line["data"]["votes"]["now"] for line in lines if line["topic"] == "polls/break"]
    assert votes[:3] == [1, 0, 1]


async def test_command_of_a_plugin(together: Home) -> None:
    """The command beside a plugin makes what the config takes."""
    async with started(together.python, "-m", "realtime_basic_auth", cwd=together.directory) as command:
        command.type("another password\n")
        made = await command.line(lambda line: line.startswith("scrypt:"))
    config = (EXAMPLES / "config.yaml").read_text()
    (known,) = [line for line in config.splitlines() if "password: " in line]
    together.write(config.replace(known, f'        password: "{made}"'))
    given = base64.b64encode(b"alice:another password").decode()
    async with together.serving() as address:
        headers = [("Authorization", f"Basic {given}")]
        head, _ = await post(port_of(address), "/polls/lunch", b"sushi", headers)
    assert head.status == 202


async def test_what_is_installed(together: Home) -> None:
    """The server lists the distribution that each comes from."""
    ran = await together.ran("-c", str(EXAMPLES / "config.yaml"), "plugins", "--json")
    known = json.loads("\n".join(ran.said))
    assert {name for name in NAMES if name in json.dumps(known)} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_config_of_a_readme(together: Home, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page of each example says to write into a config is taken."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    shown = re.search(r"(?ms)^```yaml\n(.*?)^```", (EXAMPLES / name / "README.md").read_text())
    assert shown
    together.write(shown[1].replace("scrypt:…", f"scrypt:{'0' * 32}:{'0' * 64}"))
    ran = await together.ran("check")
    assert (ran.code, name.removeprefix("realtime-") in shown[1]) == (0, True), ran


@pytest.mark.parametrize("name", NAMES)
def test_tests_of_an_example(beside: Path, place: Path, name: str) -> None:
    """The tests of each example pass where only wheels are installed."""
    checked(beside, place / name, "pytest", "-q", "-p", "no:cacheprovider")


def test_types_of_the_examples(beside: Path, place: Path) -> None:
    """Each example is typed, as strictly as can be, against the types that the server ships."""
    sources = [
        str(path) for name in NAMES for path in (place / name / "src", *(place / name).glob("tests/test_*"))
    ]
    checked(beside, place, "mypy", "--strict", *sources)


def checked(python: Path, directory: Path, *command: str) -> None:
    """Run a tool that must find nothing."""
    done = subprocess.run(
        [str(python), "-m", *command],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALLING,
    )
    assert done.returncode == 0, done.stdout
