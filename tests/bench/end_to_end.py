"""Whole processes from images to numbers at RAD-DINO's real size: 32 + 32 radiographs at 518 px, and Inception.

The upstream-shaped path, chexray in fp32 under its protocol, and chexray in fp32 and in whatever `precision: auto`
chooses under its own, in turns. All CPU-seconds of everything started count, start-up too. The check behind `auto` is
made once for weights and a kind of device; it is timed by itself, and its figures lie in the store of the run that
follows, as they would in a second run of anybody's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexray.encoders.capability import machine

from .accounting import Measured, measure
from .inputs import write_networks, write_sets
from .tables import Report, median, spread, table, verdict
from .upstream_bench import Upstream, run_upstream

TARGETS = {("fp32", "overall"): 2.9, ("fp32", "with findings"): 8.0,
           ("auto", "overall"): 6.0, ("auto", "with findings"): 15.0}  # fmt: skip
LARGEST_SHIFT = 0.1
"""Of a value between fp32 and `auto`, in its standard errors."""


@dataclass(frozen=True)
class Size:
    """n images a side of `image` pixels; `vit`, the architecture of the RAD-DINO that is measured with."""

    n: int
    vit: dict[str, int]
    image: int = 518
    shards: int = 4
    repeats: int = 1
    conditional: bool = True


SIZES = {
    "tiny": Size(8, {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 56}, 96, 1,
                 conditional=False),
    "try": Size(8, {"image_size": 518}, shards=1, conditional=False),
    "quick": Size(32, {"image_size": 112, "num_hidden_layers": 6}, 224),
    "default": Size(32, {"image_size": 518}),
    "full": Size(32, {"image_size": 518}, repeats=2),
}  # fmt: skip


def run(size_name: str = "default") -> Report:
    """Ratios of upstream's CPU-seconds to chexray's, and how far `auto` moves any value."""
    size = SIZES[size_name]
    kinds = ("overall", "with findings") if size.conditional else ("overall",)
    subsets = {"overall": ["all"], "with findings": ["all", "findings"]}
    with tempfile.TemporaryDirectory(prefix="cxe-") as scratch:
        folder = Path(scratch)
        inputs = write_sets(folder / "images", size.n, size.image) | write_networks(folder / "weights", size.vit)
        cores = len(os.sched_getaffinity(0))
        job = {**inputs, "cpus": cores, "n_shards": size.shards, "conditional": size.conditional, "values": True,
               "floor": False}  # fmt: skip
        measured: dict[tuple[str, str], list[Measured]] = {}
        upstream: list[Upstream] = []
        own = {**job, "protocol": "standard"}
        here = machine("cpu")
        checked = _chexray(own, "auto", subsets["overall"], folder / "check", None) if here.pays else None
        chosen = _chosen(checked) if checked else {}
        for repeat in range(size.repeats):
            for kind in kinds:
                runs = {"fp32": job} if "bf16" not in chosen.values() else {"fp32": job, "auto": own}
                for name, what in runs.items():
                    output = folder / f"{name}-{len(subsets[kind])}-{repeat}"
                    known = folder / "check" if name == "auto" else None
                    measured.setdefault((name, kind), []).append(_chexray(what, name, subsets[kind], output, known))
            upstream.append(run_upstream(job, cores, folder))
        exact = _chexray(own, "fp32", subsets["overall"], folder / "exact", None) if checked else None
    if checked is None or exact is None:
        report = _ratios(size, measured, upstream)
        report.rows.append(["end-to-end, auto", "not measured", "", here.why_not])
        return report
    return _with_auto(_ratios(size, measured, upstream), measured, checked, exact)


def _chexray(job: dict[str, Any], precision: str, subsets: list[str], output: Path, known: Path | None) -> Measured:
    """A run from an empty store, but for the figures of a check that lie in the store of the run `known`."""
    if known is not None and (known / "features" / "precision").is_dir():
        shutil.copytree(known / "features" / "precision", output / "features" / "precision")
    return measure(
        "bench.chexray_path",
        {**job, "encode": {"precision": precision}, "subsets": subsets, "output": str(output)},
    )


def _chosen(run: Measured) -> dict[str, str]:
    return {label: known["chosen"] for label, known in run.result["precision"].items()}


def _ratios(size: Size, measured: dict[tuple[str, str], list[Measured]], upstream: list[Upstream]) -> Report:
    lines, summary = [], []
    for (name, kind), runs in measured.items():
        theirs = [run.cost(conditional=kind != "overall").total for run in upstream]
        ours = [run.total() for run in runs]
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        wall = median([run.wall_s for run in runs])
        found = [f"{median(theirs):.1f}", f"{median(ours):.1f}", spread(ratios), f"{wall:.1f}", _parts(runs[0])]
        lines.append([f"{name}, {kind}", *found])
        target, what = TARGETS[name, kind], f"end-to-end, {name}, {kind}: upstream / chexray, CPU-s"
        summary.append([what, spread(ratios), f">= {target:g}", verdict(median(ratios) >= target)])
    header = ["run", "upstream CPU-s", "chexray CPU-s", "ratio", "wall s", "CPU-s by process"]
    what = f"{size.n} + {size.n} images of {size.image} px; RAD-DINO with {size.vit}"
    return Report(f"{what}\n\n{table(header, lines)}", summary)


def _with_auto(
    report: Report, measured: dict[tuple[str, str], list[Measured]], checked: Measured, exact: Measured
) -> Report:
    """What `auto` chose and why, and how far it moved the values."""
    chosen, moved = _chosen(checked), _moved(checked, exact)
    said = [f"auto: {label}: {chosen[label]} ({known['why']})" for label, known in checked.result["precision"].items()]
    if ("auto", "overall") not in measured:
        row = ["end-to-end, auto", "not measured", "", "fp32 after the check"]
        return Report("\n".join([report.text, "", *said]), [*report.rows, row])
    said.append(f"the check took {checked.result['seconds']['precision']:.1f} s, once; most moved: {moved[1]}")
    row = [
        "end-to-end: largest shift of a value by auto, in its errors", f"{moved[0]:.3f}", f"<= {LARGEST_SHIFT:g}",
        verdict(moved[0] <= LARGEST_SHIFT),
    ]  # fmt: skip
    return Report("\n".join([report.text, "", *said]), [*report.rows, row])


def _parts(run: Measured) -> str:
    """CPU-seconds of the chunks, and of each kind of process."""
    roles = ", ".join(f"{role} {cpu:.1f}" for role, cpu in run.roles().items())
    return f"chunks {run.result['encode_cpu_s']:.1f}; {roles}"


def _moved(checked: Measured, exact: Measured) -> tuple[float, str]:
    """The largest shift of a value between two runs, in its standard errors, and which it is."""
    rows = {(row["encoder"], row["metric"]): row for row in exact.result["rows"]}
    found = [(0.0, "none")]
    for row in checked.result["rows"]:
        other = rows[row["encoder"], row["metric"]]
        if row["value"] is not None and other["value"] is not None and other["std_error"]:
            shift = abs(row["value"] - other["value"]) / other["std_error"]
            found.append((shift, f"{row['encoder']} {row['metric']}"))
    return max(found)
