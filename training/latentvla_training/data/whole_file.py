"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def check_writable(path: Path) -> None:
    """Find out before long work whether a file can be written; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.{os.getpid()}.part")
    trial.touch()
    trial.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk, then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        what = f"{path.name} not written: {error.strerror}"
        raise OSError(error.errno, what, str(path)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
