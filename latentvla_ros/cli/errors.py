"""The error that ends a command: one line that names the problem and says what to do next."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Exit code of a command stopped by its input (bag, rig, bundle, environment), not by a defect.
EXIT_BAD_INPUT = 2


_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
)


class CommandError(Exception):
    """A problem with what the user gave, said in one line.

    Attributes:
        name: short kebab-case name of the problem, for people and scripts, e.g. ``missing-topic``.
        next_step: what to do about it.
    """

    def __init__(self, name: str, problem: str, next_step: str) -> None:
        super().__init__(f"{name}: {problem.rstrip('.')}. Next: {next_step.rstrip('.')}.")
        self.name = name
        self.next_step = next_step


def print_error(error: CommandError) -> int:
    """Print ``error`` on stderr as one line and return the exit code of the command."""
    print("latentvla: error: " + " ".join(str(error).split()), file=sys.stderr)
    return EXIT_BAD_INPUT


@contextmanager
def writing(where: object, option: str) -> Iterator[None]:
    """Turn a disk that is full, or may not be written, into a ``CommandError``.

    Args:
        where: what is written when the system's error does not say. option: that chooses it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise CommandError(
            "cannot-write",
            f"{error.filename or where}: {error.strerror}",
            f"make room there, or give another {option}",
        ) from None
