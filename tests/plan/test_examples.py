"""Which synthetic images may be trained on: by whom they were made for, by prompt, and by what they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from chexray.data import schema
from chexray.data.manifest import Manifest
from chexray.data.pairs import SCHEMA, UNPAIRED_SCHEMA, Pairs
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.plan.examples import TELLING, Examples, trainable

NOBODY = Pairs("none", SCHEMA.empty_table(), UNPAIRED_SCHEMA.empty_table())


def examples(name: str, prompts: list[str | None], *, keys: list[str] | None = None) -> Examples:
    n = len(prompts)
    columns = {
        "sample_id": [f"{name}{i}" for i in range(n)],
        "image_key": keys or [f"key of {name}{i}" for i in range(n)],
        "prompt": prompts,
        "labels": [[1] + [0] * (len(FINDINGS) - 1)] * n,
    }
    table = pa.table({key: pa.array(columns.get(key, [None] * n), kind) for key, kind in schema.COLUMNS.items()})
    rejects = schema.REJECT_SCHEMA.empty_table()
    return Examples.of(Manifest(name, "synthetic", table, rejects, n), ("zeros", "zeros"))


def pairs(*named: tuple[str, str]) -> Pairs:
    rows = [{"real_id": real, "synthetic_id": made, "prompt_id": real, "seed": None} for made, real in named]
    return Pairs("same_prompt", pa.Table.from_pylist(rows, schema=SCHEMA), UNPAIRED_SCHEMA.empty_table())


def kept(synthetic: Examples, real: Examples, held: set[int], twins: Pairs = NOBODY) -> list[str]:
    validates = np.array([i in held for i in range(len(real))])
    found = trainable(synthetic, real, examples("t", ["of the test"]), validates, twins, NOBODY)
    return found.sample.ids.tolist()


def test_a_prompt_shared_with_a_validation_image_is_its_twin_whoever_the_pair_names() -> None:
    real = examples("r", ["shared", "shared", "own"])
    synthetic = examples("s", ["shared", "own", "new"])
    assert kept(synthetic, real, {1}, pairs(("s0", "r0"), ("s1", "r2"))) == ["s1", "s2"]


def test_a_prompt_of_many_names_nobody() -> None:
    many = examples("r", ["no acute findings"] * (TELLING + 1))
    assert kept(examples("s", ["no acute findings"]), many, {0}) == ["s0"]
    assert kept(examples("s", [None, ""]), examples("r", [None, ""]), {0, 1}) == ["s0", "s1"]


def test_a_validation_image_under_another_name_is_no_training_image() -> None:
    real = examples("r", [None, None])
    synthetic = examples("s", [None, None, None], keys=["key of r0", "key of r1", "x"])
    assert kept(synthetic, real, {0}) == ["s1", "s2"]
    with pytest.raises(ConfigError, match=r"none of 1 images is left to train on"):
        kept(examples("s", [None], keys=["key of r0"]), real, {0})
