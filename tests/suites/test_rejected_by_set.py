"""A row counts the rejects of both its sides; a note says which side they are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from chexray.suites.common import rejected_by_set


def noted(*lost: str) -> list[str]:
    sets = [SimpleNamespace(name="ref", origin="real"), SimpleNamespace(name="a", origin="synthetic")]
    context: Any = SimpleNamespace(
        rejects=pa.table({"set": pa.array(lost, pa.string())}), plan=SimpleNamespace(sets=sets)
    )
    return rejected_by_set(context)


def test_each_set_is_named_with_its_count() -> None:
    assert noted("ref", "a", "ref") == [
        "rejected images: 2 of real set ref, 1 of synthetic set a; rejects.parquet says why"
    ]
    assert noted("a") == ["rejected images: 1 of synthetic set a; rejects.parquet says why"]
    assert noted() == []
