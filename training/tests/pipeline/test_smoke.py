"""``all --recipe smoke``: from nothing to a bundle that loads, with a kill between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from latentvla_training.pipeline.overview import whole_runs
from latentvla_training.pipeline.settings import STAGES
from latentvla_training.report.markdown import DAGGER

from latentvla_ros.runtime.bundle import load_bundle

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "latentvla_training.cli", "all", "--recipe", "smoke")


def of_group(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def groups_of(parent: int) -> set[int]:
    """Return the groups of all that a process has started, but for its own."""
    parents, groups = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, above, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        parents[int(path.parent.name)], groups[int(path.parent.name)] = int(above), int(group)
    below = {parent}
    while more := {pid for pid, above in parents.items() if above in below} - below:
        below |= more
    return {groups[pid] for pid in below} - {groups[parent]}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_from_nothing_to_the_bundle(tmp_path: Path) -> None:
    environment = {**os.environ, "LATENTVLA_DATA": str(tmp_path / "not_here")}
    command = [*COMMAND, "--root", str(tmp_path), "--processes", "1"]

    # Killed while the first Scenes are made; what it started ends with it.
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    log = tmp_path / "log" / "world.log"
    while not (log.is_file() and "world make" in log.read_text()):
        assert killed.poll() is None
        time.sleep(0.2)
    started = groups_of(killed.pid)
    assert started
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60.0
    while any(of_group(group) for group in started):
        assert time.monotonic() < deadline, "commands outlive the run that gave them"
        time.sleep(0.2)

    def run(*options: str) -> str:
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run()
    for number, stage in enumerate(STAGES, start=1):
        assert f"[{number}/{len(STAGES)}] {stage}" in said
    assert "Went past a missed gate: Do the true codes improve the planner?" in said
    assert not (tmp_path / "not_here").exists()
    bundle = load_bundle(str(tmp_path / "bundles" / "smoke"))
    host = load_bundle(str(tmp_path / "bundles" / "smoke_host"))
    (codes,) = (tmp_path / "data" / "codes").iterdir()
    assert bundle.manifest.codebook_id == codes.name and host.manifest.codebook_id is None
    made = bundle.manifest.provenance
    assert made["start_from"].startswith("smoke_host-1-") and made["teacher_id"]
    for path in ("evidence/codebook", "results/oracle_codes", "results/teacher", "results/distill"):
        assert json.loads((tmp_path / f"{path}.json").read_text())
    for page in ("results", "latent_actions", "teacher"):
        assert (tmp_path / f"{page}.md").read_text().startswith("# ")
    # Nothing that it has just made is stale: the mark is in the text that explains it, and nowhere.
    results = (tmp_path / "results.md").read_text()
    assert results.count(DAGGER) == 1 and "Stale:" not in results
    assert "3 result files, 0 of them stale" in (tmp_path / "log" / "report.log").read_text()

    # It is said how the student stands to its host on validation networks, here and in the bundle.
    assert (
        "seed 0: student PDMS" in said and said.count("On val the student of seed 0 is best") == 2
    )
    assert bundle.manifest.provenance["seed"] == 0
    assert bundle.manifest.metrics["val"]["differences"]["ours-host"].keys() >= {"pdms", "epdms"}

    # The inventory knows it by its files.
    overview, runs = whole_runs(tmp_path, above=tmp_path / "none")
    (entry,) = overview.entries
    assert entry.cells[2].startswith(f"{len(STAGES)} of {len(STAGES)}; gate missed: ")
    assert entry.cells[3] == "" and entry.cells[4].startswith("smoke-1 ") and not entry.stale
    names = {found.cells[0] for found in runs.entries}
    assert {"teacher/smoke-s0", "distill/smoke/seed0/host", "oracle_smoke/seed0/host"} <= names

    # What is there is left; what was lost is made again, and what hangs on it.
    (student,) = (tmp_path / "runs" / "distill" / "smoke" / "seed0").glob("student-*")
    (student / "checkpoint.pt").unlink()
    left = ", ".join(name for name in STAGES[STAGES.index("distill") :] if name != "report")
    assert whole_runs(tmp_path, above=tmp_path / "none")[0].entries[0].cells[3] == left
    lost = ("distill", "distill-val", "distill-report", "bundle", "report")
    assert " no " not in run("--dry-run", "--until", "teacher-cache")
    said = run("--from", "teacher")
    for stage in STAGES[STAGES.index("teacher") :]:
        assert (f"] {stage}: is there" in said) == (stage not in (*lost, "teacher")), said
    assert load_bundle(str(tmp_path / "bundles" / "smoke")).content_sha256 == bundle.content_sha256
