"""What code does, as a hash: whatever its layout, comments and docstrings."""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

#: Modules of this folder that decide what a Scene holds.
_SCENE_MODULES = (
    "episode_signals", "expert_scores", "image_encoding", "labels", "recovery", "world_adapter",
)  # fmt: skip


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return a hash of the sources that decide what a Scene of the world looks like."""
    import latentvla_ros.sensing
    import latentvla_training.world

    folders = (latentvla_training.world, latentvla_ros.sensing)
    files = [path for module in folders for path in sorted(Path(module.__path__[0]).rglob("*.py"))]
    here = Path(__file__).parent
    files += [here / f"{name}.py" for name in _SCENE_MODULES]
    files += sorted((here.parent / "scoring").glob("*.py"))
    return files_hash(files)


def package_hash(package: ModuleType, leave_out: frozenset[str] = frozenset()) -> str:
    """Return a hash of a package's modules but those named ``leave_out``."""
    files = sorted(Path(package.__path__[0]).glob("*.py"))
    return files_hash(path for path in files if path.stem not in leave_out)


def provenance() -> dict[str, str]:
    """Return the versions and the code hash that a shard's footer keeps for people."""
    found = {"code": code_hash()}
    for package in ("numpy", "numba", "eclipse-sumo", "opencv-python-headless"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def files_hash(files: Iterable[Path]) -> str:
    """Return a hash of what source files do."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {_code_of(path.read_text(encoding='utf-8'))}".encode())
    return digest.hexdigest()[:16]


def _code_of(source: str) -> str:
    """Return what a module does."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring
    return ast.dump(tree)
