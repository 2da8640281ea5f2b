"""The image is made of what is known: a base with a digest, wheels with their sha256, and an SBOM that lists them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from fixtures.dockerfiles import only, stages
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted(path.stem for path in (ROOT / "images/lock").glob("*.txt"))
LOCKED_VARIANTS = [name for name in LOCKS if name in {"gpu", "cpu"}]


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("images_lock", ROOT / "images/lock.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def entries(name: str) -> dict[str, tuple[str, Marker | None, list[str]]]:
    """Of each package of a lock, by canonical name: version, marker, checksums. Every line must be one of an entry."""
    text = (ROOT / f"images/lock/{name}.txt").read_text()
    found: dict[str, tuple[str, Marker | None, list[str]]] = {}
    for entry in re.sub(r" \\\n +", " ", text).splitlines():
        if entry.startswith("#"):
            continue
        head, *hashes = entry.split(" --hash=sha256:")
        requirement = Requirement(head)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", entry
        key = canonicalize_name(requirement.name)
        assert key not in found, f"images/lock/{name}.txt has {key} twice"
        found[key] = (specifier.version, requirement.marker, hashes)
    return found


def needed() -> set[str]:
    """All that chexray's dependencies and its build bring, read from what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    waiting = [
        Requirement(text) for text in (*project["project"]["dependencies"], *project["build-system"]["requires"])
    ]
    seen: set[tuple[str, ...]] = set()
    while waiting:
        one = waiting.pop()
        key = (canonicalize_name(one.name), *sorted(one.extras))
        if key in seen:
            continue
        seen.add(key)
        with contextlib.suppress(metadata.PackageNotFoundError):
            brought = [Requirement(text) for text in metadata.requires(one.name) or ()]
            extras = [*one.extras, ""]
            waiting += [
                each for each in brought if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
            ]
    return {name for name, *_ in seen}


def test_the_default_image_pip_and_the_sbom_tool_are_locked():
    assert {"gpu", "pip", "sbom"} <= set(LOCKS)
    assert list(entries("pip")) == ["pip"]
    assert "cyclonedx-bom" in entries("sbom")


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_checksums_and_the_version_that_is_pinned(lock: ModuleType, name: str):
    pinned = lock.pins(name)
    for package, (version, _, hashes) in entries(name).items():
        assert version == pinned.get(package), f"{package} in images/lock/{name}.txt: run python images/lock.py {name}"
        assert hashes, f"images/lock/{name}.txt: {package} has no sha256"
        assert len(set(hashes)) == len(hashes)
        assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes), package
        assert len(hashes) <= len(lock.TARGETS)


@pytest.mark.parametrize("name", LOCKED_VARIANTS)
def test_a_variant_is_locked_with_all_that_is_needed_and_no_more(lock: ModuleType, name: str):
    locked = entries(name)
    here = {package for package, (_, marker, _) in locked.items() if marker is None or marker.evaluate()}
    # CUDA's packages are not installed beside every torch, so those of gpu.txt count as needed, and must be there.
    own = {canonicalize_name(line.partition("==")[0]) for line in lines_of(ROOT / f"images/{name}.txt")}
    cuda = {canonicalize_name(line.partition("==")[0]) for line in lines_of(ROOT / "images/gpu.txt")}
    assert own <= set(locked), f"run python images/lock.py {name}"
    expected = (needed() - cuda) | own
    assert here == expected, f"run python images/lock.py {name}"


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def made_up_index(lock: ModuleType, packages: dict[str, list[str]]):
    """Answers as pip does, for packages of version 1 with these requirements."""

    def ask(wanted: list[str], target):
        names = [text.partition("==")[0] for text in wanted]
        return {name: lock.Wheel("1", f"{name} {target.machine}", packages[name]) for name in names}

    return ask


def test_the_closure_follows_extras_and_the_markers_of_the_machine_asked_for(lock: ModuleType):
    packages = {
        "a": ['b; extra == "more"', 'arm; platform_machine == "aarch64"', 'old; python_version < "3.12"'],
        "b": ["a[more]"],
        "arm": [],
        "old": [],
    }
    pinned = dict.fromkeys(packages, "1")
    found = {
        target: set(lock.closure(["a[more]"], pinned, target, made_up_index(lock, packages))) for target in lock.TARGETS
    }
    assert found[lock.Target("3.11", "x86_64")] == {"a", "b", "old"}
    assert found[lock.Target("3.13", "aarch64")] == {"a", "b", "arm"}


def test_a_package_that_is_not_pinned_or_pinned_wrong_ends_in_one_line(lock: ModuleType):
    target = lock.TARGETS[0]
    with pytest.raises(SystemExit, match=r"^images/lock.py: b is needed on Python 3.11 x86_64 and pinned nowhere"):
        lock.closure(["a"], {"a": "1"}, target, made_up_index(lock, {"a": ["b"]}))
    with pytest.raises(SystemExit, match=r"^images/lock.py: a==1 is pinned, but something needs a>=2$"):
        lock.closure(["a>=2"], {"a": "1"}, target, made_up_index(lock, {"a": []}))


def test_a_marker_is_true_where_a_package_is_needed_and_nowhere_else(lock: ModuleType):
    every = lock.TARGETS
    assert lock.marker(every) == ""
    for chosen in (every[:2], every[:4], every[::2], every[1::2], every[:1], [every[0], every[3]], every[1:]):
        marker = Marker(lock.marker(chosen))
        assert {target for target in every if marker.evaluate(target.environment())} == set(chosen)


def test_a_lock_is_read_back_as_it_was_written(lock: ModuleType):
    old, new = lock.TARGETS[0], lock.TARGETS[-1]
    wheel = lock.Wheel("1.0", "f" * 64, [])
    text = lock.render(
        "pip", {target: {"x": wheel} for target in lock.TARGETS} | {new: {"x": wheel._replace(sha256="0" * 64)}}
    )
    assert text.splitlines()[2:] == ["x==1.0 \\", f"    --hash=sha256:{'0' * 64} \\", f"    --hash=sha256:{'f' * 64}"]
    assert 'python_version == "3.11" and platform_machine == "x86_64"' in lock.render(
        "pip", {old: {"x": wheel}, new: {}}
    )


def test_of_a_variant_its_own_pin_holds(lock: ModuleType):
    assert lock.pins("cpu")["torch"].endswith("+cpu")
    assert not lock.pins("gpu")["torch"].endswith("+cpu")


def test_what_comes_over_the_network_is_checked_by_hash_pip_first(dockerfile: str):
    runs = [rest for stage in stages(dockerfile) for word, rest in stage if word == "RUN" and "pip install" in rest]
    online = [run for run in runs if "--no-index" not in run]
    assert len(online) == 1
    options = re.search(r"set -- ([^;]*);", online[0])
    assert options
    assert {"--require-hashes", "--only-binary"} <= set(options[1].split())
    installs = re.findall(r"pip(?: --python \S+)? install (.*?) (?:&&|$)", online[0])
    assert installs
    assert all('"$@" -r' in each for each in installs)
    assert installs[0].endswith("/build/lock/pip.txt")


def base_check(dockerfile: str, tmp_path: Path, base: str, release: str) -> subprocess.CompletedProcess:
    """Runs the Dockerfile's own check of BASE_IMAGE in a shell."""
    stage = next(stage for stage in stages(dockerfile) if stage[0][1].endswith("AS base-check"))
    command = only(stage, "RUN").replace(" /base-checked", f" '{tmp_path}/checked'")
    env = {"PATH": os.environ["PATH"], "BASE_IMAGE": base, "RELEASE": release}
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=30, check=False)


DIGEST = f"registry.example/python@sha256:{'0' * 64}"  # of no image


@pytest.mark.parametrize(("base", "release"), [("python:3.11-slim", "0"), (DIGEST, "0"), (DIGEST, "1")])
def test_a_base_is_accepted(dockerfile: str, tmp_path: Path, base: str, release: str):
    done = base_check(dockerfile, tmp_path, base, release)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("base", "release"), [("python:3.11-slim", "1"), ("python@sha256:", "1"), ("python:3.11-slim", "yes")]
)
def test_a_release_needs_a_base_with_a_digest(dockerfile: str, tmp_path: Path, base: str, release: str):
    done = base_check(dockerfile, tmp_path, base, release)
    assert done.returncode != 0
    assert done.stderr == f"RELEASE={release} needs BASE_IMAGE=NAME@sha256:DIGEST, not {base}: images/README.md\n"
    assert not (tmp_path / "checked").exists()


def test_nothing_is_installed_before_the_base_is_checked(dockerfile: str):
    dependencies = next(stage for stage in stages(dockerfile) if stage[0][1].endswith("AS dependencies"))
    words = [f"{word} {rest}" for word, rest in dependencies]
    checked = words.index("COPY --from=base-check /base-checked /build/")
    assert checked < next(i for i, text in enumerate(words) if "pip install" in text)


def test_the_sbom_is_in_the_image_and_its_tool_is_not(dockerfile: str):
    *_, before, last = stages(dockerfile)
    package = " ".join(rest for word, rest in before if word == "RUN")
    assert "/opt/sbom/bin/cyclonedx-py environment" in package
    assert "--output-reproducible" in package
    assert "--output-file /opt/package/sbom.cdx.json" in package
    copied = [rest.split() for word, rest in last if word == "COPY"]
    assert copied == [
        ["--from=dependencies", "/opt/chexray", "/opt/chexray"],
        ["--from=package", "/opt/package", "/opt/chexray"],
    ]
