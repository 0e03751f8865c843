"""Arrays kept on disk between runs, in files that tell by themselves whether they are whole.

An ``.npy`` file with the sha256 of all before it at its end, past which numpy does not read. Files
of before there was one are told by their length alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_training.data.whole_file import write_whole

logger = logging.getLogger(__name__)

_MARK = b"sha256: "
_END = len(_MARK) + hashlib.sha256().digest_size
_CHUNK = 1 << 20


def kept_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    make: Callable[[], NDArray[Any]],
    mapped: bool = False,
) -> NDArray[Any]:
    """Return the array of a file; it is made and written first where the file is not there.

    A file that is damaged, or of another shape, is named in the log and made again.

    Args:
        shape, dtype: of the array. make: called for it. mapped: into memory, not read.

    Raises:
        OSError: no space left for the file.
    """
    if path.is_file():
        try:
            _check(path, shape, np.dtype(dtype))
            return _load(path, mapped)
        except (ValueError, EOFError) as error:
            logger.warning("%s is damaged (%s): made again", path, error)
    content = io.BytesIO()
    np.save(content, np.asarray(make(), dtype))
    whole = content.getvalue()
    write_whole(path, whole + _MARK + hashlib.sha256(whole).digest())
    return _load(path, mapped)


def _load(path: Path, mapped: bool) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None)
    return found


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that a file is whole.

    Raises:
        ValueError, EOFError: it is not; says why.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of .npy")
        found, _, kind = np.lib.format.read_array_header_1_0(file)
        if (found, kind) != (shape, dtype):
            raise ValueError(f"{kind} {found}, expected {dtype} {shape}")
        whole = file.tell() + math.prod(shape) * dtype.itemsize
        if size == whole:
            return  # of before files had their hash
        if size != whole + _END:
            raise ValueError(f"{size} bytes, its header says {whole}")
        file.seek(0)
        digest, left = hashlib.sha256(), whole
        while left:
            part = file.read(min(_CHUNK, left))
            digest.update(part)
            left -= len(part)
        if file.read() != _MARK + digest.digest():
            raise ValueError("other bytes than were written")
