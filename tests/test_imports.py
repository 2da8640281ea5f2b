"""The direction of dependency of DESIGN.md, held by reading imports; and what `import chexray` may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from chexray import registry

PACKAGE = Path(__file__).resolve().parents[1] / "chexray"
FLOORS = (
    # From the ground up. A room imports from the floors below, and nothing beside itself.
    {"text", "findings", "suite_names", "grouping"},
    {"errors", "spelling", "log", "outputs"},
    {"contract"},
    {"plugin_files", "shipped"},
    {"storage", "registry"},
    {"plugins", "phantom", "protocols", "config", "figures"},
    {"data", "stats"},
    {"metrics", "encoders", "results"},
    {"utility", "privacy"},
    {"plan", "engine"},
    {"suites", "report"},
    {"run"},
    {"curation"},
    {"jobs"},
    {"doctor"},
    {"drafting"},
    {"cli"},
    {"__main__"},
)


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
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if file_of(name) else node.module for name in modules}
    return found


def file_of(name: str) -> Path | None:
    """The file of one of our modules, by its dotted name; None for everything else."""
    head, *rest = name.split(".")
    place = PACKAGE.joinpath(*rest)
    files = (place.with_suffix(".py"), place / "__init__.py") if rest else (PACKAGE / "__init__.py",)
    return next((file for file in files if file.is_file()), None) if head == "chexray" else None


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[Path]:
    """Our files that this one imports."""
    return {file for name in imported(path) if (file := file_of(name)) is not None} - {path}


def floor(room: str) -> int:
    return next(place for place, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part(path)
    for name in imported(path):
        if name.split(".")[0] in ("ray", "_ray"):
            assert own == "engine", f"{path} imports ray; only chexray/engine may"
    if own == "__init__":  # the public names, which load on use
        return
    for file in imports_of(path):
        other = part(file)
        if other != own and other != "__init__":
            assert floor(other) < floor(own), f"{path} imports {file}, against the design"


def test_no_circle_between_files() -> None:
    imports = {path: imports_of(path) for path in modules()}
    left = dict(imports)
    while True:  # files that import nothing which is left are no part of a circle
        free = [path for path, found in left.items() if not any(other in left for other in found)]
        if not free:
            break
        for path in free:
            del left[path]
    while True:  # nor are those that nothing which is left imports
        used = {other for found in (imports[path] for path in left) for other in found}
        unused = [path for path in left if path not in used]
        if not unused:
            break
        for path in unused:
            del left[path]
    assert not left, "files import each other in a circle: " + ", ".join(str(p.relative_to(PACKAGE)) for p in left)


def test_engine_never_names_a_metric_or_an_encoder() -> None:
    names = {name for kind in ("metrics", "encoders") for name in registry.names(kind)}
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
