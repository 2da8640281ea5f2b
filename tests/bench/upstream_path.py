"""The upstream-shaped path: metrics that own their networks, shard values averaged, findings by running it all again.

What CheXGenBench's metrics/fid.py does (facts: three Inception networks, one each for FID, KID and IS; RAD-DINO called
for FID, for KID and for PRDC; images squashed to 299 and enlarged by RAD-DINO's processor), written anew. Kind to it in
two ways: shards and findings are dealt to one single-threaded process a core, where upstream starts 4 + 14 processes
that each load all networks; and there are no workers for loading images.
"""

from __future__ import annotations

import ast
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from prdc import compute_prdc
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision import transforms

from chexray.encoders.fid_network import FidInception

from .accounting import mark, serve

MEAN, STD = 0.5307, 0.2583
BATCH = 32


class Images(Dataset):
    """RGB images squashed to 299 x 299, float in [0, 1]."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self.transform = transforms.Compose([transforms.Resize((299, 299)), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))  # pyright: ignore[reportReturnType]


class Inception(nn.Module):
    """A network of its own for each metric, as torchmetrics makes them."""

    num_features = 2048

    def __init__(self, weights: str):
        super().__init__()
        self.network = FidInception().eval().requires_grad_(False)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += len(images)
        with torch.inference_mode():
            return self.network((images.float() - 128) / 128)[0]


class RadDino(nn.Module):
    """RAD-DINO behind the processor it is published with."""

    def __init__(self, folder: str):
        super().__init__()
        import transformers

        # transformers 5 calls the processor RAD-DINO was published with by another name.
        processor: Any = getattr(transformers, "BitImageProcessorPil", transformers.BitImageProcessor)
        self.model: Any = transformers.Dinov2Model.from_pretrained(folder, local_files_only=True)
        self.model.eval().requires_grad_(False)
        side = self.model.config.image_size
        self.processor = processor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}, resample=3,
            image_mean=[MEAN] * 3, image_std=[STD] * 3,
        )  # fmt: skip
        self.num_features = self.model.config.hidden_size
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += len(images)
        inputs = self.processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            return self.model(**inputs).pooler_output


class Clock:
    """CPU and wall seconds of this process by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, list[float]] = {}
        self.last = [time.process_time(), time.perf_counter()]

    def lap(self, phase: str) -> None:
        present = [time.process_time(), time.perf_counter()]
        total = self.phases.setdefault(phase, [0.0, 0.0])
        for i in range(2):
            total[i] += present[i] - self.last[i]
        self.last = present


class Networks:
    def __init__(self, inception: str, rad_dino: str):
        self.inceptions = [Inception(inception) for _ in range(3)]
        self.rad_dino = RadDino(rad_dino)


def evaluate(
    networks: Networks, real: list[str], synthetic: list[str], clock: Clock, phase: str, *, scored: bool = True
):
    """All values of one process of upstream, none unless `scored`, and the features its KID metric and RAD-DINO made:
    {name: (real, synthetic)}."""
    size = min(len(real), len(synthetic))
    encoder = networks.rad_dino
    fid, fid_rad = FrechetInceptionDistance(networks.inceptions[0]), FrechetInceptionDistance(encoder)
    kid = KernelInceptionDistance(networks.inceptions[1], subset_size=size)
    kid_rad = KernelInceptionDistance(encoder, subset_size=size)
    score = InceptionScore(networks.inceptions[2])
    kept: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for is_real, paths in ((True, real), (False, synthetic)):
        for batch in DataLoader(Images(paths), batch_size=BATCH):
            images = (batch * 255).to(torch.uint8)
            for metric in (fid, fid_rad, kid, kid_rad) if scored else (kid,):
                metric.update(images, real=is_real)
            if scored and not is_real:
                score.update(images)
            kept[is_real].append(encoder(images))
    clock.lap(f"{phase} encode")
    real_rad, synthetic_rad = (torch.cat(kept[side]).numpy() for side in (True, False))
    values = _values(fid, fid_rad, kid, kid_rad, score, real_rad, synthetic_rad) if scored else {}
    clock.lap(f"{phase} metrics")
    pooled = torch.cat(kid.real_features).numpy(), torch.cat(kid.fake_features).numpy()  # type: ignore[arg-type]
    return values, {"inception_v3": pooled, "rad_dino": (real_rad, synthetic_rad)}


def _values(fid, fid_rad, kid, kid_rad, score, real_rad: np.ndarray, synthetic_rad: np.ndarray) -> dict[str, float]:
    values = {
        "inception_v3 fid": float(fid.compute()),
        "rad_dino fid": float(fid_rad.compute()),
        "inception_v3 kid": float(kid.compute()[0]),
        "rad_dino kid": float(kid_rad.compute()[0]),
        "inception_v3 inception_score": float(score.compute()[0]),
    }
    found = compute_prdc(real_rad, synthetic_rad, nearest_k=5)
    values |= {f"rad_dino {name}": float(value) for name, value in found.items()}
    return values


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Every `of`-th shard and finding from `part` on.

    job: the paths of inputs.write_sets and write_networks; n_shards, conditional, part, of; values, whether metrics are
    computed or features alone are made; features, a file to write.
    """
    warnings.filterwarnings("ignore")
    torch.manual_seed(42)
    torch.set_num_threads(1)
    folder = Path(job["folder"])
    clock = Clock()
    clock.last[0] = 0.0  # process_time counts from the start of the process: imports are start-up
    networks = Networks(job["inception"], job["rad_dino"])
    real, synthetic = pd.read_csv(job["real"]), pd.read_csv(job["synthetic"])
    real = real.drop_duplicates(subset=["annotated_prompt"]).reset_index(drop=True)
    labels = real["chexpert_labels"].apply(ast.literal_eval)
    real_paths = [str(folder / path) for path in real["path"]]
    synthetic_paths = [str(folder / path) for path in synthetic["img_savename"]]
    clock.lap("start-up")
    mark("loaded")

    part, of, n_shards = job["part"], job["of"], job["n_shards"]
    pieces = zip(np.array_split(real_paths, n_shards), np.array_split(synthetic_paths, n_shards), strict=True)
    shards, features = {}, {}
    for index, (a, b) in list(enumerate(pieces))[part::of]:
        shards[index], kept = evaluate(networks, a.tolist(), b.tolist(), clock, "overall", scored=job["values"])
        for name, sides in kept.items():
            for side, rows in zip(("real", "synthetic"), sides, strict=True):
                features[f"{index} {name} {side}"] = rows
    passes = {"inception": sum(net.passes for net in networks.inceptions), "rad_dino": networks.rad_dino.passes}
    mark("overall")

    findings = {}
    for finding in job["findings"][part::of] if job["conditional"] else []:
        rows = np.array([label[finding] == 1 for label in labels])
        wanted = synthetic["annotated_prompt"].isin(real["annotated_prompt"][rows])
        a, b = [[path for path, keep in zip(paths, mask, strict=True) if keep]
                for paths, mask in ((real_paths, rows), (synthetic_paths, wanted))]  # fmt: skip
        findings[finding] = evaluate(networks, a, b, clock, "conditional")[0]
    mark("conditional")
    all_passes = {"inception": sum(net.passes for net in networks.inceptions), "rad_dino": networks.rad_dino.passes}
    np.savez(job["features"], **features)
    return {
        "shards": shards,
        "findings": findings,
        "passes": passes,
        "all_passes": all_passes,
        "n_images": len(real_paths) + len(synthetic_paths),
        "phases": clock.phases,
    }


if __name__ == "__main__":
    serve(main)
