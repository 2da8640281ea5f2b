"""Sets by name and by fingerprint: how two runs know that they speak of one set."""

from __future__ import annotations

import re

_FINGERPRINTED = re.compile(r"(.+)@([0-9a-f]{8,})$", re.DOTALL)


def set_name(identity: str) -> str:
    """A set as people call it: `name` of `name@fingerprint`."""
    match = _FINGERPRINTED.match(identity)
    return match[1] if match else identity


def fingerprint(identity: str) -> str:
    """What identifies a set: the fingerprint of `name@fingerprint`, or the whole text where there is none."""
    match = _FINGERPRINTED.match(identity)
    return match[2] if match else identity


def has_fingerprint(identity: str) -> bool:
    """Whether the text is `name@fingerprint`."""
    return _FINGERPRINTED.match(identity) is not None
