"""Certificates for the tests, made by an authority that nobody else trusts."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


class Authority:
    """An authority, and the files of a certificate that it gave, in a directory."""

    def __init__(self, directory: Path, *, expired: bool = False) -> None:
        self._authority = trustme.CA()
        end = datetime(2024, 2, 29, tzinfo=UTC) if expired else None
        made = self._authority.issue_cert("localhost", "127.0.0.1", "::1", not_after=end)
        self.directory = directory
        self.ca = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        key = made.private_key_pem.bytes()
        secret = load_pem_private_key(key, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")
        )
        for name, data in {
            "cert.pem": chain,
            "key.pem": key,
            "both.pem": key + chain,
            "secret.pem": secret,
            "other.pem": trustme.CA().issue_cert("localhost").private_key_pem.bytes(),
            "garbage.pem": b"\xff\x00 no PEM",
            "broken.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "brokenkey.pem": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        }.items():
            (directory / name).write_bytes(data)

    def client(self) -> ssl.SSLContext:
        """What a client needs to trust it."""
        return ssl.create_default_context(cafile=self.ca)
