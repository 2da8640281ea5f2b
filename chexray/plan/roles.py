"""Which encoder does what in the privacy suite: it follows from what an encoder can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chexray.config import PrivacyConfig
from chexray.encoders.base import HASH, PAIR_SCORER, SPACE, Encoder, EncoderSpec
from chexray.encoders.views import has_views
from chexray.errors import ConfigError
from chexray.text import listed, quoted

SMALL = "small_images"
"""Label of the small pictures that views are made of."""


@dataclass(frozen=True)
class PrivacyRoles:
    """Labels of the encoders that score pairs (reid), span a space to search (search), measure the latent distance of
    pairs (latent), and hash for duplicates. views: those whose search also sees real images turned and cropped."""

    reid: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    latent: tuple[str, ...] = ()
    duplicates: str | None = None
    views: tuple[str, ...] = ()

    def of(self, label: str) -> list[str]:
        """What an encoder is used for, in words."""
        held = {
            "re-identification": self.reid,
            "search for copies": self.search,
            "latent distance": self.latent,
            "duplicates": (self.duplicates,),
            "turned and cropped views": (*self.views, *([SMALL] if self.views else [])),
        }
        return [word for word, labels in held.items() if label in labels]


def privacy_roles(config: PrivacyConfig, encoders: Mapping[str, tuple[Encoder, EncoderSpec]]) -> PrivacyRoles:
    """The roles of the privacy suite's encoders. Raises ConfigError for a label that is none of them."""
    for key in ("search", "latent"):
        for label in getattr(config, key) or []:
            if label not in encoders:
                raise ConfigError(f"privacy.{key} names {quoted(label)}. Encoders of this suite: {listed(encoders)}.")
    reid = [label for label, (_, spec) in encoders.items() if PAIR_SCORER in spec.roles]
    hashes = [label for label, (_, spec) in encoders.items() if HASH in spec.roles]
    spaces = [label for label, (_, spec) in encoders.items() if SPACE in spec.roles]
    search = spaces if config.search is None else config.search
    trained = [label for label in search if encoders[label][1].weights != "none"]
    latent = (trained or search) if config.latent is None else config.latent
    duplicates = hashes[0] if hashes and config.duplicates else None
    searched = [*search, *([duplicates] if duplicates else [])] if config.views else []
    views = [label for label in searched if has_views(encoders[label][1])]
    return PrivacyRoles(tuple(reid), tuple(search), tuple(latent), duplicates, tuple(views))
