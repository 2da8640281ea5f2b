"""What each setting trains on: nothing beside its twin, nothing of a validation image, the same for any row order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.errors import ConfigError
from chexray.utility.loop.fit_spec import Sample
from chexray.utility.mixtures import (
    KINDS,
    Setting,
    Sources,
    labelled,
    needs_synthetic,
    parse_setting,
    phases_of,
    renumbered,
    settings_with,
    without_twins_of,
)
from chexray.utility.splits import validation_patients


def sample(name: str, n: int) -> Sample:
    """n images whose labels tell them apart."""
    ids = np.array([f"{name}{i}" for i in range(n)], dtype="<U12")
    labels = np.array([[i >> bit & 1 for bit in range(14)] for i in range(n)], np.int8).reshape(n, 14)
    return Sample(ids, np.array([f"key-{i}" for i in ids], dtype="<U16"), labels)


def world(n_real: int, twins) -> Sources:
    return Sources(sample("r", n_real), sample("s", len(twins)), np.array(twins, np.int64), "good")


def unpaired(n_real: int, n_synthetic: int) -> Sources:
    return world(n_real, [-1] * n_synthetic)


def ids_of(mixture) -> list[str]:
    (phase,) = mixture.phases
    return phase.sample.ids.tolist()


def of(ids: list[str], first: str) -> set[str]:
    return {i for i in ids if i.startswith(first)}


@st.composite
def twinned(draw) -> Sources:
    """Every real image has a twin, some several; other synthetic images belong to none."""
    n = draw(st.integers(1, 25))
    twins = draw(st.permutations([*range(n), *draw(st.lists(st.integers(-1, n - 1), max_size=20))]))
    return world(n, twins)


@st.composite
def counted(draw) -> Sources:
    n = draw(st.integers(1, 25))
    return unpaired(n, draw(st.integers(n, 40)))


percents = st.integers(1, 100)


def replaces_some(percent: int, sources: Sources) -> int:
    """At least the percent that replaces one image."""
    return max(percent, min(100, -(-50 // len(sources.real))))


@given(sources=twinned(), percent=percents, seed=st.integers(0, 9))
def test_by_id_no_image_stands_beside_its_twin(sources, percent, seed):
    percent = replaces_some(percent, sources)
    mixture = phases_of(f"mixed_{percent}", sources, seed=seed)
    ids, n = ids_of(mixture), len(sources.real)
    original = {f"s{i}": f"r{twin}" for i, twin in enumerate(sources.twin)}
    originals = [original[i] for i in ids if i.startswith("s")]
    assert mixture.how == "by_id"
    assert not set(originals) & set(ids)
    assert {*originals, *of(ids, "r")} == set(sources.real.ids)  # each image once: itself, or one twin
    assert len(ids) == n == mixture.n_real + mixture.n_synthetic
    assert abs(mixture.n_synthetic - percent * n / 100) <= 0.5


@given(sources=counted(), percent=percents, seed=st.integers(0, 9))
def test_by_count_as_many_come_as_leave(sources, percent, seed):
    mixture = phases_of(f"mixed_{replaces_some(percent, sources)}", sources, seed=seed)
    ids = ids_of(mixture)
    assert mixture.how == "by_count"
    assert (len(of(ids, "r")), len(of(ids, "s"))) == (mixture.n_real, mixture.n_synthetic)
    assert len(set(ids)) == len(ids) == len(sources.real)


@given(sources=twinned() | counted(), percents=st.tuples(percents, percents), seed=st.integers(0, 9))
def test_a_smaller_part_lies_within_a_larger_one(sources, percents, seed):
    low, high = sorted(replaces_some(percent, sources) for percent in percents)
    less, more = (ids_of(phases_of(f"mixed_{percent}", sources, seed=seed)) for percent in (low, high))
    assert of(less, "s") <= of(more, "s")
    assert of(more, "r") <= of(less, "r")


@given(sources=twinned() | counted(), setting=st.sampled_from(KINDS), data=st.data())
def test_rows_in_another_order_give_the_same_images(sources, setting, data):
    if len(sources.real) == 1 and setting == "mixed":
        setting = "mixed_100"
    rows = np.array(data.draw(st.permutations(range(len(sources.real)))))
    columns = np.array(data.draw(st.permutations(range(len(sources.synthetic)))))
    place = np.append(np.argsort(rows), -1)
    moved = Sources(
        sources.real.take(rows), sources.synthetic.take(columns), place[sources.twin[columns]], sources.name
    )
    before, after = (phases_of(setting, s, seed=1) for s in (sources, moved))
    assert (before.n_real, before.n_synthetic, before.how) == (after.n_real, after.n_synthetic, after.how)
    for one, other in zip(before.phases, after.phases, strict=True):
        assert set(one.sample.ids) == set(other.sample.ids)


@pytest.mark.parametrize("sources", [world(40, [*range(40)] * 2), unpaired(40, 60)], ids=["by_id", "by_count"])
def test_images_keep_their_keys_labels_and_the_order_of_their_tables(sources):
    (phase,) = phases_of("mixed_25", sources, seed=0).phases
    for i, (name, key, labels) in enumerate(zip(phase.sample.ids, phase.sample.keys, phase.sample.labels, strict=True)):
        source = sources.real if i < 30 else sources.synthetic
        row = source.ids.tolist().index(name)
        assert key == source.keys[row]
        np.testing.assert_array_equal(labels, source.labels[row])
    places = [int(name[1:]) for name in phase.sample.ids]
    assert places[:30] == sorted(places[:30])
    assert places[30:] == sorted(places[30:])
    assert phase.sample.labels.dtype == np.int8


def test_seeds_replace_other_images():
    assert ids_of(phases_of("mixed", unpaired(40, 60), seed=0)) != ids_of(phases_of("mixed", unpaired(40, 60), seed=1))


def test_equal_ids_in_both_sets_do_not_tie_the_choices():
    """Ids that are mere numbers meet by chance: the synthetic images that come are not those named like who left."""
    real, synthetic = sample("", 200), sample("", 200)
    (phase,) = phases_of("mixed", Sources(real, synthetic, np.full(200, -1)), seed=0).phases
    stay, come = set(phase.sample.ids[:100]), set(phase.sample.ids[100:])
    assert 30 < len(stay & come) < 70


def test_every_other_setting_takes_whole_sets():
    sources = world(4, [0, -1, 3])
    real, synthetic = sources.real.ids.tolist(), sources.synthetic.ids.tolist()
    sizes = {}
    for kind in KINDS:
        mixture = phases_of(kind, sources, seed=0)
        sizes[kind] = (mixture.n_real, mixture.n_synthetic, mixture.how)
    assert sizes == {
        "real": (4, 0, ""),
        "synthetic": (0, 3, ""),
        "mixed": (2, 2, "by_id"),
        "augmented": (4, 3, ""),
        "pretrain_synthetic_finetune_real": (4, 3, ""),
        "as_is": (0, 0, ""),
    }
    assert ids_of(phases_of("real", sources, seed=0)) == real
    assert ids_of(phases_of("synthetic", sources, seed=0)) == synthetic
    assert ids_of(phases_of("augmented", sources, seed=0)) == real + synthetic
    assert phases_of("as_is", sources, seed=0).phases == ()
    first, second = phases_of("pretrain_synthetic_finetune_real", sources, seed=0, pretrain_share=0.3).phases
    assert (first.sample.ids.tolist(), first.share) == (synthetic, 0.3)
    assert (second.sample.ids.tolist(), second.share) == (real, 0.7)


def test_too_few_twins_names_both_numbers_and_what_would_fit():
    with pytest.raises(
        ConfigError,
        match=r"mixed replaces 10 of 20 .* only 4 have a synthetic image made for them in good\. .*mixed_22",
    ):
        phases_of("mixed", world(20, [0, 1, 2, 3, 3, -1, -1, -1, -1, -1, -1, -1, -1]), seed=0)
    assert phases_of("mixed_22", world(20, [0, 1, 2, 3, 3]), seed=0).n_synthetic == 4


def test_too_few_images_names_both_numbers_and_what_would_fit():
    with pytest.raises(
        ConfigError, match=r"mixed_90 replaces 18 of 20 .* only 9 synthetic ones are in good\. .*mixed_47"
    ):
        phases_of("mixed_90", unpaired(20, 9), seed=0)
    assert phases_of("mixed_47", unpaired(20, 9), seed=0).n_synthetic == 9


def test_images_lost_after_the_plan_are_not_replaced_and_said():
    fewer = phases_of("mixed_90", unpaired(20, 9), seed=0, as_many_as_there_are=True)
    assert (fewer.n_real, fewer.n_synthetic) == (11, 9)
    assert fewer.note.startswith("9 real images are replaced, not 18")


@pytest.mark.parametrize(("n_twins", "n_others", "expected", "how"), [(20, 0, 20, "by_id"), (12, 8, 20, "by_count")])
def test_all_of_the_real_images_can_be_replaced_without_a_twin_for_each(n_twins, n_others, expected, how):
    real, synthetic = unpaired(20, n_twins + n_others).real, unpaired(20, n_twins + n_others).synthetic
    twin = np.append(np.arange(n_twins), np.full(n_others, -1))
    mixture = phases_of("mixed_100", Sources(real, synthetic, twin, "good"), seed=0)
    assert (mixture.n_real, mixture.n_synthetic, mixture.how, mixture.note) == (0, expected, how, "")
    smaller = phases_of("mixed_100", unpaired(20, 19), seed=0)
    assert (smaller.n_synthetic, smaller.note) == (19, "19 images in place of 20: there are no more")


def test_a_part_that_rounds_to_no_image_is_refused():
    with pytest.raises(ConfigError, match=r"mixed_10 replaces none of 4 real images"):
        phases_of("mixed_10", unpaired(4, 4), seed=0)


@pytest.mark.parametrize("setting", [*KINDS, "mixed_10"])
def test_sources_without_images_are_refused_where_they_are_needed(setting):
    if needs_synthetic(setting):
        with pytest.raises(ConfigError, match="good has no labelled image"):
            phases_of(setting, unpaired(20, 0), seed=0)
    else:
        phases_of(setting, unpaired(20, 0), seed=0)
    if setting not in ("synthetic", "as_is"):
        with pytest.raises(ConfigError, match="no labelled real training image"):
            phases_of(setting, unpaired(0, 20), seed=0)


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_pretraining_needs_part_of_the_budget(share):
    with pytest.raises(ConfigError, match="pretrain_share"):
        phases_of("pretrain_synthetic_finetune_real", unpaired(4, 4), seed=0, pretrain_share=share)


def test_twins_that_do_not_fit_are_a_defect():
    with pytest.raises(ValueError, match="renumber"):
        world(3, [0, 3])
    with pytest.raises(ValueError, match="twins for"):
        Sources(sample("r", 3), sample("s", 2), np.array([0]))


@given(data=st.data())
def test_no_twin_of_a_validation_image_is_left(data):
    n = data.draw(st.integers(1, 20))
    validation = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    twin = np.array(data.draw(st.lists(st.integers(-1, n - 1), max_size=30)), np.int64)
    keep, twin_left = without_twins_of(validation, twin)
    np.testing.assert_array_equal(keep, [t < 0 or not validation[t] for t in twin])
    real = np.arange(n)
    np.testing.assert_array_equal([-1 if t < 0 else real[~validation][t] for t in twin_left], twin[keep])
    assert twin_left.dtype == np.int64


def test_renumbering_loses_twins_that_are_left_out():
    kept = np.array([True, False, True])
    np.testing.assert_array_equal(renumbered(kept, np.array([2, 1, 0, -1, 2])), [1, -1, 0, -1, 1])


def test_augmented_shows_no_twin_of_a_validation_image_as_95_percent_of_upstreams_are_shown():
    """facts/upstream-bugs.md 44: real and synthetic rows in one pool, then `random_split`."""
    rng = np.random.default_rng(2)
    patients = rng.permutation(np.repeat(np.arange(300), rng.integers(1, 5, 300)))
    n = len(patients)
    sources = world(n, rng.permutation(n))
    pool = np.concatenate([np.arange(n), sources.twin])  # who each image of the pool shows
    upstream = np.zeros(2 * n, bool)
    upstream[rng.permutation(2 * n)[: n // 5]] = True
    assert np.isin(pool[upstream], pool[~upstream]).mean() > 0.85

    validation = validation_patients(sources.real.ids, patients.astype(object), 0.1, 0)
    keep, twin = without_twins_of(validation, sources.twin)
    ours = Sources(sources.real.take(~validation), sources.synthetic.take(keep), twin)
    shown = {f"r{i}": i for i in range(n)} | {f"s{i}": int(t) for i, t in enumerate(sources.twin)}
    held_out = set(np.flatnonzero(validation).tolist())
    for setting in ("synthetic", "mixed", "augmented", "mixed_100"):
        trained = {shown[i] for i in ids_of(phases_of(setting, ours, seed=0))}
        assert not trained & held_out
        assert not set(patients[sorted(trained)]) & set(patients[validation])


def test_images_without_any_label_teach_nothing():
    images = sample("r", 3)
    images.labels[1] = -1
    images.labels[2, :13] = -1
    assert labelled(images).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("text", "setting", "name"),
    [
        ("mixed", Setting("mixed", 50), "mixed"),
        ("mixed_50", Setting("mixed", 50), "mixed"),
        ("mixed_5", Setting("mixed", 5), "mixed_5"),
        ("mixed_100", Setting("mixed", 100), "mixed_100"),
        *((kind, Setting(kind), kind) for kind in KINDS if kind != "mixed"),
    ],
)
def test_settings_are_read_by_name(text, setting, name):
    assert parse_setting(text) == setting
    assert setting.name == name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("augmentd", "Did you mean 'augmented'"),
        ("Real", "Did you mean 'real'"),
        ("pretrain_finetune", "Did you mean 'pretrain_synthetic_finetune_real'"),
        ("xyz", "Known: real, synthetic, mixed, augmented"),
        ("mixed_0", "mixed_1 to mixed_100"),
        ("mixed_101", "mixed_1 to mixed_100"),
        ("mixed_05", "mixed_1 to mixed_100"),
        ("mixed_2.5", "mixed_1 to mixed_100"),
        ("mixed_٣", "mixed_1 to mixed_100"),
    ],
)
def test_other_names_are_refused_with_the_next_move(text, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_setting(text)


def test_a_sweep_is_named_by_whole_percents():
    assert settings_with([0.1, 0.25, 0.5, 1.0]) == ("mixed_10", "mixed_25", "mixed", "mixed_100")
    assert settings_with([0.29, 0.57, 0.29, 0.01, 1]) == ("mixed_29", "mixed_57", "mixed_1", "mixed_100")
    every = settings_with([percent / 100 for percent in range(1, 101)])
    assert [parse_setting(name).percent for name in every] == list(range(1, 101))


@pytest.mark.parametrize("fraction", [0, 0.005, 0.125, 1.01, 10, -0.5, float("nan"), float("inf"), True])
def test_a_sweep_of_anything_else_is_refused(fraction):
    with pytest.raises(ConfigError, match="whole percent"):
        settings_with([fraction])


def test_only_real_and_as_is_need_no_synthetic_set():
    assert [kind for kind in KINDS if not needs_synthetic(kind)] == ["real", "as_is"]
    assert needs_synthetic("mixed_10")
