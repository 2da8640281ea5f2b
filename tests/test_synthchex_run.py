"""A run of both forms of SynthCheX-75K with one flag: an archive on S3 and local Parquet give the same numbers."""

from __future__ import annotations

import json

from fixtures.s3 import KEY, SECRET
from fixtures.synthchex import dicom_id, write_training, write_v1, write_v2

from chexray import evaluate, parse_config
from chexray.data.sources._peers import SYNTHCHEX_CARD as CARD
from chexray.report.console import document_of

IDS = list(range(12))


def test_both_forms_give_the_same_numbers(ray_cluster, s3, tmp_path):
    training = write_training(tmp_path / "mimic", list(range(18)))
    s3.storage.write(f"{s3.bucket}/ALL_FILES.zip", write_v1(tmp_path / "file.zip", IDS).read_bytes())
    (tmp_path / "v2").mkdir()
    write_v2(tmp_path / "v2" / "train-00000-of-00001.parquet", IDS)
    config = parse_config(
        {
            "training": str(training),
            "synthetic": {"v1": {"path": f"{s3.bucket}/ALL_FILES.zip"}, "v2": {"path": str(tmp_path / "v2")}},
            "encoders": [{"name": "pixels", "side": 8}],
            "privacy": {"planted": 0, "views": False, "peers": False, "duplicates": False},
            "storage": {"endpoint_url": s3.endpoint, "region": "us-east-1", "key": KEY, "secret": SECRET},
            "output": str(tmp_path / "out"),
        }
    )
    run = evaluate(config)
    assert (run.exit_code, len(run.rejects)) == (0, 0)
    rows = run.results[run.results["synthetic_set"] != ""]
    assert set(rows["suite"]) == {"privacy"}
    assert {json.loads(about).get("note_card") for about in rows["about"]} == {CARD}
    rows = rows.assign(form=rows["synthetic_set"].str.partition("@")[0])
    numbers = rows.pivot(index=["metric", "encoder", "subset"], columns="form", values="value")
    assert numbers["v1"].equals(numbers["v2"].rename("v1"))
    assert numbers.loc[("pixel_distance", "", "all"), "v1"] > 0
    pairs = run.storage.read_parquet(f"{run.uri}/pairs.parquet").to_pandas()
    assert (pairs["real_id"] == pairs["synthetic_id"]).all()
    assert set(pairs["synthetic_id"]) == set(map(dicom_id, IDS))
    text = str(document_of(run.results).verdicts)
    assert text.count(CARD[:40]) == 2
