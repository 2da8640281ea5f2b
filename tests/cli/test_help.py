"""What a newcomer meets first: -h, examples that can be copied, completion, python -m chexray."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from chexray.cli import app

COMMANDS = [[name] for name in get_command(app).commands if name != "privacy"] + [["privacy", "audit"]]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_short_help_and_one_example_a_line(command: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*command, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)
    _, found, examples = short.output.partition("Example")
    for line in examples.splitlines()[1:]:
        # A shell would read " | " between examples as a pipe.
        assert not line.strip() or line.startswith(("  chexray ", "    chexray ", "    RAY_AUTH_MODE")), line
        assert " | chexray" not in line or "kubectl" in line
    assert found or command[0] in ("validate", "ls", "compare")


def run(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "chexray", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_as_a_module_it_is_the_same_command() -> None:
    assert run("--help").startswith("Usage: chexray ")


def test_a_shell_completes_commands() -> None:
    found = run(_CHEXRAY_COMPLETE="complete_bash", COMP_WORDS="chexray ru", COMP_CWORD="1")
    assert found.split() == ["run"]
