"""A KubeRay manifest for a config: a variant of deploy/, with the config, image and sizes put in by kustomize."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

import chexray
from chexray.config import RunConfig
from chexray.errors import ConfigError
from chexray.jobs.kustomize import render
from chexray.jobs.portable_config import RUN_FILE, distinct, on_every_node, plugin_flags, travelling
from chexray.jobs.sizing import Document, fit, replace
from chexray.plugin_files import PluginFile
from chexray.shipped import shipped
from chexray.storage.uris import local_path
from chexray.text import quoted, shown

IMAGE = "chexray"
"""What the manifests call the image; also the RayJob, the NetworkPolicy and the account."""
NAME_LENGTH = 47
"""KubeRay appends to the name of a RayJob, and the result must fit a label's 63 characters."""

MAX_PLUGIN_BYTES = 800_000
"""Of all plug-in files in a ConfigMap together."""


@dataclass(frozen=True)
class Manifest:
    """YAML for `kubectl apply -f -`, and lines for the user."""

    text: str
    notes: tuple[str, ...]


def kuberay_manifest(
    config: RunConfig,
    overlays: Sequence[str],
    *,
    image: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    gpus: int | None = None,
    image_pull_secret: str | None = None,
    api_server_ports: Sequence[int] = (),
    flags: Sequence[str] = (),
    plugins: Sequence[PluginFile] = (),
    deploy: Path | None = None,
    build: Callable[[Path], str] = render,
) -> Manifest:
    """The manifest of a RayJob that runs `config`.

    overlays: one of deploy/overlays, and any of deploy/components besides. gpus: how far the cluster may grow; by
    default the config's `ray.gpus`, or the overlay's. image_pull_secret: a Secret of the namespace that every pod pulls
    with. api_server_ports: where else the autoscaler may reach the Kubernetes API. flags: further words of `chexray
    run`; with --fail-on among them the job is tried once. plugins: files that go beside the config. build: what renders
    a folder. Raises ConfigError in one line.
    """
    deploy = deploy or deploy_folder()
    overlay, components = chosen(overlays, deploy)
    sent = travelling(config)
    job_name = checked_name(name) if name else fitted_name(f"{IMAGE}-{config.name}")
    outer: Document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"deploy/overlays/{overlay}"],
        **({"components": [f"deploy/components/{each}" for each in components]} if components else {}),
    }
    with tempfile.TemporaryDirectory(prefix="chexray-kuberay-") as place:
        folder = Path(place)
        shutil.copytree(deploy, folder / "deploy")
        _write(folder, outer)
        documents = list(yaml.safe_load_all(build(folder)))
        job = _only(documents, "RayJob")
        elsewhere = _not_mounted(sent.local, job, overlay)
        sized, sizes, remarks = fit(sent.config, job, _own_config(documents), gpus, overlay)
        outer["configMapGenerator"] = [_config_map(folder, sized, plugins)]
        if plugins:
            job["spec"]["entrypoint"] = _with_plugins(job["spec"]["entrypoint"], plugins)
            sizes = [*sizes, replace("/spec/entrypoint", job["spec"]["entrypoint"])]
        patches = [replace("/metadata/name", job_name), *sizes, *_flagged(job, flags)]
        patches += _pulling(job, image_pull_secret) if image_pull_secret else []
        outer["patches"] = [_patch("RayJob", patches)]
        if ways_out := _ways_out(config, documents, job_name, api_server_ports):
            (folder / "egress.yaml").write_text(yaml.safe_dump_all(ways_out), encoding="utf-8")
            outer["resources"].append("egress.yaml")
        outer |= {"namespace": namespace} if namespace else {}
        outer |= {"images": [{"name": IMAGE, **split_image(image)}]} if image else {}
        _write(folder, outer)
        notes = [*on_every_node(elsewhere), *sent.remarks, *remarks, *_notes(config, documents, image, overlay)]
        return Manifest(build(folder), tuple(notes))


def _config_map(folder: Path, config: RunConfig, plugins: Sequence[PluginFile]) -> Document:
    """Writes the config and the plug-in files into the folder, and says how a ConfigMap is made of them."""
    (folder / RUN_FILE).write_text(config.to_yaml(), encoding="utf-8")
    for file in distinct(plugins):
        (folder / file.name).write_bytes(file.source)
    names = [RUN_FILE, *(file.name for file in plugins)]
    return {"name": "chexray-config", "behavior": "replace", "files": names}


def _with_plugins(command: str, plugins: Sequence[PluginFile]) -> str:
    """The entry point with the plug-ins, which are mounted where the config is. Raises ConfigError for too many bytes:
    a ConfigMap holds 1 MiB."""
    size = sum(len(file.source) for file in plugins)
    if size > MAX_PLUGIN_BYTES:
        raise ConfigError(
            f"--plugin: {size:,} bytes, and {MAX_PLUGIN_BYTES:,} fit beside the config. Install them in the image as a "
            "package."
        )
    place = next(word for word in command.split() if word.endswith(f"/{RUN_FILE}")).removesuffix(RUN_FILE)
    return " ".join([command, *plugin_flags(plugins, place)])


def deploy_folder() -> Path:
    """deploy/ of a checkout, or what a wheel has installed of it."""
    return shipped("deploy", "base/kustomization.yaml")


def chosen(names: Sequence[str], deploy: Path) -> tuple[str, list[str]]:
    """(overlay, further components) that the names mean. One that is no component is the overlay, else the first."""
    known = {
        kind: sorted(path.parent.name for path in (deploy / kind).glob("*/kustomization.yaml"))
        for kind in ("overlays", "components")
    }
    for each in names:
        if each not in known["overlays"] and each not in known["components"]:
            raise ConfigError(f"there is no overlay {quoted(each)}. Known: {', '.join(known['overlays'])}.")
    whole = [each for each in names if each not in known["components"]] or list(names[:1])
    if len(whole) != 1 or whole[0] not in known["overlays"]:
        raise ConfigError(
            f"overlays {shown(' and '.join(names))} do not go together: one overlay ({', '.join(known['overlays'])}), "
            f"and besides it any of {', '.join(known['components'])}."
        )
    held = _components_of(deploy / "overlays" / whole[0])
    return whole[0], [each for each in dict.fromkeys(names) if each != whole[0] and each not in held]


def _components_of(folder: Path) -> set[str]:
    """Components that an overlay has already, itself or through what it builds on."""
    body = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8")) or {}
    found = {Path(each).name for each in body.get("components", [])}
    for each in body.get("resources", []):
        if (folder / each / "kustomization.yaml").is_file():
            found |= _components_of((folder / each).resolve())
    return found


def fitted_name(text: str) -> str:
    """The nearest name Kubernetes accepts for a RayJob: a-z, 0-9 and '-', at most 47 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:NAME_LENGTH].strip("-")


def checked_name(name: str) -> str:
    if len(name) > NAME_LENGTH or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise ConfigError(
            f"--name {quoted(name)}: expected at most {NAME_LENGTH} characters of a-z, 0-9 and '-', a letter first, "
            f"such as {fitted_name(f'{IMAGE}-{name}')}."
        )
    return name


def split_image(reference: str) -> dict[str, str]:
    """kustomize's newName with newTag, by default this version, or digest. Raises ConfigError for anything else."""
    match = re.fullmatch(r"([\w.\-/:]*?[\w\-])(?::([\w][\w.\-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?", reference)
    if not match or "//" in reference:
        raise ConfigError(f"--image {quoted(reference)}: expected registry/name:tag or registry/name@sha256:DIGEST.")
    name, tag, digest = match.groups()
    return {"newName": name} | ({"digest": digest} if digest else {"newTag": tag or chexray.__version__})


def _own_config(documents: list[Document]) -> Document:
    """The `ray` section of the config an overlay comes with, which fits its sizes."""
    for document in documents:
        if document["kind"] == "ConfigMap" and RUN_FILE in document.get("data", {}):
            return yaml.safe_load(document["data"][RUN_FILE]).get("ray") or {}
    return {}


def _not_mounted(local: Sequence[tuple[str, str]], job: Document, overlay: str) -> list[tuple[str, str]]:
    """What lies on no lasting volume of the pods: for an output an error, since it would be lost with its pod."""
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    passing = {each["name"] for each in pod.get("volumes", []) if {"emptyDir", "configMap", "secret"} & set(each)}
    mounts = [
        each["mountPath"]
        for container in pod["containers"]
        for each in container.get("volumeMounts", [])
        if each["name"] not in passing
    ]
    elsewhere = [each for each in local if not any(f"{local_path(each[1])}/".startswith(f"{m}/") for m in mounts)]
    for key, path in elsewhere:
        if key in ("output", "feature_store"):
            raise ConfigError(
                f"{key} is {shown(path)}, and the pods of overlay {overlay} have no lasting volume there "
                f"({', '.join(mounts) or 'none anywhere'}). Use s3://, or a path below a volume (--overlay nfs: /data)."
            )
    return elsewhere


def _flagged(job: Document, flags: Sequence[str]) -> list[Document]:
    """The entrypoint with further flags. With a gate it is tried once: to KubeRay exit code 3 is a failure like any
    other, for which it would start new clusters."""
    if not flags:
        return []
    patches = [replace("/spec/entrypoint", f"{job['spec']['entrypoint']} {shlex.join(flags)}")]
    return [*patches, replace("/spec/backoffLimit", 0)] if "--fail-on" in flags else patches


def _pulling(job: Document, secret: str) -> list[Document]:
    """Patches by which every pod of the job pulls its image with a Secret."""
    if len(secret) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", secret):
        raise ConfigError(
            f"--image-pull-secret {quoted(secret)}: expected the name of a Secret, as kubectl get secrets shows it."
        )
    cluster = job["spec"]["rayClusterSpec"]
    pods = ["/spec/submitterPodTemplate", "/spec/rayClusterSpec/headGroupSpec/template"]
    pods += [
        f"/spec/rayClusterSpec/workerGroupSpecs/{i}/template" for i in range(len(cluster.get("workerGroupSpecs", [])))
    ]
    return [replace(f"{pod}/spec/imagePullSecrets", [{"name": secret}]) for pod in pods]


def _ways_out(config: RunConfig, documents: list[Document], job_name: str, api_ports: Sequence[int]) -> list[Document]:
    """Policies that let requests out to the S3 endpoint's port and to the API server's, where none does.

    Their own and named after the job: policies add up, while a rule in a shared one would go with the next run's apply.
    """
    policies = {each["metadata"]["name"]: each for each in documents if each["kind"] == "NetworkPolicy"}
    endpoint = urlsplit(config.storage.endpoint_url or "")
    port = endpoint.port or {"https": 443}.get(endpoint.scheme, 80)
    wanted = {
        "endpoint": (policies.get(IMAGE), [port] if endpoint.hostname else []),
        "api-server": (policies.get(f"{IMAGE}-api-server"), list(api_ports)),
    }
    found = []
    for name, (shared, ports) in wanted.items():
        selector = shared["spec"]["podSelector"] if shared else {}
        rules = [
            rule
            for each in policies.values()
            if selector and each["spec"]["podSelector"]["matchLabels"].items() <= selector["matchLabels"].items()
            for rule in each["spec"].get("egress", [])
            if not rule.get("to")
        ]
        missing = sorted(set(ports) - {each.get("port") for rule in rules for each in rule.get("ports", [])})
        if not shared or not missing:
            continue
        found.append(
            {
                "apiVersion": shared["apiVersion"],
                "kind": "NetworkPolicy",
                "metadata": {"name": f"{job_name}-{name}", "labels": shared["metadata"]["labels"]},
                "spec": {
                    "podSelector": selector,
                    "policyTypes": ["Egress"],
                    "egress": [{"ports": [{"protocol": "TCP", "port": each} for each in missing]}],
                },
            }
        )
    return found


def _notes(config: RunConfig, documents: list[Document], image: str | None, overlay: str) -> list[str]:
    notes = []
    if not image and overlay != "local":
        notes.append("the image has no registry: give --image, unless every node has chexray's image already")
    regions = [document.get("data", {}).get("AWS_DEFAULT_REGION") for document in documents]
    region = next((each for each in regions if each), None)
    if region and not config.storage.region:
        notes.append(f"the S3 region is {region}, as in deploy/components/s3/storage.env; storage.region overrides it")
    return notes


def _write(folder: Path, outer: Document) -> None:
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(outer, sort_keys=False), encoding="utf-8")


def _only(documents: list[Document], kind: str) -> Document:
    return next(document for document in documents if document["kind"] == kind)


def _patch(kind: str, operations: list[Document]) -> Document:
    return {"target": {"kind": kind}, "patch": yaml.safe_dump(operations)}
