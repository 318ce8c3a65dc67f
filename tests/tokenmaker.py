"""Tokens, right and wrong, made without the library that the server checks them with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

#: A secret that nobody would guess, and what a config says of it.
SECRET = "9f2c7ab4e01d5836c4f7a1be03d92875"
AUTH = f"auth: {{jwt: {{key: {SECRET}, leeway: 1ms}}}}"
NO = object()


def encoded(data: bytes) -> str:
    """Base64 for URLs, without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(claims: object, header: object) -> str:
    """The first two parts of a token; text goes in as it is."""
    parts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    return ".".join(encoded(part.encode()) for part in parts)


def claims_of(**changes: Any) -> dict[str, Any]:
    """The claims of a token that is right, but for some; ``NO`` leaves one out."""
    claims = {"sub": "alice", "aud": "realtime", "exp": int(time.time()) + 86_400, **changes}
    return {key: value for key, value in claims.items() if value is not NO}


def token(header: dict[str, Any] | None = None, key: str = SECRET, **changes: Any) -> str:
    """A token that is right, but for some changes of its claims, of its header, or of the key."""
    signed = unsigned(claims_of(**changes), {"alg": "HS256", "typ": "JWT", **(header or {})})
    return f"{signed}.{encoded(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"
