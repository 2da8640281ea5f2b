"""Fidelity: which rows make a cell, and what a cell's scores say in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from chexray.data.manifest import Manifest
from chexray.data.subsets import members
from chexray.engine.features import StoreIndex
from chexray.engine.pools import gpu_share
from chexray.engine.reduce import Cell, CellResult, FeatureMatrix, Matrices, reduce
from chexray.metrics.base import Reads
from chexray.suite_names import FIDELITY
from chexray.suites.common import (
    Context,
    Outcome,
    rejected_by_set,
    result_row,
    shared_codes,
    shared_units,
    with_set_names,
)
from chexray.suites.real_copies import Copies, find_copies


def evaluate_fidelity(context: Context) -> Outcome:
    """All metrics of every synthetic set, encoder and subset: a row each, and one row an image in `per_image`."""
    plan = context.plan
    cells, matrices = build_cells(context)
    copies, notes = find_copies(context, matrices)
    progress = context.progress("reduce", "cells", len(cells))
    scored = reduce(
        cells, matrices, plan.real.name, seed=plan.config.seed, workers=context.workers, progress=progress,
        gpu_share=gpu_share(context.resources, context.workers),
    )  # fmt: skip
    tables = {"per_image": per_image_table(cells, scored, matrices, plan.real.name)}
    if copies:
        tables["copies_of_real"] = pa.concat_tables([found.table(name) for name, found in copies.items()])
    outcome = Outcome(
        rows=result_rows(context, cells, scored, _said(cells, copies, matrices, plan.real.name)),
        tables=tables,
        notes=[*rejected_by_set(context), *notes],
        failures=[failure for cell in scored for failure in cell.failures],
    )
    return with_set_names(plan, outcome)


def _accepted(manifest: Manifest, done: StoreIndex) -> np.ndarray:
    return done.encoded(manifest.table["image_key"])


def build_cells(context: Context) -> tuple[list[Cell], dict[str, Matrices]]:
    """Cells in the order of the results, and feature matrices by encoder and set."""
    plan, store, done = context.plan, context.store, context.done
    sets = plan.sets_of(FIDELITY)
    matrices: dict[str, Matrices] = {}
    masks = {
        (manifest.name, subset.name): members(grouped, subset, plan.config.label_policy)
        for manifest in sets
        for grouped in [plan.as_grouped(manifest)]
        for subset in plan.subsets
    }
    cells = []
    for label, (_, spec) in plan.encoders_of(FIDELITY).items():
        metrics = plan.metrics_of(label)
        outputs = set().union(*(Reads.of(metric.reads).outputs for metric in metrics.values())) or {"features"}
        ok = {manifest.name: _accepted(manifest, done[label]) for manifest in sets}
        matrices[label] = {}
        needed = ["sample_id", "image_key", "subject_id", "prompt"]
        tables = [manifest.table.select(needed).filter(pa.array(ok[manifest.name])) for manifest in sets]
        subjects = shared_units([table["subject_id"] for table in tables])
        prompts = shared_codes([table["prompt"] for table in tables])
        for manifest, table, *codes in zip(sets, tables, subjects, prompts, strict=True):
            keys = table["image_key"]
            ids = np.array(table["sample_id"].to_pylist(), dtype=str)
            features = {output: store.read(spec, output, keys, done[label]) for output in sorted(outputs)}
            matrices[label][manifest.name] = FeatureMatrix(ids, features, *codes)
        for synthetic in plan.synthetic_of(FIDELITY):
            for subset in plan.subsets_of(label):
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
    return cells, matrices


def _said(
    cells: list[Cell], copies: dict[str, Copies], matrices: dict[str, Matrices], real_set: str
) -> list[dict[str, Any]]:
    """What rows say of copies of real images, for each cell."""
    said: list[dict[str, Any]] = []
    for cell in cells:
        found = copies.get(cell.synthetic_set)
        real, synthetic = (
            matrices[cell.encoder][name].ids[index].tolist()
            for name, index in ((real_set, cell.real), (cell.synthetic_set, cell.synthetic))
        )
        said.append(found.params(real, synthetic) if found else {})
    return said


def result_rows(
    context: Context, cells: list[Cell], scored: list[CellResult], said: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Rows of the results schema, in the order of cells and of the metrics' outputs. said: of cells, in `about`."""
    plan = context.plan
    sets = {manifest.name: manifest for manifest in plan.sets}
    rows = []
    for cell, result, further in zip(cells, scored, said or [{}] * len(cells), strict=True):
        policy = {"label_policy": plan.config.label_policy} if cell.subset.startswith("finding:") else {}
        rows += [
            result_row(
                context, score, suite=FIDELITY, real=plan.real, synthetic=sets[cell.synthetic_set],
                n_real=len(cell.real), n_synthetic=len(cell.synthetic), encoder=cell.encoder, subset=cell.subset,
                method=policy, about={**further, "metric_key": key},
            )
            for key, score in result.scores
        ]  # fmt: skip
    return rows


def per_image_table(
    cells: list[Cell], scored: list[CellResult], matrices: dict[str, Matrices], real_set: str
) -> pa.Table:
    """One row a synthetic image and encoder: nearest real image and distance, realism, rarity, influence on FID ..."""
    tables = []
    for cell, result in zip(cells, scored, strict=True):
        if not (cell.per_image and result.images):
            continue
        real_ids = matrices[cell.encoder][real_set].ids[cell.real]
        columns: dict[str, Any] = {
            "synthetic_set": [cell.synthetic_set] * len(cell.synthetic),
            "encoder": [cell.encoder] * len(cell.synthetic),
            "sample_id": matrices[cell.encoder][cell.synthetic_set].ids[cell.synthetic].tolist(),
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
