"""The process that meets the inputs: `python -m fuzz.worker SEED ROOT DESCRIPTOR`, "KIND NUMBER HOW" in,
JSON lines out: one when the input is made, one when it is judged.

Both output streams go to a file before anything is imported, so that what a C library prints is found there.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path


def main(seed: int, root: Path, answers: int) -> None:
    noise = root / "inputs" / "noise.txt"
    stream = os.open(noise, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(root / "cwd")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))

    import ray.data  # noqa: F401  registers the extension types that run code
    import torch
    from fuzz.attempt import kind_module, random_of, unmade
    from fuzz.judge import judged
    from fuzz.sandbox import Sandbox

    torch.set_num_threads(1)
    sandbox, seeds = Sandbox(root), {}
    answer(answers, {"ready": True})
    for line in sys.stdin:
        kind, number, how = line.split()
        module = kind_module(kind)
        if kind not in seeds:
            seeds_folder = root / "seeds" / f"{kind}-{os.getpid()}"
            seeds_folder.mkdir()
            seeds[kind] = module.prepare(seeds_folder)
        folder = sandbox.input(f"{kind}-{number}")
        try:
            attempt = module.attempt(seeds[kind], random_of(kind, seed, int(number)), folder)
        except Exception as error:
            attempt = unmade(error)
        answer(answers, {"how": attempt.how, "begun": True, "command": attempt.command})
        if how == "act":
            forget_peak()
            found = judged(attempt, noise, sandbox.watched)
            answer(answers, found | {"peak": memory("VmHWM"), "rest": memory("VmRSS")})


def answer(descriptor: int, body: dict) -> None:
    os.write(descriptor, json.dumps(body).encode() + b"\n")


def forget_peak() -> None:
    """Makes VmHWM that of one input."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def memory(field: str, pid: int | str = "self") -> int:
    """Bytes, from /proc; 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(field)), 0)
    except OSError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
