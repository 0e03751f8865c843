"""Where a whole run puts what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentvla_training.pipeline.settings import WholeRecipe
from latentvla_training.world.networks import data_root

_CHECKOUT = Path(__file__).resolve().parents[3]
#: Where every whole run without ``--root`` has a folder of the name of its recipe.
WHOLE_RUNS = _CHECKOUT / "out" / "all"


@dataclass(frozen=True)
class Layout:
    """Folders of a whole run; all are absolute, so that commands take them for paths.

    Attributes:
        data: root of Scenes, codes and caches.
        runs: of what is made of Scenes and a recipe alone (planner, codebook): whoever gives their
            commands one by one shares them.
        out: of bundles, the codebook, reports and logs; nothing that ships is replaced. What is
            made of that host or codebook (true codes, teachers, contenders) runs below it too.
    """

    data: Path
    runs: Path
    out: Path

    @property
    def planners(self) -> Path:
        """Of the runs of the host."""
        return self.runs

    @property
    def own_runs(self) -> Path:
        """Of the runs that no other whole run and no single command shares."""
        return self.out / "runs"

    @property
    def codebook(self) -> Path:
        """Of the released codebook."""
        return self.out / "codebook"

    @property
    def results(self) -> Path:
        """Of the result files that the report is made of."""
        return self.out / "results"

    @property
    def evidence(self) -> Path:
        """Of the figures that are no part of the report."""
        return self.out / "evidence"

    def codebook_run(self, recipe: str, seed: int) -> Path:
        """Return the folder of a codebook's run."""
        return self.runs / "codebook" / f"{recipe}-s{seed}"

    def vision_run(self, recipe: str) -> Path:
        """Return the folder of the run of a teacher's vision stage."""
        return self.own_runs / "teacher" / f"{recipe}-vision"

    def teacher_run(self, recipe: str, seed: int) -> Path:
        """Return the folder of a teacher's run."""
        return self.own_runs / "teacher" / f"{recipe}-s{seed}"

    def oracle_run(self, recipe: str) -> Path:
        """Return the folder of the runs of the gate of the true codes."""
        return self.own_runs / f"oracle_{recipe}"

    def contest(self, family: str) -> Path:
        """Return the folder of the runs of a comparison."""
        return self.own_runs / "distill" / family

    def bundle(self, name: str) -> Path:
        """Return the folder of a bundle."""
        return self.out / "bundles" / name

    def codes(self, codebook_id: str) -> Path:
        """Return the folder of the codes of a codebook."""
        return self.data / "codes" / codebook_id

    def log(self, stage: str) -> Path:
        """Return the file that a stage's commands write what they print into."""
        return self.out / "log" / f"{stage}.log"


def find_layout(recipe: WholeRecipe, root: Path | None) -> Layout:
    """Return the folders of a whole run.

    Args:
        root: everything goes below it. None: below a folder of its own where the recipe stands
            apart, otherwise Scenes (or ``$LATENTVLA_DATA``) and shared runs are the checkout's.
    """
    out = WHOLE_RUNS / recipe.name
    if root is None and not recipe.apart:
        return Layout(data_root().resolve(), _CHECKOUT / "runs", out)
    root = (out if root is None else root).resolve()
    return Layout(root / "data", root / "runs", root)
