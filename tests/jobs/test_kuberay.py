"""`chexray kuberay`: manifests for a config, held against KubeRay's schema and rules."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.kuberay_rules import templates
from fixtures.manifests import DEPLOY, core_complaints, is_ray, loose_ends, ray_complaints
from typer.testing import CliRunner

from chexray import __version__
from chexray.cli import app
from chexray.config import RunConfig, parse_config
from chexray.errors import ConfigError
from chexray.jobs import kustomize, manifests
from chexray.jobs.manifests import Manifest, chosen, fitted_name, kuberay_manifest, split_image

needs_kustomize = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("kustomize")), reason="neither kubectl nor kustomize is on PATH"
)


def config(**changes: object) -> RunConfig:
    base = {
        "name": "Study_1.b",
        "real": "s3://bucket/test.csv",
        "synthetic": "s3://bucket/made/",
        "encoders": ["pixels"],
        "output": "s3://bucket/out",
    }
    return parse_config({**base, **changes})


def made(*overlays: str, given: RunConfig | None = None, **how: Any) -> tuple[list[dict[str, Any]], Manifest]:
    done = kuberay_manifest(given or config(), overlays, **how)
    return list(yaml.safe_load_all(done.text)), done


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in documents if each["kind"] == kind]
    return found


def run_config(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The config in the ConfigMap that the head of the RayJob mounts."""
    pod = only(documents, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounted = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    (held,) = [each for each in documents if each["kind"] == "ConfigMap" and each["metadata"]["name"] in mounted]
    return yaml.safe_load(held["data"]["run.yaml"])


def sizes(documents: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """(replicas, minReplicas, maxReplicas) of the CPU group and the GPU group."""
    groups = only(documents, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return [(each["replicas"], each["minReplicas"], each["maxReplicas"]) for each in groups]


VARIANTS = [
    (("local",), {"output": "/data/out"}),
    (("gpu",), {}),
    (("s3",), {"storage": {"endpoint_url": "http://ceph:7480"}}),
    (("nfs",), {"output": "/data/out"}),
    (("kueue",), {}),
    (("gpu", "nfs"), {}),
    (("nfs", "kueue"), {"output": "/data/out"}),
]


@pytest.mark.slow
@needs_kustomize
@pytest.mark.parametrize(("overlays", "changes"), VARIANTS, ids=lambda value: "+".join(value))
def test_every_variant_is_a_valid_job_of_this_config(overlays: tuple, changes: dict, shared: Path) -> None:
    given = config(**changes)
    documents, _ = made(*overlays, given=given, image="registry:5000/lab/chexray:7", namespace="research")
    for document in documents:
        assert (ray_complaints(document, shared) if is_ray(document) else core_complaints(document)) == []
        assert document["metadata"]["namespace"] == "research"
    assert not list(loose_ends(documents))
    job = only(documents, "RayJob")
    assert job["metadata"]["name"] == "chexray-study-1-b"
    assert job["spec"]["entrypoint"] == "chexray run /etc/chexray/run.yaml --once"
    images = {line.split("image: ")[1] for line in yaml.safe_dump_all(documents).splitlines() if " image: " in line}
    assert images == {"registry:5000/lab/chexray:7"}
    arrived = parse_config(run_config(documents))
    assert arrived.model_copy(update={"ray": given.ray}) == given


@needs_kustomize
@pytest.mark.parametrize(
    ("overlays", "how", "ray", "cpu_group", "gpu_group"),
    [
        (("gpu",), {}, {"gpus": 2, "cpus": 18}, (1, 1, 4), (0, 0, 2)),
        (("gpu",), {"gpus": 8}, {"gpus": 8, "cpus": 54}, (1, 1, 4), (0, 0, 8)),
        (("gpu",), {"ray": {"gpus": 3}}, {"gpus": 3, "cpus": 24}, (1, 1, 4), (0, 0, 3)),
        (("gpu",), {"ray": {"gpus": 3}, "gpus": 1}, {"gpus": 1, "cpus": 12}, (1, 1, 4), (0, 0, 1)),
        (("gpu",), {"ray": {"gpus": 2, "cpus": 60}}, {"gpus": 2, "cpus": 60}, (1, 1, 16), (0, 0, 2)),
        (("s3",), {"ray": {"wait_s": 60}}, {"cpus": 12, "wait_s": 60}, (1, 1, 4), (0, 0, 4)),
        (("kueue",), {}, {"gpus": 2, "cpus": 18}, (2, 2, 2), (2, 2, 2)),
        (("kueue",), {"gpus": 3}, {"gpus": 3, "cpus": 24}, (2, 2, 2), (3, 3, 3)),
        (("nfs", "kueue"), {}, {"cpus": 6}, (2, 2, 2), (0, 0, 0)),
        (("gpu",), {"encode": {"device": "cpu"}}, {"cpus": 6}, (1, 1, 4), (0, 0, 4)),
        (("kueue",), {"encode": {"device": "cpu"}}, {"cpus": 6}, (2, 2, 2), (0, 0, 0)),
        (("gpu",), {"encode": {"device": "cpu"}, "gpus": 1}, {"gpus": 1, "cpus": 12}, (1, 1, 4), (0, 0, 1)),
    ],
)
def test_pods_and_config_agree_on_the_size(
    overlays: tuple, how: dict, ray: dict, cpu_group: tuple, gpu_group: tuple
) -> None:
    settings = {key: how[key] for key in ("ray", "encode") if key in how}
    documents, done = made(*overlays, given=config(**settings), gpus=how.get("gpus"))
    assert run_config(documents)["ray"] == ray
    is_told = any(note.startswith("no GPU is asked for") for note in done.notes)
    assert is_told == ("encode" in how and "gpus" not in ray)
    assert sizes(documents) == [cpu_group, gpu_group]


@needs_kustomize
def test_training_on_a_gpu_has_one_though_encoding_needs_none() -> None:
    study = config(encode={"device": "cpu"}, suite=["fidelity", "utility"], training="s3://bucket/train.csv")
    assert run_config(made("gpu", given=study)[0])["ray"] == {"gpus": 2, "cpus": 18}


@needs_kustomize
def test_gpus_where_there_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="overlay local has no workers with GPUs"):
        made("local", given=config(output="/data/out"), gpus=1)
    with pytest.raises(ConfigError, match="overlay local has no workers with GPUs"):
        made("local", given=config(output="/data/out", ray={"gpus": 1}, encode={"device": "cuda"}))


@needs_kustomize
def test_one_pod_is_not_asked_to_grow() -> None:
    documents, done = made("local", given=config(output="/data/out", ray={"cpus": 12, "gpus": 1, "wait_s": 60}))
    assert run_config(documents)["ray"] == {"wait_s": 60}
    assert done.notes[-1] == "ray.cpus and ray.gpus left out: overlay local is one pod, which does not grow"
    assert made("local", given=config(output="/data/out"))[1].notes == ()


@needs_kustomize
def test_an_output_that_would_die_with_its_pod_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^output is /scratch/out, and the pods of overlay gpu"):
        made("gpu", given=config(output="/scratch/out"))
    with pytest.raises(ConfigError, match=r"^feature_store is /database, .*\(/data\)"):
        made("nfs", given=config(output="/data/out", feature_store="/database"))
    notes = made("nfs", given=config(output="/data/out", real="/data/a.csv", heldout="/models/b.csv"))[1].notes
    assert notes[0] == "must exist on every node of the cluster: /models/b.csv (heldout.path)"


@needs_kustomize
def test_secrets_are_not_in_the_manifest_and_relative_paths_are_refused() -> None:
    done = made("s3", given=config(storage={"key": "AKIA1234", "secret": "hush-hush"}))[1]
    assert "AKIA1234" not in done.text
    assert "hush-hush" not in done.text
    assert any("storage.key, storage.secret are not sent" in note for note in done.notes)
    with pytest.raises(ConfigError, match=r"^real\.path"):
        made("s3", given=config(real="data.csv"))


@needs_kustomize
def test_the_way_out_to_another_port_is_opened_once() -> None:
    def ports(endpoint: str | None) -> dict[str, list[int]]:
        documents, _ = made("s3", given=config(storage={"endpoint_url": endpoint}), name="mine")
        return {
            each["metadata"]["name"]: [
                port["port"] for rule in each["spec"]["egress"] for port in rule.get("ports", [])
            ]
            for each in documents
            if each["kind"] == "NetworkPolicy" and "egress" in each["spec"]
        }

    before = ports(None)
    assert ports("http://ceph:7480") == {**before, "mine-endpoint": [7480]}
    assert ports("https://s3.lab") == ports("http://minio:9000") == before


@needs_kustomize
def test_no_run_closes_the_way_out_of_another() -> None:
    """What is applied last holds: so a name that two manifests share has the same rules in both."""
    seen: dict[str, dict[str, Any]] = {}
    endpoint = {"storage": {"endpoint_url": "http://ceph:7480"}}
    for overlay, changes in (
        ("gpu", endpoint),
        ("s3", {}),
        ("nfs", {}),
        ("kueue", {}),
        ("local", {"output": "/data/o"}),
    ):
        for each in made(overlay, given=config(name=f"by-{overlay}", **changes))[0]:
            if each["kind"] == "NetworkPolicy":
                assert seen.setdefault(each["metadata"]["name"], each) == each
    assert sorted(seen) == [
        "chexray",
        "chexray-api-server",
        "chexray-by-gpu-endpoint",
        "chexray-dashboard",
        "chexray-metrics",
        "chexray-s3",
    ]
    heads = {"chexray-api-server", "chexray-dashboard"}
    assert len({str(seen[name]["spec"]["podSelector"]) for name in seen if name not in heads}) == 1
    assert len({str(seen[name]["spec"]["podSelector"]) for name in heads}) == 1


@needs_kustomize
def test_other_ports_of_the_kubernetes_api_are_opened_for_the_head() -> None:
    def ways(*ports: int, **storage: Any) -> dict[str, Any]:
        documents, _ = made("s3", given=config(storage=storage), name="mine", api_server_ports=ports)
        return {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "NetworkPolicy"}

    before = ways(443, 6443)
    after = ways(16443, 6443, 8443)
    assert "mine-api-server" not in before
    assert after.keys() - before.keys() == {"mine-api-server"}
    found = after["mine-api-server"]
    assert found["egress"] == [{"ports": [{"protocol": "TCP", "port": port} for port in (8443, 16443)]}]
    assert found["podSelector"] == before["chexray-api-server"]["podSelector"]
    assert "ingress" not in found
    s3 = ways(16443, endpoint_url="https://s3.lab:6443")  # open for heads alone, and workers read S3
    assert s3["mine-endpoint"]["egress"] == [{"ports": [{"protocol": "TCP", "port": 6443}]}]
    assert s3["mine-endpoint"]["podSelector"] == before["chexray"]["podSelector"]


@needs_kustomize
@pytest.mark.parametrize(("overlay", "pods"), [("gpu", 4), ("local", 2), ("kueue", 4)])
def test_every_pod_pulls_with_the_secret_that_is_named(overlay: str, pods: int, shared: Path) -> None:
    documents, _ = made(overlay, given=config(output="/data/out" if overlay == "local" else "s3://b/o"),
                        image="registry.example/chexray:1", image_pull_secret="regcred.lab")  # fmt: skip
    job = only(documents, "RayJob")
    assert ray_complaints(job, shared) == []
    found = [template["spec"].get("imagePullSecrets") for _, template in templates(job)]
    assert found == [[{"name": "regcred.lab"}]] * pods


@pytest.mark.parametrize("secret", ["Reg_Cred", "-a", "a/b", "a: b", "x" * 254, "a\nb"])
def test_what_is_no_name_of_a_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"^--image-pull-secret .*expected the name of a Secret"):
        manifests._pulling({"spec": {"rayClusterSpec": {}}}, secret)


@needs_kustomize
def test_a_run_with_gates_is_tried_once(shared: Path) -> None:
    """Exit code 3 is a failure to KubeRay, and would start two new clusters that find the same."""
    documents, _ = made("gpu", flags=["--fail-on", "copies", "--fail-on", "worse-than:s3://bucket/a run"])
    job = only(documents, "RayJob")
    assert ray_complaints(job, shared) == []
    assert job["spec"]["backoffLimit"] == 0
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["chexray", "run", "/etc/chexray/run.yaml", "--once"]
    assert words[4:] == ["--fail-on", "copies", "--fail-on", "worse-than:s3://bucket/a run"]
    plain = only(made("gpu", flags=["--verbose"])[0], "RayJob")["spec"]
    assert (plain["backoffLimit"], plain["entrypoint"].split()[-1]) == (2, "--verbose")
    plain = only(made("gpu")[0], "RayJob")["spec"]
    assert (plain["backoffLimit"], plain["entrypoint"]) == (2, "chexray run /etc/chexray/run.yaml --once")


@needs_kustomize
def test_encryption_and_who_pays_travel_with_the_config() -> None:
    storage = {"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:eu-west-1:1:key/k", "requester_pays": True}
    assert run_config(made("s3", given=config(storage=storage))[0])["storage"] == storage


@needs_kustomize
def test_notes_on_the_image_and_the_region() -> None:
    assert any("--image" in note for note in made("gpu")[1].notes)
    assert any("us-east-1" in note for note in made("gpu")[1].notes)
    quiet = made("gpu", given=config(storage={"region": "eu-central-1"}), image="lab/chexray:1")[1]
    assert quiet.notes == ()


def test_which_overlay_and_components_are_meant() -> None:
    assert chosen(["gpu"], DEPLOY) == ("gpu", [])
    assert chosen(["gpu", "s3"], DEPLOY) == ("gpu", [])  # which the overlay has already
    assert chosen(["nfs", "gpu", "nfs"], DEPLOY) == ("gpu", ["nfs"])
    assert chosen(["nfs", "kueue"], DEPLOY) == ("nfs", ["kueue"])
    with pytest.raises(ConfigError, match=r"no overlay 'gpi'\. Known: gpu, kueue, local, nfs, s3\."):
        chosen(["gpi"], DEPLOY)
    with pytest.raises(ConfigError, match="do not go together"):
        chosen(["local", "gpu"], DEPLOY)


@needs_kustomize
def test_what_kustomize_says_against_a_combination_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot render this") as caught:
        made("local", "kueue")
    assert "\n" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chexray-run", "chexray-run"),
        ("chexray-My Run__2", "chexray-my-run-2"),
        ("chexray-" + "x" * 60, "chexray-" + "x" * 39),
        ("chexray-" + "x" * 38 + ".y", "chexray-" + "x" * 38),
    ],
)
def test_names_are_made_to_fit(text: str, name: str) -> None:
    assert fitted_name(text) == name


@pytest.mark.parametrize("name", ["Run", "1st", "a_b", "a" * 48, "end-", ""])
def test_names_given_must_fit(name: str) -> None:
    if name:
        with pytest.raises(ConfigError, match="at most 47 characters"):
            manifests.checked_name(name)
    assert manifests.checked_name("a" * 47) == "a" * 47


def test_image_references() -> None:
    digest = "sha256:" + "0" * 64
    assert split_image("chexray") == {"newName": "chexray", "newTag": __version__}
    assert split_image("host:5000/lab/chexray") == {"newName": "host:5000/lab/chexray", "newTag": __version__}
    assert split_image("host:5000/lab/chexray:0.1.0") == {"newName": "host:5000/lab/chexray", "newTag": "0.1.0"}
    assert split_image(f"lab/chexray@{digest}") == {"newName": "lab/chexray", "digest": digest}
    for wrong in ("https://host/chexray:1", "a b", "chexray:", "chexray@sha256:12"):
        with pytest.raises(ConfigError, match="--image"):
            split_image(wrong)


def test_without_kustomize_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kustomize.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="neither kubectl nor kustomize"):
        made("gpu")


@needs_kustomize
def test_the_command_prints_the_manifest_and_nothing_else_to_stdout(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(config().to_yaml())
    arguments = ["kuberay", str(tmp_path / "run.yaml"), "--overlay", "gpu", "--gpus", "4", "--name", "mine"]
    more = ["--output", "s3://bucket/other", "--image-pull-secret", "regcred", "--fail-on", "rejects"]
    done = CliRunner().invoke(app, [*arguments, *more, "--api-server-port", "8443"])
    assert done.exit_code == 0
    documents = list(yaml.safe_load_all(done.stdout))
    assert {"regcred", "8443", "rejects"} <= set(done.stdout.replace("- ", "").replace("name: ", "").split())
    assert only(documents, "RayJob")["metadata"]["name"] == "mine"
    assert run_config(documents)["output"] == "s3://bucket/other"
    assert done.stderr.startswith("note: ")
    refused = CliRunner().invoke(app, [*arguments, "--set", "metrics=[kdi]"])
    assert "unknown metric 'kdi'. Did you mean 'kid'?" in str(refused.exception)
    assert refused.stdout == ""
