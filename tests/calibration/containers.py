"""One picture in any container: the same radiographs in seven containers, and files of strangers beside other readers.

1. 100 radiographs against themselves as 8-bit PNG, 16-bit PNG, DICOM with a window, DICOM with a VOI LUT whose
descriptor is wrong, DICOM of BitsStored 16 with 12 bits of data, 8-bit MinIsWhite TIFF and 16-bit MinIsWhite TIFF: FID
in the `pixels` encoder stays below its floor, and is 0 but for rounding. Darkened to 0.45 as 8- and as 16-bit PNG, both
get the same FID, above the floor.
2. Every DICOM and image that pydicom, pydicom-data, pylibjpeg-data, scikit-image, matplotlib and Pillow's source bring
along, as far as they are installed or lie in CHEXRAY_STRANGERS, against DCMTK's dcm2pnm, libtiff's tiff2rgba or Pillow:
at most 1 grey level apart. What is further apart or refused is printed with its reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

N_IMAGES = 100
NEGLIGIBLE = 0.01
"""FID that rounding may leave; the floor of 100 images is about 1."""
DARK = 0.45


def pictures(n: int) -> list[np.ndarray]:
    """n radiographs of shared/data/cxr, or phantoms where it is absent, as (h, w) uint8."""
    from chexray.data.decoding import decode

    folder = Path(os.environ.get("CHEXRAY_SHARED", HERE.parents[2] / "shared")) / "data" / "cxr" / "real"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))[:n]
    if paths:
        return [image for path in paths if isinstance(image := decode(path.read_bytes()), np.ndarray)]
    rng = np.random.default_rng(0)
    scale = np.linspace(0, 1, 128)
    drawn = (np.outer(scale ** rng.uniform(0.5, 2), scale) for _ in range(n))
    return [np.clip(51 + 153 * each + rng.normal(0, 6, each.shape), 0, 255).astype(np.uint8) for each in drawn]


def containers() -> dict[str, tuple[str, Callable[[np.ndarray], bytes]]]:
    """{name: (suffix, 8-bit picture to file)} of the seven."""
    from fixtures.deep_files import png, tiff_of
    from fixtures.hostile_images import dicom, saved
    from PIL import Image

    def deep(pixels: np.ndarray, top: int) -> np.ndarray:
        return np.rint(pixels * (top / 255)).astype(np.uint16)

    def with_lut(pixels: np.ndarray) -> bytes:
        from pydicom.dataset import Dataset
        from pydicom.sequence import Sequence

        item = Dataset()
        item.LUTDescriptor = [4096, 0, 16]
        item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
        return dicom(deep(pixels, 4095), VOILUTSequence=Sequence([item]))

    return {
        "png-8": (".png", lambda pixels: saved(Image.fromarray(pixels), "PNG")),
        "png-16": (".png", lambda pixels: png(deep(pixels, 65535))),
        "dicom-window": (".dcm", lambda pixels: dicom(deep(pixels, 4095), WindowCenter=2048, WindowWidth=4096)),
        "dicom-voi-lut": (".dcm", with_lut),
        "dicom-16-of-12": (".dcm", lambda pixels: dicom(deep(pixels, 4095), bits=16)),
        "tiff-8-white-is-0": (".tif", lambda pixels: tiff_of(255 - pixels, photometric=0)),
        "tiff-16-white-is-0": (".tif", lambda pixels: tiff_of(65535 - deep(pixels, 65535), photometric=0)),
    }


def darkened() -> dict[str, tuple[str, Callable[[np.ndarray], bytes]]]:
    """The darkened pair: the same values in 8 and in 16 bits."""
    seven = containers()
    return {f"dark-{name}": (suffix, lambda pixels, of=of: of(np.rint(pixels * DARK).astype(np.uint8)))
            for name, (suffix, of) in seven.items() if name in ("png-8", "png-16")}  # fmt: skip


@dataclass(frozen=True)
class Distance:
    """FID of one container, and the floor beside it."""

    fid: float
    floor: float


def distances(images: list[np.ndarray], folder: Path) -> dict[str, Distance]:
    """FID of `images` against themselves in each container, in one run of the whole pipeline."""
    from chexray.config import parse_config
    from chexray.run.evaluation import evaluate

    kinds = containers() | darkened()
    for name, (suffix, of) in kinds.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            (folder / name / f"{i:04d}{suffix}").write_bytes(of(image))
    sets = [{"name": name, "path": str(folder / name)} for name in kinds]
    config = {
        "real": {"name": "real", "path": str(folder / "png-8")},
        "synthetic": sets,
        "encoders": ["pixels"],
        "metrics": ["fid"],
        "output": str(folder / "out"),
    }
    run = evaluate(parse_config(config))
    found = {}
    for row in run.results.to_dict("records"):
        if row["metric"] == "fid":
            found[row["synthetic_set"].partition("@")[0]] = Distance(row["value"], row["real_floor"])
    return found


def holds(found: dict[str, Distance]) -> bool:
    """Whether the seven are equal and the darkened pair is seen, equally."""
    equal = all(abs(found[name].fid) < min(NEGLIGIBLE, found[name].floor) for name in containers())
    dark = [found[name] for name in darkened()]
    return equal and abs(dark[0].fid - dark[1].fid) < NEGLIGIBLE and all(each.fid > each.floor for each in dark)


def strangers() -> Iterator[Path]:
    """Files of installed packages and of the folder CHEXRAY_STRANGERS."""
    folders = [Path(each) for each in os.environ.get("CHEXRAY_STRANGERS", "").split(os.pathsep) if each]
    for package in ("pydicom", "data_store", "ljdata", "skimage", "matplotlib"):
        found = importlib.util.find_spec(package)
        folders += [Path(each) for each in (found.submodule_search_locations or [])] if found else []
    suffixes = {".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"}
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def other_reader(path: Path, folder: Path) -> np.ndarray | None:
    """(h, w) grey levels by a reader that shares no code with ours; None where there is none for the file."""
    from PIL import Image

    suffix, target = path.suffix.lower(), folder / "other.pnm"
    target.unlink(missing_ok=True)
    source = target
    if suffix == ".dcm":
        if shutil.which("dcm2pnm") is None:
            return None
        for window in (["+Wi", "1"], ["+Wl", "1"], []):
            target.unlink(missing_ok=True)
            # -O: no overlays, which are no part of the pixels.
            done = subprocess.run(["dcm2pnm", "-O", *window, str(path), str(target)], capture_output=True, timeout=60)
            if done.returncode == 0 and target.exists():
                break
    elif suffix in (".tif", ".tiff"):
        if shutil.which("tiff2rgba") is None:
            return None
        subprocess.run(["tiff2rgba", str(path), str(target)], capture_output=True, timeout=60)
    elif suffix == ".png" and path.read_bytes()[24:25] == b"\x10":
        return None  # Pillow keeps or drops bits; it judges 8 bits only
    else:
        source = path
    try:
        with Image.open(source) as image:
            return _on_black(image)
    except Exception:  # what it cannot read it cannot judge
        return None


def _on_black(image: Image.Image) -> np.ndarray:
    from PIL import Image as images

    if image.has_transparency_data:
        black = images.new("RGBA", image.size, (0, 0, 0, 255))
        black.alpha_composite(image.convert("RGBA"))
        image = black
    return np.asarray((image if image.mode in ("1", "L", "P", "RGB") else image.convert("RGB")).convert("L"))


REASONS = {
    "Lab": "Pillow converts CIELAB without its profile",
    "lab": "Pillow converts CIELAB without its profile",
    "pil136": "Pillow and libtiff widen the colour of JPEG in TIFF differently",
    "wrong_bits_per_sample": "Pillow mends BitsPerSample, libtiff does not",
}
"""Part of a file's name -> why it may differ, where nothing of it is decided here: as before, Pillow decodes it."""


def sweep(quick: bool) -> bool:
    """Prints how many files agree, and every exception. Whether each that differs has a reason."""
    from chexray.data.decoding import decode_and
    from chexray.data.depth import Facts
    from chexray.data.images import Reject

    agree, refused, alone, apart, seen, unexplained = 0, [], 0, [], set(), 0
    with tempfile.TemporaryDirectory() as name:
        for path in strangers():
            data = path.read_bytes()
            if len(data) > 30_000_000 or hash(data) in seen or (quick and len(seen) >= 300):
                continue
            seen.add(hash(data))
            facts = Facts()
            ours, theirs = decode_and(lambda pixels: pixels, data, facts=facts), other_reader(path, Path(name))
            if isinstance(ours, Reject):
                refused.append((path, ours, theirs is not None))
            elif theirs is None:
                alone += 1
            elif theirs.shape != ours.shape:
                apart.append((path, f"{theirs.shape} where we have {ours.shape}: libtiff does not turn it"))
                unexplained += theirs.shape != ours.shape[::-1]
            elif np.abs(ours.astype(int) - theirs).max() <= 1:
                agree += 1
            else:
                difference = np.abs(ours.astype(int) - theirs)
                told = f"up to {difference.max()} levels, mean {difference.mean():.1f}"
                if facts.deep and not facts.declared:
                    told += f"; no depth is declared: {facts.needs} bits hold it, the other reader takes all or none"
                else:
                    why = next((why for part, why in REASONS.items() if part in path.name), "")
                    told += f"; {why or 'NO REASON IS KNOWN'}"
                    unexplained += not why
                apart.append((path, told))
    readers = [name for name in ("dcm2pnm", "tiff2rgba") if shutil.which(name)]
    print(f"{len(seen)} files; other readers: Pillow, {', '.join(readers) or 'no other'}")
    print(
        f"{agree} agree within 1 level; {alone} have no other reader; {len(apart)} differ; {len(refused)} are refused"
    )
    for path, why in apart:
        print(f"  differs  {path.parent.name}/{path.name}: {why}")
    for path, reject, shown_there in refused:
        print(
            f"  refused  {path.parent.name}/{path.name}: {reject.code}: {reject.detail}{' (shown there)' * shown_there}"
        )
    return not unexplained


def run(quick: bool) -> bool:
    from chexray.config import RayConfig
    from chexray.engine.cluster import cluster

    images = pictures(30 if quick else N_IMAGES)
    with tempfile.TemporaryDirectory() as name, cluster(RayConfig(num_cpus=1, object_store_gb=0.5)):
        found = distances(images, Path(name))
    print(f"{len(images)} radiographs against themselves\n\n| container | FID | floor |\n|---|---|---|")
    for kind, each in found.items():
        print(f"| {kind} | {each.fid:.4f} | {each.floor:.4f} |")
    print()
    return holds(found) & sweep(quick)
