"""The inventory's part about what was released and measured: weights, bundles, result files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentvla_ros.runtime.bundle import BundleError, load_bundle, sha256_of
from latentvla_training.report.network_sums import sums_from_json
from latentvla_training.report.places import (
    Entry,
    Places,
    Section,
    SplitOnDisk,
    json_object,
    megabytes,
)
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, ResultFile, read_results
from latentvla_training.report.run_records import other_settings


def released(places: Places, splits: list[SplitOnDisk]) -> Section:
    """List bundles that ship, and every manifest of weights that come with the package."""
    here = {split.name: split.content_sha256 for split in splits}
    entries = []
    for path in sorted(places.bundles.glob("*/manifest.json")):
        if not path.parent.name.startswith("."):
            entries.append(_bundle(path.parent, here))
    for path in sorted(places.released.rglob("*.json")):
        entries += _manifest(path, places.released, here)
    headers = ("what", "id", "size", "made by", "scores")
    return Section("Released", headers, tuple(entries), "latentvla-train export --run nano")


def _bundle(folder: Path, here: Mapping[str, str | None]) -> Entry:
    try:
        bundle = load_bundle(folder)
    except BundleError as error:
        return Entry((f"bundle {folder.name}", "", "", "", ""), (str(error),))
    manifest, made = bundle.manifest, bundle.manifest.provenance
    size = sum(bundle.file(name).stat().st_size for name in manifest.files)
    scores = []
    for split, figures in manifest.metrics.items():
        ours = ((figures or {}).get("rows") or {}).get("ours") or {}
        if "epdms" in ours:
            scores.append(f"{split} EPDMS {100 * ours['epdms']:.1f}, ADE {ours['ade']:.2f} m")
    return Entry(
        (
            f"bundle {folder.name}",
            f"{manifest.bundle_id} {bundle.content_sha256[:10]}",
            megabytes(size),
            _made_by(made),
            "; ".join(scores),
        ),
        _other_scenes(made, here),
    )


def _manifest(path: Path, root: Path, here: Mapping[str, str | None]) -> Iterator[Entry]:
    """Yield the weights that a manifest names.

    ``{file: {sha256, ...}}``, or hashes by file as ``files`` or ``sha256``.
    """
    document = json_object(path)
    about = {
        name: {**value, "id": document.get("id") or document.get("codebook_id")}
        for name, value in document.items()
        if isinstance(value, dict) and isinstance(value.get("sha256"), str)
    }
    files = document.get("files") or document.get("sha256")
    if isinstance(files, dict):
        for name, value in files.items():
            digest = value.get("sha256") if isinstance(value, dict) else value
            about[name] = {**document, "sha256": digest}
    if isinstance(document.get("sha256"), str):  # of the one file beside it: a codebook
        about |= {file.name: document for file in path.parent.glob("*.safetensors")}
    for name, found in about.items():
        file = path.parent / name
        made = {**found, **(found.get("provenance") or {})}
        stale = list(_other_scenes(made, here))
        if isinstance(found.get("recipe"), dict):  # whole
            stale += other_settings(found["recipe"])
        size = ""
        if not file.is_file():
            stale.append("the file is gone")
        else:
            size = megabytes(file.stat().st_size)
            if sha256_of(file) != found["sha256"]:
                stale.append("is not the file that its manifest names: damaged")
        which = (
            found.get("codebook_id")
            or found.get("id")
            or found.get("bundle_id")
            or str(found["sha256"])[:10]
        )
        place = str(file.relative_to(root))
        yield Entry((place, str(which), size, _made_by(made), ""), tuple(stale))


def _made_by(made: Mapping[str, Any]) -> str:
    recipe = made.get("recipe")
    if isinstance(recipe, Mapping):  # whole
        made = {**recipe, **made}
        recipe = recipe.get("name")
    parts = [str(recipe)] if recipe else []
    parts += [f"{name} {made[name]}" for name in ("seed", "passes", "steps") if name in made]
    return ", ".join(parts)


def _other_scenes(made: Mapping[str, Any], here: Mapping[str, str | None]) -> tuple[str, ...]:
    """Say of which splits the Scenes that it was made from are not those that are here."""
    data = made.get("data")
    found = {
        split: entry.get("content_sha256")
        for split, entry in (data.items() if isinstance(data, dict) else ())
        if isinstance(entry, dict)
    }
    return tuple(
        f"trained on other {split} Scenes ({digest[:10]}, here {own[:10]})"
        for split, digest in found.items()
        if digest and (own := here.get(split)) and own != digest
    )


def results(folder: Path, present: Present) -> Section:
    """List every result file, and compare what it hangs on."""
    headers = ("file", "command", "of", "score")
    absent = "latentvla-train evaluate --split test --json docs/results/open_loop_test.json"
    if not folder.is_dir():
        return Section("Results", headers, (), absent)
    results = read_results(folder, present)
    entries = [
        Entry((file.name, file.kind.value, file.split, _headline(file)), file.stale)
        for file in results.files
    ]
    entries += [Entry((name, "refused", "", ""), (why,)) for name, why in results.refused.items()]
    return Section("Results", headers, tuple(entries), absent)


def _headline(file: ResultFile) -> str:
    """Return the figure that a result is about."""
    found = file.document
    if file.kind is Kind.OPEN_LOOP:
        parts = []
        for row in ("ours", "blank_images", "expert"):
            epdms = file.sums.mean(row, "epdms").value if file.sums else float("nan")
            parts.append(f"{row} {100 * epdms:.1f}" if epdms == epdms else "")
        return "EPDMS " + ", ".join(part for part in parts if part)
    if file.kind in (Kind.CLOSED_LOOP, Kind.DISTILL_DRIVE):
        score = (found["summary"].get("driving_score") or {}).get("value")
        driver = found["driver"]
        return driver if score is None else f"{driver}: driving score {score:.1f}"
    if file.kind is Kind.GATES:
        return "missed: " + (", ".join(found["missed"]) or "none")
    if file.kind is Kind.LIGHT_PROBE:
        return f"accuracy {100 * found['accuracy']:.1f} %"
    if file.kind is Kind.ORACLE_CODES:
        return f"{found['codebook']}: {'passed' if found['verdict']['passed'] else 'failed'}"
    if file.kind is Kind.TEACHER:
        (first, *_) = found["seeds"].values()
        sums = sums_from_json(first["sums"])
        return f"{first['identity']['teacher_id']}: {sums.mean('teacher', 'nll').value:.3f} nats"
    if file.kind is Kind.DISTILL:
        parts = [
            f"{split} {100 * entry['differences'][f'{row}-host']['pdms'][0]:+.1f} {row}"
            for split, entry in found["splits"].items()
            for row in ("teacher", "student")
            if "pdms" in entry["differences"].get(f"{row}-host", {})
        ]
        return f"{found['distilled']}, PDMS minus host: " + ", ".join(parts)
    if file.kind is Kind.BENCH:
        return f"backend {found['backend_cpu_ms']:.1f} ms of CPU a plan"
    return ""
