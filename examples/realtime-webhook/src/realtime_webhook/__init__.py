"""Webhook: what a service posts, signed, everybody on the channel sees.

channels:
  builds:
    plugin: webhook
    path: /builds
    hook: /hooks/builds
    secret: "${WEBHOOK_SECRET}"
"""

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field, field_validator
from realtime import Allow, Bus, Channel, Permission, Secret, TooLarge, hookimpl

#: The version of Realtime's contract with plugins that this is written for.
API_VERSION = 1
#: As GitHub, Gitea and others name them.
SIGNATURE = "X-Hub-Signature-256"
EVENT = "X-GitHub-Event"
#: How long a body may take to come, in seconds.
PATIENCE = 10.0


def signature_of(body: bytes, secret: str) -> str:
    """What stands in the header when somebody who has the secret posts this."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def checked(secret: Secret) -> Secret:
    """The secret, unless it can be guessed."""
    if len(secret.get_secret_value()) < 16:
        raise ValueError("a secret has at least 16 characters, and is random")
    return secret


class Rules(Allow):
    """Who may use it: nobody says anything here but by the hook."""

    publish: Permission = "nobody"
    """who may send messages: `nobody`, for what they say goes nowhere"""


class Webhook(Channel):
    """What a service posts to the hook, to everybody who reads.

    The hook is a URL of its own, where the body is JSON and its signature, made with `secret`, stands
    in the header `X-Hub-Signature-256`. `X-GitHub-Event`, if it is there, becomes the event.
    """

    class Settings(Channel.Settings):
        hook: Annotated[str, Field(pattern=r"^/[^{}]*$")]
        """the path to which the service posts, such as `/hooks/builds`"""

        secret: Annotated[Secret, AfterValidator(checked)]
        """what the service signs with: at least 16 random characters"""

        allow: Rules = Rules()
        """who may do what"""

        @field_validator("path")
        @classmethod
        def has_no_variable(cls, path: str) -> str:
            if "{" in path:
                raise ValueError("expected a path without variables: the hook is for all of the channel")
            return path

    settings: Settings
    transports = ("sse", "websocket", "ndjson", "json")

    @hookimpl
    def register_routes(self, bus: Bus) -> Iterable[web.RouteDef]:
        return [*super().register_routes(bus), web.post(self.settings.hook, self.take)]

    async def take(self, request: web.Request) -> web.Response:
        """Publish what is posted, if it is signed. This is aiohttp: what is checked, is checked here."""
        try:
            async with asyncio.timeout(PATIENCE):
                body = await request.read()  # up to a mebibyte, or aiohttp answers 413
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the body did not come\n") from None
        sent = request.headers.get(SIGNATURE, "")
        right = signature_of(body, self.settings.secret.get_secret_value())
        if not hmac.compare_digest(sent.encode(errors="surrogateescape"), right.encode()):
            raise web.HTTPForbidden(text=f"{SIGNATURE} is not that of this body\n")
        event = request.headers.get(EVENT, "message")
        if not re.fullmatch(r"[\w.-]{1,100}", event):
            raise web.HTTPBadRequest(text=f"{EVENT} is no name of an event\n")
        try:
            position = await self.publish(self.name, json.loads(body), event=event)
        except TooLarge as error:
            raise web.HTTPRequestEntityTooLarge(0, 0, text=f"{error}\n") from None
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="this is no JSON\n") from None
        return web.json_response({"id": str(position)}, status=202)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"webhook": Webhook}
