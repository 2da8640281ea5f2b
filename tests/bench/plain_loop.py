"""The loop one would write without Ray: load, prepare and encode chunk by chunk in one process."""

from __future__ import annotations

import time
from typing import Any

from .accounting import serve

BATCH = 16
"""As chexray's CPU batches."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    from chexray.data.images import load_images
    from chexray.encoders.inception_v3 import InceptionV3
    from chexray.storage import Storage

    storage = Storage()
    encoder = InceptionV3(weights=job["inception"], storage=storage)
    encoder.resolve()
    encoder.load("cpu")
    torch.set_num_threads(job["threads"])
    paths, chunk = job["paths"], job["chunk"]
    n, cpu = 0, time.process_time()
    for start in range(0, len(paths), chunk):
        if start == chunk:  # what came before was start-up
            n, cpu = 0, time.process_time()
        for first in range(start, min(start + chunk, len(paths)), BATCH):
            batch = paths[first : min(first + BATCH, start + chunk)]
            images = load_images(batch, storage, threads=16, max_pixels=64_000_000)
            encoder.encode(np.stack([encoder.prepare(image) for image in images]))  # type: ignore[arg-type]
            n += len(batch)
    return {"cpu_s": time.process_time() - cpu, "n": n}


if __name__ == "__main__":
    serve(main)
