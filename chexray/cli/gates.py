"""`--fail-on`: gates are checked before a run starts, judged when its results are written, and said last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chexray.cli.options import console
from chexray.text import printable

if TYPE_CHECKING:
    import pandas as pd

    from chexray.config import RunConfig
    from chexray.results.gates import Gate, Judged
    from chexray.storage import Storage


@dataclass(frozen=True)
class Gates:
    """What `--fail-on` asks of one run, and the results of the runs it names."""

    gates: tuple[Gate, ...]
    baselines: Mapping[str, pd.DataFrame]

    def exit_code(self, uri: str, results: pd.DataFrame, storage: Storage) -> int:
        """3 where a gate is broken, 0 where all hold, after a line for each. uri: the folder of the run."""
        from chexray.curation.judged import read_counts
        from chexray.results.judging import judge

        sets = read_counts(uri, storage) if any(gate.kind == "rejects" for gate in self.gates) else {}
        found = judge(self.gates, results, sets, self.baselines)
        if found:
            _record(uri, storage, [str(each.gate) for each in found if each.broken])
        return say_gates(found)


def _record(uri: str, storage: Storage, broken: list[str]) -> None:
    """Adds `failed_gates` to the status of the run, which is done all the same: its own exit code stays."""
    from chexray.storage import join

    place = join(uri, "status.json")
    try:
        status = json.loads(storage.read(place))
    except ValueError:  # another attempt has broken off there
        return
    if isinstance(status, dict):
        storage.write(place, (json.dumps({**status, "failed_gates": broken}, indent=2) + "\n").encode())


def prepared(fail_on: Sequence[str] | None, config: RunConfig) -> Gates:
    """The gates of a run that is about to start. Raises ConfigError for what it could not answer, StorageError for a
    RUN of worse-than whose results are not there."""
    from chexray.config.secrets import refuse_in_location
    from chexray.plan import make_storage
    from chexray.results.gates import check_gates, read_gates
    from chexray.results.reading import read_results

    gates = read_gates(fail_on)
    check_gates(gates, config.suite, {}, duplicates=config.privacy.duplicates)
    baselines = {}
    for gate in gates:
        if gate.run:
            refuse_in_location(gate.run, "--fail-on worse-than")
            baselines[gate.run] = read_results(gate.run, make_storage(config.storage))
    check_gates(gates, config.suite, baselines, duplicates=config.privacy.duplicates)
    return Gates(gates, baselines)


def sent_along(fail_on: Sequence[str] | None, config: RunConfig) -> list[str]:
    """The flags of a run elsewhere. Raises ConfigError for a gate that it could not answer, or whose RUN only lies
    here."""
    from chexray.config.secrets import refuse_in_location
    from chexray.errors import ConfigError
    from chexray.results.gates import check_gates, flags, read_gates
    from chexray.storage import is_remote
    from chexray.text import quoted

    gates = read_gates(fail_on)
    check_gates(gates, config.suite, {}, duplicates=config.privacy.duplicates)
    for gate in gates:
        refuse_in_location(gate.run, "--fail-on worse-than")
        if gate.run and not is_remote(gate.run) and not gate.run.startswith("/"):
            raise ConfigError(
                f"--fail-on worse-than: {quoted(gate.run)} is a path of this machine, and the cluster has no such run. "
                "Use s3://, or an absolute path on a volume that every node mounts."
            )
    return flags(gates)


def compared(
    fail_on: Sequence[str] | None, frames: Mapping[str, pd.DataFrame], places: Mapping[str, str]
) -> Callable[[Storage], int]:
    """What judges the gates of a comparison, run by run, with the first as the baseline of worse-than.

    frames: {run: its results}; places: {run: where it lies}. Raises ConfigError for a gate that cannot be answered.
    """
    from chexray.curation.judged import read_counts
    from chexray.results.gates import check_gates, read_gates
    from chexray.results.judging import judge
    from chexray.results.rows import suite_of, to_records

    first, *others = frames
    gates = tuple(_of_comparison(gate, frames, places) for gate in read_gates(fail_on, baseline=True))
    baselines = {gate.run: frames[first] for gate in gates}
    for name in others:
        check_gates(gates, {suite_of(row) for row in to_records(frames[name])}, baselines)

    def judge_all(storage: Storage) -> int:
        found = []
        for name in others:
            sets = read_counts(places[name], storage) if any(gate.kind == "rejects" for gate in gates) else {}
            judged = judge(gates, frames[name], sets, baselines)
            found += [replace(each, broken=tuple(f"{name}: {line}" for line in each.broken)) for each in judged]
        return say_gates(found)

    return judge_all


def _of_comparison(gate: Gate, frames: Mapping[str, pd.DataFrame], places: Mapping[str, str]) -> Gate:
    """A gate of `compare`: worse-than is about the first run, whether it is named or not."""
    from chexray.errors import ConfigError
    from chexray.text import quoted, shown

    first = next(iter(frames))
    if gate.kind != "worse-than":
        return gate
    if gate.run.rstrip("/") in ("", first, places[first].rstrip("/")):
        return replace(gate, run=first)
    if not gate.metric and gate.run.replace("_", "").isalnum() and gate.run not in frames:
        return replace(gate, run=first, metric=gate.run)  # worse-than:kid
    raise ConfigError(
        f"--fail-on {shown(gate)}: the baseline of compare is its first run, {quoted(first)}. Name {quoted(gate.run)} "
        "first, or write worse-than alone."
    )


def say_gates(found: Sequence[Judged]) -> int:
    """Prints a line for each gate that holds, then, in red, for each that does not. 3 where one does not, else 0."""
    from rich.text import Text

    from chexray.results.gates import EXIT_CODE

    target = console()
    broken = [judged for judged in found if judged.broken]
    for judged in (*(each for each in found if not each.broken), *broken):
        for line in judged.lines:
            target.print(Text(printable(line), style="bold red" if judged.broken else ""), soft_wrap=True)
    return EXIT_CODE if broken else 0
