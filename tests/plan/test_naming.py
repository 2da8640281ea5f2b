"""Which names of a config are checked on a machine that will not run it."""

from __future__ import annotations

import pytest

from chexray.config import parse_config
from chexray.errors import ConfigError
from chexray.plan.naming import check_options, unknown_names


def unknown(may_be_elsewhere: bool = False, **changes: object) -> list[str]:
    base = {"real": "s3://b/real.csv", "synthetic": "s3://b/made/", "encoders": ["pixels"], "metrics": ["kid"]}
    config = parse_config({**base, **changes})
    check_options(config)
    return unknown_names(config, may_be_elsewhere=may_be_elsewhere)


def test_neither_images_nor_weights_need_be_here() -> None:
    assert unknown(encoders=[{"name": "siamese_reid", "weights": "/only/on/the/cluster.pth"}, "wavelets"]) == []


def test_what_no_suite_of_the_run_reads_is_not_checked() -> None:
    training = {"training": "s3://b/train.csv", "suite": ["privacy"]}
    assert unknown(metrics=["kdi"], **training) == []
    with pytest.raises(ConfigError, match="Did you mean 'pixels'"):
        unknown(encoders=["pixls"], **training)


def test_a_name_far_from_any_other_is_a_plug_in_of_another_machine() -> None:
    assert unknown(encoders=["pixels", "our_network"], metrics=["sharpness_of_ribs"]) == [
        "metric 'sharpness_of_ribs'",
        "encoder 'our_network'",
    ]
    assert unknown(True, metrics=["kdi"]) == ["metric 'kdi'"]
    with pytest.raises(ConfigError, match="has no option 'sid'"):  # what is known is checked all the same
        unknown(True, encoders=[{"name": "pixels", "sid": 8}])
