"""Files that the code itself needs at run time, found under every kind of installation."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def data_path(*parts: str) -> Path:
    """Return the path of a shipped file or folder, e.g. ``data_path("bundles", "nano")``.

    Raises FileNotFoundError, naming the path, when it is not there.
    """
    path = Path(str(resources.files(__name__).joinpath(*parts)))
    if not path.exists():
        raise FileNotFoundError(f"{path}: not part of this installation of latentvla_ros")
    return path
