"""Manifests and configs are found in a checkout and wherever an installer put them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from chexray import shipped as module
from chexray.errors import ConfigError
from chexray.shipped import shipped

KNOWN = pytest.mark.parametrize(("folder", "known"), [("deploy", "base/kustomization.yaml"), ("configs", "full.yaml")])


@KNOWN
def test_of_a_checkout(folder: str, known: str) -> None:
    assert shipped(folder, known) == Path(module.__file__).resolve().parents[1] / folder


@KNOWN
def test_below_the_prefix_or_not_at_all(
    folder: str, known: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "chexray/shipped.py"))
    monkeypatch.setattr(module.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(module.metadata, "files", lambda _: None)
    with pytest.raises(ConfigError, match=f"{folder}/ of chexray is not installed"):
        shipped(folder, known)
    file = tmp_path / "share/chexray" / folder / known
    file.parent.mkdir(parents=True)
    file.touch()
    assert shipped(folder, known) == tmp_path / "share/chexray" / folder


@KNOWN
def test_where_the_installer_put_them(folder: str, known: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `pip install --user` and `--prefix` do: the data files lie beside lib/, and sys.prefix is elsewhere."""
    packages, place = tmp_path / "lib/python3/site-packages", tmp_path / "share/chexray" / folder
    record = packages / "chexray-0.1.0.dist-info" / "RECORD"
    for path in (record, place / known):
        path.parent.mkdir(parents=True)
        path.touch()
    (record.parent / "METADATA").write_text("Name: chexray\nVersion: 0.1.0\n")
    record.write_text(f"chexray/__init__.py,,\n../../../share/chexray/{folder}/{known},,\n")
    found = metadata.PathDistribution(record.parent)
    monkeypatch.setattr(module.metadata, "files", lambda _: found.files)
    monkeypatch.setattr(module, "__file__", str(packages / "chexray/shipped.py"))
    monkeypatch.setattr(module.sys, "prefix", str(tmp_path / "elsewhere"))
    assert shipped(folder, known) == place.resolve()

    def absent(_: str) -> None:
        raise metadata.PackageNotFoundError("chexray")

    monkeypatch.setattr(module.metadata, "files", absent)
    with pytest.raises(ConfigError, match="not installed"):
        shipped(folder, known)
