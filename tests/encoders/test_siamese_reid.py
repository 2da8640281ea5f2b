"""Re-identification: parity with the authors' network on every route, the score of pairs, refusal of other files."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from chexray.encoders.base import PairScorer
from chexray.encoders.siamese_reid import FILE, PAIRS_AT_ONCE, SiameseReid, WeightedL1, expected_shapes
from chexray.errors import ConfigError, WeightsError

ROUTES = {"cgb224": "cgb_emb_real", "cgb224_direct": "cgb_emb_gen", "official256": "official256_emb"}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def released(tmp_path_factory, oracle_state):
    """A file of the released name and format, filled by the oracle's formula."""
    path = tmp_path_factory.mktemp("reid") / FILE
    torch.save({"state_dict": oracle_state("siamese", 1.6), "epoch": 11}, path)
    return path


@pytest.fixture(scope="module")
def goldens(oracles):
    return np.load(oracles / "siamese_golden.npz")


@pytest.fixture(scope="module")
def features(released, formula):
    """Route -> (4, 128) features of the oracle's images, by an encoder that travelled to a worker."""
    found = {}
    for route in ROUTES:
        encoder = SiameseReid(weights=str(released.parent), route=route)
        spec = encoder.resolve()
        assert spec.outputs == {"features": 128}
        assert spec.preprocessing.startswith(f"{route}/")
        worker = pickle.loads(pickle.dumps(encoder))
        worker.load("cpu")
        found[route] = worker.encode(np.stack([worker.prepare(image) for image in formula.images()]))["features"]
    return found


@pytest.fixture(scope="module")
def scorer(released):
    return SiameseReid(weights=str(released)).scorer()


def all_pairs(scorer, left, right):
    return scorer(left.repeat(len(right), 0), np.tile(right, (len(left), 1))).reshape(len(left), len(right))


def test_the_manifest_is_the_published_one(oracles):
    manifest = json.loads((oracles / "siamese_manifest.json").read_text())
    assert expected_shapes() == {name: tuple(item["shape"]) for name, item in manifest.items()}


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_official_features_are_reproduced(features, goldens, route):
    np.testing.assert_allclose(features[route], goldens[ROUTES[route]], atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_official_scores_are_reproduced(features, goldens, scorer):
    across = all_pairs(scorer, features["cgb224"], features["cgb224_direct"])  # upstream: real by real, generated
    np.testing.assert_allclose(across, goldens["cgb_scores_real_x_gen"], atol=TOLERANCE, rtol=0)
    within = all_pairs(scorer, features["official256"], features["official256"])
    np.testing.assert_allclose(within, goldens["official256_scores"], atol=TOLERANCE, rtol=0)


def test_routes_are_told_apart(goldens, formula):
    """The golden of one route would fail another; of 512-pixel images the two routes of CheXGenBench are one."""
    assert not np.allclose(goldens["cgb_emb_gen"], goldens["cgb_emb_real"], atol=TOLERANCE, rtol=0)
    real, direct = (SiameseReid(weights="random:1", route=route) for route in ("cgb224", "cgb224_direct"))
    square, other = formula.images()[0], formula.images()[1]
    np.testing.assert_array_equal(real.prepare(square), direct.prepare(square))
    assert (real.prepare(other) != direct.prepare(other)).any()
    specs = [SiameseReid(weights="random:1", route=route).resolve() for route in ROUTES]
    assert len({spec.fingerprint for spec in specs}) == len(ROUTES)


def test_an_image_against_itself_scores_the_bias(features, goldens, scorer):
    own = scorer(features["cgb224"], features["cgb224"])
    np.testing.assert_allclose(own, 1 / (1 + np.exp(-scorer.bias)), rtol=1e-15)
    assert own[0] == pytest.approx(0.478339, abs=1e-6)
    assert goldens["cgb_scores_real_x_gen"][0, 0] == pytest.approx(own[0], abs=TOLERANCE)


def test_the_score_of_a_pair_is_symmetric_and_its_own(scorer):
    rng = np.random.default_rng(0)
    left, right = rng.random((2, PAIRS_AT_ONCE + 5, 128), dtype=np.float32)
    scores = scorer(left, right)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, scorer(right, left))
    for index in (0, PAIRS_AT_ONCE - 1, PAIRS_AT_ONCE, len(left) - 1):
        assert scorer(left[[index]], right[[index]])[0] == scores[index]
        a, b = left[index].tolist(), right[index].tolist()
        logit = sum(weight * abs(a[k] - b[k]) for k, weight in enumerate(scorer.weight))
        assert scores[index] == pytest.approx(1 / (1 + np.exp(-logit - scorer.bias)), rel=1e-13)
    assert scorer(left[:0], right[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"two \(n, 128\) arrays; found \(2, 128\) and \(3, 128\)"):
        scorer(left[:2], right[:3])


def test_scores_far_out_stay_numbers():
    steep = WeightedL1(np.full(128, 100.0), 0.0)
    ones, zeros = np.ones((1, 128), np.float32), np.zeros((1, 128), np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert steep(ones, zeros) == 1
        assert WeightedL1(np.full(128, -100.0), 0.0)(ones, zeros) == 0


def test_the_scorer_needs_no_network_and_travels(monkeypatch):
    expected = SiameseReid(weights="random:3")
    expected.load("cpu")
    assert expected._module is not None
    last = dict(expected._module.named_parameters())
    monkeypatch.setattr("chexray.encoders.siamese_reid._empty", lambda: pytest.fail("built the network"))
    scorer = SiameseReid(weights="random:3").scorer()
    assert isinstance(scorer, PairScorer)
    np.testing.assert_array_equal(scorer.weight, last["fc_end.weight"][0].double().numpy())
    assert scorer.bias == float(last["fc_end.bias"])
    copy = pickle.loads(pickle.dumps(scorer))
    pair = np.random.default_rng(1).random((2, 3, 128), dtype=np.float32)
    np.testing.assert_array_equal(copy(*pair), scorer(*pair))


@pytest.mark.slow
def test_a_random_network_is_not_saturated(greys):
    encoder = SiameseReid(weights="random:3")
    encoder.load("cpu")
    found = encoder.encode(np.stack([encoder.prepare(image) for image in greys]))["features"]
    assert 0.01 < np.quantile(found, 0.05) < np.quantile(found, 0.95) < 0.99


def test_counters_may_be_absent_and_nothing_else(released, tmp_path):
    state = torch.load(released, weights_only=True)["state_dict"]
    old = {f"module.{name}": value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    SiameseReid(weights=str(tmp_path / "old.pth")).resolve()
    del old["module.fc_end.bias"]
    torch.save(old, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"the Siamese ResNet-50 .*1 missing, first fc_end.bias"):
        SiameseReid(weights=str(tmp_path / "cut.pth")).resolve()


def test_another_architecture_is_named_by_the_keys_found_and_expected(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None, num_classes=128).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(WeightsError) as caught:
        SiameseReid(weights=str(tmp_path / "resnet.pth")).resolve()
    message = str(caught.value)
    for part in ("not those of the Siamese ResNet-50", "missing, first model.conv1.weight", "unexpected, first conv1"):
        assert part in message
    state = {name: torch.zeros(shape) for name, shape in expected_shapes().items()}
    torch.save({**state, "model.fc.weight": torch.zeros(64, 2048)}, tmp_path / "narrow.pth")
    with pytest.raises(WeightsError, match=r"model.fc.weight \(64, 2048\) for \(128, 2048\)"):
        SiameseReid(weights=str(tmp_path / "narrow.pth")).resolve()


def test_a_pickled_network_is_refused_with_the_reason(tmp_path):
    network = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2), "fc_end": torch.nn.Linear(2, 1)})
    torch.save(network, tmp_path / FILE)
    with pytest.raises(WeightsError, match=r"a pickled torch.nn.*ModuleDict.*could run code.*save model.state_dict"):
        SiameseReid(weights=str(tmp_path)).resolve()


def test_missing_weights_say_which_file_and_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for encoder in (SiameseReid(), SiameseReid(weights="absent.pth")):
        with pytest.raises(WeightsError) as caught:
            encoder.scorer()
        message = str(caught.value)
        for part in (FILE, "raman07/Patient_ReIdentification_MIMIC", "downloads nothing", "set weights: /path/to/it"):
            assert part in message
    with pytest.raises(ConfigError, match=r"route is 'cgb256'; expected one of cgb224, cgb224_direct, official256"):
        SiameseReid(route="cgb256")
