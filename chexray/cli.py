"""The command line: thin, since every command is a call that Python users can make too.

Exit codes: 0 done; 1 a cell failed or too many images were rejected; 2 wrong config or input; 130 stopped on request.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from chexray import __version__
from chexray.errors import ChexrayError, ConfigError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evaluate synthetic chest radiographs: fidelity and privacy with error bars, on a laptop or a Ray cluster.",
)

Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. encode.batch_size=64")
]
KINDS = ("metrics", "encoders", "sources", "protocols")


def main() -> None:
    """Entry point: expected errors become one line and their exit code; defects keep their traceback."""
    try:
        # Outside standalone mode typer.Exit comes back as a value, and an interrupt as the value 130.
        code = app(standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except ChexrayError as error:
        print(f"chexray: {error}", file=sys.stderr)
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


@app.command(
    epilog="Examples: chexray run configs/quickstart.yaml | "
    "chexray run --real test.csv --synthetic generated.csv --encoders rad_dino --metrics fid,kid,prdc --output out/ | "
    "chexray run CONFIG --set encode.batch_size=64 --limit 500 --dry-run"
)
def run(
    config: Annotated[Path | None, typer.Argument(help="a YAML run config; flags override it")] = None,
    real: Annotated[str | None, typer.Option(help="table, folder or Parquet of real images, local or s3://")] = None,
    synthetic: Annotated[list[str] | None, typer.Option(help="the same for synthetic ones; may be repeated")] = None,
    training: Annotated[
        str | None, typer.Option(help="privacy: what the generator learned from, if not --real")
    ] = None,
    heldout: Annotated[str | None, typer.Option(help="privacy: real images of other patients, the null")] = None,
    suite: Annotated[str | None, typer.Option(help="fidelity, privacy, or fidelity,privacy")] = None,
    reid_weights: Annotated[str | None, typer.Option(help="checkpoint of the siamese_reid encoder")] = None,
    encoders: Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls encoders)")] = None,
    metrics: Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls metrics)")] = None,
    subsets: Annotated[str | None, typer.Option(help="all, findings, or columns such as sex,view")] = None,
    protocol: Annotated[str | None, typer.Option(help="chexray ls protocols")] = None,
    output: Annotated[str | None, typer.Option(help="folder or s3:// URL for results and features")] = None,
    name: Annotated[str | None, typer.Option(help="what the run is called")] = None,
    limit: Annotated[int | None, typer.Option(help="at most this many images of each set")] = None,
    setting: Setting = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, print the plan, start nothing")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="let Ray talk")] = False,
) -> None:
    """Encode both sets once and compute every number asked for. Run it again to resume."""
    flags = {
        "real": real,
        "synthetic": synthetic or None,
        "training": training,
        "heldout": heldout,
        "suite": suite,
        "encoders": encoders,
        "metrics": metrics,
        "subsets": subsets,
        "protocol": protocol,
        "output": output,
        "name": name,
        "limit": limit,
    }
    flags = {key: value for key, value in flags.items() if value is not None}
    parsed = _config(config, flags, setting or [], reid_weights=reid_weights)
    if dry_run:
        _print_plan(parsed, stores=True)
        return
    from chexray.evaluation import evaluate

    finished = evaluate(parsed, verbose=verbose)
    _print_results(finished.results, finished.notes)
    print(f"results: {finished.uri}")
    raise typer.Exit(finished.exit_code)


@app.command()
def validate(
    config: Annotated[Path, typer.Argument(help="a YAML run config")],
    setting: Setting = None,
) -> None:
    """Check a config, its manifests and weights, without starting anything."""
    _print_plan(_config(config, {}, setting or []), stores=False)
    print("valid")


@app.command("ls")
def list_names(
    kind: Annotated[str, typer.Argument(help=" | ".join(KINDS))],
) -> None:
    """Name what can be written in a config."""
    if kind == "protocols":
        from chexray.protocols import PROTOCOLS

        names = {preset.name: preset.summary for preset in PROTOCOLS.values()}
    elif kind in KINDS:
        from chexray.registry import names as registered

        names = registered(kind)
    else:
        raise ConfigError(f"there is no kind {kind!r}. Known: {', '.join(KINDS)}.")
    width = max(map(len, names))
    for name, summary in names.items():
        print(f"{name:<{width}}  {summary}")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="two or more run folders or results files, local or s3://")],
) -> None:
    """Put runs side by side; no winner is named where intervals overlap."""
    if len(runs) < 2:
        raise ConfigError(f"compare needs at least two runs, found {len(runs)}.")
    from chexray.config import StorageConfig
    from chexray.plan import make_storage
    from chexray.results.compare import compare as compare_frames
    from chexray.results.compare import render_compare
    from chexray.results.rows import read_results

    storage = make_storage(StorageConfig())
    frames = {}
    for place in runs:
        label = place.rstrip("/").rsplit("/", 1)[-1]
        frames[label if label not in frames else place] = read_results(place, storage)
    _console().print(render_compare(compare_frames(frames)))


def _config(path: Path | None, flags: dict[str, Any], settings: list[str], *, reid_weights: str | None = None) -> Any:
    from chexray.config import parse_config, read_yaml, with_reid_weights

    data = read_yaml(path) if path else {}
    if not path and not {"real", "synthetic"} <= set(flags):
        raise ConfigError("nothing to run: give a config file, or --real and --synthetic. See chexray run --help.")
    if not path and "encoders" not in flags:
        asks_privacy = "privacy" in flags.get("suite", "")
        flags["encoders"] = "rad_dino,pixels,patches" if asks_privacy else "rad_dino"
    if reid_weights:
        data, flags = with_reid_weights(data, flags, reid_weights)
    return parse_config(data, settings, flags=flags, origin=str(path or "command line"))


def _print_plan(config: Any, *, stores: bool) -> None:
    from chexray.plan import make_plan

    plan = make_plan(config)
    for line in plan.describe():
        print(line)
    for note in plan.notes:
        print(f"note       {note}")
    if stores:
        from chexray.engine.features import FeatureStore, pending

        store = FeatureStore(plan.store_uri, plan.storage)
        for label, (_, spec) in plan.encoders.items():
            left = pending(plan.images, store.done(spec))
            print(f"pending    {label}: {len(left):,} of {len(plan.images):,} images to encode")


def _print_results(frame: Any, notes: list[str]) -> None:
    from chexray.results.table import render, summary_lines

    console = _console()
    for part in render(frame):
        console.print(part)
    for line in [*summary_lines(frame), *(f"note: {note}" for note in notes)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width of its own; 100 columns keep every table whole.
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


if __name__ == "__main__":
    main()
