"""Each rule that KubeRay holds in Go, and our own, finds what breaks it; and none complains of a good job."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from fixtures import kuberay_rules as rules

Change = Callable[[dict[str, Any]], Any]


def pod(container: str) -> dict[str, Any]:
    own = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": "/home/ray"}]
    return {
        "metadata": {"labels": {}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": container,
                    "image": "chexray",
                    "securityContext": own,
                    "volumeMounts": mounts,
                    "resources": {side: {"cpu": "1", "memory": "1Gi"} for side in ("requests", "limits")},
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "home", "emptyDir": {}}],
        },
    }


def good_job() -> dict[str, Any]:
    """A RayJob that uses most of what the rules are about, and breaks none."""
    container = pod("x")["spec"]["containers"][0]
    options = {key: container[key] for key in ("securityContext", "resources")}
    token = {"name": "api", "mountPath": rules.TOKEN_PATH}
    options["volumeMounts"] = [*container["volumeMounts"], token]
    head = pod("ray-head")
    source = {"serviceAccountToken": {"path": "token"}}
    head["spec"]["volumes"].append({"name": "api", "projected": {"sources": [source]}})
    head["spec"]["tolerations"] = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        for key in ("unreachable", "not-ready")
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "job", "labels": {}, "annotations": {}},
        "spec": {
            "backoffLimit": 2,
            "submitterConfig": {"backoffLimit": 4},
            "activeDeadlineSeconds": 60,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60,
            "submitterPodTemplate": pod("ray-job-submitter"),
            "rayClusterSpec": {
                "rayVersion": "2.60.0",
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"version": "v2", **options},
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
                "workerGroupSpecs": [
                    {
                        "groupName": "encode",
                        "replicas": 0,
                        "minReplicas": 0,
                        "maxReplicas": 4,
                        "rayStartParams": {},
                        "template": pod("ray-worker"),
                    }
                ],
            },
        },
    }


def put(path: str, value: Any) -> Change:
    """A change of one field; None takes it away. Names are parted by slashes, list items are numbers."""

    def change(doc: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        node: Any = doc
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        if value is None:
            del node[last]
        else:
            node[last] = value

    return change


def several(*changes: Change) -> Change:
    return lambda doc: [change(doc) for change in changes]


SPEC, CLUSTER = "spec", "spec/rayClusterSpec"
HEAD, GROUP = f"{CLUSTER}/headGroupSpec", f"{CLUSTER}/workerGroupSpecs/0"
SUBMITTER = f"{SPEC}/submitterPodTemplate/spec"


def fixed(doc: dict[str, Any]) -> None:
    """Takes the autoscaler away, and the token with it."""
    doc["spec"]["rayClusterSpec"].update(enableInTreeAutoscaling=False)
    doc["spec"]["rayClusterSpec"].pop("autoscalerOptions")
    doc["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"].pop()


def queue(doc: dict[str, Any]) -> None:
    """Puts the good job into a Kueue queue in a way that Kueue accepts."""
    doc["metadata"]["labels"][rules.KUEUE_QUEUE] = "evaluations"
    fixed(doc)
    doc["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas=2, minReplicas=2, maxReplicas=2)


def deletion(*parts: tuple[str, int]) -> Change:
    """Deletion rules on success in place of shutdownAfterJobFinishes."""
    found = [{"policy": policy, "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": ttl}} for policy, ttl in parts]
    return several(
        put(f"{SPEC}/shutdownAfterJobFinishes", None),
        put(f"{SPEC}/ttlSecondsAfterFinished", None),
        put(f"{SPEC}/deletionStrategy/deletionRules", found),
    )


SELECTED = several(
    put(CLUSTER, None), put(f"{SPEC}/backoffLimit", None), put(f"{SPEC}/clusterSelector", {"ray.io/cluster": "chexray"})
)
BROKEN: dict[str, Change] = {
    "name of 48 characters": put("metadata/name", "x" * 48),
    "no DNS-1035 label": put("metadata/name", "1st-run"),
    "exactly one of rayClusterSpec": put(f"{SPEC}/clusterSelector", {"ray.io/cluster": "chexray"}),
    "ttlSecondsAfterFinished without": put(f"{SPEC}/shutdownAfterJobFinishes", None),
    "suspend needs": several(
        put(f"{SPEC}/suspend", True),
        put(f"{SPEC}/shutdownAfterJobFinishes", None),
        put(f"{SPEC}/ttlSecondsAfterFinished", None),
    ),
    "backoffLimit with clusterSelector": several(SELECTED, put(f"{SPEC}/backoffLimit", 1)),
    "backoffLimit with clusterSelector or Interactive": put(f"{SPEC}/submissionMode", "InteractiveMode"),
    "clusterSelector with SidecarMode": several(SELECTED, put(f"{SPEC}/submissionMode", "SidecarMode")),
    "SidecarMode with submitterPodTemplate": put(f"{SPEC}/submissionMode", "SidecarMode"),
    "activeDeadlineSeconds is not positive": put(f"{SPEC}/activeDeadlineSeconds", 0),
    "deletionRules with shutdown": several(
        deletion(("DeleteCluster", 60)), put(f"{SPEC}/shutdownAfterJobFinishes", True)
    ),
    "twice": deletion(("DeleteCluster", 60), ("DeleteCluster", 90)),
    "DeleteWorkers with autoscaling": deletion(("DeleteWorkers", 60)),
    "must go in this order": deletion(("DeleteCluster", 60), ("DeleteSelf", 30)),
    "rayVersion is not set": put(f"{CLUSTER}/rayVersion", None),
    "rayVersion is not set to a version": put(f"{CLUSTER}/rayVersion", "nightly"),
    "token needs rayVersion": put(f"{CLUSTER}/rayVersion", "2.51.2"),
    "enableK8sTokenAuth": put(f"{CLUSTER}/authOptions/enableK8sTokenAuth", True),
    "priority needs": several(put(f"{GROUP}/priority", 1), put(f"{CLUSTER}/rayVersion", "2.55.0")),
    "priority needs rayVersion 2.56.0 and autoscaler v2": several(
        put(f"{GROUP}/priority", 1), put(f"{CLUSTER}/autoscalerOptions/version", "v1")
    ),
    "idleTimeoutSeconds needs": several(
        put(f"{GROUP}/idleTimeoutSeconds", 60), put(f"{CLUSTER}/autoscalerOptions/version", "v1")
    ),
    "replicas is not between": put(f"{GROUP}/replicas", 5),
    "num-cpus in rayStartParams and resources": put(f"{HEAD}/resources", {"CPU": "0"}),
    "head: autoscaler v2 needs restartPolicy": put(f"{HEAD}/template/spec/restartPolicy", "Always"),
    "encode: autoscaler v2 needs restartPolicy": put(f"{GROUP}/template/spec/restartPolicy", "OnFailure"),
    "RAY_enable_autoscaler_v2": put(
        f"{HEAD}/template/spec/containers/0/env", [{"name": "RAY_enable_autoscaler_v2", "value": "1"}]
    ),
    "limits.memory is '4 GB'": put(f"{HEAD}/template/spec/containers/0/resources", {"limits": {"memory": "4 GB"}}),
    "nvidia.com/gpu differ": put(f"{GROUP}/template/spec/containers/0/resources", {"limits": {"nvidia.com/gpu": "1"}}),
    "Kueue needs shutdown": several(
        queue, put(f"{SPEC}/shutdownAfterJobFinishes", None), put(f"{SPEC}/ttlSecondsAfterFinished", None)
    ),
    "Kueue refuses clusterSelector": several(queue, SELECTED),
    "Kueue refuses autoscaling": several(queue, put(f"{CLUSTER}/enableInTreeAutoscaling", True)),
    "Kueue takes 7 worker groups": several(
        queue, lambda doc: doc["spec"]["rayClusterSpec"].update(workerGroupSpecs=rules.groups(doc) * 8)
    ),
    "Kueue admits replicas": several(queue, put(f"{GROUP}/minReplicas", 0)),
    "hostNetwork": put(f"{HEAD}/template/spec/hostNetwork", True),
    "head: runs not as user": put(f"{HEAD}/template/spec/securityContext/runAsNonRoot", None),
    "submitter: runs not as user": put(f"{SUBMITTER}/securityContext/runAsUser", 0),
    "seccompProfile is not": put(f"{GROUP}/template/spec/securityContext/seccompProfile", None),
    "volume host is of a kind": put(
        f"{GROUP}/template/spec/volumes", [{"name": "host", "hostPath": {"path": "/data"}}]
    ),
    "may gain privileges": put(f"{SUBMITTER}/containers/0/securityContext/allowPrivilegeEscalation", None),
    "keeps capabilities": put(f"{SUBMITTER}/containers/0/securityContext/capabilities", None),
    "overrides the pod's user": put(f"{SUBMITTER}/containers/0/securityContext/runAsUser", 0),
    "overrides the pod's seccomp": put(
        f"{SUBMITTER}/containers/0/securityContext/seccompProfile", {"type": "Unconfined"}
    ),
    "encode/ray-worker: writes to its image": put(
        f"{GROUP}/template/spec/containers/0/securityContext/readOnlyRootFilesystem", None
    ),
    "head/autoscaler: writes to its image": put(f"{CLUSTER}/autoscalerOptions/securityContext", None),
    "no place to write": put(f"{HEAD}/template/spec/containers/0/volumeMounts", []),
    "head: every container is given": put(f"{HEAD}/template/spec/automountServiceAccountToken", True),
    "submitter: every container is given": put(f"{SUBMITTER}/automountServiceAccountToken", None),
    "head/ray-head: mounts a Kubernetes token": lambda doc: doc["spec"]["rayClusterSpec"]["headGroupSpec"]["template"][
        "spec"
    ]["containers"][0]["volumeMounts"].append({"name": "api", "mountPath": "/api"}),
    "no Kubernetes token at": put(f"{CLUSTER}/autoscalerOptions/volumeMounts/2/mountPath", "/elsewhere"),
    "a Kubernetes token that nobody uses": put(f"{CLUSTER}/enableInTreeAutoscaling", False),
    "submitter/ray-job-submitter: no limits.cpu": put(f"{SUBMITTER}/containers/0/resources/limits/cpu", None),
    "head/autoscaler: no limits.cpu": put(
        f"{CLUSTER}/autoscalerOptions/resources", {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    ),
    "encode/ray-worker: no requests.memory": put(f"{GROUP}/template/spec/containers/0/resources/requests/memory", None),
    "unreachable is tolerated for 300 s: 545 s": put(f"{HEAD}/template/spec/tolerations/0/key", "other"),
    "not-ready is tolerated for 60 s: 305 s": put(f"{HEAD}/template/spec/tolerations/1/tolerationSeconds", 60),
    "not-ready is tolerated for 300 s": put(f"{HEAD}/template/spec/tolerations/1/tolerationSeconds", None),
    "hostPort": put(f"{HEAD}/template/spec/containers/0/ports", [{"containerPort": 8265, "hostPort": 8265}]),
}


@pytest.mark.parametrize(
    "change", [lambda _: None, queue, SELECTED, deletion(("DeleteCluster", 30), ("DeleteSelf", 60))]
)
def test_a_good_job_breaks_no_rule(change):
    doc = good_job()
    change(doc)
    assert rules.problems(doc) == []


def test_rules_of_pods_hold_for_a_cron_job():
    template = pod("submit")
    job = {"kind": "CronJob", "metadata": {"name": "w"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert [line for rule in rules.POD_RULES for line in rule(job)] == []
    template["spec"]["automountServiceAccountToken"] = True
    template["spec"]["containers"][0]["resources"] = {}
    assert len([line for rule in rules.POD_RULES for line in rule(job)]) == 5


@pytest.mark.parametrize("complaint", BROKEN)
def test_each_rule_finds_what_breaks_it(complaint):
    doc = good_job()
    BROKEN[complaint](doc)
    found = rules.problems(doc)
    assert any(complaint in line for line in found), found


def test_an_elastic_job_may_scale_under_kueue():
    doc = good_job()
    queue(doc)
    doc["metadata"]["annotations"][rules.KUEUE_ELASTIC] = "true"
    doc["spec"]["rayClusterSpec"] = good_job()["spec"]["rayClusterSpec"]
    doc["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"] = 0
    assert rules.problems(doc) == []


def test_rules_of_clusters_hold_for_every_kind():
    """A RayCluster and a RayCronJob with the good job's parts are good, and break as it does."""
    job = good_job()["spec"]
    cluster = {"kind": "RayCluster", "metadata": {"name": "c"}, "spec": job["rayClusterSpec"]}
    weekly = {"kind": "RayCronJob", "metadata": {"name": "w"}, "spec": {"schedule": "0 3 * * 1", "jobTemplate": job}}
    for doc, limit in ((cluster, 53), (weekly, 36)):
        assert rules.problems(doc) == []
        broken = copy.deepcopy(doc)
        rules.cluster_spec(broken)["rayVersion"] = ""
        assert len(rules.problems(broken)) == 2
        assert rules.problems({**doc, "metadata": {"name": "x" * (limit + 1)}})
    cluster["spec"]["authOptions"]["enableK8sTokenAuth"] = True
    assert rules.problems(cluster) == []
