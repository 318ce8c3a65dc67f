"""``python -m realtime``."""

import sys

try:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        # Another distribution installs the same import package. Whichever came last has overwritten
        # part of the other, so this comes before any import of ours could fail in a stranger way.
        distribution("realtime")
    except PackageNotFoundError:
        pass
    else:
        sys.exit(
            "realtime: the distribution 'realtime' is installed too, and both have a package of that "
            "name: pip uninstall -y realtime && pip install --force-reinstall realtime-channels"
        )

    from realtime.cli import main
except KeyboardInterrupt:  # Ctrl-C before there was anything to end
    sys.exit()

if __name__ == "__main__":
    sys.exit(main())
