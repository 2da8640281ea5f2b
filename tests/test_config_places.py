"""Where a config may say that files are: which protocols a run reads and writes, and that no address holds a secret."""

from __future__ import annotations

import pytest

from chexray.config import parse_config
from chexray.config.addresses import place_problem
from chexray.config.secrets import url_problem
from chexray.errors import ConfigError

BASE = {"real": "real.csv", "synthetic": "fake.csv", "encoders": ["pixels"]}
SOUND = [
    "hf://datasets/owner/name@1a2b3c4/images/x.png", "hf://datasets/owner/name@refs%2Fpr%2F1", "gs://bucket/set",
    "az://container/set", "abfss://container@account.dfs.core.windows.net/set", "https://host:8443/a@b/x.csv",
    "abfs://container@account.blob.core.windows.net", "s3://bucket/a@b", "https://host/t.csv", "http://[::1]:80/x",
]  # fmt: skip
SECRET = [
    "https://user:hush@host/x.csv", "https://hush@host/x.csv", "gs://user:hush@bucket/x", "az:user:hush@account/x",
    "https://account.blob.core.windows.net/c/x?sv=2024&sp=r&sig=hush", "https://host/x?token=hush",
    "https://storage.googleapis.com/b/x?X-Goog-Signature=hush", "abfss://user:hush@account.dfs.core.windows.net/x",
    "abfss://c@hush@account.dfs.core.windows.net/x", "hf://user:hush@datasets/o/n", "https://host/x?a=1&access_token=hush",
    "https://storage.googleapis.com/b/x?GoogleAccessId=me&Signature=hush", "abfss://hush@evil.example/x",
]  # fmt: skip


@pytest.mark.parametrize("place", SOUND)
def test_places_without_secrets_are_taken(place: str):
    assert url_problem(place) == ""
    assert parse_config({**BASE, "synthetic": place}).synthetic[0].options == {"path": place}


@pytest.mark.parametrize("place", SECRET)
def test_places_with_secrets_are_refused_without_a_word_of_them(place: str):
    for key in ("synthetic", "image_root", "output"):
        with pytest.raises(ConfigError, match=r"signed or holds a token|holds a user or password") as refusal:
            parse_config({**BASE, key: place})
        assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("real", "memory://x/t.csv"),
        ("synthetic", {"a": {"path": "memory://x/t.csv"}}),
        ("synthetic", {"a": {"path": "t.csv", "image_root": "memory://x"}}),
        ("image_root", "memory://x"),
        ("output", "memory://out"),
        ("feature_store", "memory://out"),
        ("encoders", [{"name": "rad_dino", "weights": "memory://w"}]),
    ],
)
def test_the_memory_of_one_process_is_no_place_of_a_run(key: str, value: object):
    with pytest.raises(ConfigError, match="memory:// is the memory of one process") as refusal:
        parse_config({**BASE, key: value})
    assert "\n" not in str(refusal.value)


def test_what_follows_an_address_is_not_dropped_in_silence():
    with pytest.raises(ConfigError, match=r"without what follows \? or #"):
        parse_config({**BASE, "real": "https://host/t.csv?download=true"})
    assert place_problem("encoders.0.weights", "https://host/w.pt?download=true") == ""
    assert place_problem("real", "a?b.csv") == ""


@pytest.mark.parametrize("key", ["output", "feature_store"])
@pytest.mark.parametrize("place", ["https://127.0.0.1:9/out", "hf://datasets/owner/name@main/out"])
def test_a_run_into_a_place_that_is_only_read_from_is_refused_by_its_plan(key: str, place: str):
    """Before a cluster starts, and without asking that place."""
    from chexray.plan.making import other_problems

    said = [text for text in other_problems(parse_config({**BASE, key: place})) if place in text]
    assert len(said) == 1
    assert "is only read from, because" in said[0]
    assert "\n" not in said[0]
