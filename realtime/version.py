"""The version of the distribution, and of what is promised to plugins."""

from __future__ import annotations

#: The version of the distribution.
__version__ = "0.1.0"

#: A plugin may say ``API_VERSION = 1``; one that is written for another version is refused
#: before it is run. It grows when something is taken away or changes its meaning, which is rare.
API_VERSION = 1
