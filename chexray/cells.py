"""Between the stores and the results: which rows make a cell, and what a cell's scores say in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from chexray import __version__
from chexray.data.manifest import REJECT_SCHEMA, Manifest
from chexray.data.subsets import members
from chexray.engine.features import Done, FeatureStore
from chexray.engine.reduce import Cell, CellResult, Matrix
from chexray.plan import Plan


def _codes(column: pa.ChunkedArray) -> np.ndarray | None:
    """Patient codes (n,) int64; a row without a patient is a patient of its own. None when no row names one."""
    if column.null_count == len(column):
        return None
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = len(encoded.dictionary) + np.arange(len(unknown))
    return codes


def _accepted(manifest: Manifest, done: Done) -> np.ndarray:
    return np.array([key in done.rows for key in manifest.table["image_key"].to_pylist()], bool)


def build_cells(
    plan: Plan, store: FeatureStore, done: dict[str, Done]
) -> tuple[list[Cell], dict[str, dict[str, dict[str, Matrix]]], dict[str, int]]:
    """Cells in the order of the results, feature matrices {encoder: {set: {output: Matrix}}}, and images per set."""
    matrices: dict[str, dict[str, dict[str, Matrix]]] = {}
    masks = {
        (manifest.name, subset.name): members(manifest, subset, plan.config.label_policy)
        for manifest in plan.sets
        for subset in plan.subsets
    }
    cells = []
    for label, (_, spec) in plan.encoders.items():
        metrics = plan.metrics_of(label)
        ok = {manifest.name: _accepted(manifest, done[label]) for manifest in plan.sets}
        matrices[label] = {}
        for manifest in plan.sets:
            table = manifest.table.filter(pa.array(ok[manifest.name]))
            keys = table["image_key"].to_pylist()
            ids, subjects = np.array(table["sample_id"].to_pylist(), dtype=str), _codes(table["subject_id"])
            matrices[label][manifest.name] = {
                output: Matrix(ids, store.read(spec, output, keys, done[label]), subjects)
                for output in sorted({metric.reads for metric in metrics.values()})
            }
        for synthetic in plan.synthetic:
            for subset in plan.subsets:
                index: dict[str, np.ndarray] = {}
                unavailable = ""
                for manifest in (plan.real, synthetic):
                    mask = masks[manifest.name, subset.name]
                    if isinstance(mask, str):
                        unavailable, mask = mask, np.zeros(len(ok[manifest.name]), bool)
                    index[manifest.name] = np.flatnonzero(mask[ok[manifest.name]])
                cells.append(
                    Cell(
                        label,
                        synthetic.name,
                        subset.name,
                        index[plan.real.name],
                        index[synthetic.name],
                        metrics,
                        unavailable,
                        per_image=subset.name == "all",
                        floor=plan.config.floor,
                    )
                )
    first = next(iter(matrices.values()))
    accepted = {name: len(next(iter(outputs.values())).ids) for name, outputs in first.items()}
    return cells, matrices, accepted


def collect_rejects(plan: Plan, done: dict[str, Done]) -> pa.Table:
    """One row an image and reason, over the manifests' own rejects and the stores'."""
    rows: list[dict[str, Any]] = []
    for manifest in plan.sets:
        rows += manifest.rejects.to_pylist()
        named = manifest.table.select(["sample_id", "uri", "image_key"]).to_pylist()
        for image in named:
            key = image["image_key"]
            reason = next((store.rejects[key] for store in done.values() if key not in store.rows), None)
            if reason:
                rows.append({"set": manifest.name, **image, **{name: reason[name] for name in _REASON}})
    return pa.Table.from_pylist(rows, schema=REJECT_SCHEMA)


_REASON = ("stage", "code", "detail", "transient")


def _name(manifest: Manifest) -> str:
    return f"{manifest.name}@{manifest.fingerprint}"


def result_rows(
    plan: Plan, cells: list[Cell], scored: list[CellResult], rejects: pa.Table, *, created_at: str
) -> list[dict[str, Any]]:
    """Rows of the results schema, in the order of cells and of the metrics' outputs."""
    sets = {manifest.name: manifest for manifest in plan.sets}
    lost = rejects["set"].to_pylist()
    rows = []
    for cell, result in zip(cells, scored, strict=True):
        spec = plan.encoders[cell.encoder][1]
        synthetic = sets[cell.synthetic_set]
        for key, score in result.scores:
            params = {"label_policy": plan.config.label_policy} if cell.subset.startswith("finding:") else {}
            rows.append(
                {
                    "metric": score.metric,
                    "value": score.value,
                    "std_error": score.std_error,
                    "ci_low": score.ci_low,
                    "ci_high": score.ci_high,
                    "std_error_method": score.std_error_method,
                    "better": score.better,
                    "real_floor": score.real_floor,
                    "encoder": cell.encoder,
                    "encoder_revision": f"{spec.preprocessing}+{spec.fingerprint}",
                    "weights": spec.weights,
                    "weights_sha256": spec.weights_sha256,
                    "subset": cell.subset,
                    "n_real": len(cell.real),
                    "n_synthetic": len(cell.synthetic),
                    "n_rejected": lost.count(plan.real.name) + lost.count(synthetic.name),
                    "real_set": _name(plan.real),
                    "synthetic_set": _name(synthetic),
                    "protocol": plan.protocol.name,
                    "params": {**params, **score.params, "metric_key": key},
                    "status": score.status,
                    "reason": score.reason,
                    "run_id": plan.run_id,
                    "seed": plan.config.seed,
                    "chexray_version": __version__,
                    "created_at": created_at,
                }
            )
    return rows


def per_image_table(
    cells: list[Cell], scored: list[CellResult], matrices: dict[str, dict[str, dict[str, Matrix]]], real_set: str
) -> pa.Table:
    """One row a synthetic image and encoder: nearest real image and distance, realism, rarity, influence on FID ..."""
    tables = []
    for cell, result in zip(cells, scored, strict=True):
        if not (cell.per_image and result.images):
            continue
        outputs = matrices[cell.encoder]
        synthetic = next(iter(outputs[cell.synthetic_set].values()))
        real_ids = next(iter(outputs[real_set].values())).ids[cell.real]
        columns: dict[str, Any] = {
            "synthetic_set": [cell.synthetic_set] * len(cell.synthetic),
            "encoder": [cell.encoder] * len(cell.synthetic),
            "sample_id": synthetic.ids[cell.synthetic].tolist(),
        }
        for name, values in result.images.items():
            if name == "nearest_real_index":
                columns["nearest_real_id"] = real_ids[np.asarray(values, np.int64)].tolist()
            else:
                columns[name] = values
        tables.append(pa.table(columns))
    if not tables:
        return pa.table({name: pa.array([], pa.string()) for name in ("synthetic_set", "encoder", "sample_id")})
    return pa.concat_tables(tables, promote_options="permissive")
