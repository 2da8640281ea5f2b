"""What an encoder can be used for is declared by its spec, and changes none of its features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chexray.encoders.base import HASH, METHODS, MIRROR, PAIR_SCORER, ROLES, SPACE, EncoderSpec, mirroring
from chexray.encoders.patches import Patches
from chexray.encoders.perceptual_hash import PerceptualHash
from chexray.encoders.pixels import Pixels
from chexray.encoders.siamese_reid import SiameseReid
from chexray.encoders.wavelets import Wavelets
from chexray.engine.features import FeatureStore
from chexray.storage import Storage

PIXELS_0_1 = EncoderSpec(
    "pixels", "none", "", "", "area-16", "fp32", {"features": 256}, (16, 16), "float32", 1, {"side": 16}
)


def test_features_that_0_1_0_stored_are_found(tmp_path):
    """The folder that chexray 0.1.0 wrote for this spec, whatever the encoder is used for."""
    for roles in ({SPACE}, {SPACE, MIRROR}, {HASH}):
        spec = replace(PIXELS_0_1, roles=frozenset(roles))
        assert FeatureStore(str(tmp_path), Storage()).folder(spec).endswith("/pixels-5798b76d84a824c4")


@pytest.mark.parametrize(
    ("encoder", "roles"),
    [
        (Pixels(), {SPACE, MIRROR}),
        (Patches(), {SPACE, MIRROR}),
        (Wavelets(), {SPACE}),
        (PerceptualHash(), {HASH}),
        (SiameseReid(weights="random:1"), {PAIR_SCORER}),
    ],
)
def test_each_role_has_its_method(encoder, roles):
    spec = encoder.resolve()
    assert spec.roles == roles
    for role, method in METHODS.items():
        assert callable(getattr(encoder, method, None)) == (role in roles)
    assert spec.described()["roles"] == sorted(roles)


def test_mirroring_gives_the_features_of_the_mirror_image():
    image = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    for encoder in (Pixels(), Patches(), PerceptualHash()):
        spec = encoder.resolve()
        plain, mirrored = (
            encoder.encode(encoder.prepare(each)[None])["features"][0] for each in (image, image[:, ::-1])
        )
        how = mirroring(encoder, spec)
        found = plain * how["signs"] if HASH in spec.roles else plain[how["order"]]
        np.testing.assert_allclose(found, mirrored, atol=2e-5)
    assert mirroring(Wavelets(), Wavelets().resolve()) == {}
    assert {SPACE, *METHODS} <= ROLES
