"""Zipped images in S3 on a cluster of a head and two workers, handed over by `ray job submit`, with one worker killed.

The archive of each set is read by ranges alone: every node has a way of its own to the server, which counts. The worker
is killed once some parts are committed; the other one must finish with the numbers of one machine.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fixtures.nodes import Gateway, nodes
from fixtures.s3 import SECRET, make_bucket, reach, running_server

from chexray import evaluate, parse_config, read_results

N, N_QUICK, SIDE = 5_000, 400, 48
ENCODERS = [{"name": "pixels", "side": 8}]
KILLED_AFTER = 3
"""Parts committed when a worker is killed."""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
BY_DESIGN = ("created_at", "run_id", "real_set", "synthetic_set")
"""Columns that name the run and the places of its images."""


def run(quick: bool) -> bool:
    """Whether the run ended well, each image is stored once, and every number is that of one machine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        n = N_QUICK if quick else N
        files = {name: _archive(folder / f"{name}.zip", n if name == "synthetic" else n // 5, seed)
                 for seed, name in enumerate(("real", "synthetic"))}  # fmt: skip
        alone = _numbers(evaluate(parse_config(_config(folder, folder / "out"))).results)
        server = stack.enter_context(running_server())
        s3 = reach(server, make_bucket(server, "archives"))
        for name, path in files.items():
            s3.storage.write(f"{s3.bucket}/{name}.zip", path.read_bytes())
        gateways = {name: stack.enter_context(Gateway(server)) for name in ("head", "one", "two")}
        environments = {name: {**KEYS, "AWS_ENDPOINT_URL": each.url} for name, each in gateways.items()}
        cluster = stack.enter_context(nodes(environments))
        blow = _Blow(gateways)
        file = folder / "run.yaml"
        file.write_text(json.dumps(_config(s3.bucket, f"{s3.bucket}/out")))
        words = ("job", "submit", "--address", cluster.jobs, "--", "chexray", "run", str(file))
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(cluster.command, "ray", *words)
            job.add_done_callback(lambda _: blow.is_due.set())
            blow.is_due.wait()
            in_the_middle = not job.done()
            if in_the_middle:
                cluster.workers["one"].kill()
            done = job.result()
        took = time.monotonic() - started
        if done.returncode or not in_the_middle:
            print((done.stdout + done.stderr)[-3000:] if done.returncode else "the run ended before the blow")
            return False
        uri = re.search(r"^results: (\S+)$", done.stdout, re.MULTILINE)[1]
        keys = [
            key
            for entry in s3.storage.list(f"{s3.bucket}/out")
            if re.search(r"/(part|rejects)-\w+\.parquet$", entry.uri)
            for key in s3.storage.read_parquet(entry.uri, ["image_key"])["image_key"].to_pylist()
        ]
        found = _numbers(read_results(uri, s3.storage))
        read = sum(n for each in gateways.values() for path, n in each.n_bytes.items() if path.endswith(".zip"))
        size = sum(path.stat().st_size for path in files.values())
        rejects = len(s3.storage.read_parquet(f"{uri}/rejects.parquet"))
    n_images = n + n // 5
    once, equal = len(keys) == len(set(keys)) == n_images, _equal(found, alone)
    share = read / size
    print(f"| {n_images:,} zipped images, one of two workers killed | {took:.0f} s | "
          f"{len(keys):,} stored, {rejects} rejects | {share:.2f} of the archives read | "
          f"{'the numbers of one machine' if equal else 'OTHER NUMBERS'} |", flush=True)  # fmt: skip
    return once and equal and not rejects


class _Blow:
    """`is_due` once KILLED_AFTER parts are committed by any node."""

    def __init__(self, gateways: dict[str, Gateway]):
        self.is_due, self._parts, self._lock = threading.Event(), 0, threading.Lock()
        for gateway in gateways.values():
            gateway.before = self._before

    def _before(self, method: str, path: str, _: bytes) -> None:
        with self._lock:
            self._parts += method == "PUT" and "/part-" in path
            if self._parts >= KILLED_AFTER:
                self.is_due.set()


def _archive(path: Path, n: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(n):
            sink = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(sink, "PNG")
            archive.writestr(f"images/{i:05d}.png", sink.getvalue())
    return path


def _config(place: str | Path, output: str | Path) -> dict:
    """A config without an endpoint or a key: each node has them in its environment."""
    return {
        "real": {"path": f"{place}/real.zip", "name": "real"},
        "synthetic": [{"path": f"{place}/synthetic.zip", "name": "synthetic"}],
        "encoders": ENCODERS, "metrics": ["fid", "kid", "prdc"], "output": str(output), "floor": False,
    }  # fmt: skip


def _numbers(results: pd.DataFrame) -> pd.DataFrame:
    return results.drop(columns=list(BY_DESIGN))


def _equal(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    except AssertionError as error:
        print(error)
        return False
    return True
