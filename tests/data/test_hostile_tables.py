"""Tables made to break what reads them: each gives its rows, or one short visible line, and never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.tables import PNG, STORAGE, everything, one_line, refused, write

from chexray.data import labels, manifest, pairing, schema, subsets
from chexray.data.sources import _bytes, _json_lines
from chexray.data.sources.folder import Folder
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.table import Table
from chexray.errors import ConfigError, ManifestError


@pytest.fixture
def root(tmp_path):
    for name in ("1.png", "2.png"):
        write(tmp_path / name, PNG)
    return tmp_path


def read(path, origin="real", **options):
    return Table(str(path), **options).read(origin, STORAGE)


class TestEncodings:
    def test_text_of_another_encoding_names_line_and_byte(self, root):
        data = "id,path,prompt\n1,1.png,ok\n2,2.png,José\n".encode("latin-1")
        text = refused(
            write(root / "t.csv", data), "not UTF-8", "line 3", f"byte {data.index(0xE9) + 1}", "Save it again"
        )
        assert "Jos" not in text
        # A row that is ragged too: Arrow would print it, decode it and fail at that.
        refused(write(root / "t.csv", data + b"3,4,5,6,7\n"), "line 3")
        refused(write(root / "t.jsonl", '{"path": "1.png", "prompt": "José"}'.encode("latin-1")), "line 1")
        refused(write(root / "t.csv", b"id,path\r1,1.png\r2,\xff.png\r"), "line 3")

    @pytest.mark.parametrize("n", [0, 1, 2, 3])
    def test_the_byte_is_right_across_the_slices_of_the_check(self, n):
        data = b"a" * (_bytes._OUT_BYTES - n) + "é".encode() * 3 + b"\xff" + b"b" * 10
        assert _bytes._first_stray(data) == data.index(0xFF)
        assert _bytes._first_stray(data.replace(b"\xff", b"c")) is None
        assert _bytes._first_stray(data[: _bytes._OUT_BYTES - n + 1]) == (_bytes._OUT_BYTES - n)

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    def test_utf_16_without_its_mark_is_called_so(self, root, encoding, suffix):
        refused(write(root / f"t.{suffix}", '{"path": "1.png"}\n'.encode(encoding)), "looks like UTF-16")

    def test_utf_16_is_read_where_its_mark_says_so(self, root):
        expected = [f"{root}/1.png", f"{root}/2.png"]
        text = "id\tpath\tprompt\r\n1\t1.png\tJosé\r\n2\t2.png\tp\r\n"  # Excel's "Unicode text"
        assert read(write(root / "t.csv", text.encode("utf-16")))["uri"].to_pylist() == expected
        lines = '{"path": "1.png"}\n{"path": "2.png"}\n'
        for encoding, mark in (("utf-16-be", b"\xfe\xff"), ("utf-16-le", b"\xff\xfe")):
            assert read(write(root / "t.jsonl", mark + lines.encode(encoding)))["uri"].to_pylist() == expected
        refused(write(root / "t.csv", "id,path\n1,1.png\n".encode("utf-16") + b"\x00"), "looks like UTF-16")

    def test_a_byte_order_mark_and_nul_bytes_are_fine(self, root):
        table = read(write(root / "t.csv", b"\xef\xbb\xbfid,path,x\n1\x00,1.png,a\x00b\n"))
        assert table["sample_id"].to_pylist() == ["1\x00"]
        assert table.column_names[2:] == ["id", "path", "x"]


class TestCsv:
    def test_another_delimiter_is_named(self, root):
        refused(write(root / "t.csv", "Jane Doe; 4711; 1.png\n1;1.png, and 2\n"), "seems to be a semicolon")

    @pytest.mark.parametrize(
        "text",
        [
            "id;path;prompt\n1;1.png;a, b\n2;2.png;c\n",
            "id|path|prompt\n1|1.png|a, b\n2|2.png|c\n",
            'id\tpath\tprompt\n1\t1.png\t"a, b"\n2\t2.png\tc\n',
            "sep=;\nid;path;prompt\n1;1.png;a, b\n2;2.png;c\n",
            '"sep=,"\r\nid,path,prompt\n1,1.png,"a, b"\n2,2.png,c\n',
            'id, path, prompt\n1, 1.png, "a, b"\n2, 2.png, c\n',
            'id,path,prompt\n1, 1.png, "a, b"\n2, 2.png, "c"\n',
        ],
    )
    def test_what_excel_and_others_write_is_read(self, root, text):
        table = read(write(root / "t.csv", text))
        assert table["sample_id"].to_pylist() == ["1", "2"]
        assert table["uri"].to_pylist() == [f"{root}/1.png", f"{root}/2.png"]
        assert table["prompt"].to_pylist() == ["a, b", "c"]
        assert read(write(root / "t.tsv", "id,path\n7,1.png\n"))["sample_id"].to_pylist() == ["7"]

    def test_a_quote_that_is_never_closed_loses_no_rows_silently(self, root):
        refused(write(root / "t.csv", 'id,path\n1,"1.png\n2,2.png\n'), "never closed")
        refused(write(root / "t.csv", '"id,path\n1,1.png\n'), "never closed")
        table = read(write(root / "t.csv", 'id,path,prompt\n1,1.png,"a\nb"\n2,2.png,5" tube\n'))
        assert table["prompt"].to_pylist() == ["a\nb", '5" tube']

    def test_the_first_line_with_names_is_the_header(self, root):
        assert read(write(root / "t.csv", "\n\nid,path\n007,1.png\n"))["sample_id"].to_pylist() == ["007"]
        refused(write(root / "t.csv", "\n \n"), "empty")

    def test_a_table_without_a_header_shows_no_patient(self, root):
        text = refused(
            write(root / "t.csv", "7,1.png,Jane Doe MRN 4711\n8,2.png,x\n"), "looks like a row of data", "header"
        )
        assert "4711" not in text
        text = refused(root / "t.csv", "looks like a row of data", columns={"image": "path"})
        assert "4711" not in text

    @pytest.mark.slow
    def test_many_columns_are_counted(self, root):
        names = [f"c{i}" for i in range(20_000)]
        path = write(root / "t.csv", f"{','.join(names)}\n{','.join('1' * len(names))}\n")
        assert "19,988 more" in refused(path)
        assert "19,988 more" in refused(path, columns={"image": "pathh"})
        refused(write(root / "t.csv", f"{','.join(['a'] * 20_000)}\n1\n"), "cells")
        refused(
            write(root / "t.csv", f"{','.join(['a'] * 20_000)}\n{','.join('1' * 20_000)}\n"),
            "two columns are called 'a'",
        )
        refused(write(root / "t.csv", f"{',' * 60_000}\n"), "60,001 columns")

    @pytest.mark.slow
    def test_a_set_with_many_columns_is_read_in_time(self, root):
        names = [f"c{i}" for i in range(20_000)]
        cells = ",".join("1" * len(names))
        built = manifest.load(
            "s", "real", Table(str(write(root / "t.csv", f"path,{','.join(names)}\n1.png,{cells}\n"))), STORAGE
        )
        assert built.table.num_columns == len(schema.COLUMNS) + 20_001

    def test_long_ids_are_cut_in_messages_only(self, root):
        long = "x" * 1_000_000
        assert read(write(root / "t.csv", f"id,path\n{long},1.png\n"))["sample_id"].to_pylist() == [long]
        with pytest.raises(ManifestError) as caught:
            everything(write(root / "t.csv", f"path\n{long}\n{long}.png\n"))
        assert "1,000,000 characters" in one_line(caught.value)
        refused(write(root / "t.csv", f"path,{long}\n,1\n"), "the header cannot be read")
        refused(write(root / "t.csv", f"id,{long[:100_000]}\n1,1\n"), "no column names an image", "first line")

    def test_a_name_no_disk_allows_is_a_missing_image(self, root):
        long = "/".join(["d" * 200] * 30)
        path = write(
            root / "t.csv", f"id,path\n1,1.png\n2,2.png\n3,1.png\n4,{'é' * 200}.png\n5,{long}\n6,x/{'y' * 300}.png\n"
        )
        built = everything(path)
        assert built.rejects["code"].to_pylist() == ["not_found"] * 3


class TestGzip:
    def test_a_bomb_is_refused_while_it_expands(self, root, monkeypatch):
        bomb = gzip.compress(b"id,path\n" + b"0" * 30_000_000)
        monkeypatch.setattr(_bytes, "ANY_RATIO_BYTES", 1 << 20)
        refused(write(root / "t.csv.gz", bomb), f"its {len(bomb):,} bytes expand to more than", "which no table does")
        monkeypatch.setattr(_bytes, "ANY_RATIO_BYTES", 1 << 30)
        monkeypatch.setattr(_bytes, "MAX_TABLE_BYTES", 10_000_000)
        refused(write(root / "t.csv.gz", bomb), "expand to more than 10,000,000")
        refused(write(root / "t.csv", b"id,path\n" + b"0" * 20_000_000), "has 20,000,008 bytes, at most 10,000,000")

    @pytest.mark.slow
    def test_the_limits_leave_room_for_tables(self):
        rows = [
            f"{i * 7919 % 10**8},p10/s{i * 104729 % 10**8}.dcm,{'No acute process. ' * 20}\n" for i in range(200_000)
        ]
        text = "".join(rows).encode()
        assert len(text) > _bytes.ANY_RATIO_BYTES
        assert _bytes.inflated(gzip.compress(text), "t") == text

    def test_members_and_padding_are_read_and_damage_is_said(self, root):
        first, second = gzip.compress(b"id,path\n"), gzip.compress(b"7,1.png\n")
        table = read(write(root / "t.csv.gz", first + gzip.compress(b"") * 2_000 + second + b"\0" * 40_000))
        assert table["sample_id"].to_pylist() == ["7"]
        for damaged in (second[:-1], second[:5], b"", first + second + b"rubbish", first + b"\0" * 9 + second[:20]):
            refused(write(root / "t.csv.gz", damaged), "is not a whole gzip file")
        spoiled = bytearray(second)
        spoiled[-6] ^= 1
        refused(write(root / "t.csv.gz", bytes(spoiled)), "is not a whole gzip file")


class TestJsonLines:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"path": "1.png", "x": "\\ud800"}', "'x' of data row 1 holds half a character"),
            ('{"path": "\\udfff.png"}', "'path' of data row 1 holds half a character"),
            ('{"path": "1.png", "\\ud800": 1}', "is not valid text"),
            ('{"path": "1.png", "path": "2.png"}', "line 1 has a key twice"),
            ('{"path": "1.png", "labels": {"Edema": 1, "Edema": 0}}', "line 1 has a key twice"),
            ('[{"path": "1.png"}]', "line 1 is not a JSON object"),
            (f'{{"path": "1.png", "x": {"[" * 100_000}{"]" * 100_000}}}', "line 1 is not a JSON object"),
            (f'{{"path": "1.png", "x": {"9" * 5_000}}}', "line 1 is not a JSON object"),
            ('{"path": ["1.png"]}', "column 'path' is list, expected text"),
            ('{"path": {"a": 1}}', "holds image bytes"),
            ('{"path": "1.png", "id": {"secret": 1}}', "column 'id' is struct, expected text"),
        ],
    )
    def test_what_no_column_holds_is_one_line(self, root, line, message):
        text = refused(write(root / "t.jsonl", line), message)
        assert "secret" not in text

    def test_numbers_beyond_64_bits_are_text(self, root):
        lines = [f'{{"path": "1.png", "id": {2**63 + 1}, "x": {2**70}, "y": 1e999, "z": NaN}}']
        lines.append('{"path": "2.png", "id": 5, "x": -1, "y": null, "z": 1}')
        table = read(write(root / "t.jsonl", "\n".join(lines)))
        assert table["sample_id"].to_pylist() == [str(2**63 + 1), "5"]
        assert table["x"].to_pylist() == [str(2**70), "-1"]
        assert table["y"].to_pylist() == [float("inf"), None]
        everything(root / "t.jsonl")

    def test_mixed_nested_and_deep_values_are_text(self, root):
        deep = "[" * 300 + "]" * 300
        path = write(
            root / "t.jsonl", f'{{"path": "1.png", "x": {deep}, "y": 1, "": 2, "\\u001b[2J": [1, {{"a": 1}}]}}\n'
        )
        table = read(path)
        assert table["x"].to_pylist() == [deep]
        assert "\x1b[2J" in table.column_names
        everything(path)

    def test_lines_with_a_key_each_do_not_multiply(self, root, monkeypatch):
        rows = [{"path": "1.png", "remarks": {f"k{i}": i}} for i in range(3_000)]
        path = write(root / "t.jsonl", "\n".join(map(json.dumps, rows)))
        assert pa.types.is_string(read(path).schema.field("remarks").type)
        rows = [{"path": "1.png", f"k{i}": i} for i in range(3_000)]
        monkeypatch.setattr(_json_lines, "MAX_CELLS", 1_000_000)
        refused(write(root / "t.jsonl", "\n".join(map(json.dumps, rows))), "different keys by line")

    def test_labels_as_objects_keep_their_columns(self, root):
        rows = [{"path": "1.png", "labels": {"Edema": 1}}, {"path": "2.png", "labels": {"Fracture": 0}}]
        table = read(write(root / "t.jsonl", "\n".join(map(json.dumps, rows))))
        assert labels.to_codes(table["labels"])[0].max() == 1


class TestLabels:
    @pytest.mark.parametrize(
        "cell",
        [
            f"{{'Edema': {10**400}}}",
            "{'Edema': 1e400}",
            f"{{'Edema': {hex(16**3000)}}}",
            f"{{{hex(16**3000)}: 1}}",
            "{'Edema': 1j}",
            "{'Edema': {1, 2}}",
            "{('a', 1): 1}",
            "{b'Edema': 1}",
            "{[]: 1}",
            "{'Edema', 'Fracture'}",
            "-" * 4000 + "1",
            "{'Edema': " * 90 + "1" + "}" * 90,
            "{'Edema': 'x\\d'}",
            "{'Edema': 1if 1else 2}",
            "...",
            "b'1'",
            "f'{1}'",
            "{1: 2, **{}}",
        ],
    )
    def test_odd_cells_are_one_line_without_the_cell(self, cell, capfd):
        column = pa.chunked_array([["{'Edema': 1}", cell]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ManifestError, match=r"data row 2") as caught:
                labels.from_column(column, "t.csv")
        assert len(one_line(caught.value)) < 450
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("values", [["1", "Jane Doe 4711"], [1, 10**18 + 4711], [1.0, 4711.0]])
    def test_a_finding_column_shows_no_cell(self, values):
        with pytest.raises(ManifestError, match="column 'edema' of data row 2 is a") as caught:
            labels.from_finding_columns(pa.table({"edema": values}), {"Edema": "edema"}, "t.csv")
        assert "4711" not in str(caught.value)

    def test_a_key_is_shown_only_when_it_is_nearly_a_finding(self):
        for key, shown in (
            ("Pleural Efusion", True),
            ("Jane Doe MRN 4711", False),
            ("MRN4711", False),
            ("x" * 3_000, False),
        ):
            with pytest.raises(ManifestError) as caught:
                labels.from_column(pa.chunked_array([[f"{{'{key}': 1}}"]]), "t.csv")
            assert (key[:20] in one_line(caught.value)) == shown


class TestFolders:
    NAMES = (b"a\nb.png", b"\x1b[2J.png", "\u202egnp.png".encode(), b"x" * 251 + b".png", b"plain.png", b'q"u,o.png')

    def test_names_with_control_characters_are_data(self, tmp_path):
        for name in self.NAMES:
            (tmp_path / os.fsdecode(name)).write_bytes(name)
        built = everything(tmp_path)
        assert sorted(built.table["sample_id"].to_pylist()) == sorted(map(os.fsdecode, self.NAMES))

    def test_a_name_that_is_not_utf_8_is_a_reject(self, tmp_path):
        for name in (*self.NAMES, b"caf\xe9.png"):
            (tmp_path / os.fsdecode(name)).write_bytes(name)
        built = everything(tmp_path)
        assert built.n_rows == 7
        assert built.rejects.select(["sample_id", "uri", "code", "detail"]).to_pylist() == [
            {
                "sample_id": "caf\\udce9.png",
                "uri": None,
                "code": "no_path",
                "detail": "the file's name is not UTF-8: rename it",
            }
        ]
        (tmp_path / "metadata.csv").write_text("file_name,prompt\nplain.png,p\n")
        built = everything(tmp_path)
        assert (built.n_rows, len(built.rejects)) == (7, 1)

    def test_a_folder_of_such_names_says_so(self, tmp_path):
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / os.fsdecode(b"\xff\xfe.png")).write_bytes(PNG)
        with pytest.raises(ManifestError, match=r"1 of 1 rows have no image.*not UTF-8: rename it") as caught:
            everything(tmp_path / "f")
        one_line(caught.value)

    @pytest.mark.parametrize("name", [b"\xff", b"\x1b[31m\xe9"])
    def test_a_root_that_is_not_utf_8_is_one_line(self, tmp_path, name):
        root = tmp_path / os.fsdecode(name)
        write(root / "1.png", PNG)
        write(root / "t.csv", "path\n1.png\n")
        (root / "p").mkdir()
        with open(root / "p" / "a.parquet", "wb") as file:
            pq.write_table(pa.table({"image": [PNG]}), file)
        for source in (Folder(str(root)), Table(str(root / "t.csv")), ParquetImages(str(root / "p"))):
            with pytest.raises(ManifestError, match="not UTF-8") as caught:
                source.read("real", STORAGE)
            one_line(caught.value)

    def test_a_folder_beside_the_table_may_have_any_name(self, root):
        write(root / os.fsdecode(b"\xff") / "only.png", PNG)
        refused(write(root / "t.csv", "path\nonly.png\n"), "are not below")

    def test_braces_do_not_multiply_without_end(self, root):
        with pytest.raises(ManifestError, match="too many patterns") as caught:
            Folder(str(root), pattern="{a,b}" * 40).read("real", STORAGE)
        one_line(caught.value)


class TestPairs:
    def sets(self, root):
        path = write(root / "t.csv", "id,path,prompt\na,1.png,first\nb,2.png,second\n")
        return everything(path), everything(path, "synthetic", columns={"sample_id": "id"})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("real_id,synthetic_id\nJane Doe 4711,a\n", "first a text of 13 characters (data row 1)"),
            (f"real_id,synthetic_id\n{'x' * 10**6},a\n", "(data row 1)"),
            ("real_id,synthetic_id\na,a\na,a\n", "pairs repeat"),
            ("a,Jane Doe 4711.png\n1,2\n", "looks like a row of data"),
        ],
    )
    def test_a_table_of_pairs_shows_no_text(self, root, text, message):
        real, synthetic = self.sets(root)
        with pytest.raises(ManifestError) as caught:
            pairing.build("given", real, synthetic, STORAGE, str(write(root / "pairs.csv", text)))
        assert message in one_line(caught.value)
        assert "4711" not in str(caught.value)

    def test_a_prompt_id_that_is_text_is_not_kept(self, root):
        real, synthetic = self.sets(root)
        path = write(
            root / "pairs.csv", "real_id,synthetic_id,prompt_id\na,a,Jane Doe 4711\nb,a,Jane Doe 4711\nb,b,p2\n"
        )
        found = pairing.build("given", real, synthetic, STORAGE, str(path))
        assert found.table["prompt_id"].to_pylist() == ["a", "a", "b"]
        assert "4711" not in " ".join(found.notes)


class TestSubsets:
    @pytest.mark.parametrize("bins", [[10**400, 1], [float("nan"), 1], [1, 10**400], ["a"], {"a": 1}, [[1]], 5, [2, 1]])
    def test_bins_of_any_kind(self, root, bins):
        built = everything(write(root / "t.csv", "path,age\n1.png,3\n2.png,4\n"))
        with pytest.raises(ConfigError) as caught:
            subsets.expand([{"column": "age", "bins": bins}], built, [])
        one_line(caught.value)
        with pytest.raises(ConfigError, match="found the keys"):
            subsets.expand([{5: 1, "a": 2}], built, [])
        assert len(subsets.expand([{"column": "age", "bins": [0xFFFFFFFFFFFFFFFFFFFF]}], built, [])) == 2

    def test_a_free_text_column_is_not_listed(self, root):
        rows = "".join(f"{1 + i % 2}.png,Jane Doe {i} 4711\n" for i in range(200))
        built = everything(write(root / "t.csv", f"path,remark\n{rows}"), columns={"sample_id": "remark"})
        for wanted in ("remark", "remark:Jane"):
            with pytest.raises(ConfigError) as caught:
                subsets.expand([wanted], built, [])
            assert "4711" not in one_line(caught.value)
