"""The command ``token``: a token for the config's key is made, or looked into, and no secret is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from command import run
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tokenmaker import SECRET, token

CONFIG = 'auth: {jwt: {key: "${REALTIME_KEY}", issuer: me}}\nchannels: {}\n'


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory with a config that believes tokens of a key in the environment."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def claims(made: str, key: Any = SECRET, algorithm: str = "HS256") -> dict[str, Any]:
    """What a token says."""
    said: dict[str, Any] = jwt.decode(made, key, [algorithm], audience="realtime")
    return said


def inspected(directory: Path, given: str) -> tuple[int, dict[str, Any]]:
    """What the command says of a token, and its exit code."""
    ended = run(directory, "token", given, REALTIME_KEY=SECRET)
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    shown: dict[str, Any] = json.loads(ended.stdout)
    return ended.returncode, shown


def test_make(there: Path) -> None:
    """What is printed is a token, and nothing else."""
    options = ["--sub", "alice", "--ttl", "5m", "--scope", "a", "--scope", "b"]
    options += ["--subscribe", "rooms/*", "--publish", "rooms/blue", "--publish", "lobby"]
    ended = run(there, "token", *options, REALTIME_KEY=SECRET)
    assert (ended.returncode, ended.stderr) == (0, "")
    said = claims(ended.stdout.strip())
    assert said.pop("exp") - said["iat"] == 300
    assert abs(said.pop("iat") - time.time()) < 60
    assert said == {
        "sub": "alice",
        "aud": "realtime",
        "iss": "me",
        "scope": "a b",
        "subscribe": ["rooms/*"],
        "publish": ["rooms/blue", "lobby"],
    }


def test_look_into_one(there: Path) -> None:
    """What the command makes it finds valid."""
    made = run(there, "token", "--sub", "alice", REALTIME_KEY=SECRET).stdout.strip()
    code, shown = inspected(there, made)
    assert (code, shown["valid"], shown["header"]["alg"]) == (0, True, "HS256")
    assert shown["claims"]["sub"] == "alice"
    assert 3500 < shown["seconds left"] <= 3600


@pytest.mark.parametrize(
    ("given", "why", "sub"),
    [
        (token(iss="me", exp=1), "it has expired", "alice"),
        (token(iss="me", key="another"), "its signature is wrong", "alice"),
        (token(iss="you"), "its iss is not auth.jwt.issuer", "alice"),
        (token(iss="me", sub="a\x1b[31m"), "its sub is not 1 to 255 bytes of printable text", "a\x1b[31m"),
        ("garbage", "it is no JWT", None),
    ],
)
def test_why_one_is_not_valid(there: Path, given: str, why: str, sub: str | None) -> None:
    """What is wrong is said, and what the token says, as far as it can be read."""
    code, shown = inspected(there, given)
    assert (code, shown["valid"], shown["why"]) == (1, False, why)
    assert shown.get("claims", {}).get("sub") == sub


def test_private_key(tmp_path: Path) -> None:
    """Where the config has a public key, the private one is named, and must belong to it."""
    private, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "public.pem").write_bytes(public)
    for name, key in (("private.pem", private), ("other.pem", other)):
        (tmp_path / name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    (tmp_path / "config.yaml").write_text("auth: {jwt: {key_file: public.pem, algorithms: [ES256]}}\n")
    made = run(tmp_path, "token", "--sub", "alice", "--sign-with", "private.pem")
    assert claims(made.stdout.strip(), public, "ES256")["sub"] == "alice"
    for options, says in (
        ([], "ES256 needs the private key that belongs to the config's: --sign-with FILE"),
        (["--sign-with", "other.pem"], "the key is not that of the config"),
        (["--sign-with", "public.pem"], "this is no private key for ES256"),
        (["--sign-with", "config.yaml"], "this is no private key for ES256"),
        (["--sign-with", "nowhere"], "nowhere: no such file or directory"),
    ):
        ended = run(tmp_path, "token", "--sub", "alice", *options)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert says in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say --sub NAME for whom to make a token, or give a TOKEN to look into"),
        (["x", "--sub", "alice"], "say --sub NAME for whom to make a token, or give a TOKEN"),
        (["--sub", "alice", "--ttl", "5"], "argument --ttl: expected a duration such as 500ms, 10s or 5m"),
        (["--sub", ""], "its sub is not 1 to 255 bytes of printable text"),
        (["--sub", "alice", "--publish", "*/x"], "its publish is no list of topics such as rooms/*"),
    ],
)
def test_usage(there: Path, arguments: list[str], says: str) -> None:
    """What would make no token is told, with the exit code of what is typed wrong."""
    ended = run(there, "token", *arguments, REALTIME_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("channels: {}\n", "config.yaml:1:1: there is no section 'auth' with a 'jwt'"),
        (
            "auth: {jwt: {key: changeme}}\n",
            "config.yaml:1:19: auth.jwt.key: a secret for HS256 has at least 32",
        ),
        ("auth: {jwt: {kee: x}}\n", "config.yaml:1:14: auth.jwt.kee: unknown key, did you mean 'key'?"),
        (CONFIG, "the environment variable REALTIME_KEY is not set"),
    ],
)
def test_config_that_believes_no_tokens(tmp_path: Path, config: str, says: str) -> None:
    """Without a key there is no token; what is wrong is told with its place."""
    (tmp_path / "config.yaml").write_text(config)
    ended = run(tmp_path, "token", "--sub", "alice")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert says in ended.stderr
