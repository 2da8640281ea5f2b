"""One run of chexray as a measured command, from an empty feature store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .accounting import mark, serve


def config(job: dict[str, Any]) -> dict[str, Any]:
    """The run that answers what the upstream-shaped path answers."""
    return {
        "name": "bench",
        "protocol": job.get("protocol", "chexgenbench"),
        "encode": job.get("encode", {}),
        "real": {"name": "real", "path": job["real"]},
        "synthetic": [{"name": "synthetic", "path": job["synthetic"]}],
        "encoders": [
            {"name": "rad_dino", "weights": job["rad_dino"]},
            {"name": "inception_v3", "weights": job["inception"]},
        ],
        "metrics": ["fid", "kid", "prdc", "inception_score"],
        "subsets": job["subsets"],
        "floor": job["floor"],
        "output": job["output"],
        "ray": {"num_cpus": job["cpus"], "object_store_gb": 0.5},
    }


def main(job: dict[str, Any]) -> dict[str, Any]:
    from chexray import evaluate, parse_config

    run = evaluate(parse_config(config(job)))
    mark("done")
    provenance = json.loads((Path(run.uri) / "run.json").read_text())
    columns = ["metric", "value", "std_error", "encoder", "subset", "n_real", "n_synthetic", "status", "reason"]
    rows = run.results[columns].astype(object)
    return {
        "rows": rows.where(rows.notna(), None).to_dict("records"),
        "n_encoded": provenance["n_encoded_now"],
        "encode_cpu_s": provenance["encode_cpu_s"],
        "seconds": provenance["seconds"],
        "pool": provenance["pool"],
        "precision": provenance["precision"],
        "exit_code": run.exit_code,
    }


if __name__ == "__main__":
    serve(main)
