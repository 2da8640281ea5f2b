"""The folders of a run of the harness: a home, temporary files, one folder an input, and which are watched."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
NOT_PASSED = ("AWS_", "RAY_", "HF_", "FSSPEC_", "CHEXRAY_", "XDG_", "S3_", "TORCH_", "PYTHONWARNINGS", "COVERAGE")


@dataclass(frozen=True)
class Sandbox:
    """Below `root`: home, tmp, outside, cwd and seeds are watched; cache and inputs are chexray's to write in."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Sandbox:
        for name in ("home", "tmp", "outside", "cwd", "seeds", "cache", "inputs"):
            (root / name).mkdir(parents=True)
        (root / "outside" / "precious.txt").write_text("of another project\n")
        return cls(root)

    @property
    def watched(self) -> list[Path]:
        return [self.root / name for name in ("home", "tmp", "outside", "cwd", "seeds")]

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of whoever runs the harness, no network, one thread."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED)}
        return kept | {
            "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"),
            "XDG_CACHE_HOME": str(self.root / "cache"), "CHEXRAY_CACHE": str(self.root / "cache" / "chexray"),
            "TORCH_HOME": str(self.root / "cache" / "torch"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.root / "cache" / "inductor"),
            "HF_HOME": str(self.root / "cache" / "hf"), "MPLCONFIGDIR": str(self.root / "cache" / "matplotlib"),
            "HF_HUB_OFFLINE": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "FUZZ_MARKER": str(self.root / "outside" / "marker"),
        }  # fmt: skip

    def input(self, name: str) -> Path:
        """A new, empty folder for one input."""
        folder = self.root / "inputs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder
