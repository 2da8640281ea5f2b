"""dgm-eval's C_T restated with the libraries it uses: scikit-learn's PCA and neighbours, scipy's Mann and Whitney."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from chexray.privacy.dgm_eval import c_t_pca64, components
from chexray.privacy.other_tools import c_t


def restated(training: np.ndarray, heldout: np.ndarray, synthetic: np.ndarray) -> tuple[float, list]:
    """compute_CTscore of dgm_eval/metrics/ct.py, d57a6d2, with KMeans seeded; the cells of the three sets."""
    sets = [training, heldout, synthetic]
    if training.shape[1] > 64:
        pca = PCA(n_components=64).fit(training)
        sets = [pca.transform(rows) for rows in sets]
    means = KMeans(n_clusters=3, n_init=10, random_state=0).fit(sets[0])
    cells = [means.predict(rows) for rows in sets]
    (t, e, s), (a, b, c) = sets, cells
    z, weight = [], []
    for cell in range(3):
        near = NearestNeighbors(n_neighbors=1).fit(t[a == cell])
        mine, other = (near.kneighbors(rows)[0][:, 0] for rows in (s[c == cell], e[b == cell]))
        n, m = len(other), len(mine)
        u, _ = mannwhitneyu(mine, other, alternative="less")
        if m / len(s) > 20 / len(s):
            z.append((u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12))
            weight.append(n)
    return float(np.dot(z, weight) / np.sum(weight)), cells


def world(d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three clusters; the synthetic images are too smooth: they vary little in most of the many small directions."""
    rng = np.random.default_rng(seed)
    sd = np.where(np.arange(d) < 60, 1.0, 0.6)
    centres = 8 * rng.standard_normal((3, d)) * (np.arange(d) < 60)
    sets = []
    for n, fine in ((300, 1.0), (200, 1.0), (250, 0.3)):
        sets.append(centres[rng.integers(0, 3, n)] + rng.standard_normal((n, d)) * np.where(sd < 1, fine * sd, sd))
    first, second, third = (rows.astype(np.float32).astype(np.float64) for rows in sets)
    return first, second, third


@pytest.mark.parametrize("d", [12, 64, 160])
def test_it_is_dgm_evals_number(d: int) -> None:
    sets = world(d)
    expected, cells = restated(*sets)
    score = c_t_pca64(*sets)  # by its own cells: three clusters, so that any k-means finds them
    assert score.value == pytest.approx(expected, abs=1e-6)
    assert c_t_pca64(*sets, cells=(cells[0], cells[1], cells[2])).value == pytest.approx(expected, abs=1e-6)
    assert score.params["n_components"] == min(d, 64)
    assert score.ci_low < score.value < score.ci_high


def test_the_components_drop_what_the_other_variant_sees() -> None:
    t, e, s = world(160)
    near, unseen = (NearestNeighbors(n_neighbors=1).fit(t).kneighbors(rows)[0][:, 0] for rows in (s, e))
    assert c_t(near, unseen).value < c_t_pca64(t, e, s).value - 1
    assert [rows.shape[1] for rows in components(t, e, s)] == [64] * 3


def test_too_few() -> None:
    t, e, s = world(12)
    assert c_t_pca64(t, e, s[:40]).status == "too_few"
    assert c_t_pca64(t, e[:1], s).status == "too_few"
