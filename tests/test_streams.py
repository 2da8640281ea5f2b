"""A reader that leaves, a closed stream or a full disk: no traceback, and the exit codes that are documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = "chexray: standard output could not be written (No space left on device); what a run found is in its folder"

RUN = """
import sys
import chexray.cli
from chexray.cli.options import console, print_lines

def run(**_):
    print("said while it runs", file=sys.stderr, flush=True)
    for _ in range(20_000):  # more than a pipe holds
        print("a row of a table")
    print_lines(console(), ["a summary"])
    open(r"{done}", "w").close()
    return {code}

chexray.cli.app = run
chexray.cli.main()
"""


def shell(command: str, **more) -> subprocess.CompletedProcess[str]:
    """In bash, with pipefail: the code is that of the first command of a pipe that fails."""
    line = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **more)


def chexray(words: str) -> str:
    return f"'{sys.executable}' -m chexray.cli {words}"


@pytest.fixture
def a_run(tmp_path: Path):
    """A run of `code` that prints more than a pipe holds, as a command; and the file that says it came to its end."""

    def write(code: int) -> tuple[str, Path]:
        done, script = tmp_path / "done", tmp_path / "run.py"
        done.unlink(missing_ok=True)
        script.write_text(RUN.format(code=code, done=done))
        return f"'{sys.executable}' '{script}'", done

    return write


@pytest.mark.parametrize(
    ("where", "code", "expected", "said"),
    [
        ("| head -1", 0, 0, "said while it runs\n"),
        ("| head -1", 3, 3, "said while it runs\n"),
        (">&-", 0, 0, "said while it runs\n"),
        ("> /dev/full", 0, 2, f"said while it runs\n{FULL}\n"),
        ("> /dev/full", 1, 1, f"said while it runs\n{FULL}\n"),
        ("2>&1 | true", 0, 0, ""),
        ("2>&-", 0, 0, ""),
        ("2> /dev/full", 0, 0, ""),
        ("> /dev/full 2>&1", 0, 2, ""),
        ("<&- >&- 2>&-", 1, 1, ""),
    ],
)
def test_a_run_comes_to_its_end_whatever_reads_it(a_run, where: str, code: int, expected: int, said: str) -> None:
    command, done = a_run(code)
    ended = shell(f"{command} {where}")
    assert done.exists(), ended.stderr
    assert (ended.returncode, ended.stderr) == (expected, said)


def test_so_do_the_other_commands(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "done"}')
    script = f"""
    {chexray("ls encoders")} | true; echo $?
    {chexray("--help")} | true; echo $?
    {chexray("run --help")} >&-; echo $?
    {chexray("--version")} > /dev/full; echo $?
    {chexray(f"status {tmp_path}")} > /dev/full; echo $?
    """
    ended = shell(script)
    assert ended.stdout.split() == ["0", "0", "0", "2", "2"]
    assert ended.stderr == f"{FULL}\n{FULL}\n"


def test_nothing_that_is_opened_takes_the_place_of_a_closed_output(tmp_path: Path) -> None:
    code = (
        "from chexray.cli.streams import lenient_streams; lenient_streams();"
        f"file = open(r'{tmp_path / 'data'}', 'w'); print('results'); assert file.fileno() > 2; file.close()"
    )
    ended = shell(f"'{sys.executable}' -c \"{code}\" >&- <&- 2>&-", cwd=os.getcwd())
    assert ended.returncode == 0
    assert (tmp_path / "data").read_text() == ""


def test_a_usage_error_is_2_and_a_defect_1(tmp_path: Path) -> None:
    for words in ("run --nonsense", "compare only-one"):
        ended = shell(chexray(words))
        assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), words
    defect = "import chexray.cli as c; c.app = lambda **_: 1 / 0; c.main()"
    ended = shell(f"'{sys.executable}' -c '{defect}'")
    assert (ended.returncode, "ZeroDivisionError" in ended.stderr) == (1, True)
