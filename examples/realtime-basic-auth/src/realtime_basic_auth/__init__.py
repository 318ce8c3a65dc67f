"""Basic authentication: who sends a name and a password of the config is who it says.

plugins:
  - plugin: basic-auth
    users:
      alice: {password: "scrypt:…", scopes: [editor]}

`python -m realtime_basic_auth` asks for a password and prints what to write there.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from typing import Annotated

from aiohttp import BasicAuth, hdrs, web
from pydantic import AfterValidator, Field
from realtime import Identity, Model, Secret, hookimpl

#: The version of Realtime's contract with plugins that this is written for.
API_VERSION = 1
_HASHED = re.compile(r"scrypt:([0-9a-f]{32}):([0-9a-f]{64})")
_ASK = {hdrs.WWW_AUTHENTICATE: 'Basic realm="realtime", charset="UTF-8"'}


def hashed(password: str, salt: bytes | None = None) -> str:
    """A password as the config has it; from this nobody finds the password again."""
    salt = salt or secrets.token_bytes(16)
    key = hashlib.scrypt(password.encode(errors="surrogateescape"), salt=salt, n=2**14, r=8, p=5, dklen=32)
    return f"scrypt:{salt.hex()}:{key.hex()}"


#: Who is not known takes as long as who is: nobody finds out which names there are.
_NOBODY = f"scrypt:{'0' * 32}:{'0' * 64}"


def checked(password: Secret) -> Secret:
    """The hash, if it is one."""
    if not _HASHED.fullmatch(password.get_secret_value()):
        raise ValueError("this is not hashed: python -m realtime_basic_auth makes what belongs here")
    return password


class User(Model):
    """Somebody who may come in."""

    password: Annotated[Secret, AfterValidator(checked)]
    """what `python -m realtime_basic_auth` prints: the password, hashed"""

    scopes: Annotated[list[str], Field(default_factory=list)]
    """what they may do, for rules such as `scope:editor`"""


class Plugin:
    """Knows people by name and password."""

    class Settings(Model):
        users: Annotated[dict[str, User], Field(min_length=1)]
        """each by their name"""

    def __init__(self, settings: Settings) -> None:
        self.users = settings.users

    @hookimpl
    async def authenticate(self, request: web.Request) -> Identity | None:
        header = request.headers.get(hdrs.AUTHORIZATION, "")
        if header.partition(" ")[0].lower() != "basic":
            return None  # another plugin may know who it is
        try:
            sent = BasicAuth.decode(header, encoding="utf-8")
        except ValueError:
            raise web.HTTPUnauthorized(headers=_ASK, text="this is no name and password\n") from None
        user = self.users.get(sent.login)
        known = user.password.get_secret_value() if user else _NOBODY
        salt = bytes.fromhex(known.split(":")[1])
        # It takes a tenth of a second on purpose: in a thread, for meanwhile others want to be served.
        given = await asyncio.to_thread(hashed, sent.password, salt)
        if user is None or not hmac.compare_digest(given, known):
            raise web.HTTPUnauthorized(headers=_ASK, text="this name and password are not known\n")
        return Identity(name=sent.login, scopes=frozenset(user.scopes))
