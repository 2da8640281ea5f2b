"""Members of archives read with as few ranges as pay: neighbours of one call come together.

A request to a bucket costs a worker 1 to 2 ms of CPU time and a round trip; a member of a radiograph's size 5 ms to
decode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chexray.data import memory
from chexray.data.containers.addresses import Member
from chexray.data.containers.guard import guarded
from chexray.data.rejects import Reject
from chexray.storage import Storage

RUN_BYTES = 8_000_000
"""Bytes of neighbouring members that are read with one range."""
WASTE = 0.03
"""Share of a range that may be nobody's."""


@dataclass(frozen=True)
class Run:
    """Neighbours in one archive, in its order, with the position of each in the call."""

    members: tuple[tuple[Member, int], ...]

    @property
    def start(self) -> int:
        return self.members[0][0].start

    @property
    def length(self) -> int:
        return max(member.end for member, _ in self.members) - self.start

    @property
    def held(self) -> int:
        """Bytes of memory for the range and for all that is unpacked from it."""
        return self.length + sum(member.size for member, _ in self.members)


def runs(members: Iterable[tuple[Member, int]]) -> list[Run]:
    """Members of one archive as few ranges, of which WASTE may be nobody's. A range, and what is unpacked from it, is
    one member or at most RUN_BYTES."""
    found: list[Run] = []
    run: list[tuple[Member, int]] = []
    used = unpacked = 0
    for member, position in sorted(members, key=lambda pair: (pair[0].start, pair[1])):
        own = member.end - member.start
        if run:
            start, end = run[0][0].start, max(each.end for each, _ in run)
            length = max(end, member.end) - start
            overlap = max(0, min(end, member.end) - member.start)
            wasted = length - (used + own - overlap)
            if max(length, unpacked + member.size) > RUN_BYTES or wasted > WASTE * length:
                found.append(Run(tuple(run)))
                run, used, unpacked = [], 0, 0
            else:
                own -= overlap
        run.append((member, position))
        used += own
        unpacked += member.size
    return [*found, Run(tuple(run))] if run else found


class Shared:
    """One lease of `memory.files` for a range, given back when the last of `n` members is done."""

    def __init__(self, size: int, n: int):
        self._lease, self._left, self._lock = memory.files.lease(), n, threading.Lock()
        self._lease.take(size)

    def done(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._lease.__exit__(None, None, None)


def part(data: bytes, run: Run, member: Member) -> memoryview:
    """The bytes [start, end) of a member, fewer where the archive ended early."""
    first = member.start - run.start
    return memoryview(data)[first : first + member.end - member.start]


def by_file(members: Sequence[tuple[Member, int]]) -> list[list[tuple[Member, int]]]:
    """The members of each archive."""
    found: dict[str, list[tuple[Member, int]]] = {}
    for member, position in members:
        found.setdefault(member.file, []).append((member, position))
    return list(found.values())


def fetch(members: Sequence[Member], storage: Storage, threads: int = 16) -> list[bytes | Reject]:
    """The data of each member, or why there are none, in the order given. For small members: all are held at once."""
    found: list[bytes | Reject] = [Reject("unreadable", "nothing was read")] * len(members)

    def read(run: Run) -> None:
        data = guarded(lambda: storage.read_range(run.members[0][0].file, run.start, run.length))
        for member, position in run.members:
            if isinstance(data, Reject):
                found[position] = data
            else:
                found[position] = guarded(lambda member=member: member.unpack(part(data, run, member)))

    numbered = [(member, position) for position, member in enumerate(members)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, (run for of_file in by_file(numbered) for run in runs(of_file))))
    return found
