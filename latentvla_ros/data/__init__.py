"""Files that the code itself needs at run time, found under every kind of installation."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def data_path(*parts: str) -> Path:
    """Return where a shipped file or folder is, e.g. ``data_path("bundles", "nano")``.

    Whether it exists is for the caller to see: it knows what its absence means.
    """
    return Path(str(resources.files(__name__).joinpath(*parts)))
