"""A folder that one run at a time may write to."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentvla_ros.contract import ContractError

logger = logging.getLogger(__name__)

LOCK = ".lock"

#: Of a file system that knows no locks.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})

#: Open files that hold locks. A lock is held as long as any process has its file open, so processes
#: that are forked (loader workers, which outlive a killed run by seconds) close theirs.
_held: set[int] = set()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs; the lock ends with this process, however that ends.

    Where the file system knows no locks, a warning says so and nothing is held.

    Raises:
        ContractError: another run holds it; names its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(file)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip()
            found = f"a run under way, process {holder or 'unknown'}"
            raise ContractError(str(folder), found, "one at a time") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s: no lock against other runs: %s", folder, error.strerror)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        _held.discard(file)
        os.close(file)


def _leave_to_parent() -> None:
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
