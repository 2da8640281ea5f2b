"""What the measurements read: phantom radiographs with upstream's tables, and formula-filled networks as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from PIL import Image

from chexray.findings import FINDINGS
from chexray.phantom import draw

POSITIVES_AN_IMAGE = 1.77
"""Of MIMIC-CXR's test set: how often a conditional run of upstream meets each image again."""

FEWEST = 7
"""Images that the `prdc` package needs for 5 neighbours, in every subset and every shard."""


def write_sets(folder: Path, n: int, size: int) -> dict[str, Any]:
    """n real and n synthetic phantoms, (size, size), as PNG files with upstream's two CSV tables; their paths.

    Prompts are distinct and each has one synthetic image. Positives are dealt out in turn, so that findings are equally
    frequent: the smallest real ones would have too few images for PRDC at the n of a benchmark.
    """
    total = round(POSITIVES_AN_IMAGE * n)
    findings = FINDINGS[: min(len(FINDINGS), total // FEWEST)]
    for side in ("real", "synthetic"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    real_rows, synthetic_rows = [], []
    dealt = 0
    for i in range(n):
        until = round(POSITIVES_AN_IMAGE * (i + 1))
        positive = {findings[j % len(findings)] for j in range(dealt, until)}
        dealt = until
        name, prompt = f"{i:05d}.png", f"study {i}: {', '.join(sorted(positive)) or 'none'}"
        drawn = sorted(positive - {"No Finding"})  # dealt like the others, it can meet an illness
        for side, generator, seed in (("real", "real", 1), ("synthetic", "good", 2)):
            image = draw(i, seed=seed, generator=generator, size=size, findings=drawn).image
            Image.fromarray(image).save(folder / side / name)
        labels = {finding: 1 if finding in positive else None for finding in FINDINGS}
        real_rows.append({"path": f"real/{name}", "annotated_prompt": prompt, "chexpert_labels": str(labels)})
        synthetic_rows.append({"img_savename": f"synthetic/{name}", "annotated_prompt": prompt})
    for side, rows in (("real", real_rows), ("synthetic", synthetic_rows)):
        with open(folder / f"{side}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return {
        "folder": str(folder),
        "real": str(folder / "real.csv"),
        "synthetic": str(folder / "synthetic.csv"),
        "findings": list(findings),
    }


def write_networks(folder: Path, architecture: dict[str, int], seed: int = 7) -> dict[str, str]:
    """An Inception and a RAD-DINO of the given architecture filled from a seed, saved as real weights are.

    As files, because both paths then load them as they would load the real ones, and neither pays for the filling.
    """
    import torch
    from safetensors.torch import save_file

    from chexray.encoders.fid_network import FidInception
    from chexray.encoders.network import fill_network
    from chexray.encoders.rad_dino import VIT_B_14, dinov2_shapes
    from chexray.encoders.random_fill import fill

    model = folder / "rad_dino"
    model.mkdir(parents=True, exist_ok=True)
    inception = folder / "inception.pth"
    torch.save(fill_network(FidInception(), seed).state_dict(), inception)
    config = {**VIT_B_14, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True, **architecture}
    state = {name: torch.from_numpy(value) for name, value in fill(dinov2_shapes(config), seed).items()}
    save_file(state, model / "model.safetensors", metadata={"format": "pt"})
    (model / "config.json").write_text(json.dumps({**config, "model_type": "dinov2"}))
    return {"inception": str(inception), "rad_dino": str(model)}
