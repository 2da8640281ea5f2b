"""What each number about a classifier is: its direction, its range, what it says and what it cannot see.

Family `classification`: a label is what is measured (AUROC, F1), a role is over what: finding (one of the 14), macro
(mean over findings), micro (all labels pooled), macro of 14 (an absent finding counts as 0), "finding difference" and
"macro difference" (a setting less the baseline), gap (best less worst group). Family `faithfulness`: finding and macro,
of synthetic images under the classifier of real ones. The headline is macro of rank 1; further columns have higher
ranks.
"""

from __future__ import annotations

from functools import cache

from chexray.outputs import Output

CLASSIFICATION, FAITHFULNESS = "classification", "faithfulness"
FINDING, MACRO, MICRO, MACRO_OF_14, GAP = "finding", "macro", "micro", "macro of 14", "gap"
DIFFERENCE = "difference"

_NO_THRESHOLD = "whether a threshold suits the images: it ranks them only"
_THRESHOLD = "other thresholds than the one it is computed at"
_MEASURES: dict[str, tuple[str, str, str, str]] = {
    "auroc": ("AUROC", "Share of pairs of a positive and a negative image that are ranked right", _NO_THRESHOLD,
              "Hanley and McNeil 1982"),
    "average_precision": ("average precision", "Area under the precision-recall curve; chance is the prevalence",
                          _NO_THRESHOLD, ""),
    "f1": ("F1", "Harmonic mean of precision and recall", _THRESHOLD, ""),
    "brier": ("Brier", "Mean squared error of the probabilities", "whether errors come of ranking or of calibration",
              "Brier 1950"),
    "precision": ("precision", "Share of images called positive that are positive", _THRESHOLD, ""),
    "recall": ("recall", "Share of positive images that are called positive", _THRESHOLD, ""),
    "specificity": ("specificity", "Share of negative images that are called negative", _THRESHOLD, ""),
    "balanced_accuracy": ("balanced accuracy", "Mean of recall and specificity", _THRESHOLD, ""),
    "calibration_error": ("calibration error", "Mean distance of probabilities from the share of positives",
                          "how well images are ranked", "Naeini et al. 2015"),
    "accuracy": ("accuracy", "Share of labels that are called right", "rare findings: to call all negative scores high",
                 ""),
}  # fmt: skip
"""{measure: (in words, what it says, what it cannot see, paper)}"""

LOWER = ("brier", "calibration_error")
RANKED = ("auroc", "average_precision", "f1", "brier")
"""Columns of the table of trainings, the headline first."""
_OVER = {
    FINDING: ("", "of one finding"),
    MACRO: ("_macro", "mean over the findings with both classes"),
    MICRO: ("_micro", "over the labels of all findings together"),
    MACRO_OF_14: ("_macro_of_14", "mean over all 14 findings, 0 for one without a positive image"),
}


@cache
def output(measure: str, role: str = FINDING) -> Output:
    """The declaration of a measure over a finding, as macro, micro or macro of 14."""
    words, says, cannot_see, paper = _MEASURES[measure]
    suffix, over = _OVER[role]
    return Output(
        measure if measure == "accuracy" else f"{measure}{suffix}", "lower" if measure in LOWER else "higher",
        low=0.0, high=1.0, paper=paper, family=CLASSIFICATION, role=role, label=words,
        rank=RANKED.index(measure) + 1 if role == MACRO and measure in RANKED else 0,
        says=f"{says}, {over}.",
        cannot_see=cannot_see,
    )  # fmt: skip


@cache
def difference(of: Output) -> Output:
    """The declaration of a setting less the baseline on the same test images."""
    return Output(
        f"{of.name}_difference", of.better, low=-1.0, high=1.0, paper=of.paper, family=CLASSIFICATION,
        role=f"{of.role} {DIFFERENCE}", label=of.label, rank=of.rank,
        says=f"{of.label} of a setting less that of training on real images, on the same test images.",
        cannot_see="differences between trainings, where each setting is trained once",
    )  # fmt: skip


AUROC, AUROC_MACRO = output("auroc"), output("auroc", MACRO)
AUROC_GAP = Output(
    "auroc_macro_gap", "lower", low=-1.0, high=1.0, family=CLASSIFICATION, role=GAP, label="AUROC",
    says="AUROC of the best group of patients less that of the worst.",
    cannot_see="groups that are too small to judge; read it beside the gap that chance gives",
)  # fmt: skip
COMPARED = (AUROC_MACRO, output("average_precision", MACRO), output("brier", MACRO), AUROC)
"""What differences to the baseline are made of."""
WITH_ABSENT = ("f1", "precision", "recall")
"""What CheXGenBench publishes over all 14 findings."""

_SEES = "Whether a classifier of real images sees the findings that synthetic images were asked to show: AUROC"
_UNLIKE = "whether images lack the finding or are so unlike real ones that the classifier cannot read them"
FAITHFULNESS_AUROC, FAITHFULNESS_MACRO = (
    Output(
        f"faithfulness_auroc{suffix}", "higher", needs_floor=True, low=0.0, high=1.0, says=f"{_SEES}, {over}.",
        cannot_see=_UNLIKE, family=FAITHFULNESS, role=role, label="AUROC", rank=rank,
    )
    for role, rank in ((FINDING, 0), (MACRO, 1))
    for suffix, over in [_OVER[role]]
)  # fmt: skip


def utility_outputs() -> tuple[Output, ...]:
    """Every number that the suite can return."""
    measures = [measure for measure in _MEASURES if measure != "accuracy"]
    return (
        *(output(measure, role) for role in (FINDING, MACRO, MICRO) for measure in measures
          if (measure, role) not in (("brier", MICRO), ("calibration_error", MACRO))),
        output("accuracy", MICRO),
        *(output(measure, MACRO_OF_14) for measure in WITH_ABSENT),
        *map(difference, COMPARED),
        AUROC_GAP,
        FAITHFULNESS_AUROC,
        FAITHFULNESS_MACRO,
    )  # fmt: skip
