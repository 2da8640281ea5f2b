"""Hand-made privacy rows with the params that the suite writes: a generator that copies and one that does not."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from chexray.report.console import last_page, render

TRAINING = "train@0123456789abcdef"
COPIER, GOOD = "copier@aaaaaaaaaaaaaaaa", "good@bbbbbbbbbbbbbbbb"
REID = {
    "encoder": "siamese_reid",
    "encoder_revision": "upstream_224+1f",
    "weights": "ResNet-50_epoch11_data_handling_RPN.pth",
    "weights_sha256": "cd",
}
RAD_DINO = {
    "encoder": "rad_dino",
    "encoder_revision": "hub_518+2e",
    "weights": "microsoft/rad-dino",
    "weights_sha256": "ab",
}
PEERS = {
    "closer_to_training": ("lower", 0.511, 0.03, 0.5, "a few copies among many images: 1 % of copies moves it by .005"),
    "dcr_q01": ("higher", 3.21, 0.2, 3.3, "alarms falsely on a generator of low diversity"),
    "dcr_q05": ("higher", 4.05, 0.2, 4.1, "alarms falsely on a generator of low diversity"),
    "dcr_below_null": ("lower", 0.06, 0.02, 0.01, "alarms falsely on a generator of low diversity"),
    "authenticity": ("higher", 70.8, 4.0, 74.0, "copies of less than some per cent"),
    "c_t": ("higher", -1.57, 1.0, 0.0, "copies of less than some per cent"),
    "nnaa_loss": ("lower", 0.013, 0.02, 0.0, "copies of less than some per cent"),
}


def row(metric: str, value: float | None, low: float | None = None, high: float | None = None, **changes: Any) -> dict:
    """One row of the results schema; null with status too_few when value is None. Networks are the paper's."""
    found = {
        "suite": "privacy",
        "metric": metric,
        "value": value,
        "std_error": None,
        "ci_low": low,
        "ci_high": high,
        "std_error_method": "bootstrap" if low is not None else "",
        "better": "lower",
        "real_floor": None,
        "encoder": "pixels",
        "encoder_revision": "32+aa",
        "weights": "",
        "weights_sha256": "",
        "subset": "all",
        "n_real": 400,
        "n_synthetic": 400,
        "n_rejected": 0,
        "real_set": TRAINING,
        "synthetic_set": COPIER,
        "protocol": "standard",
        "params": {},
        "status": "ok" if value is not None else "too_few",
        "reason": "" if value is not None else "1 synthetic image, and at least 2 are needed",
        "run_id": "r1",
        "seed": 0,
        "chexray_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }
    known = {"weights_are": f"released {found['encoder']}, by the config's word"} if found["weights"] else {}
    return found | {"params": {**known, **found["params"]}}


def search(n_flagged: int = 20, low: float = 0.021, high: float = 0.066, n: int = 400, **changes: Any) -> list[dict]:
    """memorised_share and memorised_excess of one encoder and set. low, high: the interval of the excess."""
    share = n_flagged / n
    params = {
        "alpha": 0.01,
        "attained_alpha": 0.01,
        "n_flagged": n_flagged,
        "n_expected": 0.01 * n,
        "null": "held-out",
        "n_null": 399,
        "threshold_ratio": 0.71,
        "smallest_share_noticed": 0.023,
        "p_value": 0.0004 if low > 0 else 0.31,
        "cannot_see": "a copy altered so much that this encoder finds it no nearer than unseen images of others",
    } | changes.pop("params", {})
    common = {"params": params, "n_synthetic": n} | changes
    return [
        row("memorised_share", share, max(0.0, share - 0.02), share + 0.026, real_floor=0.01, **common),
        row("memorised_excess", share - 0.01, low, high, real_floor=0.0, **common),
    ]


def peers(**changes: Any) -> list[dict]:
    return [
        row(name, value, value - half, value + half, better=better, real_floor=floor,
            params={"cannot_see": blind, "null": "held-out"}, **changes)
        for name, (better, value, half, floor, blind) in PEERS.items()
    ]  # fmt: skip


def duplicates(exact: int = 0, near: int = 1, **changes: Any) -> list[dict]:
    counts = {"exact_training": exact, "near_training": near, "exact_within": 0, "near_within": 3}
    common = {"encoder": "perceptual_hash", "encoder_revision": "1+00"} | changes
    return [row(f"duplicates_{name}", count, real_floor=0.4, **common) for name, count in counts.items()]


def reid(rate: bool = True, **changes: Any) -> list[dict]:
    """Scores, counts, and the calibration of the network; counts without their rates where `rate` is False."""
    seeds = {"n_prompts": 200, "n_seeds_min": 8, "n_seeds_max": 10}
    common = REID | changes
    rows = [
        row("reid_mean", 0.539, 0.52, 0.56, real_floor=0.51, params=seeds, **common),
        row("reid_max_mean", 0.81, 0.79, 0.83, real_floor=0.79, params=seeds, **common),
        row("reid_max", 0.996, real_floor=0.994, params=seeds, **common),
    ]
    for name, threshold, count, rate_of in (
        ("0.5", 0.5, 180, 0.31),
        ("0.95", 0.95, 20, 0.021),
        ("calibrated", 0.983, 6, 0.001),
    ):
        params = seeds | {"threshold": threshold, "n_pairs_above": 2 * count, "share": count / 200}
        params |= {"false_positive_rate": rate_of} if rate else {}
        rows.append(
            row(f"reid_count_{name}", count, count - 5, count + 6, real_floor=count - 3, params=params, **common)
        )
    values = {"reid_auc": (0.967, 0.95, 0.98), "reid_threshold": (0.983,), "reid_fpr_0.5": (0.31,)}
    why = {} if rate else {"status": "undefined", "reason": "no patient ids: pairs of one patient are unknown"}
    about = common | {"synthetic_set": TRAINING, "better": ""} | why
    return rows + [row(name, *(found if rate else (None,)), **about) for name, found in values.items()]


def distances(upstream: bool = False, **changes: Any) -> list[dict]:
    seeds = {"params": {"n_prompts": 200, "n_seeds_min": 10, "n_seeds_max": 10}, "better": "higher"}
    none = {"encoder": "", "encoder_revision": ""}
    rows = [
        row("latent_distance", 0.592, 0.58, 0.60, real_floor=0.61, **(RAD_DINO | seeds | changes)),
        row("latent_distance_min", 0.21, real_floor=0.25, **(RAD_DINO | seeds | changes)),
        row("pixel_distance", 52.8, 50.1, 55.5, real_floor=55.0, **(none | seeds | changes)),
        row("pixel_distance_min", 3.1, real_floor=21.0, **(none | seeds | changes)),
    ]
    if upstream:
        rows.append(row("pixel_distance_upstream", 157.2, **(none | seeds | changes)))
    return rows


def everything(**changes: Any) -> list[dict]:
    """Two generators through every section. changes: of all rows."""
    rows = []
    for name, found in ((COPIER, True), (GOOD, False)):
        of = {"synthetic_set": name} | changes
        rows += search(**of) if found else search(3, -0.008, 0.0164, **of)
        rows += search(**(RAD_DINO | of)) if found else search(5, -0.006, 0.0211, **(RAD_DINO | of))
        rows += peers(**of) + duplicates(2 if found else 0, 21 if found else 0, **of)
        rows += reid(**of) + distances(upstream=True, **of)
    return rows


def text_of(rows: list[dict], width: int = 100, encoding: str = "utf-8", colour: bool = False) -> str:
    """The whole page: every table, then the verdicts."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    for part in (*render(rows), last_page(rows)):
        console.print(part)
    stream.flush()
    return raw.getvalue().decode(encoding)


def flat(text):
    return " ".join(text.split())


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def section(text, heading):
    return text.split(f"\n{heading}")[1].split("\n\n")[0]
