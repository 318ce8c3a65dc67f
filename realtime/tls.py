"""TLS of the server's own: the config's certificate made into what the sockets need.

Everything that can be wrong with the files is found before anything listens, each in its place.
"""

from __future__ import annotations

import logging
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from realtime.config import Config
from realtime.errors import Problem

log = logging.getLogger("realtime.tls")

#: How long a client may take from the connection to the end of its handshake, in seconds.
HANDSHAKE = 10.0
#: How long it may take to answer the end of the encrypted stream, in seconds.
SHUTDOWN = 2.0

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_TIME = rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)"
#: The validity of a certificate in its DER form: a sequence of two times, the second the end
#: (RFC 5280, section 4.1.2.5).
_VALIDITY = re.compile(rb"\x30[\x1e-\x22]" + _TIME + rb"(?=\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)")


class _NoPassword(Exception):
    """OpenSSL wants a password for the key, and the config has none."""


def context(config: Config) -> tuple[ssl.SSLContext | None, list[Problem]]:
    """What ``server.tls`` says, ready for the sockets, and what is wrong with it.

    None without TLS, or when something is wrong. A certificate that has expired is a warning.
    """
    settings = config.server.tls
    if settings is None:
        return None, []
    problems: list[Problem] = []

    def wrong(key: str, message: str) -> None:
        problems.append(config.source.problem(message, ("server", "tls", key)))

    texts: dict[str, str] = {}
    files: dict[str, Path] = {}
    for key, name in (("cert", settings.cert), ("key", settings.key)):
        if name is None:
            continue
        files[key] = (config.directory or Path()) / name
        try:
            texts[key] = files[key].read_text(errors="replace")
        except (OSError, ValueError) as error:
            reason = "not found" if isinstance(error, FileNotFoundError) else str(error).partition("] ")[2]
            if "-----BEGIN" in name:
                wrong(key, "the path of a file is wanted, and this is what should be in it")
            else:
                wrong(key, f"{name}: {reason.partition(':')[0].lower() or 'no path'}")
    certificates = _CERTIFICATE.findall(texts.get("cert", ""))
    if "cert" in texts and not (certificates and _is_certificate(certificates)):
        wrong("cert", f"{settings.cert} has no certificate that can be read (PEM)")
    if "key" in texts and not _KEY.search(texts["key"]):
        wrong("key", f"{settings.key} has no private key (PEM)")
    elif settings.key is None and "cert" in texts and not _KEY.search(texts["cert"]):
        wrong("cert", f"{settings.cert} has no private key; server.tls.key names the file that has it")
    if problems:
        return None, problems

    asked = False

    def password() -> str:
        # Without this OpenSSL would ask for it on the terminal.
        nonlocal asked
        asked = True
        if settings.password is None:
            raise _NoPassword
        return settings.password.get_secret_value()

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION  # which costs the client nothing, and the server a handshake
    made.set_alpn_protocols(["http/1.1"])
    key = "cert" if settings.key is None else "key"
    try:
        made.load_cert_chain(files["cert"], files.get("key"), password)
    except _NoPassword:
        wrong(key, "the key is encrypted; server.tls.password is what opens it")
    except (ssl.SSLError, ValueError) as error:  # ValueError: a password that is far too long
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            wrong(key, "the key does not belong to the certificate")
        elif asked:
            wrong("password", "it does not open the key")
        else:
            wrong(key, "the key or the certificate is not one that can be used")
    if problems:
        return None, problems
    end = _end(ssl.PEM_cert_to_DER_cert(certificates[0]))
    if end is not None and end < datetime.now(UTC):
        place = config.source.problem(
            f"{settings.cert} expired on {end:%Y-%m-%d}", ("server", "tls", "cert")
        )
        log.warning("%s", place)
    return made, []


def _is_certificate(blocks: list[str]) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(blocks))
    except (ssl.SSLError, ValueError):  # ValueError: not even ASCII
        return False
    return True


def _end(certificate: bytes) -> datetime | None:
    """When a certificate (DER) expires."""
    validity = _VALIDITY.search(certificate)
    if validity is None:
        return None
    short, long = validity.groups()
    try:
        if long is None:  # two digits of the year, from 1950 to 2049
            century = "19" if short >= b"50" else "20"
            long = century.encode() + short
        return datetime.strptime(long.decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
