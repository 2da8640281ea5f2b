"""An encoder of somebody else's, watched: what it returns is checked, and what it raises becomes one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chexray.encoders.base import METHODS, MIRROR, ROLES, SPACE, EncoderSpec
from chexray.errors import ChexrayError, PluginError
from chexray.plugin_files import told
from chexray.text import listed, quoted, shown


@dataclass(frozen=True, eq=False)
class PluggedEncoder:
    """A plug-in's encoder as the engine calls it; further methods, such as `scorer`, are the plug-in's own.

    inner: what the plug-in made. what: its title in an error. spec: what `resolve` returned, with the plug-in's code.
    """

    inner: Any
    what: str
    spec: EncoderSpec

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # pickle asks before there is an inner one
            raise AttributeError(name)
        return getattr(self.inner, name)

    def resolve(self) -> EncoderSpec:
        """The spec; it was found when the plan was made."""
        return self.spec

    def load(self, device: str) -> None:
        _called(self.what, "load", self.inner.load, device)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """One decoded image to the array of the spec. A ValueError of the plug-in rejects the image, as for others."""
        found = _called(self.what, "prepare", self.inner.prepare, image, passing=(ValueError, OverflowError))
        if np.shape(found) != self.spec.input_shape:
            raise PluginError(
                f"{self.what}: prepare returned {_kind(found)}, expected the input_shape of its spec, "
                f"{self.spec.input_shape}."
            )
        return self._as(found, self.spec.input_dtype, "prepare")

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """{output: (n, width)} of the spec's outputs, in its type."""
        found = _called(self.what, "encode", self.inner.encode, batch)
        if not isinstance(found, dict) or not set(self.spec.outputs) <= set(found):
            got = listed(found) if isinstance(found, dict) else _kind(found)
            raise PluginError(f"{self.what}: encode returned {got}, expected a dict with {listed(self.spec.outputs)}.")
        outputs = {}
        for name, width in self.spec.outputs.items():
            if np.shape(found[name]) != (len(batch), width):
                shape = (len(batch), width)
                got = _kind(found[name])
                raise PluginError(f"{self.what}: encode returned {name} as {got}, expected shape {shape}.")
            outputs[name] = np.ascontiguousarray(self._as(found[name], self.spec.output_dtype, "encode"))
        return outputs

    def _as(self, values: object, dtype: str, method: str) -> np.ndarray:
        try:
            return np.asarray(values, dtype)
        except (TypeError, ValueError, RuntimeError):  # text, or a tensor of a GPU
            raise PluginError(
                f"{self.what}: {method} returned {_kind(values)}, expected numbers in an array."
            ) from None


def plugged_encoder(inner: Any, what: str, code: str) -> PluggedEncoder:
    """The encoder of a plug-in, which keeps to `chexray.contract`. Raises PluginError where its spec says nothing."""
    spec = _called(what, "resolve", inner.resolve)
    if not isinstance(spec, EncoderSpec):
        raise PluginError(f"{what}: resolve returned {_kind(spec)}, expected an EncoderSpec (chexray.encoders.base).")
    wrong = [
        f"{name} is {quoted(getattr(spec, name), 60)}, expected {expected}"
        for name, fits, expected in _FIELDS
        if not fits(getattr(spec, name))
    ]
    if wrong:
        raise PluginError(f"{what}: in the spec that resolve returned, {wrong[0]}.")
    roles = _roles(inner, spec)
    if lacking := [
        METHODS[role] for role in METHODS.keys() & roles if not callable(getattr(inner, METHODS[role], None))
    ]:
        raise PluginError(f"{what}: the roles of its spec are {listed(sorted(roles))}, but it has no `{lacking[0]}`.")
    return PluggedEncoder(inner, what, replace(spec, code=code, input_shape=tuple(spec.input_shape), roles=roles))


def _roles(inner: object, spec: EncoderSpec) -> frozenset[str]:
    """The roles of a spec; of a plug-in for chexray 0.1.0, which knew none, those of the methods it has."""
    roles = frozenset(spec.roles)
    found = {role for role, method in METHODS.items() if hasattr(inner, method)}
    if roles != {SPACE} or not found:
        return roles
    return frozenset(found | {SPACE} if found <= {MIRROR} else found)


def _sizes(value: Iterable[object]) -> bool:
    return all(isinstance(each, int | np.integer) and not isinstance(each, bool) and each > 0 for each in value)


def _is_dtype(value: object) -> bool:
    try:
        return isinstance(value, str) and np.dtype(value).kind in "fui"
    except TypeError:
        return False


_FIELDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "outputs",
        lambda value: isinstance(value, dict) and "features" in value and _sizes(value.values()),
        "{'features': its width}",
    ),
    (
        "input_shape",
        lambda value: isinstance(value, tuple | list) and bool(value) and _sizes(value),
        "a tuple of sizes",
    ),
    ("input_dtype", _is_dtype, "'float32' or 'uint8'"),
    ("output_dtype", lambda value: value in ("float32", "uint8"), "'float32' or 'uint8'"),
    ("options", lambda value: isinstance(value, dict), "a dict"),
    (
        "roles",
        lambda value: isinstance(value, set | frozenset) and bool(value) and value <= ROLES,
        f"a set of {', '.join(sorted(ROLES))}",
    ),
    *(
        (name, lambda value: isinstance(value, str), "text")
        for name in ("name", "weights", "weights_sha256", "revision", "preprocessing", "precision", "cannot_see")
    ),
)


def _called(
    what: str, name: str, method: Callable[..., Any], *arguments: object, passing: tuple[type[Exception], ...] = ()
) -> Any:
    """What a method returns. Errors of a user, of too little memory and those of `passing` stay as they are."""
    try:
        return method(*arguments)
    except (ChexrayError, MemoryError, *passing):
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        raise PluginError(f"{what}: {name} failed ({told(error)}).") from error


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return shown(type(value).__name__, 60)
