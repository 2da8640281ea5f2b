"""A table that somebody else wrote names addresses: only those below a root that the user named are asked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fixtures.kept_places import QUICK
from fixtures.web import Web
from PIL import Image

from chexray.data import manifest as manifests
from chexray.data.images import Reject, load_images
from chexray.data.sources._roots import root_of_absolute_paths
from chexray.data.sources.frame import Frame, keep
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.storage import join

HOSTILE = [
    "http://169.254.169.254/latest/meta-data/x.png", "http://[::1]/x.png", "file:///etc/passwd", "memory://b/x.png",
    "gs://other/x.png", "s3://other/x.png", "hf://datasets/other/x/x.png", "az://other/x.png", "ftp://host/x.png",
    "//host/x.png", "../x.png", "%2e%2e/x.png", "a/%2e%2e/%2e%2e/x.png", "..\\x.png", "/etc/passwd",
    "HTTP://169.254.169.254/x.png",
]  # fmt: skip


def png(n: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), n, np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def server() -> Iterator[Web]:
    with Web() as server:
        server.files = {f"/set/img/{n}.png": png(n) for n in range(4)} | {"/x.png": png(9), "/other/x.png": png(9)}
        yield server


def table(path: Path, cells: list[str]) -> str:
    path.write_text("image\n" + "\n".join(cells) + "\n")
    return str(path)


def read(path: str, image_root: str | None) -> list[str]:
    return Table(path, image_root=image_root).read("real", QUICK)["uri"].to_pylist()


def test_images_lie_below_a_named_address(server: Web, tmp_path: Path):
    """Named by paths or by whole addresses."""
    root = f"{server.url}/set"
    cells = [f"img/{n}.png" for n in range(3)] + [f"{root}/img/3.png"]
    found = read(table(tmp_path / "t.csv", cells), root)
    assert found == [f"{root}/img/{n}.png" for n in range(4)]
    assert [int(image[0, 0]) for image in load_images(found, QUICK)] == [0, 1, 2, 3]
    server.files["/set/t.csv"] = b"image\nimg/0.png\nimg/1.png\n"
    assert read(f"{root}/t.csv", None) == found[:2]


@pytest.mark.parametrize("cell", HOSTILE)
@pytest.mark.parametrize("where", ["web", "local", "memory"])
def test_no_cell_leads_out_of_the_root(server: Web, tmp_path: Path, where: str, cell: str):
    """Wherever the table and its root are; nothing but the root's own server is asked."""
    root = {"web": f"{server.url}/set", "local": str(tmp_path), "memory": "memory://tables/set"}[where]
    good = "img/0.png"
    if where != "web":
        QUICK.write(join(root, good), png(0))
    path = table(tmp_path / "t.csv", [good, cell])
    with pytest.raises(ManifestError) as refusal:
        read(path, root)
    text = str(refusal.value)
    assert "data row 2 names" in text
    assert "leaves the image root" in text or "an address that is not read" in text or "backslashes" in text
    assert {asked[1] for asked in server.asked} <= {"/set/img/0.png"}


@pytest.mark.parametrize("other", ["", "set2/x.png", "x.png", "set/../x.png", "set/%2e%2e/x.png"])
def test_other_folders_of_the_same_server_are_outside(server: Web, tmp_path: Path, other: str):
    path = table(tmp_path / "t.csv", ["img/0.png", f"{server.url}/{other}"])
    with pytest.raises(ManifestError, match="data row 2 names"):
        read(path, f"{server.url}/set")


def test_a_table_chooses_no_server(server: Web, tmp_path: Path):
    """Not even one that all its rows name: for a table, a frame, and a config that is drafted."""
    cells = [f"{server.url}/set/img/{n}.png" for n in range(4)]
    path = table(tmp_path / "t.csv", cells)
    with pytest.raises(ManifestError, match="the address of a folder that holds all images, if you trust that server"):
        read(path, None)
    import pandas as pd

    frame = Frame(keep(pd.DataFrame({"image": cells}), "real"))
    with pytest.raises(ManifestError, match="leaves the image root"):
        frame.read("real", QUICK)
    assert root_of_absolute_paths(path, "real", QUICK) is None
    assert not server.asked


def test_a_redirect_makes_a_reject_not_a_request(server: Web, tmp_path: Path):
    with Web() as other:
        other.files["/x.png"] = png(1)
        server.redirects["/set/img/2.png"] = f"{other.url}/x.png"
        uris = [f"{server.url}/set/img/{n}.png" for n in range(4)]
        found = load_images(uris, QUICK)
        assert [isinstance(image, Reject) for image in found] == [False, False, True, False]
        assert "redirects to another host" in found[2].detail
        assert not other.asked


def test_what_was_listed_and_is_gone_is_a_reject(tmp_path: Path):
    """A bucket, a folder or a server that changes between the listing and the reading."""
    with Web() as server:
        server.files = {f"/set/{n}.png": png(n) for n in range(4)}
        for root in (f"{server.url}/set", str(tmp_path / "set"), "memory://gone/set"):
            uris = [join(root, f"{n}.png") for n in range(4)]
            if root != f"{server.url}/set":
                for n, uri in enumerate(uris):
                    QUICK.write(uri, png(n))
                assert len(QUICK.list(root)) == 4
                QUICK.delete(uris[1])
            else:
                del server.files["/set/1.png"]
            found = load_images(uris, QUICK)
            assert [getattr(image, "code", "") for image in found] == ["", "not_found", "", ""]


def test_tokens_of_cells_are_in_no_message(server: Web, tmp_path: Path):
    for cell in (
        "https://host/x.png?sig=hidden",
        "https://user:hidden@host/x.png",
        f"{server.url}/set/x.png?token=hidden",
        "img/0.png?sig=hidden",
    ):
        with pytest.raises(ManifestError) as refusal:
            read(table(tmp_path / "t.csv", ["img/0.png", cell]), f"{server.url}/set")
        assert "hidden" not in str(refusal.value)
        assert "names an address that" in str(refusal.value)


def test_versions_of_a_server_are_no_hashes(server: Web, tmp_path: Path):
    """Two files of one length and one time are not called the same image."""
    root = f"{server.url}/set"
    path = table(tmp_path / "t.csv", [f"img/{n}.png" for n in range(4)])
    rows = Table(path, image_root=root).read("real", QUICK)
    manifest = manifests.build("t", "real", rows, QUICK)
    assert manifest.etags == {}
    assert len(set(manifest.table["image_key"].to_pylist())) == 4
