"""API keys: a program that sends a key of the config, as `X-API-Key`, is who the config says.

    plugins:
      - plugin: api_keys
        keys:
          backend: {key: "${BACKEND_KEY}", scopes: [editor]}

A key that is not there is refused; a request without one is left to others.
"""

import hmac
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field

from realtime import Identity, Model, Secret, hookimpl

HEADER = "X-API-Key"
#: The least that a key has, in characters: what is shorter can be guessed.
LEAST = 32


def checked(key: Secret) -> Secret:
    """The key, unless it can be guessed."""
    text = key.get_secret_value()
    if len(text) < LEAST or len(set(text)) < 8:
        raise ValueError(f"a key has at least {LEAST} characters, and is random")
    return key


class Key(Model):
    """One key, and what it is for."""

    key: Annotated[Secret, AfterValidator(checked)]
    """what is sent as `X-API-Key`: at least 32 random characters"""

    scopes: Annotated[list[str], Field(default_factory=list)]
    """what it may do, for rules such as `scope:editor`"""


class Plugin:
    """Knows programs by their keys."""

    class Settings(Model):
        keys: Annotated[dict[str, Key], Field(min_length=1)]
        """each key under the name of who has it"""

    def __init__(self, settings: Settings) -> None:
        self.known = [
            (each.key.get_secret_value().encode(), Identity(name=name, scopes=frozenset(each.scopes)))
            for name, each in settings.keys.items()
        ]

    @hookimpl
    def authenticate(self, request: web.Request) -> Identity | None:
        sent = request.headers.getall(HEADER, [])
        if not sent:
            return None
        found = None
        for key, identity in self.known:  # all of them, in the same time for each
            if hmac.compare_digest(key, ",".join(sent).encode(errors="surrogateescape")):
                found = identity
        if found is None:
            raise web.HTTPUnauthorized(text=f"this {HEADER} is not known\n")
        return found
