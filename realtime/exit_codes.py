"""How the process ends: the exit codes of every command, one table."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ends with."""

    #: Fine, or stopped by a signal.
    OK = 0
    #: A problem in the config, or in a plugin that it names.
    BAD_CONFIG = 1
    #: The command line is wrong; ``argparse`` uses the same.
    USAGE = 2
    #: The server could not start, or a client could not connect.
    NOT_STARTED = 3
    #: A client was closed with an error, or refused.
    CLOSED = 4
