"""The published tables: equal to the transcription cell by cell, doubts marked, and shown beside like only."""

from __future__ import annotations

import json

import pytest

from chexray.findings import FINDINGS
from chexray.results import published
from chexray.results.legacy import upgraded
from chexray.results.published import rows


def comparable(row):
    suite = "privacy" if row.get("metric", "fid").startswith(("reid", "latent")) else "fidelity"
    return published.comparable(upgraded({"metric": "fid", "suite": suite} | row))


def best(metric, encoder, subset="all", suite="fidelity", **others):
    row = {"metric": metric, "suite": suite, "encoder": encoder, "subset": subset, "method": {}, "about": {}}
    return published.best(upgraded(row), **others)


RELEASED, REID = (
    json.dumps({"weights_are": f"released {name}, by the config's word"}) for name in ("rad_dino", "siamese_reid")
)


@pytest.fixture(scope="module")
def oracle(shared):
    return json.loads((shared / "oracles" / "published_tables.json").read_text())


def table(name):
    return {(cell.model, cell.metric, cell.subset): cell for cell in rows() if cell.table == name}


def test_overall_values_equal_the_transcription(oracle):
    ours = table("overall")
    theirs = oracle["fidelity_overall"]
    expected = {
        (model, column.removesuffix("_raddino"), "all"): values[column]
        for model, values in theirs["rows"].items()
        for column in theirs["columns"]
    }
    assert {key: cell.value for key, cell in ours.items()} == expected
    assert len(expected) == 11 * 7
    assert {cell.better == "lower" for cell in ours.values() if cell.metric in ("fid", "kid")} == {True}
    assert {cell.confidence for cell in ours.values()} == {theirs["confidence"]}


def test_finding_values_equal_the_transcription(oracle):
    theirs = oracle["fidelity_conditional_fid_raddino"]
    expected = {(m, "fid", f): value for m, values in theirs["rows"].items() for f, value in values.items()}
    assert {key: cell.value for key, cell in table("per_finding").items()} == expected
    assert {subset for _, _, subset in expected} == set(FINDINGS)


def test_privacy_values_equal_the_transcription(oracle):
    theirs = oracle["privacy"]
    expected = {(m, c, "all"): values[c] for m, values in theirs["rows"].items() for c in theirs["columns"]}
    assert {key: cell.value for key, cell in table("privacy").items()} == expected


def test_unix_rows_equal_the_transcription_and_are_not_the_papers(oracle):
    theirs = oracle["extra_comparable_rows"]
    overall, finding = table("unix_overall"), table("unix_per_finding")
    columns = oracle["fidelity_overall"]["columns"]
    for model in ("UniX-256", "UniX-512"):
        for column in columns:
            assert overall[model, column.removesuffix("_raddino"), "all"].value == theirs[model][column]
        for name, value in theirs[model]["conditional_fid"].items():
            assert finding[model, "fid", name].value == value
    assert len(overall) == 2 * len(columns)
    assert len(finding) == 2 * len(FINDINGS)
    assert {(c.in_paper, c.confidence) for c in [*overall.values(), *finding.values()]} == {(False, "B")}


def test_what_is_not_available_stays_null(oracle):
    assert oracle["fidelity_overall_inception"]["confidence"] == "X"
    cells = [cell for cell in rows() if cell.confidence == "X"]
    assert {cell.encoder for cell in cells} == {"inception_v3", "radiomics"}
    assert all(cell.value is None for cell in cells)
    assert all(cell.value is not None for cell in rows() if cell.confidence != "X")
    assert best("fid", "inception_v3") is None


def test_excluded_and_doubtful_cells_are_marked(oracle):
    cells = table("per_finding")
    start = {"SD V1-5": "Lung Lesion", "SD V2": "Edema"}
    assert [text.split(":")[0] for text in oracle["fidelity_conditional_fid_raddino"][
        "excluded_from_leaderboard_by_default"]] == list(start)  # fmt: skip
    excluded = {(m, "fid", f) for m, first in start.items() for f in FINDINGS[FINDINGS.index(first) :]}
    assert {key for key, cell in cells.items() if not cell.ranked} == excluded
    doubtful = {("Sana", "fid", "Pneumonia"), ("SD V2-1", "fid", "No Finding"), ("SD V2-1", "fid", "Support Devices")}
    assert {key for key, cell in cells.items() if cell.suspect} == excluded | doubtful
    privacy = table("privacy").values()
    assert all(cell.suspect and not cell.ranked for cell in privacy if cell.metric == "avg_pixel_distance")
    assert all(cell.suspect and not cell.ranked for cell in privacy if cell.metric == "count_reid_gt_delta")
    assert not any(cell.suspect for cell in table("overall").values())


def test_best_takes_the_direction_and_passes_over_shuffled_columns():
    assert (best("fid", "rad_dino").value, best("fid", "rad_dino").model) == (54.225, "Sana")
    assert best("precision", "rad_dino").model == "LLM-CXR"
    assert best("fid", "rad_dino", others=True).model == "UniX-512"
    assert best("fid", "rad_dino", "Lung Lesion").model == "Sana"  # not the shuffled 123.13 of SD V1-5
    assert best("fid", "rad_dino", "finding:Pneumonia").suspect
    assert best("kid", "rad_dino", "Edema") is None
    assert best("fid", "rad_dino", "sex:F") is None


def test_only_like_stands_beside_the_paper():
    row = {"protocol": "chexgenbench", "encoder": "rad_dino", "weights": "microsoft/rad-dino", "params": RELEASED}
    assert comparable(row) is None
    assert "standard" in comparable(row | {"protocol": "standard"})
    assert "pixels" in comparable(row | {"encoder": "pixels"})
    assert "random" in comparable(row | {"weights": "random:7"})
    card = json.loads(RELEASED) | {"note_card": "SynthCheX-75K: not the benchmarked model"}
    assert "no benchmarked one: SynthCheX-75K" in comparable(row | {"params": json.dumps(card)})


def test_every_cell_names_a_source_and_a_known_confidence():
    assert all(cell.source and cell.confidence in "ABCX" for cell in rows())
    assert published.test_set_size() == 5034


def test_the_mean_over_subsets_stands_beside_what_the_paper_calls_kid() -> None:
    assert best("kid_subsets", "rad_dino") == best("kid", "rad_dino")


def test_privacy_stands_beside_the_paper_by_its_own_encoder():
    row = {"protocol": "chexgenbench", "weights": "hub/trained", "params": RELEASED}
    reid = row | {"encoder": "siamese_reid", "params": REID}
    assert comparable(reid | {"metric": "reid_mean"}) is None
    assert comparable(reid | {"metric": "reid_max"}) is None
    assert comparable(row | {"metric": "latent_distance", "encoder": "rad_dino"}) is None
    assert "the paper's is siamese_reid" in comparable(row | {"metric": "reid_mean", "encoder": "rad_dino"})
    assert "the paper's is rad_dino" in comparable(row | {"metric": "latent_distance", "encoder": "siamese_reid"})
    assert "random" in comparable(row | {"metric": "reid_mean", "encoder": "siamese_reid", "weights": "random:7"})
    assert [best(name, "siamese_reid", suite="privacy").value for name in ("reid_mean", "reid_max")] == [0.365, 0.992]
    assert best("latent_distance", "rad_dino", suite="privacy").value == 0.601


def test_the_pixel_distance_and_the_count_have_no_best(oracle):
    for metric in (
        "pixel_distance",
        "pixel_distance_upstream",
        "reid_count_0.5",
        "reid_count_calibrated",
        "reid_max_mean",
    ):
        assert all(
            best(metric, encoder, suite="privacy") is None for encoder in ("", "pixels", "siamese_reid", "rad_dino")
        )
    protocol = oracle["privacy"]["protocol"]
    assert published.prompts_and_seeds() == (protocol["n_prompts"], protocol["generations_per_prompt"])


def test_a_network_that_only_goes_by_the_name_never_stands_beside_the_paper():
    row = {"metric": "precision", "protocol": "chexgenbench", "encoder": "rad_dino", "weights": "microsoft/rad-dino"}

    def why(**params):
        return comparable(row | {"params": json.dumps(params)})

    assert "not known" in why()
    assert "weights_are: released" in why()  # the next move
    differs = {"network_differs": "hidden_size 192, not 768", "weights_are": "released rad_dino, by sha256"}
    assert why(**differs) == "the network is not the paper's: hidden_size 192, not 768"
    for known in ("sha256", "hub revision 0123456789ab", "the config's word"):
        assert why(weights_are=f"released rad_dino, by {known}") is None
    assert why(weights_are="released rad_dino, by sha256", k=3) == "k is 3, the paper's is 5"
    assert why(weights_are="released rad_dino, by sha256", k=5) is None


def test_a_name_given_to_another_network_does_not_stand_beside_the_paper():
    """`id: rad_dino` on any encoder: the row's encoder is what the config calls it."""
    row = {"metric": "fid", "protocol": "chexgenbench", "encoder": "rad_dino", "weights": "/models/x", "params": REID}
    assert "not known" in comparable(row)


@pytest.mark.parametrize(
    ("metric", "encoder", "params", "right", "wrong"),
    [
        ("fid", "rad_dino", RELEASED, "cgb299", ("native", "cgb512")),
        ("latent_distance", "rad_dino", RELEASED, "cgb512", ("native", "cgb299")),
        ("reid_max", "siamese_reid", REID, "cgb224", ("official256", "cgb224_direct")),
    ],
)
def test_images_are_prepared_as_the_paper_does(metric, encoder, params, right, wrong):
    row = {"metric": metric, "protocol": "chexgenbench", "encoder": encoder, "weights": "w", "params": params}
    assert comparable(row | {"encoder_revision": f"{right}/squash+0123"}) is None
    for route in wrong:
        why = comparable(row | {"encoder_revision": f"{route}/cover+0123"})
        assert why == f"preprocessing is {route}, the paper's is {right}"
