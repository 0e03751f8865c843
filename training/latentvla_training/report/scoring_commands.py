"""``score-vectors`` and ``bench-scoring``, with what their figures hang on in the files they write.

Added here, outside the package of the scores: a change of that package makes all Scenes anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from latentvla_training.scoring import commands


@dataclass(frozen=True)
class ScoreVectors(commands.ScoreVectors):
    """Compare every score with NAVSIM's own results in a vector file."""

    def __call__(self) -> int:
        with _with_identity(self.json) as path:
            return commands.ScoreVectors(self.file, self.comfort, self.two_stage, path)()


@dataclass(frozen=True)
class BenchScoring(commands.BenchScoring):
    """Measure the CPU time of the scores on one core."""

    def __call__(self) -> int:
        with _with_identity(self.json) as path:
            return commands.BenchScoring(self.vectors, path)()


@contextmanager
def _with_identity(json_path: Path | None) -> Iterator[Path | None]:
    """Yield where to write figures; ``json_path`` then has them whole, with the scores' identity.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    if json_path is None:
        yield None
        return
    from latentvla_training.data.whole_file import write_whole
    from latentvla_training.report.identity import code_identity, commit

    with TemporaryDirectory(prefix="latentvla-") as folder:
        aside = Path(folder) / json_path.name
        yield aside
        figures = json.loads(aside.read_text(encoding="utf-8"))
    identity = {"scoring": code_identity()["scoring"], "commit": commit()}
    text = json.dumps({**figures, "identity": identity}, indent=1) + "\n"
    write_whole(json_path, text.encode())
