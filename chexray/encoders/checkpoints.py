"""What may be read from a checkpoint: dense tensors of floats by name, and nothing else.

A pickled file can run code when it is loaded, so it is inspected first (`pickled`), only torch's restricted unpickler
ever sees it, and a file that needs more is refused. Sizes are compared with the bytes of the file before memory is
taken.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.encoders.pickled import Refused, inspect
from chexray.encoders.safetensors_header import INTEGER_NAMES, Header, read_header
from chexray.errors import WeightsError
from chexray.text import quoted, shown

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model_state_dict", "model")
MOST_SHARING = 4
"""Tensors of one file may share their numbers (tied weights), up to this many times the bytes of the file."""


def safetensors_header(path: Path) -> Header:
    """Names, shapes, types and metadata of a safetensors file, without torch. Raises WeightsError."""
    try:
        return read_header(path)
    except (ValueError, OSError) as error:
        raise WeightsError(_unreadable(path, error)) from None


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a safetensors file, read from its header without torch."""
    return safetensors_header(path).shapes


def safe_load(path: Path, *, numpy_scalars: bool = False) -> dict[str, Any]:
    """The tensors of a checkpoint on the CPU, by name: safetensors by suffix, else torch's restricted unpickler.

    Unwraps one of `state_dict`, `model_state_dict`, `model`, and one leading "module." (DataParallel).
    numpy_scalars: lets float64 scalars through as well, which CheXGenBench's classifiers carry as their metrics.
    Raises WeightsError for anything that is not a table of finite tensors: a pickled module could run code when loaded.
    """
    if path.suffix == ".safetensors":
        state: Any = _load_safetensors(path)
    else:
        try:
            state = load_pickled(path, numpy_scalars=numpy_scalars)
        except Refused as error:
            raise WeightsError(f"{shown(path)} is refused: {error}.") from None
        except (ValueError, OSError) as error:
            raise WeightsError(
                f"{shown(path)} is not a readable checkpoint ({error}): damaged, or another kind of file."
            ) from None
    if isinstance(state, dict):
        inner = (dict.get(state, key) for key in WRAPPERS)
        state = next((value for value in inner if isinstance(value, dict)), state)
    try:
        tensors = table_of_tensors(state, path.stat().st_size)
    except ValueError as error:
        raise WeightsError(f"{shown(path)} {error}. Save model.state_dict().") from None
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safetensors_header(path)
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(_unreadable(path, error)) from None


def load_pickled(source: Path | bytes, *, numpy_scalars: bool = False) -> Any:
    """What a torch file holds, on the CPU: inspected first, then read by torch's restricted unpickler; no code runs.

    Raises Refused with the reason, ValueError for a damaged file.
    """
    import torch

    inspect(source, numpy_scalars=numpy_scalars)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_float64() if numpy_scalars else []):
            warnings.simplefilter("ignore")  # about protocols and storages, on stderr
            stream: Any = source if isinstance(source, Path) else io.BytesIO(source)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever its input provokes; its texts repeat that input
        raise ValueError(type(error).__name__) from error


def table_of_tensors(state: object, n_bytes: int) -> dict[str, Any]:
    """A plain {name: tensor} of a state dict from a file of n_bytes, if that is what `state` is.

    Weights are dense, finite floats of 16, 32 or 64 bits; counters and tables of positions may be whole numbers.
    Raises ValueError with what else was found, fit for a message after the name of the file.
    """
    import torch

    if not isinstance(state, dict):
        raise ValueError(f"holds a {type(state).__name__}, not a table of tensors")
    tensors: dict[str, Any] = {}
    total = 0
    for name, value in dict.items(state):  # of the class: a pickle can hide the method of an instance
        if not isinstance(name, str):
            raise ValueError(f"has a {type(name).__name__} for a name, not a table of tensors")
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise ValueError(f"holds a {type(value).__name__} under {quoted(name, 80)}, not a table of tensors")
        if fault := _fault(name, value):
            raise ValueError(f"holds tensor {quoted(name, 80)}, {fault}")
        tensors[name] = value.detach()
        total += value.numel() * value.element_size()
        if total > MOST_SHARING * n_bytes + 1_000_000:
            raise ValueError(f"has {n_bytes:,} bytes and names tensors of more than {MOST_SHARING} times as many")
    return tensors


def _fault(name: str, value: torch.Tensor) -> str:
    """What keeps a tensor from being weights; empty when nothing does."""
    import torch

    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return "which is not a plain, dense one"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"whose shape {shown(tuple(value.shape), 60)} needs more numbers than it holds"
    if value.dtype in (torch.int64, torch.int32) and INTEGER_NAMES.fullmatch(name):
        return ""
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        kind = str(value.dtype).removeprefix("torch.")
        return f"which is of type {kind}; weights are floats of 16, 32 or 64 bits, and quantised ones are not read"
    if value.numel():
        low_high = torch.stack(torch.aminmax(value)).float()  # NaN passes through; in float32, as it is used
        if not bool(torch.isfinite(low_high).all()):
            return "which holds numbers that are not finite"
    return ""


def _unreadable(path: Path, error: Exception) -> str:
    return f"{shown(path)} is not a readable safetensors file ({error}). Fetch it again."


def _numpy_float64() -> list[Any]:
    """The three globals a pickled numpy float64 is made of, the first under the names of numpy 2 and of numpy 1.

    None of them can run code: they make a number from a dtype and bytes.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, np.dtypes.Float64DType]


def check_keys(
    state: Mapping[str, Any],
    expected: Mapping[str, tuple[int, ...]],
    ignore: tuple[str, ...] = (),
    *,
    what: str = "",
    where: object = "",
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
    parts = [
        f"{len(names):,} {kind}, first {', '.join(shown(name, 100) for name in names[:3])}"
        for kind, names in faults
        if names
    ]
    if parts:
        place = f"{shown(where)}: " if where else ""
        raise WeightsError(
            f"{place}the weights are not those of {what or 'this architecture'}: {len(found):,} tensors found, "
            f"{len(wanted):,} expected; {'; '.join(parts)}. Point `weights` at the right file."
        )
