"""``python -m realtime``."""

import os
import sys


def _other_distribution() -> bool:
    """Whether the distribution ``realtime`` is installed, which has a package of the same name.

    Looked for by hand: ``importlib.metadata`` would take longer than all that ``--help`` does.
    """
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue
        if any(name.startswith("realtime-") and name.endswith(("dist-info", "egg-info")) for name in names):
            return True
    return False


try:
    # Whichever came last has overwritten part of the other, so this comes before any import of ours
    # could fail in a stranger way.
    if _other_distribution():
        sys.exit(
            "realtime: the distribution 'realtime' is installed too, and both have a package of that "
            "name: pip uninstall -y realtime && pip install --force-reinstall realtime-channels"
        )

    from realtime.cli import main
except KeyboardInterrupt:  # Ctrl-C before there was anything to end
    sys.exit()

if __name__ == "__main__":
    sys.exit(main())
