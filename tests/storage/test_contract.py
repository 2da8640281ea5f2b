"""The laws of `contract.py` on every place that can be started here; the others are imitated by `fixtures.web`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fixtures.kept_places import azure, google, headless, hub, local, memory, rangeless, s3, web
from storage.contract import LISTING, NOT_WRITING, READING, WRITING, Place

READ_AND_WRITTEN = [*READING, *LISTING, *WRITING]
LAWS = {
    local: READ_AND_WRITTEN,
    s3: READ_AND_WRITTEN,
    memory: READ_AND_WRITTEN,
    google: READ_AND_WRITTEN,
    azure: READ_AND_WRITTEN,
    hub: [*READING, *LISTING, *NOT_WRITING],
    web: [*READING, *NOT_WRITING],
    rangeless: READING,
    headless: READING,
}
CASES = [(kind, law) for kind, laws in LAWS.items() for law in laws]


@pytest.mark.parametrize(("kind", "law"), CASES, ids=[f"{kind.__name__}-{law.__name__}" for kind, law in CASES])
def test_the_law_holds(kind: Callable, law: Callable[[Place], None], request: pytest.FixtureRequest):
    with kind(request) as place:
        law(place)
