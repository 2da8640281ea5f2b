"""Families and roles of utility numbers, as their metrics declare them (`chexray.utility.classification.outputs`)."""

CLASSIFICATION, FAITHFULNESS = "classification", "faithfulness"
FINDING, MACRO, MACRO_OF_14, GAP = "finding", "macro", "macro of 14", "gap"
DIFFERENCE = f"{MACRO} difference"
FINDING_DIFFERENCE = f"{FINDING} difference"
