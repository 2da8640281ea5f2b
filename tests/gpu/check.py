"""Is a GPU right, and is it used? One command on a machine with torch, without Ray:

    python tests/gpu/check.py                     # within ten minutes; check.json and a table
    python tests/gpu/check.py --quick             # smaller networks and fewer images, about a minute
    python tests/gpu/check.py --sections speed    # encoders, speed, tiles

encoders: the same images on CPU and GPU in fp32, tf32 and bf16: error of features, shift of FID and KID.
speed: images a second of the bare network, of `encode`, and with decoding, beside the limit that the network sets.
tiles: KID, PRDC and the search for copies beside the rate of a matrix product.

Needs torch and numpy, and Pillow for images. Networks need what they are made of (transformers, torchvision, timm,
safetensors); one that cannot be built is a line that says why. Nothing is downloaded: weights come from a seed, or from
the package that chexray[demo] installs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SECTIONS = ("encoders", "speed", "tiles")
BUDGET_S = 480.0


@dataclass
class Check:
    """One check: what it runs on and how much, what it found, and when it must end. size: full, quick or tiny."""

    device: str
    size: str
    ends_at: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, section: str, what: str, **values: Any) -> None:
        """A row of the table, shown at once."""
        row = {"section": section, "what": what, **values}
        self.rows.append(row)
        print(line_of(row), flush=True)

    def is_late(self, section: str, what: str) -> bool:
        """Whether no time is left for it, which is then a row."""
        if time.monotonic() < self.ends_at:
            return False
        self.add(section, what, skipped="no time left")
        return True

    def choose(self, **by_size: Any) -> Any:
        """The value for this size."""
        return by_size[self.size]


def line_of(row: dict[str, Any]) -> str:
    """A row as a line of the table."""
    values = [f"{name} {_number(value)}" for name, value in row.items() if name not in ("section", "what")]
    return f"{row['section']:<9} {row['what']:<44} {'  '.join(values)}"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    from chexray.encoders.capability import machine as capability

    return {
        "python": platform.python_version(), "torch": torch.__version__, "device": device,
        "kind": capability(device).kind, "cpu_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
    }  # fmt: skip


def run(sections: list[str], device: str, size: str, budget_s: float = BUDGET_S) -> dict[str, Any]:
    """{"machine", "size", "seconds", "rows"} of these sections."""
    from gpu import encoders, speed, tiles

    start = time.monotonic()
    check = Check(device, size, start + budget_s)
    for name in sections:
        try:
            {"encoders": encoders, "speed": speed, "tiles": tiles}[name].run(check)
        except Exception as error:  # the other sections still say what they find
            check.add(name, "section ended", right=False, error=f"{type(error).__name__}: {str(error)[:300]}")
    seconds = round(time.monotonic() - start, 1)
    return {"machine": machine(device), "size": size, "seconds": seconds, "rows": check.rows}


def main(words: list[str] | None = None) -> int:
    import torch

    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of %(default)s")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=there, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="smaller networks, fewer images")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: for the tests")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds after which nothing new is begun")
    parser.add_argument("--output", type=Path, default=Path("check.json"), help="default: %(default)s")
    given = parser.parse_args(words)
    sections = [name.strip() for name in given.sections.split(",")]
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--sections: {', '.join(sorted(unknown))}; expected some of {', '.join(SECTIONS)}")
    size = "tiny" if given.tiny else "quick" if given.quick else "full"
    found = run(sections, given.device, size, given.budget)
    given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    wrong = [row for row in found["rows"] if row.get("right") is False]
    print(f"{len(found['rows'])} rows in {found['seconds']:.0f} s, {len(wrong)} wrong -> {given.output}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
