"""`chexray doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chexray.cli.options import Plugins, Setting, examples, read_config

EXAMPLES = examples(
    "chexray doctor", "chexray doctor configs/s3.yaml", "chexray doctor CONFIG --set encode.actors=8 --json"
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(doctor)


def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="a YAML run config to look into")] = None,
    setting: Setting = None,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document instead of lines")] = False,
) -> None:
    """Look at this machine, the cluster, the storage and the inputs of a config; say the next move for each failure.

    Nothing is computed. Exit code 0 when nothing fails, else 1.
    """
    from chexray.doctor import Check, examine

    done: list[Check] = []

    def show(check: Check) -> None:
        done.append(check)
        if not as_json:
            print(check.line, flush=True)

    parsed, problems = _parsed(config, setting)
    for problem in problems:
        show(Check("config", "FAIL", problem))
    for check in examine(parsed):
        show(check)
    failed = sum(check.state == "FAIL" for check in done)
    if as_json:
        from dataclasses import asdict

        print(json.dumps({"checks": [asdict(check) for check in done], "failed": failed}, indent=2))
    elif failed:
        print(f"{failed} of {len(done)} checks failed")
    else:
        print(f"all {len(done)} checks passed")
    raise typer.Exit(1 if failed else 0)


def _parsed(path: Path | None, settings: list[str] | None) -> tuple[Any, list[str]]:
    """The config, as far as it can be understood, and what is wrong with it: the rest is looked at all the same."""
    from chexray.errors import ChexrayError, ConfigProblems

    if path is None:
        return None, ["--set needs a CONFIG to change."] if settings else []
    try:
        return read_config(path, settings), []
    except ConfigProblems as error:
        return error.rest, list(error.problems)
    except ChexrayError as error:
        return None, [str(error)]
