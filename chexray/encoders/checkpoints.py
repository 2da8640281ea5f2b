"""What may be read from a checkpoint: tensors by name, and nothing else.

A pickled file can run code when it is loaded, so only torch's restricted unpickler ever sees one, and a file that needs
more is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from chexray.errors import WeightsError


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a safetensors file, read from its header without torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from error


def safe_load(path: Path, *, numpy_scalars: bool = False) -> dict[str, Any]:
    """The tensors of a checkpoint on the CPU, by name: safetensors by suffix, else torch's restricted unpickler.

    Unwraps one of `state_dict`, `model_state_dict`, `model`, and one leading "module." (DataParallel).
    numpy_scalars: lets float64 scalars through as well, which CheXGenBench's classifiers carry as their metrics.
    Raises WeightsError for anything that is not a table of tensors: a pickled module could run code when loaded.
    """
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: Any = load_file(path, device="cpu")
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from error
    else:
        try:
            with torch.serialization.safe_globals(_numpy_float64() if numpy_scalars else []):
                state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightsError(_refusal(path, error)) from error
    if isinstance(state, Mapping):
        inner = (state[key] for key in ("state_dict", "model_state_dict", "model") if key in state)
        state = next((value for value in inner if isinstance(value, Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a table of tensors. Save model.state_dict().")
    if state and all(str(key).startswith("module.") for key in state):
        state = {str(key).removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _numpy_float64() -> list[Any]:
    """The three globals a pickled numpy float64 is made of, the first under the names of numpy 2 and of numpy 1.

    None of them can run code: they make a number from a dtype and bytes.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, np.dtypes.Float64DType]


def _refusal(path: Path, error: Exception) -> str:
    text = str(error)
    named = re.search(r"(?:GLOBAL|global|class) '?([\w.]+\.[\w.]+)", text)
    if named or "TorchScript" in text:
        what = f"a pickled {named[1]}" if named else "a TorchScript program"
        return (
            f"{path} is refused: it holds {what}, not a table of tensors, and loading it could run code from the "
            "file. Where you trust it, save model.state_dict() as safetensors and use that."
        )
    return f"{path} is not a readable checkpoint ({type(error).__name__}): damaged, or another kind of file."


def check_keys(
    state: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    ignore: tuple[str, ...] = (),
    *,
    what: str = "",
    where: Any = "",
) -> None:
    """Refuses a state of another architecture. state: name -> tensor or shape; ignore: patterns ("*.num_batches").

    where: the file, for the message. Raises WeightsError that names the first missing, unexpected and misshapen keys.
    """

    def kept(names: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shapes = {name: tuple(getattr(value, "shape", value)) for name, value in names.items()}
        return {name: shape for name, shape in shapes.items() if not any(fnmatch(name, p) for p in ignore)}

    found, wanted = kept(state), kept(expected)
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [f"{n} {found[n]} for {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    faults = (("missing", missing), ("unexpected", unexpected), ("of another shape (found for expected)", misshapen))
    parts = [f"{len(names)} {kind}, first {', '.join(names[:3])}" for kind, names in faults if names]
    if parts:
        place = f"{where}: " if where else ""
        raise WeightsError(
            f"{place}the weights are not those of {what or 'this architecture'}: {len(found)} tensors found, "
            f"{len(wanted)} expected; {'; '.join(parts)}. Point `weights` at the right file."
        )
