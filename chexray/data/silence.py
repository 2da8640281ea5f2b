"""Keeps decoders from printing: their messages are not actionable, may quote patient data, and can be thousands."""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings

_NOISY = r"(PIL|pydicom|pylibjpeg|openjpeg|chexray\.data)\b"
_LOGGERS = ("PIL", "pydicom", "pylibjpeg", "openjpeg", "_openjpeg")
_done = threading.Event()


def quiet() -> None:
    """Silences warnings, loggers and libtiff in this process; cheap when it is done already. Safe from any thread.

    `warnings.catch_warnings` is not thread-safe, so one filter is put in front of the others, again when a test runner
    has taken it out.
    """
    rule = ("ignore", None, Warning, re.compile(_NOISY), 0)
    if rule not in warnings.filters:
        warnings.filterwarnings("ignore", module=_NOISY)
    if not _done.is_set():
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        silence_libtiff()
        _done.set()


def silence_libtiff() -> bool:
    """Takes out the handlers by which Pillow's libtiff writes to file descriptor 2; False where it is out of reach.

    They belong to the library, so Python cannot redirect them, and redirecting the descriptor would swallow what
    other threads write. A symbol of a library that an extension module is linked to is found through the module. Where
    Pillow holds libtiff inside itself (Windows), its lines stay.
    """
    try:
        from PIL import _imaging

        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (ImportError, OSError, AttributeError, TypeError):
        return False
    return True
