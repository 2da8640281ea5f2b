"""What one worker pays before its first image: torch, the encoders' libraries and their weights. A measured command.

In a fresh process that is handed the resolved encoders, as Ray's workers are: planning has imported torch already.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from .accounting import serve
from .chexray_path import config

_WORKER = """
import pickle, sys, time
import chexray.engine.worker  # a Ray worker has this before it is given a chunk
encoders = pickle.load(open(sys.argv[1], "rb"))
start = time.process_time()
for encoder in encoders:
    encoder.load("cpu")
print(time.process_time() - start)
"""


def main(job: dict[str, Any]) -> dict[str, Any]:
    from chexray import parse_config
    from chexray.plan import make_plan

    plan = make_plan(parse_config(config({**job, "subsets": ["all"], "floor": False, "output": job["folder"]})))
    file = Path(job["folder"]) / "encoders.pickle"
    file.write_bytes(pickle.dumps([encoder for encoder, _ in plan.encoders.values()]))
    found = subprocess.run([sys.executable, "-c", _WORKER, str(file)], check=True, capture_output=True, text=True)
    return {"cpu_s": float(found.stdout.split()[-1])}


if __name__ == "__main__":
    serve(main)
