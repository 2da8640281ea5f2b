"""`chexray submit` against a Jobs API of the tests' own: real HTTP and WebSocket, no Ray cluster."""

from __future__ import annotations

import io
import os
import shlex
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fixtures.jobs_api import CUT, JobsApi, served
from typer.testing import CliRunner

from chexray.cli import app
from chexray.engine.job_api import Jobs, JobState, LogBroken, auth_headers
from chexray.errors import ConfigError, ResourceError
from chexray.jobs import submitting

TOKEN = "a-token-of-the-tests-0123456789abcdef"
CONFIG = """\
name: study
real: {source: phantom, generator: real, n: 4, seed: 1}
synthetic: {name: made, source: phantom, generator: good, n: 4, seed: 2}
encoders: [pixels]
output: s3://bucket/out
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(submitting, "POLL_S", 0.0)
    # The local Ray that other tests of this process may have started has a token, which Ray's client would send here.
    monkeypatch.setattr("ray.dashboard.modules.dashboard_sdk.get_auth_headers_if_auth_enabled", lambda headers: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(CONFIG)


@pytest.fixture
def api() -> Iterator[JobsApi]:
    with served(JobsApi()) as found:
        yield found


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `chexray submit study.yaml ...`; a one-line error becomes stderr."""
    done = CliRunner().invoke(app, ["submit", "study.yaml", *arguments])
    error = "" if isinstance(done.exception, SystemExit) or not done.exception else f"chexray: {done.exception}"
    code = getattr(done.exception, "exit_code", done.exit_code) if error else done.exit_code
    return code, done.stdout, done.stderr + error


def test_the_config_alone_travels_and_the_id_is_that_of_the_run(api: JobsApi) -> None:
    with Path("study.yaml").open("a") as file:
        file.write("storage: {secret: hush}\n")
    code, out, _ = run("--address", api.address, "--limit", "3")
    assert code == 0
    (name,) = api.jobs
    assert name.startswith("study-")
    job = api.jobs[name]
    assert job["entrypoint"] == "chexray run run.yaml --once"
    assert set(job["runtime_env"]) == {"working_dir"}
    with zipfile.ZipFile(io.BytesIO(next(iter(api.packages.values())))) as package:
        assert package.namelist() == ["run.yaml"]
        sent = package.read("run.yaml").decode()
    assert yaml.safe_load(sent)["limit"] == 3
    assert "hush" not in sent
    assert [line.split()[0] for line in out.splitlines()] == ["submitted", "follow", "status", "stop"]
    assert f"RAY_API_SERVER_ADDRESS={api.address} ray job stop {name}" in out
    assert "chexray status s3://bucket/out" in out


def test_the_same_evaluation_is_not_started_twice_and_a_later_one_is_numbered(api: JobsApi) -> None:
    run("--address", api.address)
    (name,) = api.jobs
    for status in ("PENDING", "RUNNING"):
        api.jobs[name]["status"] = status
        code, out, _ = run("--address", api.address)
        assert (code, list(api.jobs)) == (0, [name])
        assert out.startswith(f"already {status.lower()} {name}")
    for ended, numbered in (("FAILED", f"{name}-2"), ("STOPPED", f"{name}-3")):
        for job in api.jobs.values():
            job["status"] = ended
        assert run("--address", api.address)[0] == 0
        assert list(api.jobs)[-1] == numbered
    assert run("--address", api.address, "--output", "s3://bucket/other")[0] == 0
    assert len(api.jobs) == 4


def test_an_id_the_user_chose_is_used_as_it_is_or_not_at_all(api: JobsApi) -> None:
    assert run("--address", api.address, "--submission-id", "mine.1")[0] == 0
    assert run("--address", api.address, "--submission-id", "mine.1")[1].startswith("already running mine.1")
    api.jobs["mine.1"]["status"] = "SUCCEEDED"
    code, _, error = run("--address", api.address, "--submission-id", "mine.1")
    assert code == 2
    assert "ended on this cluster already (SUCCEEDED)" in error
    code, _, error = run("--address", api.address, "--submission-id", "../mine")
    assert code == 2
    assert "letters, digits" in error


def test_who_loses_the_race_takes_the_winners_job(api: JobsApi) -> None:
    jobs = Jobs(api.address)
    seen = jobs.states()
    api.job("x", "RUNNING")
    jobs.states = iter([seen, jobs.states()]).__next__  # type: ignore[method-assign]
    assert submitting.submit(jobs, "x", {}) == submitting.Submitted("x", False, "RUNNING")


def test_following_prints_the_log_once_and_ends_with_the_exit_code(api: JobsApi) -> None:
    api.log = ["first\n", "sec", CUT, "ond\n", "third\n"]
    api.ends_with = ("FAILED", 3)
    name, code, out, error = "", *run("--address", api.address, "--follow")
    (name,) = api.jobs
    assert out == "first\nsecond\nthird\n"
    assert code == 3
    assert f"{name} failed: chexray ended with exit code 3" in error


def test_gates_go_along_are_checked_here_and_make_another_job(api: JobsApi) -> None:
    run("--address", api.address)
    (plain,) = api.jobs
    api.ends_with = ("FAILED", 3)
    gates = ("--fail-on", "rejects:1%", "--fail-on", "worse-than:s3://bucket/out/run-1:kid")
    code, _, error = run("--address", api.address, "--follow", *gates)
    *_, gated = api.jobs
    assert gated.startswith(f"{plain}-")
    assert api.jobs[gated]["entrypoint"] == (
        "chexray run run.yaml --once --fail-on rejects:1% --fail-on worse-than:s3://bucket/out/run-1:kid"
    )
    assert code == 3
    assert "exit code 3: the run is done, and what --fail-on names was found" in error
    for gate, words in (
        ("copies", "run has suite fidelity only"),
        ("copeis", "Did you mean copies"),
        ("worse-than:out/run-1", "path of this machine"),
        ("worse-than:s3://key:hush@bucket/x", "holds a user or password"),
    ):
        code, _, error = run("--address", api.address, "--fail-on", gate)
        assert (code, len(api.jobs)) == (2, 2)
        assert words in error
        assert "hush" not in error


def test_following_joins_a_job_that_runs_already(api: JobsApi) -> None:
    run("--address", api.address)
    api.log, api.ends_with = ["hello\n"], ("SUCCEEDED", 0)
    code, out, error = run("--address", api.address, "--follow")
    assert (code, out) == (0, "hello\n")
    assert "already running" in error
    assert len(api.jobs) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("FAILED", -9, 137),
        ("FAILED", 0, 1),
        ("STOPPED", None, 130),
    ],
)
def test_exit_codes(status: str, code: int | None, expected: int) -> None:
    assert submitting.exit_code(JobState(status, "", code)) == expected


def test_reasons_are_one_line() -> None:
    assert submitting.reason(JobState("FAILED", "Job entrypoint command failed", 127)).startswith("no chexray on")
    assert submitting.reason(JobState("FAILED", "runtime_env\nsetup  failed", None)) == "runtime_env setup failed"
    assert submitting.reason(JobState("STOPPED")) == "no reason given"


class Flaky:
    """A cluster whose log and state come or fail in the given order."""

    address = "http://head:8265"

    def __init__(self, steps: list[object]):
        self.steps, self.naps = steps, 0

    def tail(self, submission_id: str) -> Iterator[str]:
        yield from ("a", "b")
        raise LogBroken("gone")

    def state(self, submission_id: str) -> JobState:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, JobState)
        return step

    def nap(self, _: float) -> None:
        self.naps += 1


def test_following_outlasts_a_head_that_restarts_but_not_one_that_is_gone() -> None:
    away, text = ResourceError("no Ray dashboard answers"), []
    jobs = Flaky([away, away, JobState("RUNNING"), away, JobState("SUCCEEDED")])
    assert submitting.follow(jobs, "x", text.append, sleep=jobs.nap).status == "SUCCEEDED"  # type: ignore[arg-type]
    assert ("".join(text), jobs.naps) == ("ab", 4)
    jobs = Flaky([away] * (submitting.PATIENCE + 1))
    with pytest.raises(ResourceError, match="no Ray dashboard"):
        submitting.follow(jobs, "x", text.append, sleep=jobs.nap)  # type: ignore[arg-type]
    assert not jobs.steps


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Jobs, "tail", interrupted)
    code, _, error = run("--address", api.address, "--follow")
    (name,) = api.jobs
    assert code == 130
    assert f"{name} keeps running" in error
    assert f"ray job logs --follow {name}" in error
    assert f"ray job stop {name}" in error
    assert api.jobs[name]["status"] == "RUNNING"


def test_a_wrong_or_missing_token_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(JobsApi(token=TOKEN)) as api:
        code, out, error = run("--address", api.address)
        assert (code, out) == (2, "")
        assert "answers no request without its token" in error
        assert "RAY_AUTH_MODE=token" in error
        assert "RAY_AUTH_TOKEN" in error
        assert len(error.splitlines()) == 1

        monkeypatch.delenv("RAY_AUTH_MODE")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
        assert "does not take this token" in run("--address", api.address)[2]
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        code, out, _ = run("--address", api.address)
        assert code == 0
        assert "RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=" in out
        assert TOKEN not in out
        assert api.authorizations[-1] == f"Bearer {TOKEN}"
        api.log, api.ends_with = ["in\n"], ("SUCCEEDED", 0)
        assert run("--address", api.address, "--follow")[:2] == (0, "in\n")


def test_which_token_is_sent(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    header = {"Authorization": f"Bearer {TOKEN}"}
    assert auth_headers({}) == {}
    assert auth_headers({"RAY_AUTH_TOKEN": TOKEN}) == header
    assert auth_headers({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == header
    assert auth_headers({"RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN": TOKEN}) == header
    assert auth_headers({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": TOKEN}) == {}
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN_PATH"):
        auth_headers({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")})


def test_where_the_cluster_is() -> None:
    find = submitting.find_address
    both = {"RAY_API_SERVER_ADDRESS": "http://api:8265/", "RAY_ADDRESS": "http://other:8265"}
    assert find("https://given:1", both) == "https://given:1"
    assert find(None, both) == "http://api:8265"
    assert find(None, {"RAY_ADDRESS": "http://other:8265"}) == "http://other:8265"
    for environment in ({}, {"RAY_ADDRESS": "10.0.0.1:6379"}, {"RAY_ADDRESS": "ray://head:10001"}):
        with pytest.raises(ConfigError, match=r"--address http://head:8265"):
            find(None, environment)
    for wrong in ("head:8265", "ray://head:10001", "http://"):
        with pytest.raises(ConfigError, match=r"^--address is .*expected the URL"):
            find(wrong, {})
    with pytest.raises(ConfigError) as caught:
        find("http://me:hush@head:8265", {})
    assert "hush" not in str(caught.value)


def test_the_address_given_holds_against_the_environment(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    assert run("--address", api.address)[0] == 0
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:9"
    code, _, error = run()
    assert code == 2
    assert "no Ray dashboard answers at http://127.0.0.1:9" in error
    assert len(error.splitlines()) == 1


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chexray.engine.job_api.ANSWER_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        code, _, error = run("--address", f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert code == 2
    assert "no Ray dashboard answers" in error


def test_another_version_of_ray_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(JobsApi(ray_version="2.99.0")) as api:
        code, _, error = run("--address", api.address)
        assert code == 0
        assert "note: the cluster runs Ray 2.99.0" in error
    with served(JobsApi(ray_version="1.0.0")) as api:
        code, _, error = run("--address", api.address)
        assert code == 2
        assert "Ray version 1.0.0" in error


def test_a_refusal_is_the_last_line_of_the_servers_traceback(api: JobsApi) -> None:
    api.fails_with = (500, 'Traceback (most recent call last):\n  File "x.py"\nValueError: no room here\n')
    code, _, error = run("--address", api.address)
    assert code == 2
    assert "refused: ValueError: no room here." in error
    assert len(error.splitlines()) == 1


def test_a_runtime_env_and_a_folder_are_sent_when_asked_for(api: JobsApi, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text("env_vars: {HF_HUB_OFFLINE: '1', HF_TOKEN: 'hush'}\n")
    (tmp_path / "ship").mkdir()
    (tmp_path / "ship" / "test.csv").write_text("image,prompt\n")
    arguments = ["--runtime-env", "env.yaml", "--working-dir", "ship", "--set", "real={path: test.csv}"]
    code, _, error = run("--address", api.address, *arguments)
    assert code == 0
    assert "note: --runtime-env: HF_TOKEN can be read by everyone" in error
    assert "hush" not in error
    (job,) = api.jobs.values()
    assert job["runtime_env"]["env_vars"] == {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "hush"}
    with zipfile.ZipFile(io.BytesIO(next(iter(api.packages.values())))) as package:
        assert sorted(package.namelist()) == ["run.yaml", "test.csv"]
    (tmp_path / "env.yaml").write_text("pip: 3\n")
    code, _, error = run("--address", api.address, *arguments, "--limit", "2")
    assert code == 2
    assert "runtime environment cannot be used" in error


def test_the_command_for_the_status_asks_the_same_storage(api: JobsApi) -> None:
    settings = ["endpoint_url=http://minio:9000", "region=eu-west-1", "profile=the lab", "requester_pays=true"]
    arguments = [part for each in settings for part in ("--set", f"storage.{each}")]
    with Path("study.yaml").open("a") as file:
        file.write("storage: {key: AKIA1234, secret: hush, token: psst}\n")
    out = run("--address", api.address, *arguments)[1]
    (line,) = [line for line in out.splitlines() if "chexray status" in line]
    command = shlex.split(line)
    assert command[1:] == ["chexray", "status", "s3://bucket/out", *arguments]
    local = run("--address", api.address, *arguments, "--output", "/data/out")[1]
    assert "chexray status /data/out\n" in local


def test_nothing_is_asked_of_the_cluster_for_a_config_that_cannot_travel(api: JobsApi) -> None:
    code, _, error = run("--address", api.address, "--output", "out")
    assert code == 2
    assert "lost with it" in error
    assert not api.authorizations


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("metrics=[kdi]", "unknown metric 'kdi'. Did you mean 'kid'?"),
        ("encoders=[pixls]", "unknown encoder 'pixls'. Did you mean 'pixels'?"),
        ("encoders=[{name: pixels, sid: 8}]", "pixels has no option 'sid'. Did you mean 'side'?"),
        ("metrics=[{name: kid, subset: 3}]", "has no option 'subset'"),
        ("real.generator=rael", "generator 'rael' is not one of"),
        ("real.source=phantm", "unknown source 'phantm'. Did you mean 'phantom'?"),
    ],
)
def test_what_is_misspelt_is_refused_before_the_cluster_is_asked(api: JobsApi, setting: str, words: str) -> None:
    code, _, error = run("--address", api.address, "--set", setting)
    assert code == 2
    assert words in error
    assert not api.authorizations


def test_a_plug_in_that_the_job_may_bring_is_noted(api: JobsApi, tmp_path: Path) -> None:
    code, _, error = run("--address", api.address, "--set", "metrics=[our_own_measure]")
    assert code == 2
    assert "unknown metric 'our_own_measure'" in error
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "plugin.py").touch()
    code, _, error = run("--address", api.address, "--set", "metrics=[kdi]", "--working-dir", "code")
    assert code == 0  # the folder may bring a metric of that name
    assert "note: unknown metric 'kdi'" in error


def test_a_proxy_that_catches_the_dashboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    monkeypatch.setenv("no_proxy", "elsewhere")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", dead)
    code, _, error = run("--address", "http://head.cluster:8265")
    assert code == 2
    assert "HTTP_PROXY applies to head.cluster" in error
    assert error.endswith("add head.cluster to no_proxy.")


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_answers_in_place_of_the_dashboard_is_named(
    api: JobsApi, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    monkeypatch.setenv("no_proxy", "elsewhere")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", api.address)
    api.fails_with = (status, "<html>The proxy cannot connect.</html>")
    code, _, error = run("--address", "http://head.cluster:8265")
    assert code == 2
    assert "add head.cluster to no_proxy." in error


@pytest.mark.slow
def test_the_command_prints_one_line_and_no_chatter_of_ray(api: JobsApi, tmp_path: Path) -> None:
    """In a process of its own: what Ray's client logs goes past every capture."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "chexray.cli", "submit", "study.yaml", "--address", api.address]
    api.fails_with = (500, "no")  # after the upload, of which Ray's client likes to tell
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, len(api.packages)) == (2, "", 1)
    assert done.stderr.startswith("chexray: the Jobs API")
    assert len(done.stderr.splitlines()) == 1
