"""The inventory's part about what was released and measured: weights, bundles, result files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

#: Where codebooks lie among released weights.
_CODEBOOKS = "codebook"


def released(places: Places, splits: list[SplitOnDisk], present: Present) -> Section:
    """List bundles that ship, and every manifest of weights that come with the package."""
    here = {split.name: split.content_sha256 for split in splits}
    entries = []
    for path in sorted(places.bundles.glob("*/manifest.json")):
        if not path.parent.name.startswith("."):
            entries.append(_bundle(path.parent, here, present))
    for path in sorted(places.released.rglob("*.json")):
        entries += _manifest(path, places.released, splits, present)
    headers = ("what", "id", "size", "made by", "scores")
    return Section("Released", headers, tuple(entries), "latentvla-train export --run nano")


def _bundle(folder: Path, here: Mapping[str, str | None], present: Present) -> Entry:
    try:
        bundle = load_bundle(folder)
    except BundleError as error:
        return Entry((f"bundle {folder.name}", "", "", "", ""), (str(error),))
    manifest, made = bundle.manifest, bundle.manifest.provenance
    size = sum(bundle.file(name).stat().st_size for name in manifest.files)
    return Entry(
        (
            f"bundle {folder.name}",
            f"{manifest.bundle_id} {bundle.content_sha256[:10]}",
            megabytes(size),
            _made_by(made),
            _scores({"metrics": manifest.metrics}),
        ),
        (
            *_other_scenes(made, here),
            *(f"{why}; it runs as it is" for why in _other_codebook(manifest.codebook_id, present)),
        ),
    )


def _manifest(
    path: Path, root: Path, splits: Sequence[SplitOnDisk], present: Present
) -> Iterator[Entry]:
    """Yield the weights that a manifest names.

    ``{file: {sha256, ...}}``, or hashes by file as ``files`` or ``sha256``.
    """
    document = json_object(path)
    here = {split.name: split.content_sha256 for split in splits}
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
        weights = file.suffix == ".safetensors"
        stale = list(_other_scenes(made, here))
        if isinstance(found.get("recipe"), dict):  # whole
            stale += other_settings(found["recipe"])
            stale += _other_drives(found, splits) if weights else []
        if weights and file.relative_to(root).parts[0] != _CODEBOOKS:
            stale += _other_codebook(found.get("codebook_id"), present)
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
        scores = _scores(found) if weights else ""
        yield Entry((place, str(which), size, _made_by(made), scores), tuple(stale))


def _scores(manifest: Mapping[str, Any]) -> str:
    """Return the figures of a manifest: of a codebook's stages, a teacher or a planner."""
    parts = []
    for stage, figures in sorted(_mapping(manifest.get("validation")).items()):
        kept = {name: _mapping(figures).get(name) for name in ("gain", "perplexity")}
        text = ", ".join(f"{name} {value:.3g}" for name, value in kept.items() if value is not None)
        parts.append(f"{stage} {text}")
    metrics = _mapping(manifest.get("metrics"))
    nats = _mapping(metrics.get("nll"))
    if "teacher" in nats:
        least = f", ego state and command {nats['ego_mlp']:.3f}" if "ego_mlp" in nats else ""
        parts.append(f"{metrics.get('split')} {nats['teacher']:.3f} nats a code{least}")
    for split, figures in metrics.items():
        ours = _mapping(_mapping(_mapping(figures).get("rows")).get("ours"))
        if "epdms" in ours:
            parts.append(f"{split} EPDMS {100 * ours['epdms']:.1f}, ADE {ours['ade']:.2f} m")
    return "; ".join(parts)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


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


def _other_drives(manifest: Mapping[str, Any], splits: Sequence[SplitOnDisk]) -> list[str]:
    """Say that a codebook or teacher learned from other drives than those that are here."""
    recipe = manifest["recipe"]
    data = _mapping(recipe.get("data"))
    found = manifest.get("scenes_id") or recipe.get("scenes")
    if not found or data.get("recordings"):
        return []
    # A codebook sees the pictures of all drives alike.
    share = 1.0 if "scenes_id" in manifest else data.get("odometry_share", 1.0)
    return [
        f"trained on Scenes {found}, here {here}"
        for split in splits
        if split.name == data.get("train_split")
        and (here := split.scenes_id(data.get("max_shards", 0), share)) not in (None, found)
    ]


def _other_codebook(codebook_id: str | None, present: Present) -> list[str]:
    """Say that a teacher or bundle speaks another codebook than the one that ships."""
    return [f"speaks {why}" for why in present.other_codebook(codebook_id or "")]


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
