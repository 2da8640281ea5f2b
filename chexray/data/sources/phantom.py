"""Sets drawn on the spot: labelled phantom radiographs that need no download and show nobody."""

from __future__ import annotations

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from chexray.data.sources.table import Table
from chexray.errors import ConfigError, StorageError
from chexray.findings import FINDINGS
from chexray.phantom import DRAWING_VERSION, GENERATORS, draw, training_problem
from chexray.storage import Storage, StorageFailure, absolute, join
from chexray.text import quoted

MANIFEST, MARKER = "manifest.csv", "phantom.json"
COLUMNS: tuple[str, ...] = ("id", "path", "annotated_prompt", "chexpert_labels", "patientID", "view", "age", "sex")
ROLES: dict[str, str | None] = {
    "sample_id": "id",
    "image": "path",
    "subject_id": "patientID",
    "prompt": "annotated_prompt",
    "labels": "chexpert_labels",
}

MOST = {"n": 1_000_000, "size": 4096, "training_n": 1_000_000}
"""A config of a stranger may ask for more than a disk holds."""


@dataclass(frozen=True)
class Phantom:
    """Phantom radiographs with labels and prompts, drawn from a seed into a folder.

    The folder also gets manifest.csv, in upstream's columns. A complete set of the same fields is read, not redrawn.
    manifest.csv of "copier" names in `copy_of` the training image that an image repeats, and has its prompts.
    """

    n: int
    """Number of images."""
    generator: str
    """`real` for the reference world, or an imitation of it: `good`, `poor`, `copier`, `blurred`."""
    seed: int
    """Seed of the patients. Sets with different seeds share no patient, so real and synthetic sets need different
    ones."""
    size: int = 256
    """Pixels on each side."""
    path: str = ""
    """Folder for the images, local or s3://. Default: below `<output>/phantoms/`, named after the other fields."""
    training_seed: int | None = None
    """Seed of the `real` set that `copier` was trained on and sometimes copies; for `copier` only."""
    training_n: int | None = None
    """Number of images of that set; for `copier` only."""

    def __post_init__(self) -> None:
        if self.generator not in GENERATORS:
            raise ConfigError(f"phantom: generator {quoted(self.generator)} is not one of {', '.join(GENERATORS)}.")
        for name, least in (("n", 1), ("seed", 0), ("size", 32), ("training_n", 1), ("training_seed", 0)):
            value = getattr(self, name)
            if value is None and name.startswith("training"):
                continue
            if not isinstance(value, int) or not least <= value <= MOST.get(name, value):
                most = f" and at most {MOST[name]:,}" if name in MOST else ""
                raise ConfigError(
                    f"phantom: {name} is {quoted(value)}, expected a whole number of at least {least}{most}."
                )
        if problem := training_problem(self.generator, self.seed, self.training_seed, self.training_n):
            raise ConfigError(f"phantom: {problem}.")

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The set as a source's table, drawn first where that is needed. Raises StorageError when it cannot be written.

        Further columns: view, age, sex. Only the reference world names patients; a generator's are nobody's.
        """
        learned = "" if self.training_n is None else f"-of-s{self.training_seed}-n{self.training_n}"
        name = f"phantoms/{self.generator}{learned}-s{self.seed}-n{self.n}-{self.size}px"
        folder = absolute(self.path or name)
        if not self.is_complete(folder, storage):
            self._draw(folder, storage)
        return Table(join(folder, MANIFEST), image_root=folder, columns=ROLES).read(origin, storage)

    @property
    def _training(self) -> dict[str, Any]:
        """The arguments that name the training set; none for a generator without one, whose sets stay as they were."""
        given = {"training_seed": self.training_seed, "training_n": self.training_n}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def _parameters(self) -> dict[str, int | str]:
        return {
            "n": self.n,
            "generator": self.generator,
            "seed": self.seed,
            "size": self.size,
            "drawing_version": DRAWING_VERSION,
            **self._training,
        }

    def is_complete(self, folder: str, storage: Storage) -> bool:
        return self._is_marked(folder, storage) and storage.exists(join(folder, MANIFEST))

    def _is_marked(self, folder: str, storage: Storage) -> bool:
        marker = join(folder, MARKER)
        try:
            return storage.exists(marker) and json.loads(storage.read(marker)) == self._parameters
        except StorageFailure as error:
            if error.code == "not_found":  # another run has just removed it
                return False
            raise
        except (ValueError, RecursionError):
            return False

    def _draw(self, folder: str, storage: Storage) -> None:
        """Images, then the manifest, then the marker; the marker of another set goes first, lest it vouch for both.

        Two runs may draw one set at the same time, or one resume another: an image that is there keeps its version,
        by which plans know it.
        """
        if not self._is_marked(folder, storage):
            storage.delete(join(folder, MARKER))
        columns = (*COLUMNS, "copy_of") if self._training else COLUMNS

        def one(index: int) -> dict[str, str | int]:
            drawn = draw(index, seed=self.seed, generator=self.generator, size=self.size, **self._training)
            sample_id = sample_id_of(self.generator, self.seed, index)
            image = io.BytesIO()
            Image.fromarray(drawn.image).save(image, format="PNG", compress_level=1)
            path = f"images/{sample_id}.png"
            storage.keep(join(folder, path), image.getvalue())
            labels = {name: None if drawn.labels[name] is None else float(drawn.labels[name] or 0) for name in FINDINGS}
            subject_id = drawn.subject_id if self.generator == "real" else ""
            row = (sample_id, path, drawn.prompt, str(labels), subject_id, drawn.view, drawn.age, drawn.sex)
            if self._training:
                source = drawn.copy_of
                row += ("" if source is None else sample_id_of("real", self._training["training_seed"], source),)
            return dict(zip(columns, row, strict=True))

        # Threads, since encoding and writing leave the interpreter free; the pixels do not depend on who draws them.
        with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
            try:
                rows = list(pool.map(one, range(self.n)))
            except StorageError:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        storage.keep(join(folder, MANIFEST), text.getvalue().encode())
        storage.write(join(folder, MARKER), json.dumps(self._parameters).encode())


def sample_id_of(generator: str, seed: int, index: int) -> str:
    """The id of one image of a phantom set, the same whoever asks for it."""
    return f"phantom-{generator}-s{seed}-{index:05d}"
