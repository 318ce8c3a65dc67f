"""`python -m realtime_basic_auth`: a password as the config is to have it."""

import getpass
import sys

from realtime_basic_auth import hashed


def main() -> None:
    """Ask for a password, or read it from a pipe, and print it hashed."""
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if len(password) < 8:
        raise SystemExit("a password has at least 8 characters")
    sys.stdout.write(f"{hashed(password)}\n")


if __name__ == "__main__":
    main()
