"""Views of a small picture: what an independent warp gives, the picture itself first, and mirrors that agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from chexray.encoders.patches import Patches
from chexray.encoders.perceptual_hash import PerceptualHash
from chexray.encoders.pixels import Pixels
from chexray.encoders.views import SIDE, VIEWS, SmallImages, View, has_views, view_features, views_of
from chexray.phantom import draw


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return SmallImages().prepare(draw(3, seed=2, size=128).image)


def test_the_first_view_is_the_picture(picture):
    assert VIEWS[0] == View(0.0, 1.0)
    assert len(set(VIEWS)) == len(VIEWS) == 15
    np.testing.assert_array_equal(views_of(picture)[0], picture)


def test_views_are_what_scipy_turns_and_crops(picture):
    middle = np.full(2, (SIDE - 1) / 2)
    for view, found in zip(VIEWS, views_of(picture), strict=True):
        turn = math.radians(view.degrees)
        matrix = view.kept * np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        offset = middle - matrix @ middle
        expected = ndimage.affine_transform(picture.astype(float), matrix, offset, order=1, mode="nearest")
        either = [expected, ndimage.affine_transform(picture.astype(float), matrix.T, middle - matrix.T @ middle,
                                                     order=1, mode="nearest")]  # fmt: skip
        # One grey level, and the 256th of a pixel to which places are rounded.
        steepest = np.abs(np.diff(picture.astype(int), axis=0)).max() + np.abs(np.diff(picture.astype(int))).max()
        assert min(np.abs(found - each).max() for each in either) <= 1 + steepest / 256


def test_a_turn_to_the_left_is_mirrored_one_to_the_right(picture):
    places = {view: i for i, view in enumerate(VIEWS)}
    found, mirrored = views_of(picture), views_of(picture[:, ::-1])
    for view, i in places.items():
        other = mirrored[places[View(-view.degrees, view.kept)]][:, ::-1]
        assert np.abs(found[i].astype(int) - other).max() <= 2


MIRRORED = {
    "pixels": Pixels(),
    "pixels-10": Pixels(side=10),
    "patches": Patches(),
    "patches-12-3": Patches(side=12, patch=3),
}


@pytest.mark.parametrize("encoder", MIRRORED.values(), ids=MIRRORED)
def test_the_order_of_a_mirror_is_the_mirror(encoder):
    image = draw(1, seed=2, size=120).image
    plain, mirrored = (
        encoder.encode(encoder.prepare(each)[None])["features"][0]
        for each in (image, np.ascontiguousarray(image[:, ::-1]))
    )
    np.testing.assert_allclose(plain[encoder.mirror_order()], mirrored, atol=2e-5)


def test_features_of_views_are_those_of_each_view_alone(picture):
    encoder = Pixels()
    plain = np.full((2, 256), 7, np.float32)
    pictures = np.stack([picture.ravel(), 255 - picture.ravel()])
    found = view_features(encoder, plain, pictures).reshape(2, len(VIEWS), 256)
    np.testing.assert_array_equal(found[:, 0], plain)
    for row in range(2):
        for i, view in list(enumerate(views_of(pictures[row].reshape(SIDE, SIDE))))[1:]:
            expected = encoder.encode(encoder.prepare(view)[None])["features"][0]
            np.testing.assert_array_equal(found[row, i], expected)


def test_small_images_are_means_of_cells():
    encoder = SmallImages()
    spec = encoder.resolve()
    assert (spec.output_dtype, spec.outputs) == ("uint8", {"image": SIDE**2})
    image = np.random.default_rng(0).integers(0, 256, (128, 192), dtype=np.uint8)
    expected = image.reshape(64, 2, 64, 3).mean((1, 3))
    assert np.abs(encoder.prepare(image) - expected).max() <= 1
    assert encoder.prepare(np.array([[9]], np.uint8)).tolist() == [[9] * SIDE] * SIDE
    np.testing.assert_array_equal(
        encoder.encode(encoder.prepare(image)[None])["image"][0], encoder.prepare(image).ravel()
    )


def test_spaces_without_weights_that_know_a_mirror_have_views():
    assert all(has_views(each.resolve()) for each in (Pixels(), Patches(), PerceptualHash()))
    assert not has_views(Pixels(side=128).resolve())
    assert not has_views(SmallImages().resolve())


@pytest.mark.parametrize(("degrees", "kept"), [(9, 0.85), (-9, 0.85), (10, 1.0), (6, 0.9), (0, 0.82)])
def test_a_turned_and_cropped_copy_is_near_a_view(degrees, kept):
    """Two spaces of the search; by Pillow, at full size, as a user's pipeline would."""
    from PIL import Image

    image = draw(5, seed=4, size=256).image
    altered = Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC)
    edge = 128 * (1 - kept)
    copy = np.asarray(altered.resize((256, 256), Image.Resampling.BICUBIC, box=(edge, edge, 256 - edge, 256 - edge)))
    encoder = PerceptualHash()
    plain, changed = (encoder.encode(encoder.prepare(each)[None])["features"] for each in (image, copy))
    views = view_features(encoder, plain, SmallImages().prepare(image).reshape(1, -1)).reshape(len(VIEWS), -1)
    bits = (256 - views @ changed[0]) / 2
    assert bits.min() <= 26
    assert bits[0] > bits.min() + 10
