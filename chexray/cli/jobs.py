"""`chexray submit`, `chexray kuberay` and `chexray status`: a run on a cluster, from here."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexray.cli import options as opt
from chexray.cli.options import console, examples, print_lines, read_config, read_storage

if TYPE_CHECKING:
    from chexray.engine.job_api import Jobs


RunFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML run config; flags override it")]

SUBMIT_EXAMPLES = examples(
    "chexray submit run.yaml --address http://head:8265 --output s3://bucket/out --follow",
    "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=... RAY_API_SERVER_ADDRESS=http://head:8265 chexray submit run.yaml",
)
KUBERAY_EXAMPLES = examples(
    "chexray kuberay run.yaml --overlay gpu --gpus 8 --image registry/chexray:0.1.0",
    "chexray kuberay run.yaml --overlay local --output s3://bucket/out > job.yaml && kubectl apply -f job.yaml",
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=SUBMIT_EXAMPLES)(submit)
    app.command(epilog=KUBERAY_EXAMPLES)(kuberay)
    app.command(epilog=examples("chexray status out/", "chexray status s3://bucket/out --json"))(status)


def submit(
    config: RunFile,
    address: Annotated[
        str | None, typer.Option(help="the cluster's dashboard, http://head:8265; default RAY_API_SERVER_ADDRESS")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="print the log, and end with the run's exit code")] = False,
    output: opt.Output = None,
    limit: opt.Limit = None,
    setting: opt.Setting = None,
    plugin: opt.Plugins = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="also send this folder (code, tables; no hidden files); at most 100 MB")
    ] = None,
    runtime_env: Annotated[Path | None, typer.Option(help="YAML or JSON of a Ray runtime environment")] = None,
    submission_id: Annotated[str | None, typer.Option(help="by default the run's name and a hash of it")] = None,
    fail_on: opt.FailOn = None,
) -> None:
    """Run a config on a Ray cluster. Only the config travels; the same one is not started twice."""
    from chexray.cli.gates import sent_along
    from chexray.engine.job_api import Jobs
    from chexray.jobs import submitting
    from chexray.jobs.bundle import PLUGINS, folder_files, open_secrets, parcel, read_runtime_env
    from chexray.jobs.portable_config import distinct, host_of, plugin_flags, travelling
    from chexray.jobs.portable_config import submission_id as id_of
    from chexray.log import say
    from chexray.plan.naming import check_names
    from chexray.registry import used

    parsed = read_config(config, setting, output=output, limit=limit)
    flags = sent_along(fail_on, parsed)
    where = submitting.find_address(address, os.environ)
    files = folder_files(working_dir, config_path=config) if working_dir else []
    sent = travelling(parsed, folder=working_dir, near=host_of(where))
    environment = read_runtime_env(runtime_env)
    notes = check_names(sent.config, "--runtime-env" if environment else "--working-dir" if working_dir else "")
    plugins = distinct(used())
    jobs = Jobs(where)
    with parcel(sent.text, working_dir, files, plugins) as folder:
        chosen = submission_id or id_of(sent.config, plugins)
        whole = {**environment, "working_dir": folder}
        flags = [*plugin_flags(plugins, f"{PLUGINS}/"), *flags]
        done = submitting.submit(jobs, chosen, whole, exact=bool(submission_id), flags=flags)

    for note in [*sent.notes, *notes, *open_secrets(environment)]:
        say(f"note: {note}")
    if jobs.version and jobs.version != jobs.client_version:
        say(f"note: the cluster runs Ray {jobs.version}, this machine {jobs.client_version}; jobs work across versions")

    word = "submitted" if done.is_new else f"already {done.status.lower()}"
    commands = submitting.next_commands(where, done.submission_id, sent.config, os.environ)
    if not follow:
        print(f"{word} {done.submission_id} at {where}")
        for what, command in commands.items():
            print(f"  {what:<7} {command}")
        return
    say(f"{word} {done.submission_id} at {where}")
    _follow(jobs, done.submission_id, commands)


def _follow(jobs: Jobs, submission_id: str, commands: dict[str, str]) -> None:
    """The log of a job, then its exit code; Ctrl-C leaves it running."""
    from chexray.jobs import submitting
    from chexray.log import say
    from chexray.text import printable

    def visible(text: str) -> str:
        # A log holds what the job met. Colours of Ray's prefixes go; other control characters are shown.
        plain = re.sub(r"\x1b\[[0-9;]{0,20}m", "", text).replace("\r\n", "\n")
        return "\n".join("\t".join(map(printable, line.split("\t"))) for line in plain.split("\n"))

    try:
        state = submitting.follow(jobs, submission_id, lambda text: print(visible(text), end="", flush=True))
    except KeyboardInterrupt:
        say(f"\n{submission_id} keeps running")
        for what, command in commands.items():
            say(f"  {what:<7} {command}")
        # Not typer.Exit, whose 130 would be reported as a run of this process that was stopped.
        raise SystemExit(130) from None
    code = submitting.exit_code(state)
    if code:
        say(f"{submission_id} {state.status.lower()}: {submitting.reason(state)}")
    raise SystemExit(code)


def kuberay(
    config: RunFile,
    overlay: Annotated[list[str], typer.Option(help="local, s3, gpu, nfs, kueue; a second one adds nfs, s3 or kueue")],
    image: Annotated[str | None, typer.Option(help="the image in your registry, name:tag or name@sha256:...")] = None,
    namespace: Annotated[str | None, typer.Option(help="Kubernetes namespace")] = None,
    name: Annotated[str | None, typer.Option(help="of the RayJob, by default chexray-<the run's name>")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="how many GPUs the cluster may grow to")] = None,
    image_pull_secret: Annotated[str | None, typer.Option(help="a Secret that pods pull the image with")] = None,
    api_server_port: Annotated[
        list[int] | None, typer.Option(min=1, max=65535, help="of Kubernetes, if not 443 or 6443; may be repeated")
    ] = None,
    fail_on: opt.FailOn = None,
    output: opt.Output = None,
    limit: opt.Limit = None,
    setting: opt.Setting = None,
    plugin: opt.Plugins = None,
) -> None:
    """Print a KubeRay manifest that runs a config: chexray kuberay ... | kubectl apply -f -"""
    from chexray.cli.gates import sent_along
    from chexray.jobs.manifests import kuberay_manifest
    from chexray.log import say
    from chexray.plan.naming import check_names
    from chexray.registry import used

    parsed = read_config(config, setting, output=output, limit=limit)
    notes = check_names(parsed, "--image" if image else "")
    done = kuberay_manifest(
        parsed, overlay, image=image, namespace=namespace, name=name, gpus=gpus, image_pull_secret=image_pull_secret,
        api_server_ports=api_server_port or (), flags=sent_along(fail_on, parsed), plugins=used(),
    )  # fmt: skip
    for note in [*done.notes, *notes]:
        say(f"note: {note}")
    print(done.text, end="")


def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="a run's folder, or one of runs, local or s3://")],
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list instead of a table")] = False,
    setting: opt.Setting = None,
) -> None:
    """How runs are doing, from their folders: no cluster is asked. --set storage.endpoint_url=... as in a config."""
    import json

    from chexray.jobs.status import read_statuses, utc_now
    from chexray.jobs.status_lines import status_lines

    found = read_statuses(output, read_storage(_of_storage(setting), "command line"), utc_now)
    if as_json:
        print(json.dumps([each.record for each in found], indent=2))
        return
    target = console()
    lines = status_lines(found, target.width if sys.stdout.isatty() else None)
    if len(found) == 1:
        only = found[0]
        lines += [f"{only.run}: {only.remark}"] if only.remark else []
        lines += [f"updated: {only.updated_at}"] if only.updated_at else []
        lines.append(f"folder: {only.uri}")
    print_lines(target, lines)


def _of_storage(settings: list[str] | None) -> list[str]:
    """KEY=VALUE of each `--set storage.KEY=VALUE`. Raises ConfigError for a setting of anything else."""
    from chexray.config.secrets import refuse_on_command_line
    from chexray.errors import ConfigError
    from chexray.text import quoted

    for item in settings or []:
        refuse_on_command_line(item)
        if not item.startswith("storage."):
            raise ConfigError(f"--set {quoted(item)}: status reads files only. Expected storage.KEY=VALUE.")
    return [item.removeprefix("storage.") for item in settings or []]
