"""What a torch file (.pth, .pt, .bin, .ckpt) asks for when it is loaded, found without loading it.

A pickle is a small program. torch's restricted unpickler is the lock; this is the look through the window before: the
program is walked operation by operation on placeholders, every name it would fetch and every call it would make is
compared with the few that tables of tensors need, and every size with the bytes that are there.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chexray.text import quoted, shown

MOST_STEPS = 1_000_000
"""Operations of a pickle. A checkpoint takes about 40 a tensor and 120 a parameter of an optimiser."""
LARGEST_PICKLE = 64_000_000
MOST_MEMBERS = 100_000
LONGEST_SCALAR = 64

_STORAGE_BYTES = {
    "torch.FloatStorage": 4, "torch.DoubleStorage": 8, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1,
}  # fmt: skip
_TENSORS = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
}
_PLAIN = {"collections.OrderedDict", "collections.Counter", "torch.Size", "torch.device"}
_PLAIN |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "complex")}
_CODEC = "_codecs.encode"
NUMPY_FLOAT64 = {
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.dtypes.Float64DType",
}
"""What a pickled numpy float64 is made of, under the names of numpy 1 and of numpy 2."""
_DTYPE = re.compile(r"torch\.(?:b?float\d+|half|double|float|u?int\d+|long|int|short|bool|complex\d+)")
_OTHER_TENSORS = re.compile(r"torch\.(?:_utils\._rebuild\w*|_tensor\.\w+|serialization\._get_layout|\w*[Tt]ensor)")
_TORCHSCRIPT = re.compile(r"[^/]+/(?:constants\.pkl|code/.*)", re.DOTALL)


class Refused(ValueError):
    """The file is whole, and is not loaded: it asks for more than tensors, or for more memory than it has bytes."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle fetches, such as "torch.FloatStorage"."""

    path: str


def inspect(source: Path | bytes, *, numpy_scalars: bool = False) -> None:
    """Raises Refused for what is not loaded, with the reason, and ValueError for a damaged file or another kind of it.

    numpy_scalars: lets float64 scalars through as well.
    """
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        start = stream.read(4)
        stream.seek(0)
        if start == b"PK\x03\x04":
            _inspect_zip(stream, size, numpy_scalars)
        elif start[:1] == b"\x80":  # before torch 1.6: five pickles, then the numbers
            for _ in range(5):
                Walk(numpy_scalars, dict, size).through(stream)
        else:
            raise ValueError("neither a zip archive nor a pickle of protocol 2")


def _inspect_zip(stream: BinaryIO, size: int, numpy_scalars: bool) -> None:
    """Sizes and names from the directory of the archive, then the program in its data.pkl."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if any(_TORCHSCRIPT.fullmatch(member.filename) for member in members):
                raise Refused(could_run("a TorchScript program"))
            sizes = _member_sizes(members, size)
            programs = [name for name in sizes if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(programs) != 1:
                raise ValueError("no torch archive: one folder with a data.pkl is expected")
            if sizes[programs[0]] > LARGEST_PICKLE:
                raise Refused(f"its list of tensors has {sizes[programs[0]]:,} bytes, more than {LARGEST_PICKLE:,}")
            folder = programs[0].removesuffix("data.pkl")
            program = io.BytesIO(archive.read(programs[0]))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__} in its zip directory") from error
    held = {name.removeprefix(f"{folder}data/"): n for name, n in sizes.items() if name.startswith(f"{folder}data/")}
    Walk(numpy_scalars, lambda: held, size).through(program)


def _member_sizes(members: list[zipfile.ZipInfo], size: int) -> dict[str, int]:
    """Name -> bytes. torch stores its members as they are: anything packed could unpack to any size."""
    if len(members) > MOST_MEMBERS:
        raise Refused(f"its archive has {len(members):,} members, more than {MOST_MEMBERS:,}")
    packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size]
    if packed:
        largest = max(packed, key=lambda member: member.file_size)
        raise Refused(
            f"its member {quoted(largest.filename, 80)} is compressed ({largest.file_size:,} bytes unpacked); torch "
            "stores tensors as they are. Save the weights again with torch.save or as safetensors"
        )
    if any(member.header_offset + member.file_size > size for member in members):
        raise ValueError("its zip directory names bytes beyond the end of the file")
    if sum(member.file_size for member in members) > size:
        raise Refused("the members of its archive overlap")
    sizes = {member.filename: member.file_size for member in members}
    if len(sizes) != len(members):
        raise Refused("its archive has two members of one name")
    return sizes


def could_run(what: str) -> str:
    """The reason for refusing something that would act when it is loaded."""
    return (
        f"it holds {what}, not a table of tensors, and loading it could run code from the file. Where you trust it, "
        "save model.state_dict() as safetensors and use that"
    )


class Walk:
    """One pickle, walked on placeholders. Strings, numbers, tuples and names are followed, all else is None."""

    def __init__(self, numpy_scalars: bool, held: Callable[[], dict[str, int]], size: int):
        self.callable = _TENSORS | _PLAIN | {_CODEC} | (NUMPY_FLOAT64 if numpy_scalars else set())
        self.held: dict[str, int] = held()
        self.size = size
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def through(self, stream: BinaryIO) -> None:
        """Walks to the end of the pickle that begins here; the stream is then behind it."""
        start = stream.tell()
        for step, (kind, argument, position) in enumerate(self._operations(stream)):
            if step > MOST_STEPS or (position or 0) - start > LARGEST_PICKLE:
                raise Refused(f"its list of tensors has more than {MOST_STEPS:,} steps")
            self._step(kind, argument)

    @staticmethod
    def _operations(stream: BinaryIO) -> Iterator[Any]:
        operations = pickletools.genops(stream)
        while True:
            try:
                yield next(operations)
            except StopIteration:
                return
            except (
                Exception
            ) as error:  # of bytes that are no pickle: ValueError, UnicodeError, IndexError, OverflowError
                raise ValueError(f"{type(error).__name__} in its pickle") from error

    def _step(self, kind: pickletools.OpcodeInfo, argument: Any) -> None:
        name = kind.name
        if name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1] if self.stack else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(argument))
        elif name == "DUP":
            self.stack.append(self.stack[-1] if self.stack else None)
        else:
            taken = self._taken(kind)
            self.stack += self._result(name, argument, taken, len(kind.stack_after))

    def _taken(self, kind: pickletools.OpcodeInfo) -> list[Any]:
        """What the operation takes from the stack, without the mark."""
        before = [item.name for item in kind.stack_before]
        taken: list[Any] = []
        if "mark" in before:
            if not self.marks:
                raise ValueError("a mark is missing in its pickle")
            taken, self.stack = self.stack, self.marks.pop()
            before = before[: before.index("mark")]
        if len(before) > len(self.stack):
            raise ValueError("its pickle is malformed (it reads from an empty stack)")
        if before:
            self.stack, front = self.stack[: -len(before)], self.stack[-len(before) :]
            taken = [*front, *taken]
        return taken

    def _result(self, name: str, argument: object, taken: list[Any], n_after: int) -> list[Any]:
        match name:
            case "GLOBAL":
                return [self._named(str(argument).replace(" ", ".", 1))]
            case "STACK_GLOBAL":
                return [self._named(".".join(str(part) for part in taken))]
            case "INST":
                raise Refused(could_run(f"a pickled {shown(str(argument).replace(' ', '.', 1), 80)}"))
            case "OBJ" | "EXT1" | "EXT2" | "EXT4" | "NEWOBJ_EX":
                raise Refused(could_run("a pickled object"))
            case "REDUCE" | "NEWOBJ":
                return [self._call(taken[0], taken[1])]
            case "PERSID":
                raise ValueError("a storage is named by a line of text")
            case "BINPERSID":
                return [self._storage(taken[0])]
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "EMPTY_TUPLE":
                return [tuple(taken)]
            case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS" | "ADDITEMS" | "BUILD":
                return taken[:1]
            case _:  # literals; containers and what is made of other things are placeholders
                return [argument if isinstance(argument, str | bytes | int) and not taken else None] * n_after

    def _named(self, path: str) -> Name:
        if path in self.callable or path in _STORAGE_BYTES or _DTYPE.fullmatch(path):
            return Name(path)
        if _OTHER_TENSORS.fullmatch(path):
            raise Refused(f"it holds tensors of a kind that is not read ({shown(path, 80)}). Save plain, dense ones")
        raise Refused(could_run(f"a pickled {shown(path, 80)}"))

    def _call(self, what: object, arguments: object) -> None:
        if not isinstance(what, Name) or what.path not in self.callable:
            raise Refused(could_run(f"a call of {quoted(what.path if isinstance(what, Name) else what, 80)}"))
        if what.path == _CODEC:  # numbers of numpy come as a short latin-1 text; other codecs can double their input
            text, codec = arguments if isinstance(arguments, tuple) and len(arguments) == 2 else (None, None)
            if not isinstance(text, str) or len(text) > LONGEST_SCALAR or codec not in ("latin1", "latin-1"):
                raise Refused(could_run("a call of '_codecs.encode'"))
        elif what.path == "numpy.dtype":
            kind = arguments[0] if isinstance(arguments, tuple) and arguments else None
            if kind != "f8":
                raise Refused(could_run(f"a pickled numpy.dtype {quoted(kind, 40)}"))

    def _storage(self, reference: object) -> None:
        """Compares the numbers that a tensor's storage should have with the bytes that are there for it."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise ValueError("a reference in its pickle is not to a storage")
        kind, key, n = reference[1], reference[2], reference[4]
        each = _STORAGE_BYTES.get(kind.path) if isinstance(kind, Name) else None
        if each is None or type(n) is not int or n < 0:
            raise Refused("it holds numbers of a type that is not read. Save the weights as float32")
        there = self.held.get(str(key), 0) if self.held else self.size
        if each * n > there:
            raise ValueError(f"a storage of {each * n:,} bytes is named, {there:,} are there")
