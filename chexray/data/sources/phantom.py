"""Sets drawn on the spot: labelled phantom radiographs that need no download and show nobody."""

from __future__ import annotations

import csv
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from chexray.data.sources.table import Table
from chexray.errors import ConfigError, StorageError
from chexray.findings import FINDINGS
from chexray.phantom import DRAWING_VERSION, GENERATORS, draw
from chexray.storage import Storage, absolute, join

MANIFEST, MARKER = "manifest.csv", "phantom.json"
COLUMNS: tuple[str, ...] = ("id", "path", "annotated_prompt", "chexpert_labels", "patientID", "view", "age", "sex")
ROLES: dict[str, str | None] = {
    "sample_id": "id",
    "image": "path",
    "subject_id": "patientID",
    "prompt": "annotated_prompt",
    "labels": "chexpert_labels",
}


@dataclass(frozen=True)
class Phantom:
    """Phantom radiographs with labels and prompts, drawn from a seed into a folder.

    n: images. generator: "real" for the reference world, or one that imitates it ("good", "poor"). seed: its patients;
    sets of different seeds share none, so real and synthetic sets need different ones. size: pixels a side.
    path: the folder, local or s3://; by default one below ./phantoms named after the other fields.
    The folder also gets manifest.csv, in upstream's columns. A complete set of the same fields is read, not redrawn.
    """

    n: int
    generator: str
    seed: int
    size: int = 256
    path: str = ""

    def __post_init__(self) -> None:
        if self.generator not in GENERATORS:
            raise ConfigError(f"phantom: generator {self.generator!r} is not one of {', '.join(GENERATORS)}.")
        for name, least in (("n", 1), ("seed", 0), ("size", 32)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"phantom: {name} is {value!r}, expected a whole number of at least {least}.")

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The set as a source's table, drawn first where that is needed. Raises StorageError when it cannot be written.

        Further columns: view, age, sex. Only the reference world names patients; a generator's are nobody's.
        """
        name = f"phantoms/{self.generator}-s{self.seed}-n{self.n}-{self.size}px"
        folder = absolute(self.path or name)
        if not self._is_complete(folder, storage):
            self._draw(folder, storage)
        return Table(join(folder, MANIFEST), image_root=folder, columns=ROLES).read(origin, storage)

    @property
    def _parameters(self) -> dict[str, int | str]:
        return {
            "n": self.n,
            "generator": self.generator,
            "seed": self.seed,
            "size": self.size,
            "drawing_version": DRAWING_VERSION,
        }

    def _is_complete(self, folder: str, storage: Storage) -> bool:
        marker = join(folder, MARKER)
        if not storage.exists(marker) or not storage.exists(join(folder, MANIFEST)):
            return False
        try:
            return json.loads(storage.read(marker)) == self._parameters
        except ValueError:
            return False

    def _draw(self, folder: str, storage: Storage) -> None:
        """Images, then the manifest, then the marker; the marker of another set goes first, lest it vouch for both."""
        storage.delete(join(folder, MARKER))

        def one(index: int) -> dict[str, str | int]:
            drawn = draw(index, seed=self.seed, generator=self.generator, size=self.size)
            sample_id = f"phantom-{self.generator}-s{self.seed}-{index:05d}"
            image = io.BytesIO()
            Image.fromarray(drawn.image).save(image, format="PNG", compress_level=1)
            path = f"images/{sample_id}.png"
            storage.write(join(folder, path), image.getvalue())
            labels = {name: None if drawn.labels[name] is None else float(drawn.labels[name] or 0) for name in FINDINGS}
            subject_id = drawn.subject_id if self.generator == "real" else ""
            row = (sample_id, path, drawn.prompt, str(labels), subject_id, drawn.view, drawn.age, drawn.sex)
            return dict(zip(COLUMNS, row, strict=True))

        # Threads, since encoding and writing leave the interpreter free; the pixels do not depend on who draws them.
        with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
            try:
                rows = list(pool.map(one, range(self.n)))
            except StorageError:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        storage.write(join(folder, MANIFEST), text.getvalue().encode())
        storage.write(join(folder, MARKER), json.dumps(self._parameters).encode())
