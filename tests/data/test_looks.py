"""The sample of a set: its depth, what it looks like, and what differs between sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.deep_files import RAMP, png, ramp, tiff_of
from fixtures.hostile_images import dicom, saved
from PIL import Image

from chexray.config import parse_config
from chexray.data import looks, manifest
from chexray.data.depth import Depth
from chexray.data.images import embedded_uri, load_images
from chexray.data.looks import apart, look_at
from chexray.errors import ConfigError
from chexray.plan import make_plan
from chexray.storage import Storage

STORAGE = Storage()
GREY = np.rint(RAMP * 255).astype(np.uint8)


def a_set(folder, files: dict[str, bytes]) -> manifest.Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    uris = [str(folder / name) for name in files]
    return manifest.build("set", "real", pa.table({"sample_id": list(files), "uri": uris}), STORAGE)


def deep_files(tops: list[int], of=png) -> dict[str, bytes]:
    return {f"{i:03d}.png": of(ramp(top)) for i, top in enumerate(tops)}


@pytest.mark.parametrize(("tops", "bits"), [
    ([200, 100], 8), ([900, 1000, 3], 10), ([4095, 200, 1000], 12), ([5000, 100], 14), ([29555, 500], 16),
])  # fmt: skip
def test_the_depth_of_a_set_is_the_smallest_that_holds_its_sample(tmp_path, tops, bits):
    found = look_at(a_set(tmp_path, deep_files(tops)), STORAGE)
    assert found.depth == Depth(bits)
    assert found.looks.undeclared == len(tops)
    assert f"{bits} bits" in found.notes[0]


def test_dark_images_stay_dark_beside_light_ones(tmp_path):
    found = look_at(a_set(tmp_path, deep_files([65535, 1000])), STORAGE)
    light, dark = load_images(found.table["uri"].to_pylist(), STORAGE, depth=found.depth)
    assert (light[0, -1], dark[0, -1]) == (255, 4)


def test_declared_images_have_no_say_in_the_depth_and_keep_their_own(tmp_path):
    declared, open_ended = dicom(ramp(4095), bits=12), dicom(ramp(60000), bits=16)
    eight = saved(Image.fromarray(GREY), "PNG")
    found = look_at(a_set(tmp_path, {"a": declared, "b": open_ended, "c": eight}), STORAGE)
    assert (found.depth, found.looks.undeclared) == (Depth(16), 1)
    images = load_images(found.table["uri"].to_pylist(), STORAGE, depth=found.depth)
    assert [int(image[0, -1]) for image in images] == [255, 233, 255]


def test_a_set_without_such_images_has_none_and_keeps_its_keys(tmp_path):
    before = a_set(tmp_path, {"a": saved(Image.fromarray(GREY), "PNG"), "b": dicom(ramp(4095), bits=12)})
    found = look_at(before, STORAGE)
    assert found.depth == Depth(0)
    assert found.table.equals(before.table)
    assert found.notes == before.notes


def test_the_depth_is_part_of_every_key_and_of_the_fingerprint(tmp_path):
    before = a_set(tmp_path, deep_files([4095, 4000]))
    sets = [before, look_at(before, STORAGE), *(look_at(before, STORAGE, bits=bits) for bits in (12, 14))]
    assert len({each.fingerprint for each in sets}) == 4
    assert len({key for each in sets for key in each.table["image_key"].to_pylist()}) == 8


def test_bits_count_before_what_is_declared_and_found(tmp_path):
    found = look_at(a_set(tmp_path, {"a": png(ramp(1000)), "b": dicom(ramp(1000), bits=12)}), STORAGE, bits=10)
    assert found.depth == Depth(10, given=True)
    images = load_images(found.table["uri"].to_pylist(), STORAGE, depth=found.depth)
    assert [int(image[0, -1]) for image in images] == [249, 249]


def test_the_sample_is_fixed(tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "SAMPLE", 8)
    files = deep_files([300] * 40)
    whole = a_set(tmp_path, files)
    backwards = manifest.build(
        "set", "real", pa.table({"sample_id": list(files)[::-1], "uri": whole.table["uri"].to_pylist()[::-1]}), STORAGE
    )
    assert looks._sample(whole) == looks._sample(backwards)
    assert len(looks._sample(whole)) == 8
    assert look_at(whole, STORAGE).looks == look_at(backwards, STORAGE).looks
    few = manifest.build("set", "real", whole.table.select(["sample_id", "uri"]), STORAGE, limit=8)
    assert looks._sample(few) == looks._sample(whole)


def test_few_parquet_files_are_opened_for_a_sample(tmp_path):
    uris = []
    for k in range(7):
        file = str(tmp_path / f"{k}.parquet")
        pq.write_table(pa.table({"image": [png(ramp(4095))] * 30}), file)
        uris += [embedded_uri(file, "image", row) for row in range(30)]
    table = pa.table({"sample_id": [str(i) for i in range(len(uris))], "uri": uris})
    found = look_at(manifest.build("set", "real", table, STORAGE), STORAGE)
    assert (found.depth, found.looks.n, found.looks.n_sampled) == (Depth(12), 32, 32)
    sample = looks._sample(found)
    assert len({uri.partition("#")[0] for uri in sample}) == looks.FILES
    assert {int(uri.rpartition("=")[2]) for uri in sample} == set(range(8))


def test_what_a_sample_looks_like(tmp_path):
    files = {
        "black": saved(Image.new("L", (64, 32), 3), "PNG"),
        "white": saved(Image.fromarray(np.where(np.arange(64) < 2, 0, 255)[None].repeat(32, 0).astype("u1")), "PNG"),
        "ramp": saved(Image.fromarray(GREY), "JPEG", quality=100),
        "colour": saved(Image.fromarray(np.dstack([GREY] * 3)[:, :32].copy()), "PNG"),
        "broken": b"nothing",
    }
    found = look_at(a_set(tmp_path, files), STORAGE).looks
    assert (found.n, found.n_sampled) == (4, 5)
    assert found.containers == {"PNG": 3, "JPEG": 1}
    assert found.sizes == {"64 x 32": 3, "32 x 32": 1}
    assert found.modes == {"grey, 8 bits": 3, "RGB, 8 bits": 1}
    assert (found.near_black, found.near_white, found.constant) == (0.25, 0.25, 0.25)
    means = [3, 255 * 62 / 64, GREY.mean(), GREY[:, :32].mean()]
    assert found.brightness == pytest.approx(np.mean(means), abs=0.3)
    assert found.brightness_spread == pytest.approx(np.std(means), abs=0.3)
    assert "PNG/JPEG" in found.describe()
    empty = look_at(a_set(tmp_path / "x", {"broken": b"nothing"}), STORAGE).looks
    assert empty.describe() == "none of 1 sampled images can be read"


def test_what_differs_between_sets_is_said(tmp_path):
    def of(name: str, files: dict[str, bytes]) -> looks.Looks:
        found = look_at(a_set(tmp_path / name, files), STORAGE).looks
        assert found is not None
        return found

    def eight(scale: float, kind: str = "PNG") -> dict[str, bytes]:
        rng = np.random.default_rng(0)
        pixels = [np.clip(GREY * scale + rng.normal(0, 5), 0, 255).astype(np.uint8) for _ in range(20)]
        return {str(i): saved(Image.fromarray(each), kind) for i, each in enumerate(pixels)}

    plain = of("plain", eight(1))
    assert apart({"a": plain, "b": of("again", eight(1))}) == []
    (dark,) = apart({"a": plain, "b": of("dark", eight(0.45))})
    assert dark.startswith("brightness differs: a ")
    assert any(
        line.startswith("container differs: a PNG; b JPEG")
        for line in apart({"a": plain, "b": of("j", eight(1, "JPEG"))})
    )
    deep = of("deep", {str(i): png(ramp(65535)) for i in range(4)})
    assert any("16 bits" in line for line in apart({"a": plain, "b": deep}))
    black = of("black", {str(i): saved(Image.new("L", (64, 32)), "PNG") for i in range(4)})
    assert any("near black images differ: a 0%; b 100%" in line for line in apart({"a": plain, "b": black}))


def config_of(tmp_path, **sets):
    return parse_config(
        {
            "real": sets["real"],
            "synthetic": sets["synthetic"],
            "encoders": ["pixels"],
            "metrics": ["fid"],
            "output": str(tmp_path / "out"),
        }
    )


def test_sets_of_one_container_that_disagree_need_bits(tmp_path):
    a_set(tmp_path / "real", deep_files([65535, 60000]))
    a_set(tmp_path / "dim", deep_files([9000, 8000]))
    real, dim = {"path": str(tmp_path / "real")}, {"path": str(tmp_path / "dim")}
    with pytest.raises(ConfigError, match=r"16 and 14 bits. Give both sets `bits`, such as 16") as error:
        make_plan(config_of(tmp_path, real=real, synthetic=dim))
    assert "\n" not in str(error.value)
    plan = make_plan(config_of(tmp_path, real=real, synthetic=dim | {"bits": 16}))
    assert {each.name: each.depth for each in plan.sets} == {"real": Depth(16), "dim": Depth(16, given=True)}
    assert set(plan.depths) == set(plan.images.keys.to_pylist())
    lines = "\n".join(plan.describe() + plan.notes)
    assert "16 bits: 0 is black and 65535 is white, as `bits` says" in lines
    assert "brightness differs" in lines
    # DICOM of 12 bits beside TIFF of 16 is usual.
    a_set(tmp_path / "dcm", {f"{i}.dcm": dicom(ramp(4095), bits=16) for i in range(3)})
    a_set(tmp_path / "tif", {f"{i}.tif": tiff_of(ramp(65535)) for i in range(3)})
    make_plan(config_of(tmp_path, real={"path": str(tmp_path / "dcm")}, synthetic={"path": str(tmp_path / "tif")}))


@pytest.mark.parametrize("bits", [0, 2, 7, 33, -1, -40, 1.5, "many"])
def test_bits_that_are_no_depth(tmp_path, bits):
    with pytest.raises(ConfigError, match="bits"):
        config_of(tmp_path, real={"path": "a", "bits": bits}, synthetic={"path": "b"})
