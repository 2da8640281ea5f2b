"""The image's files obey their own rules, and their versions agree; building and trying it is images/try.sh's part."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from fixtures.dockerfiles import instructions, only, stages
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chexray

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VARIANTS = sorted(path.stem for path in (ROOT / "images").glob("*.txt") if path.stem != "constraints")


def pins(name: str) -> dict[str, str]:
    """The versions of a constraints file by canonical name; every line must be `name==version` or a comment."""
    found: dict[str, str] = {}
    for number, line in enumerate((ROOT / "images" / name).read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.+]*)", line)
        assert match, f"images/{name}, line {number}: {line!r} is not name==version"
        key = canonicalize_name(match[1])
        assert key not in found, f"images/{name}, line {number}: {key} is pinned twice"
        found[key] = match[2]
    return found


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def last(dockerfile: str) -> list[tuple[str, str]]:
    return stages(dockerfile)[-1]


def hadolint(path: Path) -> subprocess.CompletedProcess:
    beside = Path(sys.executable).with_name("hadolint")
    binary = str(beside) if beside.exists() else shutil.which("hadolint")
    if binary is None:
        pytest.skip("hadolint is not installed: pip install 'chexray[test]'")
    command = [binary, "--no-color", "--failure-threshold", "info", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_finds_nothing():
    found = hadolint(ROOT / "Dockerfile")
    assert found.returncode == 0, found.stdout


def test_hadolint_would_find_something(tmp_path: Path, dockerfile: str):
    planted = tmp_path / "Dockerfile"
    planted.write_text(
        dockerfile.replace("ARG BASE_IMAGE=python:3.11-slim-bookworm", "ARG BASE_IMAGE") + "RUN cd /tmp\n"
    )
    assert "DL3003" in hadolint(planted).stdout


def test_old_builders_and_those_without_a_registry_read_the_dockerfile(dockerfile: str):
    assert not re.search(r"^#\s*(syntax|escape|check)\s*=", dockerfile, re.MULTILINE | re.IGNORECASE)
    assert "<<" not in dockerfile, "heredocs: buildah 1.28 and dockerd 20.10 have none"


def test_only_the_base_comes_from_outside(dockerfile: str):
    names = set()
    for stage in stages(dockerfile):
        base, _, name = stage[0][1].partition(" AS ")
        assert base == "${BASE_IMAGE}" or base in names
        names.add(name)
        for word, rest in stage:
            source = re.search(r"--from=(\S+)", rest)
            assert word != "COPY" or source is None or source[1] in names
    assert len(names) >= 2
    default = next(rest for word, rest in instructions(dockerfile) if word == "ARG")
    assert re.fullmatch(r"BASE_IMAGE=\S+:(?!latest)\S+", default)


def test_the_last_stage_installs_no_package_by_pip_and_compiles_nothing(last):
    runs = " ".join(rest for word, rest in last if word == "RUN")
    for tool in ("pip", "build-essential", "gcc", "python3-dev", "curl", "git"):
        assert not re.search(rf"\b{tool}\b", runs), f"{tool} in the last stage"


def test_no_example_opens_ray_to_others():
    """Each `docker run` that we show is closed to the network and hardened; none turns the token off."""
    folders = [ROOT / "images", ROOT / "deploy"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files += [ROOT / "Dockerfile", ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = {path: path.read_text() for path in files}
    for path, text in texts.items():
        assert not re.search(r"RAY_AUTH_MODE[=:]\s*[\"']?disabled(?!.*RAY_AUTH_TOKEN=)", text), path
        for command in re.findall(r"^docker run .*(?:\\\n.*)*", text, re.MULTILINE):
            for option in ("--network none", "--read-only", "--cap-drop ALL"):
                assert option in command, f"{path}: {option}"
            assert not re.search(r"\s(-p|-P|--publish\S*|--privileged)\s", command), path
    assert "docker run" in texts[ROOT / "images/README.md"]


def test_secrets_are_optional_and_stay_in_their_stage(dockerfile: str, last):
    mounts = re.findall(r"--mount=type=secret,(\S+)", dockerfile)
    assert mounts
    assert all("required" not in mount for mount in mounts)
    assert "secret" not in " ".join(rest for _, rest in last)
    assert not any("PIP_" in rest for word, rest in last if word in {"ARG", "ENV"})


def test_the_image_runs_as_a_number_under_tini(last):
    assert only(last, "USER") == "1000:1000"
    assert json.loads(only(last, "ENTRYPOINT")) == ["tini", "--"]
    assert json.loads(only(last, "CMD"))[0] == "chexray"
    assert "52365/api/healthz" in only(last, "HEALTHCHECK")
    assert json.loads(only(last, "HEALTHCHECK").partition("CMD ")[2])[:2] == ["python", "-c"]


def test_the_environment_suits_a_read_only_root(last):
    env = dict(pair.split("=", 1) for pair in only(last, "ENV").split())
    assert env["PATH"].startswith("/opt/chexray/bin:")
    caches = ("HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    assert all(env[name].startswith("/tmp/") for name in caches)
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert 20 <= int(env["RAY_JOB_STOP_WAIT_TIME_S"]) <= 60, "a stopped run needs 20 s; pods get 60"
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "NVIDIA_VISIBLE_DEVICES"} & set(env), (
        "these are the cluster's to set"
    )


def test_the_labels_say_what_it_is(last):
    labels = only(last, "LABEL")
    for name in ("title", "description", "version", "revision", "source", "licenses", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f'licenses="{PROJECT["license"]}"' in labels


def test_versions_agree(last):
    assert PROJECT["version"] == chexray.__version__
    assert ("ARG", f"VERSION={PROJECT['version']}") in last


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_pinned_to_a_version_it_allows(requirement: str):
    needed = Requirement(requirement)
    pinned = pins("constraints.txt").get(canonicalize_name(needed.name))
    assert pinned, f"images/constraints.txt does not pin {needed.name}"
    assert needed.specifier.contains(pinned, prereleases=True)


def test_all_that_the_dependencies_bring_is_pinned():
    """Read from what is installed here, so that no indirect dependency drifts between two builds."""
    pinned = set().union(*(pins(path.name) for path in (ROOT / "images").glob("*.txt")))
    waiting, seen = [Requirement(text) for text in PROJECT["dependencies"]], set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if (name, *sorted(needed.extras)) in seen:
            continue
        seen.add((name, *sorted(needed.extras)))
        assert name in pinned, f"{name} is pinned nowhere in images/"
        with contextlib.suppress(metadata.PackageNotFoundError):
            brought = [Requirement(text) for text in metadata.requires(name) or ()]
            extras = [*needed.extras, ""]
            waiting += [
                each for each in brought if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
            ]


def test_the_build_needs_nothing_but_what_is_pinned():
    """chexray is built without isolation from pinned packages, so its build backend is one of them."""
    for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]:
        needed = Requirement(requirement)
        assert needed.specifier.contains(pins("constraints.txt")[canonicalize_name(needed.name)])


def test_there_are_variants(dockerfile: str):
    assert {"cpu", "gpu"} <= set(VARIANTS)
    default = re.search(r"^ARG VARIANT=(\w+)$", dockerfile, re.MULTILINE)
    assert default
    assert default[1] in VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_contradicts_no_common_pin(variant: str):
    common = pins("constraints.txt")
    for name, version in pins(f"{variant}.txt").items():
        assert common.get(name, version) == version.partition("+")[0], f"{name} in {variant} and in constraints"


def test_manifests_name_the_ray_and_the_image_of_this_release():
    texts = [path.read_text() for path in (ROOT / "deploy").rglob("*.yaml")]
    rays = [found for text in texts for found in re.findall(r"\brayVersion:\s*[\"']?([\w.]+)", text)]
    tags = [found for text in texts for found in re.findall(r"\bnewTag:\s*[\"']?([\w.-]+)", text)]
    assert rays
    assert tags
    assert set(rays) == {pins("constraints.txt")["ray"]}
    assert set(tags) == {PROJECT["version"]}


def test_only_what_the_image_is_made_from_reaches_the_builder():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "everything is kept out first"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in == {"pyproject.toml", "README.md", "LICENSE", "chexray", "deploy", "images", "images/lock"}
    assert "**/__pycache__" in lines[len(let_in) :]
    assert all((ROOT / name).exists() for name in let_in)


def test_the_try_script_is_whole():
    script = ROOT / "images" / "try.sh"
    assert script.stat().st_mode & 0o111
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    checked = subprocess.run([bash, "-n", str(script)], capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
    told = subprocess.run([bash, str(script), "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 0
    assert "base build run cluster" in told.stdout
    wrong = subprocess.run([bash, str(script), "biuld"], capture_output=True, text=True, timeout=30, check=False)
    assert wrong.returncode != 0
    assert wrong.stderr.startswith("images/try.sh: no command 'biuld'")
    assert wrong.stderr.count("\n") == 1


def test_no_file_of_the_image_names_an_index_or_a_machine(dockerfile: str):
    files = [path for path in (ROOT / "images").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    texts = [dockerfile, *(path.read_text() for path in files)]
    for text in texts:
        for url in re.findall(r"https?://[^\s'\"`)]+", text):
            assert re.match(r"http://(127\.0\.0\.1|\$NET|head)\b", url), url
