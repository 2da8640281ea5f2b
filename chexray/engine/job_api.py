"""Ray's Jobs API over HTTP: jobs are handed in, looked up and followed. Nothing of Ray is started on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexray.errors import ConfigError, ResourceError
from chexray.storage.proxies import proxy_hint

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10, 120
"""Ray's client waits without end; a submission starts an actor, so its answer may take a minute."""

_ADDRESS = "RAY_API_SERVER_ADDRESS"
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


class LogBroken(Exception):
    """The stream of a job's log ended before the job did; it can be asked for again."""


class JobExists(Exception):
    """A job of this id is there already: somebody was faster."""


@dataclass(frozen=True)
class JobState:
    """Where a job stands: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; exit_code is the entry point's, if known."""

    status: str
    message: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class Jobs:
    """The jobs of the cluster whose dashboard answers at `address`. Every failure is a ResourceError of one line.

    version, client_version: Ray's there and here.
    """

    def __init__(self, address: str):
        import ray
        from ray.job_submission import JobSubmissionClient

        class Client(JobSubmissionClient):
            def _do_request(self, method: str, endpoint: str, **how: Any) -> Any:
                how.setdefault("timeout", (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S))
                return super()._do_request(method, endpoint, **how)

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.address = address
        self.client_version: str = ray.__version__
        # Ray lets the environment overrule the address it is given.
        before = os.environ.get(_ADDRESS)
        os.environ[_ADDRESS] = address
        try:
            with self._explained():
                self._client = Client(address, headers=auth_headers(os.environ))
        finally:
            os.environ.pop(_ADDRESS) if before is None else os.environ.update({_ADDRESS: before})
        self.version: str = getattr(self._client, "_server_ray_version", None) or ""

    def states(self) -> dict[str, JobState]:
        """{submission id: state} of every job the cluster knows."""
        with self._explained():
            return {job.submission_id: _state(job) for job in self._client.list_jobs() if job.submission_id}

    def state(self, submission_id: str) -> JobState:
        with self._explained():
            return _state(self._client.get_job_info(submission_id))

    def submit(self, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]) -> None:
        """Hands a job in. Raises JobExists, ConfigError for a wrong runtime environment, or ResourceError."""
        with self._explained():
            try:
                self._client.submit_job(entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"the runtime environment cannot be used: {one_line(error)}.") from None
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise JobExists(submission_id) from None
                raise

    def tail(self, submission_id: str) -> Iterator[str]:
        """The log of a job from its start, piece by piece, until the job ends. Raises LogBroken when cut short."""
        import aiohttp

        stream: Any = self._client.tail_job_logs(submission_id)

        async def following() -> str | None:
            return await anext(stream, None)

        async def closed() -> None:
            await stream.aclose()

        with asyncio.Runner() as runner:
            try:
                while (text := runner.run(following())) is not None:
                    yield text
            except aiohttp.WSServerHandshakeError as error:
                if error.status in (401, 403):
                    raise ResourceError(self._refused(is_wrong=error.status == 403)) from None
                raise LogBroken(one_line(error)) from None
            except (aiohttp.ClientError, OSError, RuntimeError, TimeoutError) as error:
                raise LogBroken(one_line(error)) from None
            finally:
                runner.run(closed())

    def _refused(self, *, is_wrong: bool) -> str:
        what = "does not take this token" if is_wrong else "answers no request without its token"
        return (
            f"the cluster at {self.address} {what}: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's own."
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what Ray's client raises into one line."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            # "Authentication failed" is Ray's word for a 403; for a 401, and for no token to send, it has others.
            said = self._refused(is_wrong="Authentication failed" in str(error))
            raise ResourceError(f"{said}{proxy_hint(self.address, os.environ)}") from None
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise ResourceError(
                f"no Ray dashboard answers at {self.address} ({one_line(error)}). Correct --address, open the port "
                "(kubectl port-forward service/NAME-head-svc 8265), or start the cluster."
                f"{proxy_hint(self.address, os.environ)}"
            ) from None
        except (RuntimeError, KeyError, ValueError) as error:
            hint = proxy_hint(self.address, os.environ)
            raise ResourceError(f"the Jobs API of Ray at {self.address} refused: {one_line(error)}.{hint}") from None


def auth_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """The header that proves who asks; {} where Ray's own client finds the token, or none is wanted.

    RAY_AUTH_MODE unset makes Ray's client send nothing, even where RAY_AUTH_TOKEN is set. Here a token that the
    environment names is sent unless RAY_AUTH_MODE says disabled.
    """
    if (environment.get("RAY_AUTH_MODE") or "token").lower() != "token":
        return {}
    token = environment.get("RAY_AUTH_TOKEN", "").strip()
    path = environment.get("RAY_AUTH_TOKEN_PATH", "")
    if not token and path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read. Name the file with the token.") from None
    return {"Authorization": f"Bearer {token}"} if token else {}


def one_line(error: BaseException) -> str:
    """What an error says, without its traceback: servers send theirs as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")] or [type(error).__name__]
    text = lines[-1] if "Traceback" in lines[0] else lines[0]
    return text[:300].rstrip(".")


def _state(job: JobDetails) -> JobState:
    return JobState(str(job.status), job.message or "", getattr(job, "driver_exit_code", None))
