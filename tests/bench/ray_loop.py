"""chexray's encode stage on Ray as a measured command, with the moment each chunk was committed."""

from __future__ import annotations

import time
from typing import Any

from .accounting import mark, serve


def main(job: dict[str, Any]) -> dict[str, Any]:
    from chexray.config import EncodeConfig, RayConfig
    from chexray.data.image_list import ImageList
    from chexray.encoders.inception_v3 import InceptionV3
    from chexray.engine import encode
    from chexray.engine.chunks import run_chunks
    from chexray.engine.cluster import cluster
    from chexray.engine.features import FeatureStore
    from chexray.engine.pools import plan_pool
    from chexray.engine.worker import Job
    from chexray.storage import Storage

    config, storage = EncodeConfig(chunk_size=job["chunk"]), Storage()
    encoder = InceptionV3(weights=job["inception"], storage=storage)
    encoders = {"inception_v3": (encoder, encoder.resolve())}
    store = FeatureStore(job["output"], storage)
    images = ImageList.of({path: path for path in job["paths"]})
    with cluster(RayConfig(num_cpus=job["cpus"], object_store_gb=0.5)) as resources:
        mark("ray")
        pool = plan_pool(config, resources, n_images=len(images))
        work = Job(encoders, store, pool)
        chunks, _ = encode.plan_chunks(images, encoders, work.done(), pool.chunk_size)
        stage = encode.encode_stage(work)
        rows = [{**row, "at": time.monotonic()} for row in run_chunks(stage, chunks)]
        mark("encoded")
    return {"rows": rows, "actors": pool.actors, "threads": pool.torch_threads}


if __name__ == "__main__":
    serve(main)
