"""Tables that name image files: which column is what, where the images are, and what is said when it does not fit."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import labels, schema
from chexray.data.sources.infer import infer
from chexray.data.sources.table import Table
from chexray.errors import ConfigError, ManifestError
from chexray.storage import Storage

STORAGE = Storage()


def images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def read(path, origin="real", **options):
    return Table(str(path), **options).read(origin, STORAGE)


def where(table):
    return json.loads(table.schema.metadata[schema.METADATA_KEY])["images"]


@pytest.fixture
def csv(tmp_path):
    images(tmp_path, "a/00012.png", "a/b.png")
    path = tmp_path / "set.csv"
    path.write_text(
        "id,path,annotated_prompt,chexpert_labels,patientID,age,sex\n"
        "00012,a/00012.png,\"Two\nlines, one prompt\",\"{'Edema': 1.0, 'Fracture': None}\",007,40,F\n"
        "b,a/b.png,,,7,,M\n"
    )
    return path


def test_ids_keep_their_zeros_and_numbers_stay_numbers(csv, tmp_path):
    table = read(csv)
    assert table["sample_id"].to_pylist() == ["00012", "b"]
    assert table["uri"].to_pylist() == [f"{tmp_path}/a/00012.png", f"{tmp_path}/a/b.png"]
    assert table["subject_id"].to_pylist() == ["007", "7"]
    assert table["patientID"].to_pylist() == ["007", "7"]
    assert table["prompt"].to_pylist() == ["Two\nlines, one prompt", None]
    assert table["age"].to_pylist() == [40, None]
    assert pa.types.is_integer(table.schema.field("age").type)
    assert table["labels"].type == labels.LABELS_TYPE
    assert table["labels"].is_valid().to_pylist() == [True, False]
    assert table["path"].to_pylist() == ["a/00012.png", "a/b.png"]


@pytest.mark.parametrize("suffix", [".tsv", ".parquet", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    images(tmp_path, "1.png", "2.png")
    rows = [
        {"id": "01", "path": "1.png", "prompt": "p", "labels": "{'Edema': 1}", "sex": "F", "age": 3},
        {"id": "02", "path": "2.png", "prompt": None, "labels": None, "sex": "M", "age": None},
    ]
    path = tmp_path / f"set{suffix}"
    if "json" in suffix or "nd" in suffix:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        tab = "\t" if suffix == ".tsv" else ","
        quoted = [
            [f'"{v}"' if isinstance(v, str) else "" if v is None else str(v) for v in row.values()] for row in rows
        ]
        data = "\n".join(tab.join(cells) for cells in [list(rows[0]), *quoted]).encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    table = read(path)
    assert infer(str(path), STORAGE) == "table"
    assert table["sample_id"].to_pylist() == ["01", "02"]
    assert table["prompt"].to_pylist() == ["p", None]
    assert table["age"].to_pylist() == [3, None]
    assert table["labels"].is_valid().to_pylist() == [True, False]


def test_parquet_ids_that_are_numbers_become_text(tmp_path):
    images(tmp_path, "1.png", "2.png")
    table = pa.table({"id": [1, 2], "path": ["1.png", "2.png"], "patientID": [5011.0, None]})
    pq.write_table(table, tmp_path / "set.parquet")
    got = read(tmp_path / "set.parquet")
    assert got["sample_id"].to_pylist() == ["1", "2"]
    assert got["subject_id"].to_pylist() == ["5011", None]
    assert got["patientID"].to_pylist() == [5011.0, None]


def test_text_that_looks_like_a_date_stays_text(tmp_path):
    images(tmp_path, "1.png")
    (tmp_path / "set.jsonl").write_text('{"id": "2019-01-01", "path": "1.png", "x": 1}\n\n')
    assert read(tmp_path / "set.jsonl")["sample_id"].to_pylist() == ["2019-01-01"]


def test_json_columns_of_several_types_become_text(tmp_path):
    images(tmp_path, "1.png", "2.png")
    (tmp_path / "s.jsonl").write_text('{"path": "1.png", "x": 1}\n{"path": "2.png", "x": "one", "y": 2}\n')
    table = read(tmp_path / "s.jsonl")
    assert table["x"].to_pylist() == ["1", "one"]
    assert table["y"].to_pylist() == [None, 2]


def test_a_synthetic_row_is_known_by_its_image_not_by_upstreams_id(tmp_path):
    images(tmp_path / "set", "p_gen_0.png", "p_gen_1.png")
    (tmp_path / "set.csv").write_text(
        "id,path,annotated_prompt,seed,img_savename\np,real.jpg,x,0,p_gen_0.png\np,real.jpg,x,1,p_gen_1.png\n"
    )
    table = read(tmp_path / "set.csv", "synthetic")
    assert table["sample_id"].to_pylist() == ["p_gen_0.png", "p_gen_1.png"]
    assert table["uri"][0].as_py() == f"{tmp_path}/set/p_gen_0.png"
    assert table["id"].to_pylist() == ["p", "p"]


def test_chexpert_and_nih_headers_are_recognised(tmp_path):
    images(tmp_path, "v/1.jpg")
    (tmp_path / "chexpert.csv").write_text(
        "Path,Sex,Age,Frontal/Lateral,No Finding,Pleural Effusion\nv/1.jpg,F,5,F,,1.0\n"
    )
    table = read(tmp_path / "chexpert.csv")
    assert table["sample_id"].to_pylist() == ["v/1.jpg"]
    assert labels.to_codes(table["labels"])[0, 9] == 1
    assert table["Pleural Effusion"].to_pylist() == [1.0]
    (tmp_path / "nih.csv").write_text("Image Index,Patient ID\nv/1.jpg,0013\n")
    assert read(tmp_path / "nih.csv")["subject_id"].to_pylist() == ["0013"]


def test_the_config_names_columns_and_can_take_labels_away(tmp_path):
    images(tmp_path, "1.png")
    (tmp_path / "s.csv").write_text("key,where,said,path,labels\n007,1.png,hello,elsewhere,Edema|COPD\n")
    columns = {"sample_id": "key", "image": "where", "prompt": "said", "labels": None}
    table = read(tmp_path / "s.csv", columns=columns)
    assert table["sample_id"].to_pylist() == ["007"]
    assert table["prompt"].to_pylist() == ["hello"]
    assert table["labels_original"].to_pylist() == ["Edema|COPD"]
    assert "labels" not in table.column_names
    with pytest.raises(ManifestError, match=r"labels of data row 1 .*real\.columns\.labels, or set it to null"):
        read(tmp_path / "s.csv", columns={"image": "where", "labels": "labels"})


def test_a_reserved_name_that_plays_another_part_survives_beside_it(tmp_path):
    images(tmp_path, "1.png")
    (tmp_path / "s.csv").write_text("uri,prompt,caption,row\n1.png,old,new,9\n")
    table = read(tmp_path / "s.csv", columns={"prompt": "caption"})
    assert table["prompt"].to_pylist() == ["new"]
    assert table["prompt_original"].to_pylist() == ["old"]
    assert table["uri"].to_pylist() == [f"{tmp_path}/1.png"]
    assert table["uri_original"].to_pylist() == ["1.png"]
    assert table["row_original"].to_pylist() == [9]


def test_a_mapped_column_that_is_not_there(csv):
    with pytest.raises(
        ManifestError, match=r"no column 'patientId', named in real.columns.subject_id.*'patientID'.*Columns: id"
    ):
        read(csv, columns={"subject_id": "patientId"})
    with pytest.raises(ConfigError, match="columns: expected a mapping of role to column, found 'path'"):
        read(csv, columns="path")
    with pytest.raises(ConfigError, match=r"real.columns: unknown role 'imgae'. Did you mean 'image'"):
        read(csv, columns={"imgae": "path"})


def test_a_csv_without_the_column(tmp_path):
    (tmp_path / "s.csv").write_text("id,age\n1,2\n")
    with pytest.raises(ManifestError, match=r"no column names an image.*found id, age.*synthetic.columns.image"):
        read(tmp_path / "s.csv", "synthetic")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("s.csv", b"", "empty"),
        ("s.csv", b"\xef\xbb\xbf\n", "empty"),
        ("s.csv", b"id,path\n", "no rows"),
        ("s.csv", b"id,id,path\n1,2,1.png\n", "two columns are called 'id'"),
        ("s.csv", b"id,path\n1,1.png\n2,secret,words,2.png\n", "data row 2 has 4 cells, the header has 2"),
        ("s.csv", b"id,path,n\n1,1.png,\xff\xfe\n", "not UTF-8"),
        ("s.csv", b"id,path\n\xe9,1.png\n", "not UTF-8"),
        ("s.csv.gz", b"id,path\n", "gzip"),
        ("s.parquet", b"id,path\n1,1.png\n", "not a readable Parquet"),
        ("s.jsonl", b'{"path": "1.png"}\n[1]\n', "line 2 is not a JSON object"),
        ("s.jsonl", b'{"path": "1.png"\n', "line 1 is not a JSON object"),
        ("s.txt", b"id,path\n", "expected a table"),
    ],
)
def test_malformed_tables_are_one_line_without_their_text(tmp_path, name, data, message):
    images(tmp_path, "1.png")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(ManifestError, match=r"nowhere\.csv"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(ManifestError, match=r"nowhere\.csv: there is no such file or folder"):
        infer(str(tmp_path / "nowhere.csv"), STORAGE)
    images(tmp_path, "a.png", "notes.txt")
    with pytest.raises(ManifestError, match="Name the folder that holds it"):
        infer(str(tmp_path / "a.png"), STORAGE)
    with pytest.raises(ManifestError, match="Set `source`"):
        infer(str(tmp_path / "notes.txt"), STORAGE)


@pytest.mark.parametrize(
    "path", ["../secret.png", "a/../../secret.png", "/etc/passwd", "file:///etc/passwd", "s3://b/k.png"]
)
def test_a_path_that_leaves_the_root_names_its_row(tmp_path, path):
    images(tmp_path, "secret.png")
    images(tmp_path / "set", "1.png")
    (tmp_path / "set" / "s.csv").write_text(f"id,path\n1,1.png\n2,{path}\n")
    with pytest.raises(ManifestError, match=r"data row 2 names .* which leaves the image root .*real.image_root"):
        read(tmp_path / "set" / "s.csv")
    (tmp_path / "set" / "only.csv").write_text(f"id,path\n2,{path}\n")
    with pytest.raises(ManifestError, match=r"data row 1 names .* which leaves the image root"):
        read(tmp_path / "set" / "only.csv")


def test_an_absolute_path_inside_the_root_is_fine(tmp_path):
    images(tmp_path, "x/1.png")
    (tmp_path / "s.csv").write_text(f"path\n{tmp_path}/x/1.png\n")
    assert read(tmp_path / "s.csv")["uri"].to_pylist() == [f"{tmp_path}/x/1.png"]


class TestImageRoot:
    def test_given(self, tmp_path):
        images(tmp_path / "far", "1.png")
        (tmp_path / "s.csv").write_text("path\n1.png\n")
        table = read(tmp_path / "s.csv", image_root=str(tmp_path / "far"))
        assert table["uri"].to_pylist() == [f"{tmp_path}/far/1.png"]
        with pytest.raises(ManifestError, match=r"real\.image_root .*near is not a folder"):
            read(tmp_path / "s.csv", image_root=str(tmp_path / "near"))

    def test_its_own_folder_or_one_of_its_name_needs_no_word_and_is_said(self, tmp_path):
        images(tmp_path, "1.png")
        (tmp_path / "s.csv").write_text("path\n1.png\n")
        assert where(read(tmp_path / "s.csv")) == f"below {tmp_path} (the table's own folder)"
        images(tmp_path / "made", "2.png")
        (tmp_path / "made.csv").write_text("img_savename\n2.png\n")
        table = read(tmp_path / "made.csv", "synthetic")
        assert table["uri"].to_pylist() == [f"{tmp_path}/made/2.png"]
        assert where(table) == f"below {tmp_path}/made (the folder of the table's name)"

    @pytest.mark.parametrize("neighbour", ["other", "sana_images", "sana"])
    def test_a_neighbour_is_named_and_not_taken(self, tmp_path, neighbour):
        images(tmp_path / neighbour, "1.png", "2.png")
        path = tmp_path / "sana_prompts.csv"
        path.write_text("img_savename\n1.png\n2.png\n")
        with pytest.raises(
            ManifestError,
            match=rf"names are below {tmp_path}/{neighbour}: if they are meant, set synthetic\.image_root",
        ):
            read(path, "synthetic")
        named = read(path, "synthetic", image_root=str(tmp_path / neighbour))
        assert where(named) == f"below {tmp_path}/{neighbour} (as synthetic.image_root says)"

    def test_two_candidates_are_not_guessed_between(self, tmp_path):
        images(tmp_path / "first", "1.png")
        images(tmp_path / "second", "1.png")
        (tmp_path / "s.csv").write_text("img_savename\n1.png\n")
        with pytest.raises(ManifestError, match=rf"names are below {tmp_path}: .*synthetic\.image_root"):
            read(tmp_path / "s.csv", "synthetic")
        with pytest.raises(ManifestError, match=r"2 files are called so: first/1\.png and second/1\.png"):
            read(tmp_path / "s.csv", "synthetic", image_root=str(tmp_path))

    def test_nothing_found_names_what_was_tried(self, tmp_path):
        images(tmp_path / "other", "x.png")
        (tmp_path / "s.csv").write_text("img_savename\n1.png\n")
        with pytest.raises(ManifestError, match=r"'1\.png' are not below .* and .*/s\. Set synthetic\.image_root"):
            read(tmp_path / "s.csv", "synthetic")

    def test_no_row_names_an_image(self, tmp_path):
        (tmp_path / "s.csv").write_text("id,path\n1,\n2,\n")
        with pytest.raises(ManifestError, match="no row names an image"):
            read(tmp_path / "s.csv")


def test_embedded_images_are_sent_to_their_own_source(tmp_path):
    pq.write_table(pa.table({"image": pa.array([b"x"])}), tmp_path / "s.parquet")
    assert infer(str(tmp_path / "s.parquet"), STORAGE) == "parquet_images"
    with pytest.raises(ManifestError, match=r"real\.source: parquet_images"):
        read(tmp_path / "s.parquet")


@pytest.mark.parametrize(
    ("name", "origin", "rows", "root"),
    [
        ("real_test", "real", 222, "real/test"),
        ("synthetic_test", "synthetic", 222, "synthetic_test"),
        ("generations_with_metadata", "synthetic", 380, "synthetic_train"),
        ("synthetic_seeds", "synthetic", 80, "synthetic_seeds"),
    ],
)
def test_upstream_csvs_as_they_are(shared, name, origin, rows, root):
    folder = shared / "data" / "cxr"
    named = {"generations_with_metadata": str(folder / "synthetic_train")}
    table = read(folder / f"{name}.csv", origin, image_root=named.get(name))
    assert len(table) == rows
    assert len(table["sample_id"].unique()) == rows
    assert all(uri.startswith(f"{folder}/{root}/") for uri in table["uri"].to_pylist())
    assert table["prompt"].null_count == 0
