"""chexray evaluates synthetic chest radiographs: fidelity, privacy and downstream utility.

    from chexray import evaluate
    run = evaluate("configs/quickstart.yaml")     # or evaluate(real="test/", synthetic="generated/", metrics="fid,kid")
    run.results                                   # one row, one number: value, interval, floor, n, provenance

Importing this package loads neither torch nor ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ChexrayError", "Run", "RunConfig", "__version__", "evaluate", "load_config", "parse_config", "read_results"]

if TYPE_CHECKING:
    from chexray.config import RunConfig, load_config, parse_config
    from chexray.errors import ChexrayError
    from chexray.results.reading import read_results
    from chexray.run.evaluation import Run, evaluate

_HOME = {
    "ChexrayError": "chexray.errors",
    "Run": "chexray.run.evaluation",
    "RunConfig": "chexray.config",
    "evaluate": "chexray.run.evaluation",
    "load_config": "chexray.config",
    "parse_config": "chexray.config",
    "read_results": "chexray.results.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'chexray' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """What users call; modules are reached by their own names."""
    return list(__all__)
