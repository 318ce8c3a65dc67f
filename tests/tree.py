"""Where things are: the tree that these tests belong to, and the package that they test.

In a checkout both are in one place. The suite also runs on an installed wheel, from a directory that
holds the tests and no package: what looks at the tree itself then skips.

``python tests/tree.py DIRECTORY`` copies the tree there as a fresh clone would be: without what
``.gitignore`` names.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What this interpreter imports as ``realtime``, and the first-party plugins that go with it.
_spec = find_spec("realtime")
PACKAGE = Path(_spec.origin).parent if _spec and _spec.origin else ROOT / "realtime"
PLUGINS = next(p for p in (PACKAGE / "plugins", PACKAGE.parent / "plugins", PACKAGE) if p.is_dir())


def checkout() -> Path:
    """The root of the checkout; without one the test is skipped."""
    if not (ROOT / "realtime" / "__main__.py").is_file():
        import pytest

        pytest.skip("this test looks at a whole checkout, and these tests run without one")
    return ROOT


def fresh_copy(target: Path) -> Path:
    """Copy the checkout to a directory that does not exist yet, as git would clone it.

    What is not committed comes along; every line of ``.gitignore`` must be the name of a file or
    directory, with wildcards at most.
    """
    ignored = [line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    names = [name for name in ignored if name and not name.startswith("#")]
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".git", *names), symlinks=True)
    return target


if __name__ == "__main__":
    fresh_copy(Path(sys.argv[1]))
