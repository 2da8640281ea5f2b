"""The folder of a fit: what is written after each epoch, what makes it final, and how it is read back.

    checkpoint.pt        the state to go on from, with the weights to keep; history.json: the epochs so far
    model.safetensors    created once: commits the training, with its epochs
    predictions-*        what that model says about a set

Two runs may train one fit at the same time. Every file appears whole, and each stands for itself: whichever
checkpoint is there is one to go on from. The first model stays, and both runs predict with it: with several workers, on
a GPU, or on machines with other numbers of CPUs, two trainings differ in their bits. What else the folder holds is
then told by the model: epochs that are not its own are not read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.encoders.downloads import LARGEST_FILE
from chexray.encoders.fields import LARGEST_JSON, parse_json
from chexray.encoders.safetensors_header import LARGEST_HEADER, read_header
from chexray.errors import WeightsError
from chexray.storage import Storage, StorageFailure, join
from chexray.text import first_line, quoted, shown
from chexray.utility.loop import stored
from chexray.utility.loop.fit_spec import Fit, keys_digest
from chexray.utility.loop.packing import from_bytes, metadata_of, to_bytes, with_metadata

if TYPE_CHECKING:
    from torch import Tensor, nn

FIT, CHECKPOINT, HISTORY, MODEL = "fit.json", "checkpoint.pt", "history.json", "model.safetensors"
LEFTOVERS = (CHECKPOINT, "best.pt")
"""What a committed fit does not need; best.pt is of chexray 0.1.0."""
HEAD_BYTES = 1 << 16
"""Bytes of final weights that are read to know what they are; most headers fit."""


@dataclass(frozen=True)
class Folder:
    """Where one fit is kept, and the only hands that touch it. Worker 0 alone writes.

    attempt: of the run that trains it now; failures are noted for it alone.
    """

    uri: str
    fit: Fit
    storage: Storage
    attempt: str = ""

    def at(self, name: str) -> str:
        """The URI of a file of this folder."""
        return join(self.uri, name)

    def holds(self, *names: str) -> list[bool]:
        """Which of these files are there."""
        return [found is not None for found in self.storage.stat([self.at(name) for name in names])]

    @property
    def is_committed(self) -> bool:
        """Whether the final weights are there."""
        return self.holds(MODEL)[0]

    @property
    def is_begun(self) -> bool:
        """Whether an epoch is committed and the training is not."""
        return self.holds(CHECKPOINT)[0]

    @property
    def is_done(self) -> bool:
        """Whether the final weights and the predictions of every set are there."""
        files = [f"predictions-{digest}.parquet" for digest in self.fit.score_digests.values()]
        return all(self.holds(MODEL, *files))

    @property
    def _failed(self) -> str:
        return f"failed-{self.attempt}.json" if self.attempt else "failed.json"

    def fail(self, why: str) -> None:
        """Notes that this training came to an end that another try would meet again."""
        self._write_json(self._failed, {"reason": why})

    @property
    def failure(self) -> str:
        """What `fail` was told; empty when it was not."""
        data = self._read_if_there(self._failed, LARGEST_JSON)
        try:
            return "" if data is None else stored.reason(parse_json(data))
        except ValueError as error:
            raise self.refusal(self._failed, _why(error)) from None

    def forget_failure(self) -> None:
        """Removes what `fail` wrote."""
        self.storage.delete(self.at(self._failed))

    def describe(self) -> None:
        """Writes fit.json, for people: what this folder is the training of."""
        fit = self.fit
        about = {
            "title": fit.title, "name": fit.name, "seed": fit.seed, "recipe": asdict(fit.recipe),
            "n_budget": fit.n_budget,
            "phases": [{"n": len(phase.sample), "share": phase.share} for phase in fit.phases],
            "n_validation": len(fit.validation), "image_cache": fit.image_cache,
        }  # fmt: skip
        self._write_json(FIT, about)

    def save_epoch(self, state: dict[str, Any], history: list[dict]) -> None:
        """Commits an epoch. state: nested dicts of tensors and plain values, what `load_state` returns."""
        self.storage.write(self.at(CHECKPOINT), to_bytes(state))
        self.save_history(history)

    def save_history(self, history: list[dict]) -> None:
        """Writes history.json."""
        self._write_json(HISTORY, history)

    def load_state(self) -> dict[str, Any] | None:
        """What `save_epoch` wrote last, on the CPU; None when there is none. Raises WeightsError when it is no such.

        A checkpoint of chexray 0.1.0, which kept the best weights in a file of their own, counts as none.
        """
        data = self._read_if_there(CHECKPOINT, LARGEST_FILE)
        if data is None:
            return None
        try:
            state = from_bytes(data)
            if state.get("fit") != self.fit.name:
                raise self.refusal(CHECKPOINT, f"it belongs to fit {quoted(state.get('fit'), 80)}")
            if "best" not in state:
                return None
            return stored.checkpoint(state, len(data), **self._expected)
        except ValueError as error:
            raise self.refusal(CHECKPOINT, str(error)) from None

    def commit(self, model: dict[str, Tensor], about: dict[str, str], history: list[dict]) -> bool:
        """Writes the final weights, which ends the training, unless another run did; whether it was this one.

        about: the metadata of the file, to which the epochs are added, but for what a clock measured.
        """
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in model.items()}
        about = {**about, "history": json.dumps(stored.untimed(history, self.fit.head.score))}
        first = self.storage.create(self.at(MODEL), with_metadata(save(tensors), about))
        if first:
            self.save_history(history)  # the last to be written may have been another run's
        self.tidy()
        return first

    def tidy(self) -> None:
        """Removes what only a resume needed, once the fit is committed. A run that is about to resume from it looks
        again, and one that still trains may write it anew until it notices."""
        for name, there in zip(LEFTOVERS, self.holds(*LEFTOVERS), strict=True):
            if there:
                self.storage.delete(self.at(name))

    def load_model(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The final weights by name, on the CPU, and their metadata. Raises WeightsError when the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        data = self._read(MODEL, LARGEST_FILE)
        try:
            header = read_header(data)
            return stored.weights(load(data), len(data)), header.metadata
        except (SafetensorError, ValueError) as error:
            raise self.refusal(MODEL, f"it is damaged ({first_line(error)})") from None

    def fill(self, model: nn.Module, state: dict[str, Tensor], name: str) -> None:
        """Loads `state` into `model`, all of it. Raises WeightsError when they do not fit; name: of their file."""
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            first = shown(" ".join(str(error)[:10_000].split()))
            raise self.refusal(name, f"it does not fit {self.fit.recipe.model} ({first})") from error

    def history(self) -> list[dict]:
        """One dict an epoch, oldest first; [] when nothing was trained.

        Those of a committed fit are its model's. Another run may have written its own to history.json meanwhile: rates
        and times are then 0, which is "unknown".
        """
        data = self._read_if_there(HISTORY, LARGEST_JSON)
        try:
            rows = [] if data is None else stored.history_rows(parse_json(data), **self._expected)
        except ValueError as error:
            raise self.refusal(HISTORY, _why(error)) from None
        try:
            text = self._about_model().get("history")
            if text is None or (final := parse_json(text.encode())) == stored.untimed(rows, self.fit.head.score):
                return rows
            return stored.history_rows(final, **self._expected, timed=False)
        except ValueError as error:
            raise self.refusal(MODEL, _why(error)) from None

    @property
    def _expected(self) -> dict[str, Any]:
        """What the history of this fit has to agree with."""
        fit = self.fit
        return {"score": fit.head.score, "epochs": fit.recipe.epochs, "phases": len(fit.phases)}

    def _about_model(self) -> dict[str, str]:
        """The metadata of the final weights, of which only the head is read; {} when there are none."""
        uri = self.at(MODEL)
        try:
            head = self.storage.read_range(uri, 0, HEAD_BYTES)
            if (length := 8 + int.from_bytes(head[:8], "little")) > len(head) >= HEAD_BYTES:
                head = self.storage.read_range(uri, 0, min(length, LARGEST_HEADER))
        except StorageFailure as error:
            if error.code == "not_found":
                return {}
            raise
        return metadata_of(head)

    def write_predictions(self, keys: np.ndarray, predicted: np.ndarray, *, new: bool = False) -> None:
        """keys: (n,) image_keys. predicted: (n, width) of the committed model. new: leaves those that are there."""
        import pyarrow as pa

        values = pa.array(np.ascontiguousarray(predicted, np.float32).reshape(-1), pa.float32())
        columns = {
            "image_key": pa.array(keys.tolist(), pa.string()),
            self.fit.head.predicted: pa.FixedSizeListArray.from_arrays(values, self.fit.head.width),
        }
        self.storage.write_parquet(self.at(predictions_name(keys)), pa.table(columns), new=new)

    def read_predictions(self, keys: np.ndarray) -> np.ndarray:
        """(n, width) float32 of a set scored before, in the order of `keys`."""
        import pyarrow as pa

        name, width, values = predictions_name(keys), self.fit.head.width, self.fit.head.predicted
        table = self.storage.read_parquet(self.at(name))
        # Lists of any length are refused: two rows of other widths would shift what lies between them.
        for column, kind in {"image_key": pa.string(), values: pa.list_(pa.float32(), width)}.items():
            if table.schema.names.count(column) != 1 or table.schema.field(column).type != kind:
                raise self.refusal(name, f"its columns are not those of {width} {values} an image")
        if table["image_key"].to_pylist() != keys.tolist():
            raise self.refusal(name, "it names other images")
        flat = table[values].combine_chunks().flatten()
        if len(flat) != len(keys) * width or flat.null_count or table[values].null_count:
            raise self.refusal(name, f"it does not hold {width} numbers an image")
        found = flat.to_numpy(zero_copy_only=False).reshape(len(keys), width)
        if np.isnan(found).any():
            raise self.refusal(name, "it holds NaN")
        return found

    def refusal(self, name: str, why: str) -> WeightsError:
        """The error for a file of this folder that cannot be used."""
        return WeightsError(
            f"{shown(self.at(name))} cannot be used: {why}. Delete the folder {shown(self.uri)} and run again: "
            f"{self.fit.title} is then trained again."
        )

    def _read(self, name: str, largest: int) -> bytes:
        """The bytes of a file of this folder, if it is a file of a size that can be."""
        found = self.storage.stat([self.at(name)])[0]
        if found is not None and found.size > largest:
            raise self.refusal(name, f"it has {found.size:,} bytes, more than {largest:,}")
        return self.storage.read(self.at(name))

    def _read_if_there(self, name: str, largest: int) -> bytes | None:
        """The same; None for a file that is not there, or that another run has just removed."""
        try:
            return self._read(name, largest)
        except StorageFailure as error:
            if error.code == "not_found":
                return None
            raise

    def _write_json(self, name: str, value: object) -> None:
        self.storage.write(self.at(name), json.dumps(value, indent=1).encode())


def _why(error: ValueError) -> str:
    return "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)


def predictions_name(keys: np.ndarray) -> str:
    """The file that holds the predictions of the images `keys`, in that order."""
    return f"predictions-{keys_digest(keys)}.parquet"
