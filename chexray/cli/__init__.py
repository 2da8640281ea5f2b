"""The command line: thin, since every command is a call that Python users can make too.

Exit codes: 0 done; 1 a cell failed or too many images were rejected, or a defect of chexray, which shows a traceback;
2 a wrong command line, config or input, a machine or cluster that failed, or an output that cannot be written; 3 what
--fail-on names was found; 130 stopped on request (Ctrl-C, SIGTERM, SIGHUP). A reader of the output that leaves early
(`| head -1`) changes none of them. The RayJob or `ray job` around a run knows 0 and 1 only: status.json has the code.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from chexray import __version__
from chexray.cli import doctor, jobs, lists, privacy, runs, starting, training
from chexray.cli.streams import ended, lenient_streams
from chexray.run.stopping import LEAVE_S

EXIT_CODES = (
    "Exit codes: 0 done; 1 a cell failed or too many images were rejected, or a defect; 2 a wrong command line, config "
    "or input, or a machine or cluster that failed; 3 --fail-on found something; 130 stopped on request. Under `ray "
    "job submit` all but 0 become 1; status.json has the code."
)

# 80 columns are click's own limit; subcommands inherit both.
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

app = typer.Typer(
    context_settings=SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES,
    help="Evaluate synthetic chest radiographs: fidelity, privacy and utility, with error bars, on a laptop or on Ray.",
)


def main() -> None:
    """Entry point: expected errors become one line and their exit code; defects keep their traceback."""
    output = lenient_streams()
    code = _exit_code()
    if code == 130:
        # Python waits for threads as it ends, and these may wait for a storage that does not answer.
        leave = threading.Timer(LEAVE_S, os._exit, [code])
        leave.daemon = True
        leave.start()
    sys.exit(ended(output, code))


def _exit_code() -> int:
    """Runs the command. Raises what is a defect."""
    try:
        # Outside standalone mode typer.Exit comes back as a value, and an interrupt as the value 130.
        code = app(standalone_mode=False, prog_name="chexray")
        if code == 130:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("chexray: stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except Exception as error:
        # Usage errors of the command line itself (an unknown option) come as click exceptions.
        if show := getattr(error, "show", None):
            show()
            return getattr(error, "exit_code", 2)
        from chexray.engine.failures import explained

        told = explained(error)
        if told is None:
            raise
        print("chexray: " + "\n".join(told.lines), file=sys.stderr)
        return told.exit_code


def _version(asked: bool) -> None:
    if asked:
        print(f"chexray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


starting.add_to(app)
runs.add_to(app)
training.add_to(app)
jobs.add_to(app)
doctor.add_to(app)
lists.add_to(app)
privacy.add_to(app)
