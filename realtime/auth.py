"""Who a client is, and what it may do: the token it brings, what plugins say, the rules of a channel.

A token is a JWT (RFC 7519) in the header ``Authorization``, in a cookie, or in the query as ``token``.
Which algorithm and key are right stands in the config; what a token says of itself (``kid``, ``jku``,
``x5u``) is not looked at, and one with ``crit`` is refused. PyJWT is imported where ``auth.jwt`` is set.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDict
from pydantic import ValidationError

from realtime.blame import defined, not_the_plugins
from realtime.buckets import Buckets, Rate
from realtime.bus import Bus
from realtime.config import JWT, Config
from realtime.errors import Problem, printable
from realtime.origins import origin_allowed
from realtime.permissions import Action, Allow, Identity
from realtime.proxies import is_local, site
from realtime.remedies import remedy

log = logging.getLogger("realtime.auth")

#: How long a plugin may take to say who makes a request, in seconds.
AUTHENTICATION = 10.0
#: How many attempts of one address may fail; further ones are answered with 429, and what is right still
#: comes in: behind one address there may be an office.
FAILURES = Rate(per_second=1, burst=20)
#: The longest ``sub``, in bytes: as long as a segment of a topic.
MAX_NAME = 255
#: The last second of the year 9999: what ends later has no end.
LATEST = 253_402_300_799.0
#: The least that a secret has, in bytes (RFC 7518, section 3.2), and an RSA key, in bits (section 3.3).
MIN_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}
MIN_RSA = 2048
_CURVES = {"ES256": 256, "ES384": 384, "ES512": 521}
#: Fewer different characters than this are no accident.
MIN_CHARACTERS = 8
_WORDS = re.compile(
    r"change.?(me|this|it)|your.?(\d|secret|key|jwt|own)|secret.?(at.?least|key)|example|passw|1234567|abcdefg",
    re.IGNORECASE,
)
_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
#: What PyJWT finds wrong, in words that give away nothing of the token.
_WHY = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAlgorithmError": "its algorithm is none of auth.jwt.algorithms",
    "InvalidAudienceError": "its aud is not auth.jwt.audience",
    "InvalidIssuedAtError": "its iat is no time",
    "InvalidIssuerError": "its iss is not auth.jwt.issuer",
    "InvalidSignatureError": "its signature is wrong",
    "InvalidSubjectError": "its sub is no text",
}


class BadToken(Exception):
    """A token that is not believed; its text says why, and nothing of the token."""


class Tokens:
    """The tokens that ``auth.jwt`` lets in."""

    def __init__(self, settings: JWT, key: Any) -> None:
        self.settings = settings
        #: The secret, or the public key.
        self.key = key

    def verify(self, token: str) -> Identity:
        """Whose it is. Raises :exc:`BadToken`."""
        return identity_of(self.claims(token), self.settings.leeway)

    def claims(self, token: str) -> dict[str, Any]:
        """What it says, of which the signature, the time, ``aud`` and ``iss`` are right."""
        import jwt

        try:
            whole = jwt.decode_complete(
                token,
                self.key,
                algorithms=list(self.settings.algorithms),
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                leeway=self.settings.leeway,
                options={"require": ["exp", "sub"], "strict_aud": True},
            )
        except jwt.MissingRequiredClaimError as error:
            raise BadToken(f"it has no {error.claim}") from None
        except Exception as error:  # numbers and nestings that Python cannot take are no JWT either
            raise BadToken(_WHY.get(type(error).__name__, "it is no JWT")) from None
        if "crit" in whole["header"]:  # RFC 7515, section 4.1.11: none is understood
            raise BadToken("its header has crit, of which nothing is understood")
        claims: dict[str, Any] = whole["payload"]
        return claims


def identity_of(claims: dict[str, Any], leeway: float) -> Identity:
    """Who claims that were verified speak of. Raises :exc:`BadToken`."""
    name, scope = claims["sub"], claims.get("scope", ())
    if not (name.isprintable() and 1 <= len(name.encode()) <= MAX_NAME):
        raise BadToken(f"its sub is not 1 to {MAX_NAME} bytes of printable text")
    try:
        return Identity(
            name=name,
            scopes=frozenset(scope.split()) if isinstance(scope, str) else scope,
            expires=min(int(claims["exp"]), LATEST) + leeway,
            subscribe=claims.get("subscribe"),
            publish=claims.get("publish"),
        )
    except ValidationError as error:
        wrong = {"scopes": "scope is no text and no list of texts"}
        key = str(error.errors()[0]["loc"][0])
        raise BadToken(f"its {wrong.get(key, f'{key} is no list of topics such as rooms/*')}") from None


def tokens(config: Config) -> tuple[Tokens | None, list[Problem]]:
    """What ``auth.jwt`` lets in, None where it is not set; and what is wrong with its key."""
    settings = config.auth.jwt
    if settings is None:
        return None, []
    at, key = "key", settings.key.get_secret_value() if settings.key else ""
    try:
        if (settings.key is None) is (settings.key_file is None):
            at = ""
            raise ValueError("it has either a key or a key_file")
        if settings.key_file is not None:
            at = "key_file"
            key = _read(config, settings.key_file)
        made = _secret(settings, key) if settings.algorithms[0] in MIN_SECRET else _public(settings, key)
    except ValueError as error:
        path = ("auth", "jwt", at) if at else ("auth", "jwt")
        return None, [config.source.problem(str(error), path)]
    return Tokens(settings, made), []


def _read(config: Config, name: str) -> str:
    try:
        return ((config.directory or Path()) / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise ValueError(f"{printable(name, 100)}: this is no file of text") from None


def _secret(settings: JWT, secret: str) -> bytes:
    """The key of HS…, in bytes. Raises :exc:`ValueError` for one that can be guessed."""
    least = max(MIN_SECRET[name] for name in settings.algorithms)
    name = settings.algorithms[0]
    if "-----BEGIN" in secret or secret.startswith(("ssh-", "ecdsa-")):
        raise ValueError(
            f"this is a public key or a certificate, and {name} takes a secret: anybody could sign"
        )
    if len(secret.encode()) < least:
        raise ValueError(f"a secret for {name} has at least {least} bytes; {_MAKE_ONE}")
    # A text that is some piece again and again turns up inside itself.
    if len(set(secret)) < MIN_CHARACTERS or secret in (secret + secret)[1:-1] or _WORDS.search(secret):
        raise ValueError(f"this secret can be guessed; {_MAKE_ONE}")
    return secret.encode()


def _public(settings: JWT, text: str) -> Any:
    """The public key. Raises :exc:`ValueError` for anything else."""
    import jwt

    if "PRIVATE KEY" in text:
        raise ValueError(
            "this is a private key: whoever makes tokens keeps it, and the server has the public one"
        )
    if "CERTIFICATE" in text:
        raise ValueError("this is a certificate; openssl x509 -pubkey -noout prints its public key")
    key: Any = None
    for name in settings.algorithms:
        try:
            key = jwt.get_algorithm_by_name(name).prepare_key(text)
            size = getattr(key, "key_size", 0)
            if size != _CURVES.get(name, size):
                raise ValueError
        except Exception:
            raise ValueError(
                f"this is no public key for {name} (PEM, -----BEGIN PUBLIC KEY-----)"
            ) from None
        if name[:2] in ("RS", "PS") and size < MIN_RSA:
            raise ValueError(f"the key has {size} bits; {name} takes one of at least {MIN_RSA}")
    return key


class Gate:
    """Who comes in by what it brings, and what it may do then."""

    def __init__(
        self,
        config: Config,
        tokens: Tokens | None,
        authenticators: Sequence[tuple[str, Callable[..., list[Any]]]],
        authorizers: Sequence[tuple[str, Callable[..., list[Any]]]],
        bus: Bus,
    ) -> None:
        self._tokens = tokens
        self._cookie = config.auth.cookie
        self._origins = "same" if config.server.origins == "any" else config.server.origins
        self._url = config.server.url
        self._authenticators = authenticators
        self._authorizers = authorizers
        self._failures = Buckets(FAILURES)
        self._bus = bus  # which knows the time

    def believes_what(self, other: Gate) -> bool:
        """Whether the keys are the same: a file may have another now."""
        mine, others = self._tokens, other._tokens
        return bool((mine and mine.key) == (others and others.key))

    def succeed(self, other: Gate) -> None:
        """Stand where another did: who has guessed there has guessed here."""
        self._failures = other._failures

    # Who it is

    async def authenticate(self, request: web.Request) -> Identity | None:
        """Who makes this request; None where nobody knows. Raises an HTTP error for who is not believed."""
        try:
            return await self._identify(request)
        except web.HTTPUnauthorized:
            wait = self._failures.take(request.remote or "", self._bus.now())
            if not wait:
                raise
            text = "too many attempts from your address have failed\n"
            raise web.HTTPTooManyRequests(text=text, headers={hdrs.RETRY_AFTER: str(wait)}) from None

    async def _identify(self, request: web.Request) -> Identity | None:
        token = self._brought(request) if self._tokens else None
        identity: Identity | None = None
        # What has not the form of a JWT may be a plugin's.
        if self._tokens and token is not None and (token.count(".") == 2 or not self._authenticators):
            try:
                identity = self._tokens.verify(token)
            except BadToken as error:
                raise _invalid(str(error)) from None
        if identity is None:
            identity = await self._ask(request)
        if identity is None and token is not None:
            raise _invalid("it is no JWT")
        if (
            identity is not None
            and identity.expires is not None
            and identity.expires <= self._bus.wall_time()
        ):
            raise _invalid("it has expired")
        return identity

    def _brought(self, request: web.Request) -> str | None:
        """The token of a request; in the header it goes before all others."""
        if headers := request.headers.getall(hdrs.AUTHORIZATION, []):
            if len(headers) > 1:
                raise _invalid("there are two Authorization headers")
            scheme, _, token = headers[0].strip().partition(" ")
            if scheme.lower() == "bearer":
                return _one_word(token.strip())
        if queried := request.query.getall("token", []):
            if len(queried) > 1:
                raise _invalid("there are two in the query")
            return _one_word(queried[0])
        if self._cookie is None or self._cookie not in request.cookies:
            return None
        if not self._believes_cookies(request):
            raise web.HTTPForbidden(
                text="a token in a cookie is believed of pages of this server, or of server.origins, "
                "which say so in Origin or Referer; programs send it as Authorization: Bearer\n"
            )
        return _one_word(request.cookies[self._cookie])

    def _believes_cookies(self, request: web.Request) -> bool:
        """Whether its cookies are from a page that may connect: a browser sends them for any page.

        They are never believed because ``any`` may connect. No browser leaves the origin out of what could
        do harm: a handshake, a POST.
        """
        page = request.headers.get(hdrs.ORIGIN)
        if page is None and (referer := request.headers.get(hdrs.REFERER)) is not None:
            page = "/".join(referer.split("/", 3)[:3])
        reads = request.method in ("GET", "HEAD") and hdrs.UPGRADE not in request.headers
        return reads if page is None else origin_allowed(page, self._origins, site(request), self._url)

    def _for_plugins(self, request: web.Request) -> web.Request:
        """The request without cookies that are not believed: who writes a plugin need not know of them."""
        if hdrs.COOKIE not in request.headers or self._believes_cookies(request):
            return request
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in request.headers.items():
            if name.lower() != "cookie":  # and what is no UTF-8 could not be cloned
                headers.add(name, value.encode(errors="surrogateescape").decode(errors="replace"))
        # What a trusted proxy has told of it is not cloned of itself.
        return request.clone(
            headers=headers, scheme=request.scheme, host=request.host, remote=request.remote or ""
        )

    async def _ask(self, request: web.Request) -> Identity | None:
        if not self._authenticators:
            return None
        request = self._for_plugins(request)
        for owner, authenticate in self._authenticators:
            try:
                for answer in authenticate(request=request):
                    async with asyncio.timeout(AUTHENTICATION):
                        identity = await answer if inspect.isawaitable(answer) else answer
                    if isinstance(identity, Identity):
                        return identity
                    if identity is not None:
                        wrong = f"it answered {identity!r}, which is no Identity"
                        raise TypeError(f"{wrong}: return Identity(name=…) or None{_in(authenticate)}")
            except web.HTTPException:
                raise
            except BaseException as error:
                if not_the_plugins(error):
                    raise
                log.exception("authenticate of %s failed; the request is refused%s", owner, remedy(error))
                raise web.HTTPInternalServerError(text="authentication failed\n") from None
        return None

    # What it may do

    @property
    def asks(self) -> bool:
        """Whether plugins are asked about each message."""
        return bool(self._authorizers)

    def refusal(
        self, request: web.Request, allow: Allow, action: Action, identity: Identity | None, topic: str
    ) -> web.HTTPException | None:
        """The HTTP error of who may not, by ``allow`` or by its token: what holds while it is connected."""
        if not allow.permits(action, identity, local=is_local(request)):
            rule = getattr(allow, action)
            text = f"who may {action} here: {rule} (allow.{action} in the config)\n"
            return refused(text, identity if rule not in ("local", "nobody") else Identity(name=""))
        if identity is not None and not identity.covers(action, topic):
            return refused(f"you may not {action} here: your token is for other topics\n", identity)
        return None

    def denied(self, identity: Identity | None, action: Action, topic: str) -> web.HTTPException | None:
        """The HTTP error of who may not, because a plugin says so now."""
        for owner, authorize in self._authorizers:
            try:
                for answer in authorize(identity=identity, action=action, topic=topic):
                    if inspect.iscoroutine(answer):
                        answer.close()  # it would warn that nobody has awaited it
                    if not isinstance(answer, bool):
                        wrong = f"it answered {answer!r}; it is to be True, False or None"
                        raise TypeError(f"{wrong}{_in(authorize)}")
                    if not answer:
                        return refused(f"you may not {action} here: {owner} does not allow it\n", identity)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                log.exception(
                    "authorize of %s failed; what was asked for is denied%s", owner, remedy(error)
                )
                return refused(f"you may not {action} here: {owner} has a bug\n", identity)
        return None


def check_origin(request: web.Request, origins: str | list[str], url: str | None) -> None:
    """Raises 403 for a page that may not connect."""
    sent = request.headers.getall(hdrs.ORIGIN, [])
    if sent and not (len(sent) == 1 and origin_allowed(sent[0], origins, site(request), url)):
        raise web.HTTPForbidden(
            text=f"a page of {sent[0][:100]!r} may not connect here; "
            "server.origins in the config can allow it\n"
        )


def _in(caller: Callable[..., list[Any]]) -> str:
    """Where the hook is that this calls."""
    found: list[Any] = getattr(caller, "get_hookimpls", list)()
    return f"; in {defined(found[0].function)}" if found else ""


def _one_word(token: str) -> str:
    if not token or len(token.split()) != 1:
        raise _invalid("it is one word")
    return token


def refused(text: str, identity: Identity | None) -> web.HTTPException:
    """401 where it would help to say who one is, else 403."""
    if identity is None:
        return web.HTTPUnauthorized(text=text, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
    return web.HTTPForbidden(text=text)


def _invalid(why: str) -> web.HTTPException:
    """The answer to a token that is not believed (RFC 6750, section 3.1)."""
    return web.HTTPUnauthorized(
        text=f"the token is not valid: {why}\n",
        headers={hdrs.WWW_AUTHENTICATE: 'Bearer error="invalid_token"'},
    )
