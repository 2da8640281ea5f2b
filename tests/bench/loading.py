"""What one worker pays before its first image: torch, the encoders' libraries and their weights. A measured command."""

from __future__ import annotations

import time
from typing import Any

from .accounting import serve
from .chexray_path import config


def main(job: dict[str, Any]) -> dict[str, Any]:
    import chexray.engine.worker  # noqa: F401 (a Ray worker has this before it is given a chunk)
    from chexray import parse_config
    from chexray.plan import make_plan

    plan = make_plan(parse_config(config({**job, "subsets": ["all"], "floor": False, "output": job["folder"]})))
    start = time.process_time()
    for encoder, _ in plan.encoders.values():
        encoder.load("cpu")
    return {"cpu_s": time.process_time() - start}


if __name__ == "__main__":
    serve(main)
