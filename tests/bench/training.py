"""Training on a local Ray against a plain torch loop, and the image cache against decoding in every epoch.

Both train the same network on the same resized images in memory, with the same batches a step and the same threads, and
time their training steps alone, from the second epoch on; start-up, validation and commits are not in it. They take
turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .accounting import measure, serve
from .tables import Report, median, spread, table, verdict

RATE_TARGET = 0.9
BATCH = 32


@dataclass(frozen=True)
class Size:
    """images of `drawn` pixels a side, resized to `side`; epochs timed in each turn."""

    n: int
    drawn: int
    side: int
    model: str
    epochs: int
    repeats: int


SIZES = {
    "tiny": Size(48, 64, 32, "test_resnet", 1, 1),
    "quick": Size(256, 512, 128, "test_resnet", 2, 1),
    "default": Size(768, 512, 128, "resnet18", 2, 3),
    "full": Size(1024, 1024, 224, "resnet50", 2, 3),
}


def run(size_name: str = "default") -> Report:
    size = SIZES[size_name]
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="cxb-") as folder:
        job = {**vars(size), "threads": threads, "folder": folder}
        inputs = measure("bench.training", {**job, "what": "inputs"}).result
        plain, ours, could = [], [], []
        for repeat in range(size.repeats):
            plain.append(measure("bench.training", {**job, "what": "plain"}).result["rate"])
            answer = measure("bench.training", {**job, "what": "chexray", "seed": repeat}).result
            ours.append(answer["rate"])
            could.append(answer["input"])
    shares = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    gain = inputs["cached"] / inputs["decoded"]
    header = ["images/s", "plain torch loop", "chexray", "share", "its input could give"]
    cells = [
        f"{size.model}, {size.side} px",
        spread(plain, ".0f"),
        spread(ours, ".0f"),
        spread(shares),
        spread(could, ".0f"),
    ]
    cache = [
        f"{size.drawn} px PNG to {size.side} px",
        f"{inputs['decoded']:.0f}",
        f"{inputs['cached']:.0f}",
        f"{gain:.0f}x",
    ]
    what = f"training {size.model} at {size.side} px, {threads} threads: images/s over a plain torch loop's"
    rows = [
        [what, f"{median(shares):.2f}", f">= {RATE_TARGET:g}", verdict(median(shares) >= RATE_TARGET)],
        [f"image cache over decoding {size.drawn} px PNG in every epoch, images/s", f"{gain:.0f}x", "", ""],
    ]
    text = "\n".join(
        [
            f"{size.n} images, batches of {BATCH}, {size.epochs} epochs a turn, {size.repeats} turns, median and range",
            "",
            table(header, [cells]),
            "",
            table(["reading images/s", "decoding", "cache", "gain"], [cache]),
        ]
    )
    return Report(text, rows)


def main(job: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": _inputs, "plain": _plain, "chexray": _chexray}[job["what"]](job)


def _config(job: dict[str, Any]) -> Any:
    """A run that trains on real phantoms alone; its synthetic set is only there because a run must have one."""
    from chexray import parse_config

    phantom = {"source": "phantom", "generator": "real", "size": job["drawn"]}
    return parse_config(
        {
            "suite": "utility",
            "real": {"name": "test", **phantom, "n": 32, "seed": 1},
            "training": {"name": "training", **phantom, "n": job["n"], "seed": 5},
            "synthetic": [{"name": "synthetic", **phantom, "generator": "good", "n": 32, "seed": 2}],
            "utility": {
                "settings": "real",
                "seeds": 1,
                "faithfulness": False,
                "figures": False,
                "model": {"name": job["model"], "weights": "none"},
                "image_size": job["side"],
                "epochs": job["epochs"] + 1,
                "batch_size": BATCH,
                "augment": "none",
                "schedule": "constant",
                "resamples": 100,
            },
            "seed": job.get("seed", 0),
            "output": f"{job['folder']}/out",
            "feature_store": f"{job['folder']}/features",
        }
    )


def _chexray(job: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    from chexray import evaluate

    run = evaluate(_config(job))
    history = pd.read_parquet(f"{run.uri}/history.parquet").iloc[1:]
    seconds = (history["images"] / history["images_per_s"]).sum()
    busy = (history["images"] / history["input_images_per_s"]).sum()
    return {"rate": history["images"].sum() / seconds, "input": history["images"].sum() / busy}


def _plain(job: dict[str, Any]) -> dict[str, Any]:
    """The loop one would write: images in memory, a shuffle an epoch, AdamW, BCE."""
    import numpy as np
    import timm
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    stored = np.load(f"{job['folder']}/images.npz")
    images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"]).float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    model = timm.create_model(job["model"], pretrained=False, num_classes=14).to(memory_format=torch.channels_last)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01)
    loss_of = torch.nn.BCEWithLogitsLoss()
    start = 0.0
    for epoch in range(job["epochs"] + 1):
        if epoch == 1:  # the first one is warming up
            start = time.perf_counter()
        for batch in torch.randperm(len(images)).split(BATCH):
            x = images[batch].float().div(255)[:, None].expand(-1, 3, -1, -1)
            x = ((x - mean[:, None, None]) / std[:, None, None]).contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(x), labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return {"rate": job["epochs"] * len(images) / (time.perf_counter() - start)}


def _inputs(job: dict[str, Any]) -> dict[str, Any]:
    """Draws the images, fills the cache by a first run, times both ways to read them, and keeps them for the loop."""
    import numpy as np

    from chexray import evaluate
    from chexray.data.images import load_images
    from chexray.engine.features import FeatureStore
    from chexray.plan import make_plan
    from chexray.plan.utility import IMAGES

    config = _config({**job, "epochs": 1, "seed": 1000})
    evaluate(config)
    plan = make_plan(config)
    encoder, spec = plan.encoders[IMAGES]
    assert plan.utility is not None
    sample = plan.utility.cohorts().training.sample
    uris = plan.images.uris.take(pa.array(plan.images.places(pa.array(sample.keys)))).to_pylist()
    start = time.perf_counter()
    for first in range(0, len(uris), 64):
        for image in load_images(uris[first : first + 64], plan.storage):
            encoder.prepare(image)  # type: ignore[arg-type]
    decoded = len(uris) / (time.perf_counter() - start)
    store = FeatureStore(plan.store_uri, plan.storage)
    start = time.perf_counter()
    images = store.read(spec, "image", sample.keys.tolist(), store.done(spec))
    cached = len(uris) / (time.perf_counter() - start)
    np.savez(f"{job['folder']}/images.npz", images=images.reshape(-1, *spec.input_shape), labels=sample.labels == 1)
    return {"decoded": decoded, "cached": cached}


if __name__ == "__main__":
    serve(main)
