"""Where weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import chexray.encoders.weights as weights_module
from chexray.encoders.checkpoints import check_keys, safe_load, safetensors_shapes
from chexray.encoders.weights import HUB_FILES, on_this_machine, resolve
from chexray.errors import ConfigError, WeightsError
from chexray.storage.uris import StorageFailure

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
HOW = {"wanted": "model.safetensors", "where": "its home"}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    return path


def test_a_file_and_its_folder_are_the_same_weights(file):
    found = resolve(str(file), **HOW)
    assert found.path == file
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.revision == ""
    assert resolve(str(file.parent), **HOW).sha256 == found.sha256
    assert resolve(f"file://{file}", **HOW).sha256 == found.sha256


def test_a_seed_needs_no_file():
    found = resolve("random:7", architecture={"width": 4}, **HOW)
    assert (found.path, found.seed, len(found.sha256)) == (None, 7, 64)
    assert found.sha256 != resolve("random:8", architecture={"width": 4}, **HOW).sha256
    assert on_this_machine(found, **HOW) is found
    for bad in ("random:", "random:x", "random:-1", "random:1.5"):
        with pytest.raises(ConfigError, match="random:7"):
            resolve(bad, **HOW)


def test_a_missing_file_says_what_is_wanted_and_what_to_do(tmp_path):
    with pytest.raises(WeightsError) as caught:
        resolve(str(tmp_path / "absent.pth"), wanted="inception.pth", where="the authors' page")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("absent.pth", "inception.pth", "the authors' page", "weights: /path/to"):
        assert part in message


def test_a_folder_with_a_pickle_only_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"no model.safetensors.*pytorch_model.bin is a pickle and is not read"):
        resolve(str(tmp_path), **HOW)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "x.pth").touch()
    with pytest.raises(WeightsError, match="empty"):
        resolve(str(tmp_path / "x.pth"), **HOW)


def test_of_a_hub_repository_only_three_files_are_fetched(file, monkeypatch):
    asked = {}

    def snapshot_download(repository, **options):
        asked.update(options, repository=repository)
        folder = file.parent / "abc123"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(file.read_bytes())
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = resolve("microsoft/rad-dino@v1.0", **HOW)
    assert (asked["repository"], asked["revision"]) == ("microsoft/rad-dino", "v1.0")
    assert (
        set(asked["allow_patterns"])
        == set(HUB_FILES)
        == {
            "config.json",
            "preprocessor_config.json",
            "model.safetensors",
        }
    )
    assert found.revision == "abc123"
    # A worker whose disk lacks the file asks for the very commit the driver saw, not for a branch.
    found.path.unlink()
    assert on_this_machine(found, **HOW).sha256 == found.sha256
    assert asked["revision"] == "abc123"


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(WeightsError) as caught:
        resolve("microsoft/rad-dino", wanted="model.safetensors", where="the hub repository microsoft/rad-dino")
    assert "no route to host" in str(caught.value)
    assert "second line" not in str(caught.value)
    assert "weights: /path/to" in str(caught.value)


def test_a_released_file_is_checked_against_the_hash_in_its_name(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    content = b"weights"
    prefix = hashlib.sha256(content).hexdigest()[:8]
    served = tmp_path / "served"
    served.write_bytes(content)
    good, bad = f"net-{prefix}.pth", "net-00000000.pth"
    how = {"where": "here", "released_at": served.as_uri()}
    assert resolve(good, wanted=good, **how).path.read_bytes() == content
    served.unlink()
    assert resolve(good, wanted=good, **how).path.read_bytes() == content  # from the cache
    served.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or another file"):
        resolve(bad, wanted=bad, **how)
    assert not [path for path in weights_module.cache_root().iterdir() if path.name.startswith(".part")]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE forbids"):
        resolve(bad, wanted=bad, **how)


@dataclass
class _Bucket:
    """Stands in for chexray.storage.Storage."""

    objects: dict[str, bytes]
    reads: int = 0
    busy: str = ""

    def read(self, uri: str) -> bytes:
        if uri == self.busy:
            raise StorageFailure("busy", code="unavailable", transient=True)
        if uri not in self.objects:
            raise StorageFailure(f"{uri}: no such object", code="not_found")
        self.reads += 1
        return self.objects[uri]

    def stat(self, uris):
        from chexray.storage import FileStat

        return [
            FileStat(uri, len(self.objects[uri]), hashlib.md5(self.objects[uri]).hexdigest())
            if uri in self.objects
            else None
            for uri in uris
        ]


def test_a_bucket_is_read_once_and_again_when_it_changed(file):
    bucket = _Bucket({"s3://b/w/model.safetensors": file.read_bytes()})
    found = resolve("s3://b/w/model.safetensors", storage=bucket, **HOW)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    resolve("s3://b/w/model.safetensors", storage=bucket, **HOW)
    assert bucket.reads == 1
    save_file({"other": torch.ones(3)}, file)
    bucket.objects["s3://b/w/model.safetensors"] = file.read_bytes()
    assert resolve("s3://b/w/model.safetensors", storage=bucket, **HOW).sha256 != found.sha256
    # A worker that finds other weights than the driver hashed stops.
    with pytest.raises(WeightsError, match="changed during the run"):
        on_this_machine(found, storage=bucket, **HOW)


def test_a_damaged_copy_in_the_cache_is_fetched_again(file):
    bucket = _Bucket({"s3://b/w/model.safetensors": file.read_bytes()})
    found = resolve("s3://b/w/model.safetensors", storage=bucket, **HOW)
    found.path.write_bytes(b"half a file")
    assert resolve("s3://b/w/model.safetensors", storage=bucket, **HOW).sha256 == found.sha256


def test_a_bucket_folder_brings_its_configs_and_never_loses_one_to_a_busy_bucket(file):
    objects = {
        "s3://b/w/model.safetensors": file.read_bytes(),
        "s3://b/w/config.json": b"{}",
        "s3://b/w/evil.py": b"x",
    }
    bucket = _Bucket(objects)
    folder = resolve("s3://b/w", storage=bucket, **HOW).path.parent
    assert {path.name for path in folder.iterdir() if not path.name.endswith(".json.json")} >= {
        "model.safetensors",
        "config.json",
    }
    assert not (folder / "evil.py").exists()
    assert not (folder / "preprocessor_config.json").exists()
    bucket.busy = "s3://b/w/preprocessor_config.json"
    with pytest.raises(WeightsError, match="busy"):
        resolve("s3://b/w", storage=bucket, **HOW)


def test_other_urls_go_through_fsspec(file):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/w/model.safetensors", file.read_bytes())
    found = resolve("memory://w/model.safetensors", **HOW)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="weights: /path/to"):
        resolve("memory://w/absent.safetensors", **HOW)


def test_no_secret_of_a_url_is_kept_or_shown():
    url = "https://user:hunter2@host.invalid/w.pth?X-Amz-Signature=c0ffee"
    with pytest.raises(WeightsError) as caught:
        resolve(url, **HOW)
    assert "hunter2" not in str(caught.value)
    assert "c0ffee" not in str(caught.value)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_and_prefixed_state_dicts_are_unwrapped(tmp_path, wrap, prefix):
    state = {prefix + key: value for key, value in STATE.items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    loaded = safe_load(tmp_path / "w.pth")
    assert {key: value.tolist() for key, value in loaded.items()} == {k: v.tolist() for k, v in STATE.items()}


class _Exploit:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_nothing_that_could_run_code_is_loaded(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"a pickled torch.nn.modules.linear.Linear.*could run code"):
        safe_load(tmp_path / "module.pth")
    torch.save({"state_dict": _Exploit(tmp_path / "ran")}, tmp_path / "exploit.pt")
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(_Exploit(tmp_path / "ran"), protocol=2))
    for name in ("exploit.pt", "raw.bin"):
        with pytest.raises(WeightsError, match=r"refused|not a readable"):
            safe_load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


class _System:
    """Pickles to a call of os.system that leaves a file behind."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def test_float64_scalars_are_let_through_on_request_only(tmp_path):
    metrics = {"auc_macro": np.float64(0.75), "accuracy": 0.5}
    torch.save({"model_state_dict": STATE, "metrics": metrics}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"a pickled numpy\.\S*scalar"):
        safe_load(tmp_path / "w.pth")
    assert set(safe_load(tmp_path / "w.pth", numpy_scalars=True)) == set(STATE)
    with pytest.raises(WeightsError, match=r"a pickled numpy"):  # nothing stays allowed afterwards
        safe_load(tmp_path / "w.pth")


def test_numpy_1_wrote_the_same_scalar_under_another_name(tmp_path):
    torch.save({"model_state_dict": STATE, "metrics": {"auc": np.float64(0.75)}}, tmp_path / "new.pth")
    names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    newest = names[np.float64(0).__reduce__()[0].__module__ == names[1].decode()]
    with zipfile.ZipFile(tmp_path / "new.pth") as source, zipfile.ZipFile(tmp_path / "old.pth", "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            if entry.endswith("data.pkl"):
                assert newest in content
                content = content.replace(newest + b"\n", names[newest == names[0]] + b"\n")
            target.writestr(entry, content)
    assert set(safe_load(tmp_path / "old.pth", numpy_scalars=True)) == set(STATE)


@pytest.mark.parametrize("value", [np.float32(1), np.arange(3.0), np.dtype("O").type])
def test_no_other_numpy_object_is_let_through(tmp_path, value):
    torch.save({"model_state_dict": STATE, "metrics": {"auc": value}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="refused"):
        safe_load(tmp_path / "w.pth", numpy_scalars=True)


@pytest.mark.parametrize("payload", [_Exploit, _System])
def test_no_other_global_is_let_through_with_the_scalars(tmp_path, payload):
    target = tmp_path / "ran"
    torch.save({"model_state_dict": STATE, "metrics": payload(target)}, tmp_path / "w.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(payload(target), protocol=2))
    for name in ("w.pth", "raw.pth"):
        with pytest.raises(WeightsError, match=r"refused|not a readable"):
            safe_load(tmp_path / name, numpy_scalars=True)
    assert not target.exists()


def test_other_things_than_tensors_are_named(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds a list"):
        safe_load(tmp_path / "list.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("<html>404</html>")
        with pytest.raises(WeightsError, match="not a readable"):
            safe_load(tmp_path / name)
    with pytest.raises(WeightsError, match="not a readable"):
        safetensors_shapes(tmp_path / "text.safetensors")


def test_keys_are_compared_by_name_and_shape(file):
    expected = {"a.weight": (2, 3), "a.bias": (2,)}
    assert safetensors_shapes(file) == expected
    check_keys(STATE, expected)
    check_keys({**STATE, "bn.num_batches_tracked": torch.tensor(0)}, expected, ("*.num_batches_tracked",))
    with pytest.raises(WeightsError) as caught:
        check_keys({"a.weight": torch.zeros(2, 4), "head.bias": torch.zeros(1)}, expected, what="Net")
    message = str(caught.value)
    for part in ("Net", "1 missing, first a.bias", "1 unexpected, first head.bias", "a.weight (2, 4) for (2, 3)"):
        assert part in message
