"""Writes images/lock/NAME.txt: what pip may install in the image, with the sha256 of each wheel.

Versions are those of images/constraints.txt and, for a variant, images/NAME.txt. Which of them are needed is read from
the packages' own metadata, for every Python and machine below. Only pip asks the index, and it downloads no wheel: it
reports the checksums that the index states, and compares each wheel with them when the image is built.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGES = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
GLIBC_MINOR = 34  # the oldest glibc of a base, 2.34: images/README.md
# pip before 24 downloads every wheel to report on it.
OLDEST_PIP = 24


class Target(NamedTuple):
    """One kind of Linux machine that the image is built for."""

    python: str
    machine: str

    def environment(self) -> dict[str, str]:
        """What PEP 508 markers ask, as CPython on that machine would answer."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def options(self) -> list[str]:
        """The same for pip: which wheels that machine can install, the newest tags first."""
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC_MINOR, 4, -1)]
        tags += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        return ["--python-version", self.python, *(word for tag in tags for word in ("--platform", tag))]


class Wheel(NamedTuple):
    """What the index says of one wheel: its version, checksum and requirements."""

    version: str
    sha256: str
    requires: list[str]


TARGETS = [Target(*pair) for pair in product(PYTHONS, MACHINES)]
# Takes `name==version` of each package wanted, and gives the wheel that pip would install by canonical name.
Ask = Callable[[list[str], Target], dict[str, Wheel]]


def fail(message: str) -> NoReturn:
    sys.exit(f"images/lock.py: {message}")


def roots(name: str) -> list[str]:
    """What is asked for by name; everything else in a lock is there because one of these needs it."""
    if name in {"pip", "sbom"}:
        return ["pip" if name == "pip" else "cyclonedx-bom"]
    project = tomllib.loads((IMAGES.parent / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["build-system"]["requires"]]


def pins(name: str) -> dict[str, str]:
    """The version of each package by canonical name; a variant's own pin replaces the common one (torch, for cpu)."""
    found = {}
    for path in (IMAGES / "constraints.txt", IMAGES / f"{name}.txt"):
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            if line and not line.startswith("#"):
                package, _, version = line.partition("==")
                found[canonicalize_name(package)] = version
    return found


def closure(asked: Iterable[str], pinned: dict[str, str], target: Target, ask: Ask) -> dict[str, Wheel]:
    """Every wheel that `asked` needs on `target`, by canonical name; ends the script where one is not pinned."""
    wheels: dict[str, Wheel] = {}
    waiting, seen = [Requirement(text) for text in asked], set()
    while waiting:
        new = sorted({canonicalize_name(needed.name) for needed in waiting} - set(wheels))
        for name in new:
            if name not in pinned:
                fail(f"{name} is needed on Python {target.python} {target.machine} and pinned nowhere in images/")
        if new:
            wheels |= ask([f"{name}=={pinned[name]}" for name in new], target)
        brought: list[Requirement] = []
        for needed in waiting:
            name, extras = canonicalize_name(needed.name), frozenset(needed.extras)
            if not needed.specifier.contains(wheels[name].version, prereleases=True):
                fail(f"{name}=={wheels[name].version} is pinned, but something needs {needed}")
            if (name, extras) not in seen:
                seen.add((name, extras))
                environments = [target.environment() | {"extra": extra} for extra in ("", *extras)]
                every = [Requirement(text) for text in wheels[name].requires]
                brought += [one for one in every if not one.marker or any(map(one.marker.evaluate, environments))]
        waiting = brought
    return wheels


def marker(targets: Iterable[Target]) -> str:
    """The marker that is true on these of TARGETS alone; empty where it is all of them."""
    chosen = sorted(targets)
    pythons, machines = {one.python for one in chosen}, {one.machine for one in chosen}
    if len(chosen) < len(pythons) * len(machines):
        pairs = [f'python_version == "{one.python}" and platform_machine == "{one.machine}"' for one in chosen]
        return " or ".join(f"({pair})" for pair in pairs)
    parts = []
    for variable, values, every in (("python_version", pythons, PYTHONS), ("platform_machine", machines, MACHINES)):
        either = " or ".join(f'{variable} == "{value}"' for value in sorted(values))
        if len(values) < len(every):
            parts.append(f"({either})" if len(values) > 1 else either)
    return " and ".join(parts)


def render(name: str, found: dict[Target, dict[str, Wheel]]) -> str:
    """The text of images/lock/NAME.txt."""
    sources = [path.name for path in (IMAGES / "constraints.txt", IMAGES / f"{name}.txt") if path.exists()]
    lines = [
        f"# Made by `python images/lock.py {name}` from {', '.join(sources)}; edit those instead.",
        f"# CPython {PYTHONS[0]} to {PYTHONS[-1]}, Linux on {' and '.join(MACHINES)}, glibc 2.{GLIBC_MINOR} or newer.",
    ]
    for package in sorted(set().union(*found.values())):
        wheels = {target: wheels[package] for target, wheels in found.items() if package in wheels}
        condition = marker(wheels)
        line = f"{package}=={next(iter(wheels.values())).version}" + (f" ; {condition}" if condition else "")
        lines.append(" \\\n    --hash=sha256:".join([line, *sorted({wheel.sha256 for wheel in wheels.values()})]))
    return "\n".join(lines) + "\n"


def pip_asker(index_options: list[str]) -> Ask:
    """Asks by `pip install --dry-run --report`; ends the script with pip's last line where it finds no such wheel."""

    def ask(wanted: list[str], target: Target) -> dict[str, Wheel]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
            command += ["--quiet", "--only-binary", ":all:", "--implementation", "cp", "--target", folder]
            command += ["--report", "-", *target.options(), *index_options, *wanted]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip said nothing"]
            fail(f"Python {target.python} {target.machine}: {lines[-1]}")
        return dict(map(_wheel, json.loads(done.stdout)["install"]))

    return ask


def _wheel(item: dict[str, Any]) -> tuple[str, Wheel]:
    told = item["metadata"]
    hashes = item["download_info"]["archive_info"]["hashes"]
    return canonicalize_name(told["name"]), Wheel(told["version"], hashes["sha256"], told.get("requires_dist", []))


def main() -> None:
    parser = argparse.ArgumentParser(prog="images/lock.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=["gpu", "cpu", "pip", "sbom"], nargs="+")
    for option in ("--index-url", "--extra-index-url", "--find-links"):
        parser.add_argument(option, help="as pip's own; pip's configuration counts too")
    given = vars(parser.parse_args())
    if int(metadata.version("pip").partition(".")[0]) < OLDEST_PIP:
        fail(f"pip {OLDEST_PIP} or newer is needed: {sys.executable} -m pip install -c images/constraints.txt pip")
    index = {"--" + key.replace("_", "-"): value for key, value in given.items() if key != "name" and value}
    ask = pip_asker([word for pair in index.items() for word in pair])
    for name in given["name"]:
        found = {target: closure(roots(name), pins(name), target, ask) for target in TARGETS}
        path = IMAGES / "lock" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(render(name, found))
        print(f"{path.relative_to(IMAGES.parent)}: {len(set().union(*found.values()))} packages")


if __name__ == "__main__":
    main()
