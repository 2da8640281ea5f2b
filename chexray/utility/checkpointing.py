"""The folder of a fit: what is written after each epoch, what makes it final, and how it is read back.

`model.safetensors` is written last and commits the training; until then `checkpoint.pt` is the state to go on from and
`best.pt` the weights to keep. Every file appears whole or not at all.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.encoders.checkpoints import load_pickled
from chexray.encoders.downloads import LARGEST_FILE
from chexray.encoders.fields import LARGEST_JSON, parse_json
from chexray.encoders.safetensors_header import read_header
from chexray.errors import WeightsError
from chexray.findings import FINDINGS
from chexray.storage import Storage, join
from chexray.text import first_line, quoted, shown
from chexray.utility import stored
from chexray.utility.fit import Fit, keys_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

FIT, CHECKPOINT, BEST, HISTORY, MODEL = "fit.json", "checkpoint.pt", "best.pt", "history.json", "model.safetensors"
FAILED = "failed.json"


@dataclass(frozen=True)
class Folder:
    """Where one fit is kept, and the only hands that touch it. Worker 0 alone writes."""

    uri: str
    fit: Fit
    storage: Storage

    def at(self, name: str) -> str:
        """The URI of a file of this folder."""
        return join(self.uri, name)

    def holds(self, *names: str) -> list[bool]:
        """Which of these files are there."""
        return [found is not None for found in self.storage.stat([self.at(name) for name in names])]

    @property
    def is_done(self) -> bool:
        """Whether the final weights and the predictions of every set are there."""
        files = [f"predictions-{digest}.parquet" for digest in self.fit.score_digests.values()]
        return all(self.holds(MODEL, *files))

    def fail(self, why: str) -> None:
        """Notes that this training came to an end that another try would meet again."""
        self._write_json(FAILED, {"reason": why})

    @property
    def failure(self) -> str:
        """What `fail` was told; empty when it was not."""
        if not self.storage.exists(self.at(FAILED)):
            return ""
        try:
            return stored.reason(parse_json(self._read(FAILED, LARGEST_JSON)))
        except ValueError as error:
            raise self.refusal(FAILED, _why(error)) from None

    def forget_failure(self) -> None:
        """Lets the training be tried again."""
        self.storage.delete(self.at(FAILED))

    def describe(self) -> None:
        """Writes fit.json, for people: what this folder is the training of."""
        fit = self.fit
        about = {
            "title": fit.title,
            "name": fit.name,
            "seed": fit.seed,
            "recipe": asdict(fit.recipe),
            "n_budget": fit.n_budget,
            "phases": [{"n": len(phase.sample), "share": phase.share} for phase in fit.phases],
            "n_validation": len(fit.validation),
            "image_cache": fit.image_cache,
        }
        self._write_json(FIT, about)

    def save_epoch(self, state: dict[str, Any], best: dict[str, Any] | None, history: list[dict]) -> None:
        """Commits an epoch. state, best: nested dicts of tensors and plain values; best: None if it was not.

        The best weights go first: a crash between the two files leaves weights newer than the state, which a resume
        can use, and never a state whose best weights are missing.
        """
        if best is not None:
            self.storage.write(self.at(BEST), to_bytes(best))
        self.storage.write(self.at(CHECKPOINT), to_bytes(state))
        self.save_history(history)

    def save_history(self, history: list[dict]) -> None:
        """Writes history.json."""
        self._write_json(HISTORY, history)

    def load(self, name: str) -> dict[str, Any]:
        """What `save_epoch` wrote as checkpoint.pt or best.pt, on the CPU. Raises WeightsError when it is no such."""
        data = self._read(name, LARGEST_FILE)
        try:
            state = from_bytes(data)
            if state.get("fit") != self.fit.name:
                raise self.refusal(name, f"it belongs to fit {quoted(state.get('fit'), 80)}")
            epochs = self.fit.recipe.epochs
            if name == BEST:
                return stored.best(state, len(data), epochs=epochs)
            return stored.checkpoint(state, len(data), epochs=epochs, phases=len(self.fit.phases))
        except ValueError as error:
            raise self.refusal(name, str(error)) from None

    def commit(self, model: dict[str, Tensor], about: dict[str, str]) -> None:
        """Writes the final weights, which ends the training, and removes what only a resume needed.

        about: the metadata of the file.
        """
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in model.items()}
        self.storage.write(self.at(MODEL), with_metadata(save(tensors), about))
        self.storage.delete(self.at(CHECKPOINT))
        self.storage.delete(self.at(BEST))

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
        """One dict an epoch, oldest first; [] when nothing was trained."""
        if not self.storage.exists(self.at(HISTORY)):
            return []
        try:
            rows = parse_json(self._read(HISTORY, LARGEST_JSON))
            return stored.history_rows(rows, epochs=self.fit.recipe.epochs, phases=len(self.fit.phases))
        except ValueError as error:
            raise self.refusal(HISTORY, _why(error)) from None

    def write_predictions(self, keys: np.ndarray, logits: np.ndarray) -> None:
        """keys: (n,) image_keys. logits: (n, 14) float32."""
        import pyarrow as pa

        values = pa.array(np.ascontiguousarray(logits, np.float32).reshape(-1), pa.float32())
        columns = {
            "image_key": pa.array(keys.tolist(), pa.string()),
            "logits": pa.FixedSizeListArray.from_arrays(values, len(FINDINGS)),
        }
        self.storage.write_parquet(self.at(predictions_name(keys)), pa.table(columns))

    def read_predictions(self, keys: np.ndarray) -> np.ndarray:
        """Logits (n, 14) float32 of a set scored before, in the order of `keys`."""
        import pyarrow as pa

        name, width = predictions_name(keys), len(FINDINGS)
        table = self.storage.read_parquet(self.at(name))
        # Lists of any length are refused: rows of 13 and 15 would shift what lies between them.
        for column, kind in {"image_key": pa.string(), "logits": pa.list_(pa.float32(), width)}.items():
            if table.schema.names.count(column) != 1 or table.schema.field(column).type != kind:
                raise self.refusal(name, f"its columns are not those of predictions of {width} findings")
        if table["image_key"].to_pylist() != keys.tolist():
            raise self.refusal(name, "it names other images")
        flat = table["logits"].combine_chunks().flatten()
        if len(flat) != len(keys) * width or flat.null_count or table["logits"].null_count:
            raise self.refusal(name, f"it does not hold {width} numbers an image")
        logits = flat.to_numpy(zero_copy_only=False).reshape(len(keys), width)
        if np.isnan(logits).any():
            raise self.refusal(name, "it holds values that are no numbers")
        return logits

    def refusal(self, name: str, why: str) -> WeightsError:
        """The error for a file of this folder that cannot be used."""
        return WeightsError(
            f"{shown(self.at(name))} cannot be used: {why}. Delete the folder {shown(self.uri)} and run again: "
            f"{self.fit.title} is then trained anew."
        )

    def _read(self, name: str, largest: int) -> bytes:
        """The bytes of a file of this folder, if it is a file of a size that can be."""
        found = self.storage.stat([self.at(name)])[0]
        if found is not None and found.size > largest:
            raise self.refusal(name, f"it has {found.size:,} bytes, more than {largest:,}")
        if found is None and self.storage.exists(self.at(name)):
            raise self.refusal(name, "it is no regular file")
        return self.storage.read(self.at(name))

    def _write_json(self, name: str, value: Any) -> None:
        self.storage.write(self.at(name), json.dumps(value, indent=1).encode())


def _why(error: ValueError) -> str:
    return "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)


def predictions_name(keys: np.ndarray) -> str:
    """The file that holds the predictions of the images `keys`, in that order."""
    return f"predictions-{keys_digest(keys)}.parquet"


def to_bytes(state: dict[str, Any]) -> bytes:
    """Nested dicts and lists of tensors and plain values as a torch file."""
    import torch

    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """The inverse, on the CPU, by torch's restricted unpickler: no code runs. Raises ValueError for anything else."""
    try:
        state = load_pickled(data)
    except ValueError as error:
        raise ValueError(f"it is damaged, or holds more than tensors ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not a checkpoint")
    return dict(dict.items(state))


def with_metadata(data: bytes, about: dict[str, str]) -> bytes:
    """A safetensors file with this metadata, in the order of its keys: the library writes them in a random one, and the
    same training would not be the same bits twice."""
    start, header = _header(data)
    header = {"__metadata__": dict(sorted(about.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on 8 bytes
    return len(text).to_bytes(8, "little") + text + data[start:]


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file; {} without any."""
    return _header(data)[1].get("__metadata__", {})


def _header(data: bytes) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what the file says about them."""
    start = 8 + int.from_bytes(data[:8], "little")
    return start, json.loads(data[8:start])
