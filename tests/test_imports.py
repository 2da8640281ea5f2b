"""The direction of dependency of DESIGN.md, held by reading imports; and what `import chexray` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "chexray"
LEAVES = {"contract", "errors", "findings", "log", "plugin_files", "registry", "storage", "text"}
ALLOWED = {
    "__main__": {"cli"},
    "text": set(),
    "errors": {"text"},
    "log": {"text"},
    "findings": set(),
    "contract": {"text"},
    "plugin_files": {"errors", "text"},
    "registry": {"contract", "plugin_files", "errors", "text"},
    "plugins": {"__init__", "registry", "text"},
    "storage": {"storage", "errors", "text"},
    "config": {"config", "errors", "text"},
    "protocols": {"errors", "text"},
    "rundir": {"storage", "errors", "text"},
    "stopping": set(),
    "provenance": {"__init__", "plan", "rundir"},
    "phantom": {"phantom", "findings", "errors"},
    "stats": {"stats", "errors", "text"},
    "metrics": {"metrics", "stats", "contract", "plugin_files", "errors", "text"},
    "encoders": {"encoders", *LEAVES},
    "data": {"data", "phantom", *LEAVES},
    "results": {"results", *LEAVES},
    "engine": {"__init__", "engine", "config", "data", "encoders", "metrics", "stats", "utility", *LEAVES},
    "utility": {"utility", "encoders", "stats", "metrics", *LEAVES},
    "figures": {"figures", *LEAVES},
    "privacy": {"privacy", "metrics", "stats", "errors", "text"},
    "plan": {"plan", "config", "protocols", "plugins", "data", "encoders", "metrics", "utility", *LEAVES},
    "suites": {
        "__init__",
        "suites",
        "plan",
        "engine",
        "data",
        "metrics",
        "privacy",
        "stats",
        "utility",
        "figures",
        *LEAVES,
    },
    "recording": {"__init__", "data", "plan", "results", "rundir", *LEAVES},
    "rejecting": {"plan", "suites", "errors"},
    "evaluation": {
        "__init__",
        "config",
        "inputs",
        "plugins",
        "plan",
        "provenance",
        "recording",
        "rejecting",
        "suites",
        "engine",
        "results",
        "rundir",
        "stopping",
        *LEAVES,
    },
    "shipped": {"errors"},
    "drafting": {"config", "data", "doctor", "plan", "protocols", "shipped", *LEAVES},
    "inputs": {"config", "data", "errors", "text"},
    "filtering": {"config", "protocols", "plan", "data", "results", *LEAVES},
    "auditing": {
        "__init__",
        "auditing",
        "config",
        "plan",
        "suites",
        "evaluation",
        "data",
        "metrics",
        "privacy",
        "stats",
        "results",
        "rundir",
        *LEAVES,
    },
    "jobs": {"__init__", "jobs", "config", "plan", "engine", "rundir", "shipped", *LEAVES},
    "doctor": {"__init__", "doctor", "config", "plan", "engine", "data", "encoders", "jobs", "utility", *LEAVES},
    "cli": {
        "__init__",
        "doctor",
        "jobs",
        "config",
        "plan",
        "protocols",
        "cli",
        "evaluation",
        "auditing",
        "drafting",
        "filtering",
        "data",
        "engine",
        "results",
        "stopping",
        *LEAVES,
    },
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names this file imports, anywhere in it, except under TYPE_CHECKING."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_design(path: Path) -> None:
    own = part(path)
    for name in imported(path):
        head, *rest = name.split(".")
        if head in ("ray", "_ray"):
            assert own == "engine", f"{path} imports ray; only chexray/engine may"
        if head == "chexray" and own != "__init__":
            other = rest[0] if rest else "__init__"
            assert other in ALLOWED[own], f"{path} imports chexray.{'.'.join(rest)}, against the design"


def test_engine_never_names_a_metric_or_an_encoder() -> None:
    names = {path.stem for kind in ("metrics", "encoders") for path in (PACKAGE / kind).glob("*.py")}
    names -= {"__init__", "base", "common"}
    for path in (PACKAGE / "engine").glob("*.py"):
        text = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not names & {value for value in text if isinstance(value, str)}, path


def test_import_and_help_load_neither_torch_nor_ray() -> None:
    code = (
        "import sys, chexray, chexray.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(chexray.cli.app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(chexray.cli.app, ['ls', 'encoders']).exit_code == 0\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
