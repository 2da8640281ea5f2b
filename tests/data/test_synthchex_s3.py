"""SynthCheX-75K on S3 is read by ranges where it lies: about its own size in all, whatever its form."""

from __future__ import annotations

import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.synthchex import array3d, name_of, png

from chexray.data import manifest
from chexray.data.images import load_images
from chexray.data.sources.infer import infer
from chexray.data.sources.synthchex import SynthCheX
from chexray.storage import traffic

N, SIDE = 64, 224


def noise(index):
    """Pixels that no compression makes smaller, so that 64 of them are much beside the ends of a file."""
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def v1(path):
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(N):
            archive.writestr(f"ALL_FILES/{name_of(index)}", png(noise(index)))
        rows = "".join(
            f"{name_of(index)},prompt {index},{{'Edema': 1}}\n".replace("{'", "\"{'").replace("1}", '1}"')
            for index in range(N)
        )
        archive.writestr("ALL_FILES/metadata.csv", f"filename,prompt,labels_dict\n{rows}")
    return path


def v2(path):
    image = array3d(np.stack([noise(index) for index in range(N)]))
    names = [name_of(index) for index in range(N)]
    pq.write_table(pa.table({"image_filename": names, "label": ["x"] * N, "image": image}), path, row_group_size=N // 2)
    return path


@pytest.mark.parametrize(("write", "name"), [(v1, "ALL_FILES.zip"), (v2, "v2/train-00000-of-00001.parquet")])
def test_what_is_read_is_about_the_size_of_the_file(s3, tmp_path, write, name):
    data = write(tmp_path / "file").read_bytes()
    where = f"{s3.bucket}/{name}"
    s3.storage.write(where, data)
    path = where if name.endswith(".zip") else where.rsplit("/", 1)[0]
    traffic.taken()
    assert infer(path, s3.storage) == "synthchex"
    built = manifest.load("s", "synthetic", SynthCheX(path), s3.storage)
    planned, _ = traffic.taken()
    assert planned < 0.1 * len(data)
    pixels = load_images(built.table["uri"].to_pylist(), s3.storage)
    read, _ = traffic.taken()
    assert planned + read <= 1.1 * len(data)
    assert {image.shape for image in pixels} == {(SIDE, SIDE)}
    assert len(built) == N
