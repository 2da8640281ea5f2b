"""The table of a run of the harness, and its failures in groups with the command that repeats one of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from fuzz.fleet import Met
from fuzz.judge import FAULTS

HEADINGS = {
    "traceback": "tracebacks", "wrong": "wrong values", "hang": "hangs", "memory": "over 2 GB", "code run": "code run",
    "outside": "files outside", "canary": "canaries", "noise": "noise", "message": "not one line", "unmade": "not made",
}  # fmt: skip


def table(met: Sequence[Met]) -> str:
    """Markdown, one row a kind, then all of them."""
    heads = [
        "kind", "inputs", "ok", "refused", "rejected", *(HEADINGS[fault] for fault in FAULTS), "slowest s", "peak GB",
    ]  # fmt: skip
    rows = [heads, ["---"] + ["--:"] * (len(heads) - 1)]
    for kind in dict.fromkeys(each.kind for each in met):
        rows.append(_row(kind, [each for each in met if each.kind == kind]))
    rows.append(_row("all", met))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, met: Sequence[Met]) -> list[str]:
    outcomes = Counter(each.outcome for each in met)
    faults = Counter(fault for each in met for fault in {fault for fault, _ in each.faults})
    return [
        name,
        f"{len(met):,}",
        *(f"{outcomes[outcome]:,}" for outcome in ("ok", "refused", "rejected")),
        *(f"{faults[fault]:,}" for fault in FAULTS),
        f"{max((each.seconds for each in met), default=0):.1f}",
        f"{max((each.peak for each in met), default=0) / 2**30:.2f}",
    ]


def groups(met: Iterable[Met]) -> dict[tuple[str, str, str], list[Met]]:
    """{(kind, fault, what, without what varies): inputs}, the most frequent first."""
    found: dict[tuple[str, str, str], list[Met]] = {}
    for each in met:
        for fault, what in each.faults:
            found.setdefault((each.kind, fault, _same(fault, what, each.how)), []).append(each)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _same(fault: str, what: str, how: str) -> str:
    if fault == "traceback" and " at " in what:
        return what.partition(": ")[0]
    if fault in ("hang", "memory"):
        return how.rpartition(": ")[2]
    words = re.sub(r"[0-9]+", "#", re.sub(r"/[^ ]*", "/...", what))[:50]
    return words if fault in ("noise", "message") else f"{how}: {words}"


def replay(met: Met, seed: int) -> str:
    kind = met.how.partition(":")[0] if met.kind == "command line" else met.kind
    cli = " --through-cli" if met.kind == "command line" else ""
    return f"python tests/fuzz --seed {seed} --kind {kind} --only {met.number}{cli}"


def failures(met: Sequence[Met], seed: int) -> str:
    """One entry a group: how often, what, an example and its command."""
    lines = []
    for (kind, fault, what), members in groups(met).items():
        first = members[0]
        said = next(text for name, text in first.faults if name == fault)
        lines += [f"- {len(members)} x {kind}: {fault}: {what}", f"    e.g. {said[:300]}"]
        lines.append(f"    by {first.how}; `{replay(first, seed)}`")
    return "\n".join(lines)


def refusals(met: Sequence[Met], at_most: int = 40) -> str:
    """The messages of refused inputs without what varies, and how many each had."""
    counts = Counter(_bare(each.message) for each in met if each.message)
    return "\n".join(f"{n:>6} {text}" for text, n in counts.most_common(at_most))


def slowest(met: Sequence[Met], seed: int, at_most: int = 4) -> str:
    """The inputs that took longest, and those that took most memory."""
    lines = []
    for each in sorted(met, key=lambda each: -each.seconds)[:at_most]:
        lines.append(f"  {each.seconds:5.1f} s  {each.how}; `{replay(each, seed)}`")
    for each in sorted(met, key=lambda each: -each.peak)[:at_most]:
        lines.append(f"  {each.peak / 2**30:5.2f} GB {each.how}; `{replay(each, seed)}`")
    return "slowest and largest:\n" + "\n".join(lines)


def _bare(message: str) -> str:
    text = re.sub(r"'[^']*'", "'...'", re.sub(r"/[^ :]*", "/...", message.encode("ascii", "backslashreplace").decode()))
    return re.sub(r"[0-9]+", "#", text)[:110]
