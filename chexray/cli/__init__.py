"""The command line: thin, since every command is a call that Python users can make too.

Exit codes: 0 done; 1 a cell failed or too many images were rejected; 2 wrong config or input; 130 stopped on request.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from chexray import __version__
from chexray.cli import doctor, jobs, lists, privacy, runs, training
from chexray.errors import ChexrayError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evaluate synthetic chest radiographs: fidelity, privacy and utility, with error bars, on a laptop or on Ray.",
)


def main() -> None:
    """Entry point: expected errors become one line and their exit code; defects keep their traceback."""
    try:
        # Outside standalone mode typer.Exit comes back as a value, and an interrupt as the value 130.
        code = app(standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except ChexrayError as error:
        print("chexray: " + "\n".join(error.lines), file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("chexray: stopped; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Usage errors of the command line itself (an unknown option) come as click exceptions.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))


def _version(asked: bool) -> None:
    if asked:
        print(f"chexray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


runs.add_to(app)
training.add_to(app)
jobs.add_to(app)
doctor.add_to(app)
lists.add_to(app)
privacy.add_to(app)
