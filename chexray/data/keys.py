"""Which setting of the config is meant: the key of a set travels with its kind, so that advice works when followed."""

from __future__ import annotations


class Origin(str):
    """What a source is told of its set: the text is "real" or "synthetic", by which columns are looked for.

    key: where the set's settings stand in the config: real, training, heldout, synthetic.0. image_root: a folder that
    the run names for the images of all its tables, or "".
    """

    key: str
    image_root: str

    def __new__(cls, origin: str, key: str = "", image_root: str = "") -> Origin:
        self = super().__new__(cls, origin)
        self.key, self.image_root = key or str(origin), image_root
        return self

    def __getnewargs__(self) -> tuple[str, str, str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str(self), self.key, self.image_root


def setting(origin: str, name: str) -> str:
    """The key of a set's setting, such as `heldout.image_root`; the very word for a config file and for `--set`."""
    return f"{getattr(origin, 'key', origin)}.{name}"


def root_setting(origin: str) -> str:
    """The same for the folder of its images, with the flag that sets it."""
    flag = "--synthetic-image-root" if origin == "synthetic" else "--image-root"
    return f"{setting(origin, 'image_root')} (or {flag})"
