"""The sockets that a server listens on, and how many the process may have."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat

from realtime.errors import StartError
from realtime.values import Address

#: Connections that wait to be accepted: room for a storm of reconnects.
BACKLOG = 4096
#: How many of them are accepted in one turn of the event loop: the others have theirs, and where none can
#: be, no more attempts fail.
ACCEPTS = 8
#: Descriptors that are kept back for files, engines and plugins; of few, half.
SPARE_DESCRIPTORS = 100
#: What the kernel may hold unsent, in bytes. Without it a client that never reads takes four megabytes.
NOTSENT_LOWAT = 128 * 1024
#: How long the kernel tries to deliver to a peer that acknowledges nothing, in milliseconds.
TCP_USER_TIMEOUT = 20_000

_REASONS = {
    errno.EADDRINUSE: "is in use",
    errno.EEXIST: "is a file, and no socket",
    errno.EACCES: "may not be listened on: permission denied",
    errno.EADDRNOTAVAIL: "is no address of this machine",
    errno.ENOENT: "cannot be made: there is no such directory",
}


def bind(address: Address, mode: int) -> list[socket.socket]:
    """The sockets of an address, bound but not listening; a name may have several.

    ``mode`` is that of a unix socket's file. Raises :exc:`StartError` that says why it cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        if address.path:
            _remove_stale(address.path)
            sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sockets[0].bind(address.path)
            try:
                os.chmod(address.path, mode)  # nobody can connect before it listens
            except OSError:
                os.unlink(address.path)
                raise
            return sockets
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, target in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tune(sock)  # and so each that it accepts
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(target)
    except (OSError, ValueError) as error:  # ValueError: a name that is none, in any encoding
        for sock in sockets:
            sock.close()
        raise cannot_listen(address, error) from None
    return sockets


def tune(sock: socket.socket) -> None:
    """Have the kernel keep little for a client that does not read, and give up one that is gone."""
    for option, value in (("USER_TIMEOUT", TCP_USER_TIMEOUT), ("NOTSENT_LOWAT", NOTSENT_LOWAT)):
        if number := getattr(socket, f"TCP_{option}", None):  # the first is Linux's alone
            sock.setsockopt(socket.IPPROTO_TCP, number, value)


def cannot_listen(address: Address, error: OSError | ValueError) -> StartError:
    """What an error of the system means to the person who chose the address."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
        return StartError(f"{address} is no address that can be found")
    other = f"cannot be listened on: {error.strerror or error}"
    return StartError(f"{address} {_REASONS.get(error.errno or 0, other)}")


def address_of(sock: socket.socket) -> Address:
    """Where a bound socket is to be reached."""
    if sock.family == socket.AF_UNIX:
        return Address(path=sock.getsockname())
    host, port = sock.getsockname()[:2]
    return Address(host, port)


def descriptors() -> int:
    """How many connections the process may hold; raises the soft limit as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft // 2, soft - SPARE_DESCRIPTORS) if soft != resource.RLIM_INFINITY else 1_000_000_000


def _remove_stale(path: str) -> None:
    """A server that was killed leaves its socket's file: it goes if nobody answers there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(errno.EADDRINUSE, "")
