"""Bits that stored features rest on: a library whose release moves them must not go unnoticed.

`EncoderSpec.fingerprint` leaves library versions out because these bits were the same with Pillow 10.4, 11.0, 11.3,
12.3 and 13.0. Never write new digests here to pass: raise `DECODER_VERSION`, so that features of the old pixels expire.
"""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from chexray.encoders.resize import FILTERS, pil_resize

JPEGS = {
    "grey": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNS"
        "Mj5aYVpQYEpRUk//wAALCAAoADgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9"
        "AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZn"
        "aGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP0"
        "9fb3+Pn6/9oACAEBAAA/AN3T5QiAOdoHbr/n+op99MGjOz5R69f8/wBRXI38RaQ7QSfb/P5e1JYQlJAWOeei/wBP5j8q6+wm2xjOFHoO"
        "/fj+n5Uy/lDxkIM8df8APT+hrkb6HfKcfOT+AOf8/ga1zdeQcLkkf5//AFe1AvPNOGbJ9FP8v5j8qkFoZhnGAew79+P6flR9k8oZRfx/"
        "z0/oajN4IjjO4n8Af8/oaPtfncO2fb/PT+hqQWZlGcAA9z37c/1/OsfUpGVz/CPQd+/H9PyqPTpGaQBRn3/z0/oa7HTo0ZBn5yfwB/z+"
        "hpdSjAjJY9un+en9DXHahIwc4+Uep79uf6/nTtMkLSDAzzyW/r/I/nXY2MamMFjk/wCf8n2rlL6DzXJA3k/kc/5/A020tyjgv+X+en9D"
        "XS2Vx5ceMhR6nv25/kfzovLgSKQvJ9W/r/I/nXNXtvvck5J/z/k+1Osrdo2G75QO3+f8kV0tnc+Wgx8oHfr/AJ/qKqQWvnLnAAPc9+3P"
        "9fzpZbQRAlV59WH8/wCR/Osye68luWJI/wA//r9qIroynDNtHp1/z/UVpwWvmLlV2j16/wCf6imzWohHyrkj/P8A+r2rNmu/KbBb8FP8"
        "v5j8q//Z"
    ),
    "colour": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hn"
        "Pk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
        "Y2P/wgARCAAoADgDASIAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAAAAEEAgP/xAAYAQEAAwEAAAAAAAAAAAAAAAADAQIEAP/aAAwD"
        "AQACEAMQAAAB7blUWeanJLUj5QpJGPFGbWr3PoUjXdMdZxMy9GElEg03tYZ6Qga0/8QAGBABAQEBAQAAAAAAAAAAAAAAAQACERL/2gAI"
        "AQEAAQUCy8ltHYLLL20S8jUHZzLGoO27Ni1bsWJO3mHl6kvPI1yySWmy2S0Wm//EABkRAQADAQEAAAAAAAAAAAAAAAABEUEQIP/aAAgB"
        "AwEBPwHGs5akSrxD/8QAGhEAAgMBAQAAAAAAAAAAAAAAAAECAyESEf/aAAgBAgEBPwGMOdJS6wjHnR2FjwrWljwUWRfrJrxENZyj/8QA"
        "FBABAAAAAAAAAAAAAAAAAAAAUP/aAAgBAQAGPwIP/8QAGhAAAwEBAQEAAAAAAAAAAAAAAAERMRAhQf/aAAgBAQABPyEFVxRZFERVlhR+"
        "khImy2kxs2TDJo0Y94lHE6wqL6cFkTRJlWWRFeEGf//aAAwDAQACAAMAAAAQ35pMugo8f9h8/8QAFxEBAQEBAAAAAAAAAAAAAAAAAREA"
        "If/aAAgBAwEBPxDjhTGOI3DsyZctmC5C3CzIXJm//8QAGREBAQADAQAAAAAAAAAAAAAAAQARITEQ/9oACAECAQE/EOhca60KwuBOZMbg"
        "WFNsg0Sdnh//xAAgEAACAgEFAQEBAAAAAAAAAAABEQAh8DFBUWFxkbGh/9oACAEBAAE/EEkTQ2MCoFexw1cO4hxEHXEHQbmzN8SsFEQy"
        "I8yAFgfZVbwh2c7AGCdGnWfIJArM/YSHRzPYYd5n7BLLTuARX+59hBN2YY6xZMZZHyLa1EUUfehhCoop0OZZEMcwZFfs0I3CABryIjty"
        "IB0b8lxP/9k="
    ),
}
"""40 x 56 pixels, written once by Pillow 13.0: baseline grey, and progressive colour with half the chroma."""

DECODED = {"grey": "40f97a9f76abd278", "colour": "6ef0c35c2bf66403"}

RESIZED = {
    "nearest": ("478ae90fc5a00138", "c599aa29e4c039e1"),
    "lanczos": ("f9a23ed1425fbee7", "02d60086ad3154ad"),
    "bilinear": ("6e5965767462a22d", "dd87eb37540f85ea"),
    "bicubic": ("47da9bad9202488f", "5cb1bc62034c077b"),
    "box": ("e31b596bdd07a5d4", "b79c144ceb8a3f92"),
    "hamming": ("a8cb7d48b18b5f0c", "5477b2a4932194f9"),
}
"""A formula image, smaller and larger."""


def digest(pixels: np.ndarray) -> str:
    assert pixels.dtype == np.uint8
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_decodes_to_the_same_bits(name):
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(JPEGS[name]))))
    assert pixels.shape[:2] == (40, 56)
    assert digest(pixels) == DECODED[name]


@pytest.mark.parametrize("name", FILTERS)
def test_resizes_give_the_same_bits(name):
    y, x = np.mgrid[:40, :56]
    image = ((y * 37 + x * 11 + (x * y) % 17 * 5) % 256).astype(np.uint8)
    assert (digest(pil_resize(image, 29, 23, name)), digest(pil_resize(image, 67, 91, name))) == RESIZED[name]
