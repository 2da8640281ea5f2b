"""Which options of a config are checked on a machine that will not run it."""

from __future__ import annotations

import pytest

from chexray.config import parse_config
from chexray.errors import ConfigError
from chexray.plan.naming import check_names


def check(**changes: object) -> None:
    base = {"real": "s3://b/real.csv", "synthetic": "s3://b/made/", "encoders": ["pixels"], "metrics": ["kid"]}
    check_names(parse_config({**base, **changes}), "--image")


def test_neither_images_nor_weights_need_be_here() -> None:
    check(encoders=[{"name": "siamese_reid", "weights": "/only/on/the/cluster.pth"}, "wavelets"])


def test_what_no_suite_of_the_run_reads_is_not_checked() -> None:
    unread = [{"name": "kid", "no_such_option": 1}]
    check(metrics=unread, training="s3://b/train.csv", suite=["privacy"])
    with pytest.raises(ConfigError, match="no_such_option"):
        check(metrics=unread)


def test_a_name_that_is_not_known_here_is_left_to_others_and_the_rest_checked() -> None:
    check(encoders=["pixels", "our_network"], metrics=["sharpness_of_ribs"])
    with pytest.raises(ConfigError, match="has no option 'sid'"):
        check(metrics=["kdi"], encoders=[{"name": "pixels", "sid": 8}])
