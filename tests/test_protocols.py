"""What `protocol: chexgenbench` takes over from upstream, each against upstream's arithmetic restated.

The encoders' routes have their tests in tests/encoders, KID, PRDC and the Inception score in tests/metrics, the wrapped
pixel distance in tests/suites/test_privacy_with_fidelity.py, its augmentation in tests/utility/test_augmentation.py,
and its macro numbers in tests/utility/test_macros_with_absent.py. Numbers are those of facts/upstream-bugs.md's commit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from data.test_subsets import label, make

from chexray.data.prompts import deduplicate_prompts, inherit_by_prompt, labels_of_prompts
from chexray.data.subsets import Subset, members
from chexray.errors import ConfigError
from chexray.protocols import PROTOCOLS, check_label_policy
from chexray.utility.loop.fit_run import chosen_by
from chexray.utility.loop.recipe import Recipe

UPSTREAM = PROTOCOLS["chexgenbench"]
EDEMA = Subset("finding:Edema", "labels", "Edema")


def upstream_conditional(real: pd.DataFrame, synthetic: pd.DataFrame, finding: str) -> tuple[list[str], list[str]]:
    """fid.py, experiment_type conditional: ids of the real and of the synthetic images of a finding."""
    kept = real.drop_duplicates(subset=["prompt"]).reset_index(drop=True)
    kept = kept[kept["labels"].apply(lambda labels: (labels or {}).get(finding)) == 1]
    return kept["id"].to_list(), synthetic[synthetic["prompt"].isin(kept["prompt"].to_list())]["id"].to_list()


@pytest.mark.parametrize("own", [False, True])
def test_a_findings_images_are_upstreams_also_with_repeated_prompts(own):
    """Repeated prompts whose rows differ, uncertain labels, prompts of nobody, own labels or none."""
    rng = np.random.default_rng(4)
    prompts = [f"p{k}" for k in rng.integers(0, 12, 40)]
    states = rng.choice([1, 0, -1], 40, p=[0.5, 0.3, 0.2])
    asked = [f"p{k}" for k in rng.integers(0, 16, 60)]
    own_labels = [label(Edema=int(state)) for state in rng.integers(0, 2, 60)]
    real = make("r", "real", prompt=prompts, labels=[label(Edema=int(state)) for state in states])
    synthetic = make("s", "synthetic", prompt=asked, **({"labels": own_labels} if own else {}))
    frame = pd.DataFrame(
        {"id": [f"r{k:03d}" for k in range(40)], "prompt": prompts, "labels": [{"Edema": s} for s in states]}
    )
    generated = pd.DataFrame({"id": [f"s{k:03d}" for k in range(60)], "prompt": asked})
    expected = upstream_conditional(frame, generated, "Edema")

    reference = deduplicate_prompts(real)
    grouped = labels_of_prompts(inherit_by_prompt(synthetic, real, mode=UPSTREAM.inherit), reference)
    assert UPSTREAM.subsets_by_prompt
    found = []
    for manifest in (reference, grouped):
        mask = members(manifest, EDEMA, UPSTREAM.label_policy or "")
        found.append([each for each, kept in zip(manifest.table["sample_id"].to_pylist(), mask, strict=True) if kept])
    assert found == [sorted(ids) for ids in expected]
    assert 0 < len(expected[1]) < 60
    assert len(set(prompts)) == len(reference) < 40


def test_sets_that_share_no_prompt_keep_their_own_labels():
    real = make("r", "real", prompt=["one"], labels=[label(Edema=1)])
    synthetic = make("s", "synthetic", prompt=["two"], labels=[label(Edema=1)])
    assert labels_of_prompts(synthetic, real) is synthetic
    assert members(labels_of_prompts(synthetic, real), EDEMA).tolist() == [True]


@pytest.mark.parametrize("policy", ["u_ones", "u_ignore"])
def test_another_reading_of_uncertain_labels_is_refused(policy):
    check_label_policy(UPSTREAM, "u_zeros")
    check_label_policy(PROTOCOLS["standard"], policy)
    with pytest.raises(ConfigError, match=f"fixes label_policy to 'u_zeros', the config asks for '{policy}'"):
        check_label_policy(UPSTREAM, policy)


def test_the_epoch_of_the_lowest_validation_loss_is_kept_on_5_per_cent():
    """downstream_classification.py: test_size=0.05 and best_val_loss."""
    options = UPSTREAM.utility_options
    assert (options["select"], options["validation_fraction"]) == ("loss", 0.05)
    row = {"epoch": 3, "val_auroc": 0.8, "val_loss": 0.4}
    assert chosen_by(row, "auroc", "higher", "auroc") == ("auroc", 0.8)
    assert chosen_by(row, "auroc", "higher", options["select"]) == ("loss", -0.4)
    assert chosen_by({**row, "val_loss": None}, "auroc", "higher", "loss") == ("last", 3.0)


def test_how_the_epoch_is_chosen_tells_trainings_apart_and_leaves_the_names_of_stored_ones():
    plain = Recipe()
    assert replace(plain, select="loss").fingerprint != plain.fingerprint
    assert plain.fingerprint == "9025dbda0d"  # as of 0.1.0
