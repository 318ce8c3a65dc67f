"""The command ``token``: make a JWT for the key of a config, or look into one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt

from realtime import logs
from realtime.auth import MIN_SECRET, BadToken, Tokens, identity_of, tokens
from realtime.config import load
from realtime.errors import ConfigError, printable
from realtime.exit_codes import ExitCode

#: The longest token that is read, in bytes: a request has no room for a longer one.
MAX_TOKEN = 8192


def token(
    file: Path | None,
    *,
    given: str | None,
    sub: str | None,
    scope: Sequence[str],
    ttl: float,
    subscribe: Sequence[str],
    publish: Sequence[str],
    sign_with: Path | None,
) -> ExitCode:
    """Make a token and print it; or print what is in the ``given`` one, ``-`` being standard input's."""
    try:
        config = load(file)
    except ConfigError as error:
        logs.say(*map(str, error.problems))
        return ExitCode.BAD_CONFIG
    believed, problems = tokens(config)
    problems = config.source.problems + problems
    if believed is None and not problems:
        problems = [config.source.problem("there is no section 'auth' with a 'jwt': no token is believed")]
    if believed is None or problems:
        logs.say(*map(str, problems))
        return ExitCode.BAD_CONFIG
    if given is not None:
        return _show(believed, sys.stdin.read(MAX_TOKEN).strip() if given == "-" else given)
    settings, now = believed.settings, int(time.time())
    claims: dict[str, Any] = {
        "sub": sub,
        "aud": settings.audience,
        "iat": now,
        "exp": now + max(int(ttl), 1),
    }
    if settings.issuer:
        claims["iss"] = settings.issuer
    if scope:
        claims["scope"] = " ".join(scope)
    claims |= {key: list(value) for key, value in (("subscribe", subscribe), ("publish", publish)) if value}
    algorithm = settings.algorithms[0]
    try:
        identity_of(claims, settings.leeway)
        if sign_with is not None:
            key: str | bytes = sign_with.read_bytes()
        elif algorithm in MIN_SECRET:
            key = believed.key
        else:
            logs.say(f"{algorithm} needs the private key that belongs to the config's: --sign-with FILE")
            return ExitCode.USAGE
        made = jwt.encode(claims, key, algorithm)
        believed.claims(made)  # a key of somebody else's makes tokens that nobody believes
    except BadToken as error:
        why = "the key is not that of the config" if sign_with else str(error)
        logs.say(f"no token that the server would believe: {why}")
        return ExitCode.USAGE
    except OSError as error:
        logs.say(f"{sign_with}: {(error.strerror or str(error)).lower()}")
        return ExitCode.USAGE
    except Exception:  # whatever PyJWT and cryptography raise: none of it has a use for people
        logs.say(f"{sign_with}: this is no private key for {algorithm} (PEM)")
        return ExitCode.USAGE
    print(made)
    return ExitCode.OK


def _show(believed: Tokens, text: str) -> ExitCode:
    """Print the header and the claims of a token, whether it is valid and why not."""
    shown: dict[str, Any] = {"valid": True}
    try:
        believed.verify(text)
    except BadToken as error:
        shown = {"valid": False, "why": str(error)}
    try:
        whole = jwt.decode_complete(text[:MAX_TOKEN], options={"verify_signature": False})
        shown |= {"header": whole["header"], "claims": whole["payload"]}
        ends = float(whole["payload"]["exp"]) - time.time()
        shown["seconds left"] = max(round(min(ends, 1e12)), 0)
    except Exception:  # it is said already
        pass
    print(*map(printable, json.dumps(shown, indent=2).split("\n")), sep="\n")
    return ExitCode.OK if shown["valid"] else ExitCode.BAD_CONFIG
