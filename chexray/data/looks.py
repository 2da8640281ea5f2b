"""What a fixed sample of a set looks like: the depth of its images, and what could make two sets differ by accident.

The sample is the SAMPLE images whose ids hash lowest, so it is the same for any order of rows and number of workers. Of
images inside Parquet files it is the first rows of few files, since reading one means reading its row group.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from chexray.data.depth import Depth, Facts, full_range, holding_all
from chexray.data.images import MAX_PIXELS, Reject, load_and, split_embedded
from chexray.data.manifest import Manifest, deep_key, lowest_hashes
from chexray.storage import Storage

SAMPLE = 32
"""Images of a set that are looked at: 0.1 s of ordinary radiographs. A kind of image that 10 % of a set are of is
missed in 3 % of sets; it is then rejected or counted by the run, never decoded by another depth."""
FILES = 4
"""Parquet files that a sample is taken from."""
DARK, LIGHT = 13, 242
"""Mean grey level below which an image is nearly black (5 % of white), and above which nearly white."""
FLAT = 2
"""Grey levels between the darkest and the lightest pixel up to which an image is constant."""


@dataclass(frozen=True)
class Looks:
    """What the sample of a set showed. Shares are of `n`, the images that could be decoded, out of n_sampled.

    containers, modes, sizes: {as it is named: images}; sizes as "width x height". brightness: mean grey level, 0..255,
    of the images; brightness_spread: its standard deviation over images; contrast: their mean standard deviation
    within. undeclared: images that do not declare their depth. clipped: images with values beyond the depth.
    contradicting: DICOM whose PresentationLUTShape and PhotometricInterpretation disagree.
    """

    n: int
    n_sampled: int
    containers: dict[str, int]
    modes: dict[str, int]
    sizes: dict[str, int]
    near_black: float
    near_white: float
    constant: float
    brightness: float
    brightness_spread: float
    contrast: float
    deep: int
    undeclared: int
    clipped: int
    contradicting: int

    def describe(self) -> str:
        """One line for a person."""
        if not self.n:
            return f"none of {self.n_sampled} sampled images can be read"
        odd = [
            f"{share:.0%} {name}"
            for share, name in (
                (self.near_black, "nearly black"), (self.near_white, "nearly white"), (self.constant, "constant")
            )
            if share
        ]  # fmt: skip
        parts = [
            "/".join(self.containers), "; ".join(_most(self.modes)), "; ".join(_most(self.sizes)),
            f"brightness {self.brightness:.0f} ± {self.brightness_spread:.0f}, contrast {self.contrast:.0f}", *odd,
        ]  # fmt: skip
        return f"{', '.join(parts)} ({self.n} sampled)"


def _most(counts: dict[str, int], shown: int = 2) -> list[str]:
    names = list(counts)
    return names[:shown] + ([f"{len(names) - shown} others"] if len(names) > shown else [])


@dataclass(frozen=True)
class _Seen:
    """One image: its mean, its standard deviation, its darkest and its lightest grey level."""

    mean: float
    spread: float
    darkest: int
    lightest: int


def _see(_: int, pixels: np.ndarray) -> _Seen:
    # A table of counts gives all four without a float image.
    counts = np.bincount(pixels.reshape(-1), minlength=256)
    grey, total = np.arange(256), pixels.size
    mean = float(counts @ grey) / total
    present = np.flatnonzero(counts)
    return _Seen(mean, float(np.sqrt(counts @ (grey - mean) ** 2 / total)), int(present[0]), int(present[-1]))


def look_at(manifest: Manifest, storage: Storage, *, bits: int | None = None, max_pixels: int = MAX_PIXELS) -> Manifest:
    """The manifest with the depth of its set, and what its sample looks like.

    bits: the depth as the user gave it. Else it is the smallest of 8, 10, 12, 14 and 16 that holds every image of the
    sample that does not declare its own. A depth enters the key of every image: features that were stored by another
    depth are not used. Images that cannot be read are left out.
    """
    uris = _sample(manifest)
    facts, seen = _load(uris, storage, None, max_pixels)
    needs = [each.needs for each in facts if not each.declared and each.needs]
    depth = Depth(holding_all(needs)) if bits is None else Depth(bits, given=True)
    again = [i for i, each in enumerate(facts) if depth.bits and each.needs != depth.bits and each.deep]
    if again:
        second, others = _load([uris[i] for i in again], storage, depth, max_pixels)
        for i, fact, other in zip(again, second, others, strict=True):
            facts[i], seen[i] = replace(fact, needs=facts[i].needs, declared=facts[i].declared), other
    looks = _looks(facts, seen)
    notes = [*manifest.notes, *_notes(depth, looks)]
    table = manifest.table
    if depth.bits:
        keys = [deep_key(key, str(depth)) for key in table["image_key"].to_pylist()]
        place = table.column_names.index("image_key")
        table = table.set_column(place, "image_key", pa.array(keys, pa.string()))
    return replace(manifest, table=table, notes=tuple(notes), depth=depth, looks=looks)


def _load(
    uris: list[str], storage: Storage, depth: Depth | None, max_pixels: int
) -> tuple[list[Facts], list[_Seen | None]]:
    facts = [Facts() for _ in uris]
    found = load_and(_see, uris, storage, max_pixels=max_pixels, depths=[depth] * len(uris), facts=facts)
    return facts, [None if isinstance(each, Reject) else each for each in found]


def _sample(manifest: Manifest) -> list[str]:
    ids, uris = manifest.table["sample_id"].to_pylist(), manifest.table["uri"].to_pylist()
    order = lowest_hashes(ids, len(ids) if len(ids) <= SAMPLE else SAMPLE)
    chosen = [uris[i] for i in order]
    if not any(map(split_embedded, chosen)):
        return chosen
    places = [split_embedded(uri) for uri in uris]
    files = dict.fromkeys(found[0] for uri in chosen if (found := split_embedded(uri)))
    rows = []
    for file in list(files)[:FILES]:
        of_file = sorted((place[2], i) for i, place in enumerate(places) if place and place[0] == file)
        rows += [uris[i] for _, i in of_file[: SAMPLE // FILES]]
    return rows


def _looks(facts: list[Facts], seen: list[_Seen | None]) -> Looks:
    known = [(fact, each) for fact, each in zip(facts, seen, strict=True) if each is not None]
    n = len(known)
    means = np.array([each.mean for _, each in known])

    def count(names: list[str]) -> dict[str, int]:
        return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))

    def share(hits: list[bool]) -> float:
        return sum(hits) / n if n else 0.0

    return Looks(
        n=n,
        n_sampled=len(facts),
        containers=count([fact.container for fact, _ in known]),
        modes=count([fact.mode for fact, _ in known]),
        sizes=count([f"{fact.width} x {fact.height}" for fact, _ in known]),
        near_black=share([each.mean < DARK for _, each in known]),
        near_white=share([each.mean > LIGHT for _, each in known]),
        constant=share([each.lightest - each.darkest <= FLAT for _, each in known]),
        brightness=float(means.mean()) if n else 0.0,
        brightness_spread=float(means.std()) if n else 0.0,
        contrast=float(np.mean([each.spread for _, each in known])) if n else 0.0,
        deep=sum(fact.deep for fact, _ in known),
        undeclared=sum(bool(fact.needs) and not fact.declared for fact, _ in known),
        clipped=sum(fact.clipped for fact, _ in known),
        contradicting=sum(fact.contradicts for fact, _ in known),
    )


def _notes(depth: Depth, looks: Looks) -> list[str]:
    notes = []
    if depth.bits:
        black, white = full_range(depth.bits)
        scale = f"{depth.bits} bits: {black:g} is black and {white:g} is white"
        if not depth.given:
            notes.append(
                f"{scale}, the smallest depth that holds {looks.undeclared} sampled images whose files declare no "
                "smaller one. If black and white are others, give the set `bits`"
            )
        elif looks.deep or not looks.n:
            notes.append(f"{scale}, as `bits` says")
        else:
            notes.append(
                f"`bits` changes nothing: none of {looks.n} sampled images has more than 8 bits without a window"
            )
    if looks.contradicting:
        notes.append(
            f"{looks.contradicting} of {looks.n} sampled DICOM files contradict themselves on which end is white. "
            "PresentationLUTShape was followed, not PhotometricInterpretation; look at one of them"
        )
    return notes


def apart(looks: dict[str, Looks]) -> list[str]:
    """Lines on what differs between sets by their samples, {set: looks}: each could explain a score."""
    read = {name: each for name, each in looks.items() if each.n}
    if len(read) < 2:
        return []
    lines = []
    for what, values in (
        ("container", {name: ", ".join(each.containers) for name, each in read.items()}),
        ("pixels", {name: next(iter(each.modes)) for name, each in read.items()}),
        ("size", {name: next(iter(each.sizes)) if len(each.sizes) == 1 else "mixed" for name, each in read.items()}),
    ):
        if len(set(values.values())) > 1:
            lines.append(f"{what} differs: " + "; ".join(f"{name} {value}" for name, value in values.items()))
    for share in ("near_black", "near_white", "constant"):
        shares = {name: getattr(each, share) for name, each in read.items()}
        if max(shares.values()) - min(shares.values()) >= 0.1:
            told = "; ".join(f"{name} {value:.0%}" for name, value in shares.items())
            lines.append(f"{share.replace('_', ' ')} images differ: {told}")
    for first, second in _far(read):
        lines.append(
            f"brightness differs: {first} {read[first].brightness:.0f} ± {read[first].brightness_spread:.0f}, "
            f"{second} {read[second].brightness:.0f} ± {read[second].brightness_spread:.0f}"
        )
    return lines


def _far(read: dict[str, Looks]) -> list[tuple[str, str]]:
    """The pair of sets whose brightness differs most, if by more than 4 standard errors and 8 grey levels."""

    def distance(pair: tuple[str, str]) -> float:
        one, two = (read[name] for name in pair)
        error = np.hypot(one.brightness_spread / one.n**0.5, two.brightness_spread / two.n**0.5)
        gap = abs(one.brightness - two.brightness)
        return gap / max(error, 1e-9) if gap > 8 else 0.0

    names = list(read)
    pairs = [(names[i], names[k]) for i in range(len(names)) for k in range(i + 1, len(names))]
    most = max(pairs, key=distance)
    return [most] if distance(most) > 4 else []
