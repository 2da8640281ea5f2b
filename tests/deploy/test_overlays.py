"""Every kustomization renders to documents that Kubernetes, KubeRay, Pod Security and chexray itself accept."""

from __future__ import annotations

import copy
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.kuberay_rules import (
    NEW_HEAD_S,
    NODE_GRACE_S,
    STATUS_CHECK_S,
    cluster_spec,
    containers,
    groups,
    job_spec,
    templates,
)
from fixtures.manifests import (
    DEPLOY,
    core_complaints,
    duplicate_keys,
    is_ray,
    kustomizations,
    loose_ends,
    ray_complaints,
    render,
    rendered,
)

from chexray import __version__
from chexray.config import RunConfig, parse_config

ALL = kustomizations()
OVERLAYS = [name for name in ALL if name.startswith("overlays/")]
SAMPLE = "samples/synthchex"
RUNS = ["base", *OVERLAYS, SAMPLE]
"""The folders whose RayJob brings a config."""
APART = {"common"}
"""Half a deployment: accounts and policies without the pods they are for."""
REPOSITORY = DEPLOY.parent


def rayjob(docs: list[dict[str, Any]]) -> dict[str, Any]:
    return next(doc for doc in docs if doc["kind"] == "RayJob")


def run_config(docs: list[dict[str, Any]]) -> RunConfig:
    """The config that the entrypoint names, found as the head finds it: mount, volume, ConfigMap, key."""
    found = re.fullmatch(r"chexray run (/\S+)/(\S+) --once", job_spec(rayjob(docs))["entrypoint"])
    assert found, job_spec(rayjob(docs))["entrypoint"]
    pod = cluster_spec(rayjob(docs))["headGroupSpec"]["template"]["spec"]
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == found[1])
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    name = volume["configMap"]["name"]
    data = next(doc for doc in docs if doc["kind"] == "ConfigMap" and doc["metadata"]["name"] == name)["data"]
    return parse_config(yaml.safe_load(data[found[2]]))


def capacity(docs: list[dict[str, Any]]) -> tuple[int, int]:
    """CPUs and GPUs that a RayJob's cluster can grow to, as Ray counts them."""
    cpus = int(cluster_spec(rayjob(docs))["headGroupSpec"]["rayStartParams"]["num-cpus"])
    gpus = 0
    for group in groups(rayjob(docs)):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus += group["maxReplicas"] * int(limits["cpu"])
        gpus += group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    return cpus, gpus


def complaints(docs: list[dict[str, Any]], shared: Path) -> list[str]:
    return [line for doc in docs for line in (ray_complaints(doc, shared) if is_ray(doc) else core_complaints(doc))]


def test_the_overlays_of_the_readme_are_those_there_are():
    assert {Path(name).name for name in OVERLAYS} == {"local", "gpu", "s3", "nfs", "kueue"}
    table = (DEPLOY / "README.md").read_text()
    assert [name for name in OVERLAYS if f"`{Path(name).name}`" not in table] == []


def test_a_wheel_brings_every_folder():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    folders = {str(path.parent.relative_to(REPOSITORY)) for path in DEPLOY.rglob("kustomization.yaml")}
    assert folders <= {target.removeprefix("share/chexray/") for target in listed}


def test_the_readme_counts_a_lost_node_as_the_rules_do():
    bound = cluster_spec(rayjob(rendered("base")))["headGroupSpec"]["template"]["spec"]["tolerations"]
    seconds = {each["tolerationSeconds"] for each in bound}
    text = (DEPLOY / "README.md").read_text()
    (table,) = re.findall(r"(?s)\| \| seconds \|\n\| --- \| --- \|\n(.*?)\n\n", text)
    *parts, total = [sum(map(int, re.findall(r"\d+", row.split("|")[2]))) for row in table.splitlines()]
    assert parts == [NODE_GRACE_S, *seconds, 20, 130, 45]
    assert total == sum(parts) == NODE_GRACE_S + max(seconds) + NEW_HEAD_S <= STATUS_CHECK_S
    assert "RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS" in text


@pytest.mark.parametrize("name", ALL)
def test_core_kinds_are_valid(name):
    found = {doc["kind"]: core_complaints(doc) for doc in rendered(name) if not is_ray(doc)}
    assert found
    assert all(not complaints for complaints in found.values()), found


@pytest.mark.parametrize("name", [name for name in ALL if name not in APART])
def test_ray_kinds_are_valid(name, shared):
    found = {doc["kind"]: ray_complaints(doc, shared) for doc in rendered(name) if is_ray(doc)}
    assert found
    assert all(not complaints for complaints in found.values()), found


@pytest.mark.parametrize("name", [name for name in ALL if name not in APART])
def test_nothing_is_named_that_is_not_there(name):
    assert list(loose_ends(rendered(name))) == []


def test_no_key_is_said_twice():
    texts = {str(path.relative_to(DEPLOY)): path.read_text() for path in DEPLOY.rglob("*.yaml")}
    assert {name: found for name, text in texts.items() if (found := duplicate_keys(text))} == {}


@pytest.mark.parametrize("name", RUNS)
def test_the_config_is_one_that_chexray_reads_and_the_cluster_can_satisfy(name):
    docs = rendered(name)
    config = run_config(docs)
    cpus, gpus = capacity(docs)
    assert (config.ray.cpus or 1) <= cpus
    assert (config.ray.gpus or 0) <= gpus
    if config.encode.device == "cuda":
        assert config.ray.gpus, "a group that starts at zero has no GPU until a config asks"
    if config.ray.cpus is None:
        assert all(group["minReplicas"] == group["maxReplicas"] for group in groups(rayjob(docs)))
    if config.output.startswith("/"):
        mounts = {
            mount["mountPath"] for _, container in containers(rayjob(docs)) for mount in container["volumeMounts"]
        }
        assert name == "base" or "/data" in mounts


@pytest.mark.parametrize("name", [name for name in ALL if name not in APART])
def test_one_image_of_this_version_and_its_ray(name):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==") for line in (REPOSITORY / "images/constraints.txt").read_text().split() if "==" in line
    )
    assert project["version"] == __version__
    for doc in filter(is_ray, rendered(name)):
        images = {container["image"] for where, container in containers(doc) if where != "head/autoscaler"}
        assert images == {f"chexray:{__version__}"}
        assert "image" not in cluster_spec(doc).get("autoscalerOptions", {}), "KubeRay takes the head's"
        assert not cluster_spec(doc) or cluster_spec(doc)["rayVersion"] == pins["ray"]


@pytest.mark.parametrize("name", [name for name in ALL if name not in APART])
def test_ray_asks_for_a_token_everywhere(name):
    for doc in filter(is_ray, rendered(name)):
        assert not cluster_spec(doc) or cluster_spec(doc)["authOptions"] == {"mode": "token"}
        for where, container in containers(doc):
            if where != "head/autoscaler":  # KubeRay gives it the mode with the token
                assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"], where


@pytest.mark.parametrize("name", RUNS)
def test_a_run_can_stop_in_time_and_be_retried(name):
    spec = job_spec(rayjob(rendered(name)))
    assert spec["backoffLimit"] >= 1
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["shutdownAfterJobFinishes"] is True
    for where, template in templates(rayjob(rendered(name))):
        if where != "submitter":
            assert template["spec"]["terminationGracePeriodSeconds"] >= 60, where


@pytest.mark.parametrize("name", [name for name in ALL if name not in APART])
def test_only_an_autoscaler_may_call_the_kubernetes_api(name):
    """That the driver's container has no token, and an autoscaler's has: fixtures.kuberay_rules.token_problems."""
    for doc in filter(is_ray, rendered(name)):
        text = yaml.safe_dump(doc)
        assert ("serviceAccountToken:" in text) is bool(cluster_spec(doc).get("enableInTreeAutoscaling"))


def test_a_head_that_is_not_ready_blocks_no_drain_and_prometheus_reaches_all_pods():
    docs = {(doc["kind"], doc["metadata"]["name"]): doc["spec"] for doc in rendered("common") if "spec" in doc}
    assert docs["PodDisruptionBudget", "chexray-head"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    (rule,) = docs["NetworkPolicy", "chexray-metrics"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


@pytest.mark.parametrize("name", ["overlays/nfs", "overlays/local"])
def test_no_driver_changes_the_owner_of_a_share_at_each_start(name):
    for where, template in templates(rayjob(rendered(name))):
        if any("persistentVolumeClaim" in volume for volume in template["spec"]["volumes"]):
            assert template["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", where


def test_the_weekly_sample_keeps_few_finished_jobs_and_does_not_repeat_what_cannot_succeed():
    docs = rendered("samples")
    (cron,) = [doc["spec"] for doc in docs if doc["kind"] == "CronJob"]
    assert cron["successfulJobsHistoryLimit"] + cron["failedJobsHistoryLimit"] <= 10
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    assert "activeDeadlineSeconds" not in job, "it would end the pod that follows, not the run"
    (rule,) = job["podFailurePolicy"]["rules"]
    container = job["template"]["spec"]["containers"][0]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    service = container["args"][container["args"].index("--address") + 1]
    (cluster,) = [doc for doc in docs if doc["kind"] == "RayCluster"]
    assert service == f"http://{cluster['metadata']['name']}-head-svc:8265"
    token = next(each for each in container["env"] if each["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    (held,) = [doc["data"] for doc in docs if doc["kind"] == "ConfigMap"]
    config = parse_config(yaml.safe_load(held[container["args"][2].rpartition("/")[2]]))
    assert config.ray.gpus
    assert config.ray.cpus


def test_the_sample_of_synthchex_needs_two_paths():
    config = run_config(rendered(SAMPLE))
    (item,) = config.synthetic
    assert (config.real, config.suite) == (None, ["privacy"])
    assert set(item.options) == {"path"}
    assert item.options["path"].endswith("/ALL_FILES.zip")
    assert rayjob(rendered(SAMPLE))["metadata"]["name"] == "chexray-synthchex"
    assert "s3://" in config.output


def test_gpus_scale_from_zero_but_for_kueue_and_are_absent_locally():
    for name in OVERLAYS:
        found = [group for group in groups(rayjob(rendered(name))) if group["groupName"] == "encode"]
        assert bool(found) == (name != "overlays/local")
        for group in found:
            assert group["minReplicas"] == (2 if name == "overlays/kueue" else 0)
            assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_policies_of_one_name_are_the_same_everywhere():
    """Runs of several overlays share a namespace; the one applied last must not close what another one needs."""
    seen: dict[str, dict[str, Any]] = {}
    for name in ALL:
        for doc in rendered(name):
            if doc["kind"] == "NetworkPolicy":
                assert seen.setdefault(doc["metadata"]["name"], doc) == doc, name
    assert set(seen) == {"chexray", "chexray-api-server", "chexray-dashboard", "chexray-metrics", "chexray-s3"}


def test_the_cluster_has_the_pods_of_the_job():
    """deploy/cluster repeats what deploy/base says; only the config is the job's own."""
    cluster = next(doc for doc in rendered("cluster") if doc["kind"] == "RayCluster")
    job = copy.deepcopy(cluster_spec(rayjob(rendered("base"))))
    pod = job["headGroupSpec"]["template"]["spec"]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "config"]
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "config"]
    assert cluster["spec"] == job


@pytest.fixture
def outer(tmp_path):
    """Renders a kustomization over a copy of deploy/, as users and `chexray kuberay` write one."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")

    def build(text: str, **files: str) -> list[dict[str, Any]]:
        (tmp_path / "kustomization.yaml").write_text(text)
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        return render(tmp_path)

    return build


OUTER = """
resources: [deploy/NAME]
namespace: evaluations
configMapGenerator:
  - {name: chexray-config, behavior: replace, files: [run.yaml]}
images:
  - {name: chexray, newName: registry.example/team/chexray, newTag: "2"}
patches:
  - target: {group: ray.io, kind: RayJob, name: chexray}
    patch: '[{"op": "replace", "path": "/metadata/name", "value": "chexray-mine"}]'
"""
MINE = "{name: mine, real: /data/real, synthetic: /data/synthetic, encoders: pixels}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_outer_layer_can_replace_config_image_namespace_and_name(name, outer, shared):
    docs = outer(OUTER.replace("NAME", name), run=MINE)
    assert run_config(docs).name == "mine"
    assert list(loose_ends(docs)) == []
    assert {doc["metadata"]["namespace"] for doc in docs} == {"evaluations"}
    assert rayjob(docs)["metadata"]["name"] == "chexray-mine"
    images = {container.get("image") for where, container in containers(rayjob(docs)) if where != "head/autoscaler"}
    assert images == {"registry.example/team/chexray:2"}
    assert complaints(docs, shared) == []


def test_every_reference_follows_a_prefix(outer):
    for name in OVERLAYS:
        assert list(loose_ends(outer(f"resources: [deploy/{name}]\nnamePrefix: mine-\n"))) == []


def test_components_combine(outer, shared):
    docs = outer(
        "resources: [deploy/base]\n"
        "components: [deploy/components/s3, deploy/components/nfs, deploy/components/kueue]\n"
        "configMapGenerator: [{name: chexray-config, behavior: replace, files: [run.yaml]}]\n",
        run=MINE,
    )
    assert list(loose_ends(docs)) == []
    assert complaints(docs, shared) == []
    assert {doc["kind"] for doc in docs} >= {"PersistentVolumeClaim", "RayJob"}


@pytest.mark.parametrize("name", ["overlays/gpu", "overlays/nfs", "overlays/kueue", "cluster"])
def test_a_registry_is_asked_by_every_pod(name, outer, shared):
    docs = outer(f"resources: [deploy/{name}]\ncomponents: [deploy/components/registry]\n")
    assert complaints(docs, shared) == []
    found = {where: each["spec"]["imagePullSecrets"] for doc in filter(is_ray, docs) for where, each in templates(doc)}
    assert len(found) >= 3
    assert all(each == [{"name": "chexray-registry"}] for each in found.values())


@pytest.mark.parametrize("name", ["overlays/gpu", "components/kueue"])
def test_what_is_commented_out_renders_when_it_is_not(name, tmp_path, shared):
    """The patches that users are told to uncomment: a kind of GPU node, a priority."""
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)
    path = deploy / name / "kustomization.yaml"
    before = path.read_text()
    after = re.sub(r"(?m)^( *)# (patches:$|  - target:|    patch:|    *- op:|  *path:|  *value:)", r"\1\2", before)
    assert after != before
    path.write_text(after)
    docs = render(deploy / ("overlays/kueue" if name == "components/kueue" else name))
    assert complaints(docs, shared) == []
    text = yaml.safe_dump_all(docs)
    assert {"overlays/gpu": "nodeSelector", "components/kueue": "priority-class"}[name] in text
