"""Hand-made utility rows with the params that the suite writes: a good generator, a poor one, and settings of each."""

from __future__ import annotations

from typing import Any

from results.privacy_rows import flat, line_of, section, text_of

__all__ = [
    "GOOD",
    "POOR",
    "TEST",
    "everything",
    "failed",
    "faithfulness",
    "flat",
    "line_of",
    "row",
    "section",
    "text_of",
    "trained",
]

TEST, TRAINING = "nih-test@0123456789abcdef", "nih-train@fedcba9876543210"
GOOD, POOR = "phantom-good@aaaaaaaaaaaaaaaa", "phantom-poor@bbbbbbbbbbbbbbbb"
FINDINGS = {"Atelectasis": 31, "Edema": 24, "Enlarged Cardiomediastinum": 9, "Pleural Effusion": 44, "Pleural Other": 0}
SIZES = {
    "real": (400, 0),
    "as_is": (0, 0),
    "synthetic": (0, 400),
    "mixed": (200, 200),
    "mixed_25": (300, 100),
    "augmented": (400, 400),
    "pretrain_synthetic_finetune_real": (400, 400),
}
NO_POSITIVE = {"status": "too_few", "reason": "no positive among 222 test images"}


def row(metric: str, value: float | None, half: float | None = 0.02, **changes: Any) -> dict:
    """One row of the results schema. half: of the interval; null with status too_few when value is None."""
    interval = value is not None and half is not None
    params = {
        "setting": "real",
        "training_set": TRAINING,
        "n_train_real": 400,
        "n_train_synthetic": 0,
        "n_validation": 40,
        "seeds": 1,
        "uncertain": "zeros",
        "unmentioned": "zeros",
        "recipe": "0123456789",
    } | changes.pop("params", {})
    return {
        "suite": "utility",
        "metric": metric,
        "value": value,
        "std_error": half / 1.96 if interval else None,
        "ci_low": value - half if interval else None,
        "ci_high": value + half if interval else None,
        "std_error_method": "patient bootstrap" if interval else "",
        "better": "lower" if metric.startswith(("brier", "calibration")) or metric.endswith("_gap") else "higher",
        "real_floor": None,
        "encoder": "resnet50",
        "encoder_revision": f"recipe {params['recipe']}",
        "weights": "none",
        "weights_sha256": "",
        "subset": "all",
        "n_real": 222,
        "n_synthetic": params["n_train_synthetic"],
        "n_rejected": 0,
        "real_set": TEST,
        "synthetic_set": "",
        "protocol": "standard",
        "params": params,
        "status": "ok" if value is not None else NO_POSITIVE["status"],
        "reason": "" if value is not None else NO_POSITIVE["reason"],
        "run_id": "r1",
        "seed": 0,
        "chexray_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def trained(
    setting: str = "real", auroc: float = 0.908, difference: float | None = None, half: float = 0.028, **changes: Any
) -> list[dict]:
    """All numbers of one training. difference, half: of AUROC macro to `real`, and of its interval."""
    real, synthetic = SIZES.get(setting, (400, 0))
    own = {"setting": setting, "n_train_real": real, "n_train_synthetic": synthetic} | changes.pop("params", {})

    def number(metric: str, value: float | None, half: float | None = 0.02, subset: str = "all", **params: Any) -> dict:
        return row(metric, value, half, subset=subset, params=own | params, **changes)

    rows = [number("auroc_macro", auroc, n_findings=4), number("auroc_micro", auroc + 0.01)]
    rows += [number("average_precision_macro", auroc - 0.4), number("brier_macro", 0.08)]
    for threshold in (0.5, "tuned"):
        rows += [number("f1_macro", 0.31 if threshold == 0.5 else 0.44, threshold=threshold)]
        rows += [number("recall_macro", 0.6, threshold=threshold)]
    rows.append(number("accuracy", 0.8812, 0.01, threshold=0.5, all_negative=0.8716))
    for place, (finding, positive) in enumerate(FINDINGS.items()):
        value = auroc + 0.02 - 0.01 * place if positive else None
        rows.append(number("auroc", value, 0.04, f"finding:{finding}", n_positive=positive))
        rows.append(number("precision", value, 0.05, f"finding:{finding}", n_positive=positive, threshold=0.5))
    for group, n in {"sex:F": 100, "sex:M": 122, "view:PA": 222}.items():
        rows.append({**number("auroc_macro", auroc - (0.03 if group == "sex:F" else 0), 0.03, group), "n_real": n})
    by_chance = 0.05 if setting == "real" else 0.02
    rows.append(number("auroc_macro_gap", 0.03, 0.025, "sex", best="sex:M", worst="sex:F", gap_by_chance=by_chance))
    if difference is not None:
        against = {"against": "real"}
        if own.get("seeds", 1) == 1:
            against["note"] = "one training each: the spread between trainings is not in the interval"
        rows.append(number("auroc_macro_difference", difference, half, **against))
        rows.append(number("auroc_difference", difference, half, "finding:Edema", **against))
    return rows


def failed(setting: str = "real", reason: str = "loss is NaN in epoch 1 at step 3", **changes: Any) -> list[dict]:
    """The one row that stands for a setting of which a training failed."""
    real, synthetic = SIZES[setting]
    params = {"setting": setting, "n_train_real": real, "n_train_synthetic": synthetic} | changes.pop("params", {})
    return [row("auroc_macro", None, params=params, **({"status": "failed", "reason": reason} | changes))]


def faithfulness(shown: bool = True, **changes: Any) -> list[dict]:
    """What the classifier of `real` sees in synthetic images; Edema only where `shown`."""
    values = {"Atelectasis": 0.84, "Edema": 0.88 if shown else 0.52, "Pleural Other": 0.71}
    common = {"n_real": 0, "n_synthetic": 400, "real_floor": 0.91} | changes
    rows = [row("faithfulness_auroc", value, 0.06, subset=f"finding:{f}", **common) for f, value in values.items()]
    rows[-1]["real_floor"] = None
    return [*rows, row("faithfulness_auroc_macro", 0.81, 0.03, **common)]


def everything(settings: tuple[str, ...] = ("synthetic", "mixed", "augmented"), **changes: Any) -> list[dict]:
    """`real`, then settings of two generators. changes: of all rows."""
    rows = trained(**changes)
    for name, worse in ((GOOD, 0.0), (POOR, 0.1)):
        of = {"synthetic_set": name} | changes
        for place, setting in enumerate(settings):
            difference = -0.047 - worse if place == 0 else 0.01
            rows += trained(setting, 0.908 + difference, difference, **of)
        rows += faithfulness(shown=not worse, **of)
    return rows
