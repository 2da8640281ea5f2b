"""Parquet is opened through one door, and no Arrow type that could run code passes it, wherever it stands."""

from __future__ import annotations

import ast
import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.pickled import METADATA, NAME, payload, pickled_field

from chexray.data.images import embedded_uri, load_images
from chexray.data.manifest import build
from chexray.data.pairing import build as build_pairs
from chexray.data.sources.folder import Folder
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.table import Table
from chexray.engine.arrow_types import REGISTERED
from chexray.errors import ChexrayError
from chexray.results.reading import read_results
from chexray.storage import Storage
from chexray.storage.extension_types import INERT, names_in_footer
from chexray.storage.parquet import ParquetFile, to_bytes

PACKAGE = Path(__file__).resolve().parents[2] / "chexray"


def saved(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def nests(marker: Path) -> dict[str, tuple[pa.Field, pa.Array]]:
    """The dangerous type at the top, and inside everything that can hold it."""
    data, inner = payload(marker), pickled_field("item")
    binary = pa.array([data], pa.large_binary())
    fields = {
        "top": (pickled_field("image"), binary),
        "list": (pa.field("image", pa.list_(inner)), pa.ListArray.from_arrays([0, 1], binary)),
        "large list": (pa.field("image", pa.large_list(inner)), pa.LargeListArray.from_arrays([0, 1], binary)),
        "fixed list": (pa.field("image", pa.list_(inner, 1)), pa.FixedSizeListArray.from_arrays(binary, 1)),
        "struct": (
            pa.field("image", pa.struct([pa.field("bytes", pa.large_binary(), metadata=METADATA)])),
            pa.StructArray.from_arrays([binary], ["bytes"]),
        ),
        "map": (
            pa.field("image", pa.map_(pa.string(), inner)),
            pa.MapArray.from_arrays([0, 1], pa.array(["a"]), binary),
        ),
    }
    deep = pa.field("image", pa.struct([pa.field("a", pa.list_(pa.field("b", pa.struct([pickled_field("c")]))))]))
    values = pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays([binary], ["c"]))
    return {**fields, "deep": (deep, pa.StructArray.from_arrays([values], ["a"]))}


NESTS = list(nests(Path("unused")))


@pytest.mark.parametrize("place", NESTS)
def test_the_type_is_refused_in_every_place_of_a_schema(place: str, tmp_path):
    field, column = nests(tmp_path / "ran")[place]
    data = saved(pa.table([pa.array(["x"]), column.cast(field.type)], schema=pa.schema([("id", pa.string()), field])))
    assert NAME in names_in_footer(io.BytesIO(data))
    with pytest.raises(ChexrayError, match=r"set\.parquet is refused: .*ray\.data\.arrow_pickled_object"):
        ParquetFile(io.BytesIO(data), "set.parquet")
    assert not (tmp_path / "ran").exists()


READERS = {
    "images, at plan": lambda path, storage: ParquetImages(path).read("synthetic", storage),
    "a manifest": lambda path, storage: build("set", "real", Table(path).read("real", storage), storage),
    "metadata of a folder": lambda path, storage: Folder(str(Path(path).parent)).read("real", storage),
    "pairs": lambda path, storage: build_pairs("given", None, None, storage, path),
    "results": lambda path, storage: read_results(path, storage),
    "a part, rejects, verdicts, predictions": lambda path, storage: storage.read_parquet(path),
}


def hostile(marker: Path, *names: str) -> bytes:
    columns = {"image": pa.array(["a.png"]), "sample_id": pa.array(["a"]), "file_name": pa.array(["a.png"])}
    for name in names:
        columns[name] = pa.array([payload(marker)], pa.large_binary())
    fields = [pickled_field(name) if name in names else pa.field(name, pa.string()) for name in columns]
    return saved(pa.table(list(columns.values()), schema=pa.schema(fields)))


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("column", ["image", "sample_id", "prompt", "further"])
def test_every_reader_refuses_it_in_one_line(reader, column: str, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    path = tmp_path / "metadata.parquet"
    path.write_bytes(hostile(tmp_path / "ran", column))
    with pytest.raises(ChexrayError, match=r"extension type 'ray\.data\.arrow_pickled_object'"):
        reader(str(path), Storage())
    assert not (tmp_path / "ran").exists()


def test_images_inside_such_a_file_are_rejects(tmp_path):
    path = tmp_path / "set.parquet"
    path.write_bytes(hostile(tmp_path / "ran", "image"))
    (found,) = load_images([embedded_uri(str(path), "image", 0)], Storage())
    assert "extension type" in found.detail
    assert not (tmp_path / "ran").exists()


IN_A_PROCESS_WITH_RAY = """
import sys, json
from pathlib import Path
import ray.data  # registers its types again, as a notebook would
from chexray.storage import Storage
from chexray.errors import ChexrayError
import storage.test_parquet_door as door
said = []
Path(sys.argv[1], "a.png").write_bytes(b"")
path, marker = Path(sys.argv[1]) / "metadata.parquet", Path(sys.argv[1]) / "ran"
for name, reader in door.READERS.items():
    path.write_bytes(door.hostile(marker, "image", "sample_id"))
    try:
        reader(str(path), Storage())
        said.append(f"{name}: read")
    except ChexrayError as error:
        said.append("" if "is refused" in str(error) else f"{name}: {error}")
for place, (field, column) in door.nests(marker).items():
    data = door.saved(door.pa.table([column.cast(field.type)], schema=door.pa.schema([field])))
    try:
        door.ParquetFile(door.io.BytesIO(data), "x").read().to_pylist()
        said.append(f"{place}: read")
    except ChexrayError:
        said.append("")
print(json.dumps({"said": [line for line in said if line], "ran": marker.exists()}))
"""


@pytest.mark.slow
def test_it_is_refused_where_ray_data_was_imported_before(tmp_path):
    """A second `evaluate` of a notebook, and every worker: Arrow then knows the type and would unpickle."""
    tests = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r})\n{IN_A_PROCESS_WITH_RAY}"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"said": [], "ran": False}


REGISTRATIONS = """
import json, pyarrow as pa
names, real = [], pa.register_extension_type
def record(kind):
    names.append(kind.extension_name)
    return real(kind)
pa.register_extension_type = pa.lib.register_extension_type = record
import ray, ray.data, ray.train, ray.train.torch
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine import cluster, encode, worker, train, search, reduce, pixel_pairs, blocks
import chexray.run.evaluation, transformers, timm, pandas
forget_extension_types()
left = []
for name in dict.fromkeys(names):
    try:
        pa.unregister_extension_type(name)
        left.append(name)
    except pa.ArrowKeyError:
        pass
print(json.dumps({"registered": sorted(set(names)), "left": left}))
"""


@pytest.mark.slow
def test_a_later_ray_adds_no_type_unseen():
    """What the imports of a driver and of workers register is what `forget_extension_types` takes back."""
    done = subprocess.run([sys.executable, "-c", REGISTRATIONS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    pandas_own = {"pandas.period", "pandas.interval"}  # JSON; refused by the door all the same
    assert set(found["registered"]) - pandas_own == set(REGISTERED)
    assert set(found["left"]) <= pandas_own
    assert not (set(found["registered"]) & INERT)


def test_inert_types_are_read_as_what_they_store():
    tensor = pa.fixed_shape_tensor(pa.uint8(), (2, 2))
    table = pa.table(
        {
            "uuid": pa.array([bytes(16)], pa.uuid()),
            "json": pa.array(['{"a": 1}'], pa.json_()),
            "flag": pa.array([1], pa.bool8()),
            "image": pa.FixedShapeTensorArray.from_storage(
                tensor, pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4], pa.uint8()), 4)
            ),
            "nested": pa.ListArray.from_arrays([0, 1], pa.array(['"x"'], pa.json_())),
        }
    )
    file = ParquetFile(io.BytesIO(saved(table)), "x")
    expected = [{"uuid": bytes(16), "json": '{"a": 1}', "flag": 1, "image": [1, 2, 3, 4], "nested": ['"x"']}]
    assert file.read().to_pylist() == expected
    assert file.read_bounded().to_pylist() == expected
    assert not any(isinstance(kind, pa.BaseExtensionType) for kind in file.schema.types)


def test_arrays_of_hugging_face_datasets_are_read_as_lists():
    name = {b"ARROW:extension:name": b"datasets.features.features.Array2DExtensionType"}
    about = {**name, b"ARROW:extension:metadata": b'[[2, 2], "uint8"]'}
    field = pa.field("image", pa.list_(pa.list_(pa.uint8())), metadata=about)
    table = pa.table([pa.array([[[1, 2], [3, 4]]], field.type)], schema=pa.schema([field]))
    assert ParquetFile(io.BytesIO(saved(table)), "x").read().to_pylist() == [{"image": [[1, 2], [3, 4]]}]


@pytest.mark.parametrize("name", ["arrow.evil", "pandas.period", "datasets.features.features.Array9DExtensionType", ""])
def test_types_that_nobody_vouched_for_are_refused(name: str):
    field = pa.field("x", pa.int8(), metadata={b"ARROW:extension:name": name.encode()})
    with pytest.raises(ChexrayError, match="extension type"):
        ParquetFile(io.BytesIO(saved(pa.table([pa.array([1], pa.int8())], schema=pa.schema([field])))), "x")


def test_every_footer_is_read_wherever_its_schema_begins():
    """The text before it in the footer may look like base64 as well, so that it starts at any of four places."""
    for length in range(0, 3000, 37):
        metadata = {"p" * (1 + length % 5): "v" * length}
        schema = pa.schema([pickled_field("x")], metadata=metadata)
        data = saved(pa.table([pa.array([b"x"], pa.large_binary())], schema=schema))
        assert names_in_footer(io.BytesIO(data)) == [NAME], length


def test_damaged_files_are_one_line_without_arrow_s_words(tmp_path):
    whole = to_bytes(pa.table({"prompt": ["Canary 4711"] * 50, "n": np.arange(50)}))
    rng, said = np.random.default_rng(0), []
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 20)):
            broken[place] = rng.integers(0, 256)
        broken = broken[: rng.integers(0, len(whole))] if rng.random() < 0.2 else broken
        try:
            ParquetFile(io.BytesIO(bytes(broken)), "set.parquet").read_bounded().to_pylist()
        except ChexrayError as error:
            said.append((str(error), error.__cause__))
        except (UnicodeDecodeError, pa.ArrowInvalid):  # of a value, outside the door
            continue
    assert len(said) > 100
    assert not [line for line, cause in said if "Canary" in line or cause is not None]


def test_a_repeated_value_does_not_expand_without_limit(monkeypatch):
    monkeypatch.setattr("chexray.storage.parquet.MAX_TABLE_BYTES", 100 << 20)
    value = pa.array(["x" * (1 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), value)
    data = saved(pa.table({"prompt": column}))
    assert len(data) < 3 << 20
    file = ParquetFile(io.BytesIO(data), "set.parquet")
    with pytest.raises(ChexrayError, match="expands to more than"):
        file.read_bounded()


def test_parquet_and_arrow_files_are_opened_in_one_place_and_nothing_is_unpickled():
    """Another way in is a failure of this test."""
    modules = ("pyarrow.parquet", "pyarrow.feather", "pyarrow.ipc", "pyarrow.orc", "pyarrow.dataset", "pyarrow.json")
    banned = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "fastparquet", "ray.cloudpickle")
    calls = ("read_parquet", "read_feather", "read_pickle", "read_hdf", "read_orc", "open_stream", "open_file")
    own = {"storage"}  # `storage.read_parquet` is the door
    for path in sorted(PACKAGE.rglob("*.py")):
        is_door = path.relative_to(PACKAGE).as_posix() in ("storage/parquet.py", "storage/extension_types.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                assert name not in banned, (path, name)
                assert is_door or name not in modules, (path, name)
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert is_door or not text.startswith(("pa.ipc", "pyarrow.ipc", "pa.memory_map")), (path, text)
                if node.attr in calls and not is_door:
                    holder = ast.unparse(node.value).rsplit(".", 1)[-1]
                    assert holder in own or holder == "self", (path, text)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                safe = {key.arg: ast.unparse(key.value) for key in node.keywords}
                assert safe.get("weights_only") == "True" or safe.get("allow_pickle") == "False", (path, node.lineno)
            # Files that the user names by --plugin are run, in one place; a config cannot name one.
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and path.name != "plugin_files.py":
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), (path, node.lineno)


def with_schema(value: bytes) -> bytes:
    """A Parquet file whose ARROW:schema is `value`, in place of one of the same length."""
    for pad in range(4000):
        schema = pa.schema([("a", pa.large_binary())], metadata={"pad": "p" * pad})
        own = base64.b64encode(schema.serialize().to_pybytes())
        if len(own) >= len(value):
            break
    data = saved(pa.table([pa.array([b"x"], pa.large_binary())], schema=schema))
    assert own in data
    return data.replace(own, value + b"A" * (len(own) - len(value)))


def test_a_schema_of_the_old_form_with_a_harmless_one_inside_is_refused_by_its_footer():
    decoy = pa.schema([("a", pa.large_binary())]).serialize().to_pybytes()
    outer = pa.schema([pickled_field("a", {**METADATA, b"zz": decoy})]).serialize().to_pybytes()
    for message in (outer, outer[4:]):  # Arrow before 0.15 wrote no marker in front
        data = with_schema(base64.b64encode(message).rstrip(b"="))
        assert names_in_footer(io.BytesIO(data)), message[:8]


VALUES = {
    "text": pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array(["x" * 11_000_000])),
    "bytes": pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([b"x" * 70_000_000])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_one_large_value_many_times_is_expanded_a_few_rows_at_once(name: str, tmp_path):
    column = VALUES[name]
    sink = io.BytesIO()
    table = pa.table({"n": np.arange(len(column)), "image": column})
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    assert len(sink.getvalue()) < 10_000
    before = pa.total_allocated_bytes()
    file = ParquetFile(sink, "set.parquet")
    slices = file.batches(0, "image")
    assert len(next(slices)) * len(column.dictionary[0].as_py()) <= 128 << 20
    assert pa.total_allocated_bytes() - before < 1 << 30
    slices.close()
    with pytest.raises(ChexrayError, match="expands to more than 1 GiB"):
        file.read_bounded()
