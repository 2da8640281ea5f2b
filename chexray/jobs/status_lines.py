"""Statuses of runs as lines of text: a table where it fits, and never a figure cut off."""

from __future__ import annotations

from collections.abc import Sequence

from chexray.jobs.status import RunStatus, spell

HEADINGS = ("run", "state", "progress", "rejected", "updated", "exit")


def status_lines(found: Sequence[RunStatus], width: int | None = None) -> list[str]:
    """One line a run below a heading; where that is wider than `width`, the name on a line and the rest below it.

    Remarks stand on lines of their own, so that a long one takes no room from a figure. width: None where lines may be
    as long as they need, as in a file or a pipe.
    """
    rows = [_cells(each) for each in found]
    widths = [max(len(row[i]) for row in [HEADINGS, *rows]) for i in range(len(HEADINGS))]
    is_wide = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
    lines = [] if is_wide else [_line(HEADINGS, widths)]
    for each, row in zip(found, rows, strict=True):
        if is_wide:
            lines += [
                row[0],
                *_folded(
                    [f"{name} {cell}" for name, cell in zip(HEADINGS[1:], row[1:], strict=True) if cell], width or 80
                ),
            ]
        else:
            lines.append(_line(row, widths))
        if each.remark and len(found) > 1:
            lines.append(f"  {each.remark}")
    return lines


def _cells(status: RunStatus) -> list[str]:
    ago = f"{spell(status.age_s)} ago" if status.age_s is not None else status.updated_at
    rejected = "" if status.rejected is None else f"{status.rejected:,}"
    code = "" if status.exit_code is None else str(status.exit_code)
    return [status.run, status.state, status.progress, rejected, ago, code]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _folded(parts: Sequence[str], width: int) -> list[str]:
    """`  state encoding, progress 16/444, ...`, broken between parts and never within one."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}, {part}" if lines[-1] else f"  {part}"
        lines = [*lines[:-1], joined] if len(joined) < width or not lines[-1] else [*lines, f"  {part}"]
    return lines
