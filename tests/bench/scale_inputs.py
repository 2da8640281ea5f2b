"""Inputs of the size of SynthCheX-75K, made here: `python -m bench.scale_inputs FOLDER [--n 5000 20000 75649]`.

    <folder>/n<images>/ALL_FILES.zip            512 x 512 RGB PNG, stored, and the table of prompts inside
    <folder>/mimic/LLAVARAD_ANNOTATIONS_TRAIN.csv, test.csv   with images that are links to a few tiny files
    <folder>/features/                          what chexray would have stored of the real images

Pictures are low in entropy, so that 75,649 fit into 2 GB: each is eight bands, drawn at random from a few hundred that
were compressed once. No two are alike, as bytes or as pixels. Prompts are made up and say nothing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

SIDE, BANDS, BASES = 512, 8, 256
N_TRAINING, N_TEST = 237_388, 10_000
FILES = 64
"""Tiny files that the images of the real sets are links to; a file system allows 65,000 links to each."""

CHUNK = 64
"""Images of a stored part, as the encode stage commits them on CPUs."""

ENCODERS = [
    {"name": "pixels", "side": 16},
    {"name": "timm_vision", "model": "test_resnet", "weights": "random:0"},
]
FINDINGS_OF = ("No Finding", "Atelectasis", "Cardiomegaly", "Edema", "Pleural Effusion", "Pneumonia")


def dicom_id(index: int) -> str:
    digits = hashlib.sha256(str(index).encode()).hexdigest()[:40]
    return "-".join(digits[place : place + 8] for place in range(0, 40, 8))


class Pictures:
    """PNG files of bands. Bands are deflated apart (a full flush ends each), so a file is put together, not packed."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
        self.bands: list[list[tuple[bytes, int, int]]] = [[] for _ in range(BANDS)]
        for _ in range(BASES):
            wave = sum(
                rng.normal() * np.cos(np.pi * (fx * x + fy * y) + rng.uniform(0, 6.3))
                for fx, fy in rng.integers(0, 7, (6, 2))
            )
            lungs = -((x - 0.5) ** 2 + (y - 0.5) ** 2) * rng.uniform(100, 260)
            grey = np.clip(rng.uniform(110, 170) + lungs + 18 * wave, 0, 255).astype(np.uint8) // 8 * 8
            for place, rows in enumerate(np.split(grey, BANDS)):
                self.bands[place].append(_packed(rows))

    def png(self, index: int) -> bytes:
        """Picture number `index`; the same whenever it is asked for."""
        chosen = np.random.default_rng([1, index]).integers(0, BASES, BANDS)
        data, check = bytearray(b"\x78\x01"), 1
        for place, base in enumerate(chosen):
            packed, adler, length = self.bands[place][base]
            data += packed
            check = _adler_of_both(check, adler, length)
        data += zlib.compressobj(9, zlib.DEFLATED, -15).flush() + struct.pack(">I", check)
        header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
        pieces = ((b"IHDR", header), (b"IDAT", bytes(data)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_piece(kind, body) for kind, body in pieces)


def _packed(rows: np.ndarray) -> tuple[bytes, int, int]:
    """(deflated, adler32, length) of grey rows as RGB, each behind PNG's filter `Sub`, which looks at no other row."""
    rgb = np.repeat(rows[:, :, None], 3, axis=2)
    rgb[:, 1:] -= rgb[:, :-1].copy()
    raw = np.concatenate([np.ones((len(rows), 1), np.uint8), rgb.reshape(len(rows), -1)], axis=1).tobytes()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(raw) + packer.flush(zlib.Z_FULL_FLUSH), zlib.adler32(raw), len(raw)


def _adler_of_both(first: int, second: int, length: int) -> int:
    """The adler32 of two pieces, one behind the other, from those of each (as zlib's adler32_combine)."""
    base = 65_521
    a1, b1, a2, b2 = first & 0xFFFF, first >> 16, second & 0xFFFF, second >> 16
    return ((a1 + a2 - 1) % base) | (((b1 + b2 + length * (a1 - 1)) % base) << 16)


def _piece(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def labels_of(index: int) -> dict[str, float | None]:
    """Two findings of six, and nothing of the others."""
    from chexray.findings import FINDINGS

    mentioned = {FINDINGS_OF[index % 6]: 1.0, FINDINGS_OF[index // 6 % 6]: 1.0 if index % 11 else 0.0}
    return {name: mentioned.get(name) for name in FINDINGS}


def prompt_of(index: int) -> str:
    return f"made-up prompt {index}, of no patient"


def write_zip(path: Path, n: int) -> None:
    """SynthCheX-75K v1 with n images, those of the first n training images."""
    pictures, rows = Pictures(), []
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for index in range(n):
            name = f"SyntheticImg_{dicom_id(index)}.png"
            archive.writestr(f"ALL_FILES/{name}", pictures.png(index))
            labels = {name: float(value or 0) for name, value in labels_of(index).items()}
            rows.append([name, prompt_of(index), str(labels)])
        text = _csv(["filename", "prompt", "labels_dict"], rows)
        archive.writestr("ALL_FILES/metadata.csv", text, zipfile.ZIP_DEFLATED)
    part.rename(path)


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    import io

    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


def write_real(folder: Path, table: str, indices: range) -> None:
    """A table as LLAVARAD_ANNOTATIONS_TRAIN.csv, and the paths that it names, as links to a few tiny files."""
    from PIL import Image

    rng = np.random.default_rng([2, indices.start])
    folder.mkdir(parents=True, exist_ok=True)
    tiny = [folder / f"tiny-{indices.start}-{i:02d}.png" for i in range(FILES)]
    for path in tiny:
        if not path.exists():
            Image.fromarray(rng.integers(60, 200, (16, 16 if indices.start else 24), np.uint8)).save(path)
    rows, made = [], set()
    for index in indices:
        subject = str(10_000_000 + index // 3)  # three images a patient
        path = f"files/p{subject[:4]}/{dicom_id(index)}.png"
        place = folder / path
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        if not place.exists():
            os.link(tiny[index % FILES], place)
        rows.append([path, prompt_of(index), str(labels_of(index)), subject, "PA" if index % 3 else "AP"])
    header = ["path", "annotated_prompt", "chexpert_labels", "patientID", "view"]
    (folder / table).write_text(_csv(header, rows))


def config_of(folder: Path, n: int, output: Path, store: Path) -> dict[str, Any]:
    """The run that is measured: fidelity by finding, copies among the training images, duplicates."""
    return {
        "name": f"scale-{n}",
        "suite": ["fidelity", "privacy"],
        "real": {"path": str(folder / "mimic" / "test.csv")},
        "training": {"path": str(folder / "mimic" / "LLAVARAD_ANNOTATIONS_TRAIN.csv")},
        "synthetic": {"synthchex": {"path": str(folder / f"n{n}" / "ALL_FILES.zip")}},
        "encoders": ENCODERS,
        "subsets": ["all", "findings"],
        "metrics": ["fid", "kid", "prdc"],
        "privacy": {"views": False, "planted": 0, "pixel_distance": False, "peers": False},
        "output": str(output),
        "feature_store": str(store),
    }


def write_features(folder: Path, n: int) -> None:
    """Features of every real image, in the parts that the encode stage would have committed, without decoding one."""
    from chexray.config import parse_config
    from chexray.engine.features import FeatureStore
    from chexray.plan import make_plan
    from chexray.storage import Storage

    store = FeatureStore(str(folder / "features"), Storage())
    plan = make_plan(parse_config(config_of(folder, n, folder / "none", folder / "features")))
    for label, (_, spec) in plan.encoders.items():
        store.describe(spec)
        rng = np.random.default_rng(3)
        for manifest in (plan.training, plan.real):
            assert manifest is not None
            keys = manifest.table["image_key"].to_pylist()
            for start in range(0, len(keys), CHUNK):
                part = keys[start : start + CHUNK]
                blocks = {name: _drawn(rng, spec, len(part), width) for name, width in spec.outputs.items()}
                store.commit(spec, part, blocks, [])
        print(f"... features of {label}", file=sys.stderr, flush=True)


def _drawn(rng: np.random.Generator, spec: Any, n: int, width: int) -> np.ndarray:
    """What an encoder might have given: bytes, signs of a hash, greys, or what is left of a network's last ReLU."""
    if spec.output_dtype == "uint8" or width <= 8:
        return rng.integers(0, 256, (n, width)).astype(spec.output_dtype)
    if spec.name == "perceptual_hash":
        return np.where(rng.random((n, width)) < 0.5, -1, 1).astype(spec.output_dtype)
    if spec.name == "pixels":
        return rng.uniform(0, 1, (n, width)).astype(spec.output_dtype)
    return np.abs(rng.normal(size=(n, width))).astype(spec.output_dtype)


def make(folder: Path, sizes: list[int], *, n_training: int = N_TRAINING, n_test: int = N_TEST) -> None:
    """Everything that is not there yet. n_training: at least as many as the largest of the sizes."""
    for n in sizes:
        if not (path := folder / f"n{n}" / "ALL_FILES.zip").exists():
            started = time.monotonic()
            write_zip(path, n)
            said = f"... {path}: {n:,} images, {path.stat().st_size / 1e9:.2f} GB, {time.monotonic() - started:.0f} s"
            print(said, file=sys.stderr, flush=True)
    if not (done := folder / "features.done").exists():
        write_real(folder / "mimic", "LLAVARAD_ANNOTATIONS_TRAIN.csv", range(n_training))
        write_real(folder / "mimic", "test.csv", range(1_000_000, 1_000_000 + n_test))
        write_features(folder, min(sizes))
        done.touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, nargs="+", default=[5_000, 20_000, 75_649])
    parser.add_argument("--training", type=int, default=N_TRAINING)
    options = parser.parse_args()
    make(options.folder.resolve(), options.n, n_training=options.training)
