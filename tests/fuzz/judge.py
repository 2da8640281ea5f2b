"""The verdict on one attempt: what it came to, and every fault that a user could see."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

from fuzz.attempt import Attempt, Unmade, Wrong
from fuzz.values import CANARY_MARKS, marker

LINE_CHARS = 1500
FAULTS = ("traceback", "wrong", "hang", "memory", "code run", "outside", "canary", "noise", "message", "unmade")


def judged(attempt: Attempt, noise: Path, watched: list[Path]) -> dict[str, Any]:
    """Runs the attempt. {"outcome", "faults": [[fault, what]], "message"}.

    noise: the file behind the streams of this process, where C libraries write. watched: folders in which nothing may
    change.
    """
    from chexray.errors import ChexrayError

    before, n_noise = listing(watched), noise.stat().st_size
    faults: list[list[str]] = []
    lines: list[str] = []
    said, message, outcome = io.StringIO(), "", "failed"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            seen = attempt.act()
            outcome, lines = seen.outcome, seen.lines
        except ChexrayError as error:
            outcome, message = "refused", str(error)
        except Wrong as error:
            faults.append(["wrong", str(error)[:300]])
        except Unmade as error:
            faults.append(["unmade", f"{error}: {signature(error.__cause__ or error)}"])
        except BaseException as error:
            faults.append(["traceback", signature(error)])
    faults += [["message", what] for what in line_faults(message)] if outcome == "refused" else []
    faults += [["message", what] for line in lines for what in line_faults(line, strict=False)][:1]
    heard = said.getvalue()
    with noise.open("rb") as file:
        file.seek(n_noise)
        heard += file.read(20_000).decode("utf-8", "replace")
    # A note of chexray's own is for the user, and is judged as a line; nothing else may be printed.
    notes = [line for line in heard.splitlines() if line.startswith("note: ")]
    faults += [["message", what] for line in notes for what in line_faults(line)][:1]
    if rest := "\n".join(line for line in heard.splitlines() if not line.startswith("note: ")):
        faults.append(["noise", _head(rest)])
    if any(mark in text for text in (message, heard, *lines) for mark in CANARY_MARKS):
        faults.append(["canary", _head(next(text for text in (message, heard, *lines) if _marked(text)))])
    faults += _traces(before, watched)
    return {"outcome": "failed" if faults else outcome, "faults": faults, "message": message[:2000]}


def line_faults(line: str, *, strict: bool = True) -> list[str]:
    """What is wrong with a line shown to a user. strict: a whole message, which is bounded and not empty."""
    found = []
    if "\n" in line or "\r" in line:
        found.append(f"several lines: {_head(line)}")
    elif not line.isprintable():
        found.append(f"hidden characters: {_head(line)}")
    if strict and not line.strip():
        found.append("empty message")
    if strict and len(line) > LINE_CHARS:
        found.append(f"{len(line)} characters: {_head(line)}")
    return found


def signature(error: BaseException) -> str:
    """`ValueError at chexray/data/labels.py:120 in _cell: text`: type and innermost frame of chexray."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/chexray/" in frame.filename and "site-packages" not in frame.filename]
    place = "harness"
    if ours:
        last = ours[-1]
        place = f"chexray/{last.filename.rpartition('/chexray/')[2]}:{last.lineno} in {last.name}"
    return f"{type(error).__name__} at {place}: {_head(error, 160)}"


def listing(folders: list[Path]) -> dict[str, tuple[int, int]]:
    """{path: (size, time of change)} of every file and folder below `folders`."""
    found = {}
    for folder in folders:
        for parent, names, files in os.walk(folder):
            for name in (*names, *files):
                status = os.lstat(os.path.join(parent, name))
                found[os.path.join(parent, name)] = (0, 0) if name in names else (status.st_size, status.st_mtime_ns)
    return found


def _traces(before: dict[str, tuple[int, int]], watched: list[Path]) -> list[list[str]]:
    """Code that ran, and files that appeared, changed or went. New ones are removed: each input is judged alone."""
    faults = []
    if marker().exists():
        faults.append(["code run", str(marker().name)])
        shutil.rmtree(marker()) if marker().is_dir() else marker().unlink()
    after = listing(watched)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if changed:
        faults.append(["outside", _head(", ".join(changed[:5]))])
        for path in (path for path in changed if path not in before):
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.path.exists(path) and os.unlink(path)
    return faults


def _marked(text: str) -> bool:
    return any(mark in text for mark in CANARY_MARKS)


def _head(text: object, limit: int = 200) -> str:
    return ascii(str(text)[:limit])[1:-1]
