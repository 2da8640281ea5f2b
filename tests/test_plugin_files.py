"""A plug-in in one file: what is wrong is one line; what is right is found, hashed, and travels by its bytes."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from chexray.config import parse_config
from chexray.encoders.base import EncoderSpec
from chexray.encoders.plugged import plugged_encoder
from chexray.errors import ChexrayError, MetricError, PluginError
from chexray.metrics.base import Output, Rows, Score
from chexray.metrics.plugged import plugged_metric
from chexray.plan import make_plan
from chexray.plan.options import accepts
from chexray.registry import entries, find, use, used, using
from chexray.spelling import nearest

METRIC = """
import numpy as np
class MeanDiff:
    reads, outputs, better = "features", ("mean_diff",), "lower"
    def compute(self, real, synthetic):
        return np.linalg.norm(real.mean(0) - synthetic.mean(0))
"""
ENCODER = """
class Flat:
    def resolve(self): ...
    def load(self, device): ...
    def prepare(self, image): return image
    def encode(self, batch): return {"features": batch}
"""
SOURCE = """
class Mine:
    def read(self, origin, storage): ...
"""


@pytest.fixture(autouse=True)
def _nothing_registered():
    yield
    use([])


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


WRONG = {
    "no reads": (METRIC.replace("reads, outputs, better = \"features\", ", "outputs, better = "), "no `reads`"),
    "reads of another type": (METRIC.replace('"features"', "3"), "`reads` 3, expected"),
    "reads as a method": (METRIC + "    def reads(self): return 'features'\n", "`reads`"),
    "no outputs": ('class M:\n    reads = "features"\n    def compute(self, real, synthetic): ...\n', "no `outputs`"),
    "outputs that are no names": (METRIC.replace('("mean_diff",)', "(1, 2)"), "`outputs` (1, 2), expected"),
    "outputs as text": (METRIC.replace('("mean_diff",)', '"mean_diff"'), "`outputs` 'mean_diff', expected"),
    "no outputs in it": (METRIC.replace('("mean_diff",)', "()"), "`outputs` (), expected"),
    "an output twice": (METRIC.replace('("mean_diff",)', '("a", "a")'), "`outputs`"),
    "another direction": (METRIC.replace('"lower"', '"down"'), "`better` 'down', expected"),
    "no compute": (METRIC.replace("compute", "calculate"), "no method `compute`"),
    "compute of one": (METRIC.replace("(self, real, synthetic)", "(self, real)"), "expected `compute(self, real,"),
    "compute that is a number": (
        'class M:\n    reads, outputs, compute = "features", ("m",), 3\n', "`compute` 3, expected"
    ),
    "a base of chexray's that scores nothing": (
        "from chexray.metrics.base import ScoreFromImages\n"
        'class M(ScoreFromImages):\n    reads, outputs = "features", ("m",)\n',
        "no method `compute`",
    ),
    "score_images without a floor": (
        'class M:\n    reads, outputs = "features", ("m",)\n    def score_images(self, real, synthetic): ...\n',
        "expected `score_images(self, real, synthetic, *, seed, mapper, floor)`",
    ),
    "an abstract class": (
        "import abc\n" + METRIC.replace("class MeanDiff:", "class MeanDiff(abc.ABC):\n    @abc.abstractmethod\n"
        "    def more(self): ..."),
        "abstract methods (more)",
    ),
    "a function": ("def mean_diff(real, synthetic): return 0.0\n", "defines no class of a metric"),
    "an instance": (METRIC.replace("MeanDiff", "_M") + "\nmeandiff = _M()\n", "defines no class of a metric"),
    "nothing": ("", "defines no class of a metric"),
    "no load": (ENCODER.replace("def load", "def start"), "no method `load`"),
    "load of no device": (ENCODER.replace("load(self, device)", "load(self)"), "expected `load(self, device)`"),
    "encode as a coroutine": (ENCODER.replace("def encode", "async def encode"), "coroutine"),
    "encode as a property": (ENCODER.replace("    def encode", "    @property\n    def encode"), "`encode`"),
    "read of nothing": (SOURCE.replace("(self, origin, storage)", "(self)"), "expected `read(self, origin, storage)`"),
    "no Python": ("class MeanDiff(:\n", "line 1: is not Python"),
    "a NUL": ("x = '\0'\n", "Python"),
    "a package that is not there": ("import no_such_package\n", "No module named 'no_such_package'"),
    "an error when it is loaded": ("\n\n1 / 0\n", "mine.py line 3: ZeroDivisionError"),
    "an end of the process": ("import sys\nsys.exit(0)\n", "SystemExit"),
    "a module beside it": ("import beside\n" + METRIC, "imports 'beside', a module beside it"),
    "a relative import": ("from . import beside\n" + METRIC, "beside it"),
    "a name of chexray's": (METRIC.replace("MeanDiff", "Kid"), "as is a metric of chexray"),
    "a name that no config can hold": (METRIC + '    name = "mean diff"\n', "`name` 'mean diff', expected"),
    "one name twice": (METRIC + METRIC.replace("MeanDiff", "Mean_Diff"), "two classes for the metric 'meandiff'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case, file, tmp_path, monkeypatch, capsys):
    from chexray.cli import main

    text, words = WRONG[case]
    (tmp_path / "beside.py").write_text("")
    monkeypatch.setattr(sys, "argv", ["chexray", "ls", "metrics", "--plugin", str(file(text))])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert words in errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("chexray: ")
    assert "mine.py" in errors


@pytest.mark.parametrize("case", [case for case in WRONG if case.startswith(("no ", "compute", "reads", "load"))])
def test_the_line_shows_the_expected_form(case, file):
    text, _ = WRONG[case]
    if "class" in text and case != "no Python":
        with pytest.raises(PluginError, match=r"Expected of (a|an) \w+: class Name: .*docs/PLUGINS\.md"):
            use([file(text)])


@pytest.mark.parametrize(
    ("place", "words"),
    [("absent.py", "no such file"), (".", "expected a Python file"), ("mine.txt", "expected a Python file"),
     ("a b.py", "expected a Python file")],
)  # fmt: skip
def test_a_file_that_is_none(place, words, tmp_path):
    (tmp_path / "mine.txt").write_text(METRIC)
    with pytest.raises(PluginError, match=words):
        use([tmp_path / place])


def test_a_large_file_is_refused(file):
    with pytest.raises(PluginError, match="larger than"):
        use([file("#" * 600_000)])


def test_what_a_file_brings_is_listed_with_where_it_comes_from(file):
    use([file(METRIC + ENCODER + "\n    name = 'flat-1'\nclass _Helper:\n    def read(self): ...\nclass Also: ...\n")])
    origins = {kind: {each.name: each.origin for each in entries(kind)} for kind in ("metrics", "encoders", "sources")}
    assert origins["metrics"]["meandiff"] == origins["encoders"]["flat-1"] == "mine.py"
    assert origins["metrics"]["kid"] == "built in"
    assert "mine.py" not in origins["sources"].values()
    assert {each.name: each.options for each in entries("encoders")}["patches"] == "side=32, patch=8"


def test_files_are_known_while_they_are_used(file):
    with using([file(METRIC)]) as files:
        assert used() == files
        assert find("metrics", "meandiff").__name__ == "MeanDiff"
        with using(str(file(SOURCE, "other.py"))):
            assert len(used()) == 2
    assert used() == ()
    with pytest.raises(ChexrayError, match="unknown metric"):
        find("metrics", "meandiff")


def test_two_files_cannot_bring_one_name(file):
    one, other = file(METRIC), file(METRIC + "#", "other.py")
    assert len(use([one, one])) == 1
    with pytest.raises(PluginError, match=r"mine\.py and other\.py: two classes for the metric 'meandiff'"):
        use([one, other])


TRAVELS = '''
from dataclasses import dataclass, field
from functools import cache
import numpy as np

@cache
def table():
    return np.arange(3.0)

@dataclass(frozen=True)
class Summary:
    total: float

@dataclass(frozen=True)
class Odd:
    """One."""
    k: int = 2
    parts: tuple = (Summary(1.0),)
    reads = "features"
    outputs = ("odd",)

    def summarise(self, rows):
        return Summary(self.k * table().sum())

    def compute(self, real, synthetic):
        return real.total

class Named(tuple):
    def __new__(cls, a, b): return super().__new__(cls, (a, b))
    def __getnewargs__(self): return tuple(self)
'''


def test_objects_of_a_file_travel_to_a_process_without_the_file(file, tmp_path):
    """What a worker of another node does: nothing but chexray and the pickled bytes is there."""
    (one,) = use([file(TRAVELS)])
    metric = find("metrics", "odd")(k=3)
    named = one.module().Named("x", "y")
    data = pickle.dumps([metric, metric.summarise(None), named])
    (tmp_path / "mine.py").unlink()
    code = (
        "import pickle, sys, pathlib\n"
        f"metric, summary, named = pickle.loads(pathlib.Path({str(tmp_path / 'data')!r}).read_bytes())\n"
        "assert type(metric.parts[0]) is type(summary) is type(metric.summarise(None))\n"
        "print(metric.k, metric.compute(summary, None), list(named), type(metric).__module__)\n"
        "again = pickle.loads(pickle.dumps(metric)); print(again == metric)\n"
    )
    (tmp_path / "data").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split("\n")[:2] == [f"3 9.0 ['x', 'y'] {one.module_name}", "True"]
    assert copy.deepcopy(metric) == metric


def test_a_node_without_what_the_file_imports_says_so_when_it_is_used(file, monkeypatch):
    import chexray.plugin_files as files

    (one,) = use([file(METRIC)])
    data = pickle.dumps(find("metrics", "meandiff")())
    monkeypatch.delitem(sys.modules, one.module_name)
    monkeypatch.setitem(sys.modules, "numpy", None)  # what importing it then raises is ModuleNotFoundError
    found = pickle.loads(data)
    monkeypatch.undo()
    with pytest.raises(PluginError, match=r"mine\.py cannot be loaded: mine\.py line 2: ModuleNotFoundError"):
        found.compute(None, None)
    assert files.loaded_modules()


def plan_of(tmp_path, write_images, **settings):
    for name in ("real", "synthetic"):
        if not (tmp_path / name).exists():
            write_images(name, 4, seed=len(name))
    data = {"real": tmp_path / "real", "synthetic": tmp_path / "synthetic", "encoders": ["pixels"], "metrics": ["kid"]}
    return make_plan(parse_config({**data, "output": tmp_path / "out", **settings}))


FULL_ENCODER = """
from chexray.encoders.weight_free import WeightFreeEncoder
class Flat(WeightFreeEncoder):
    name = "flat"
    def resolve(self): return self.describe("flat", {"features": 4}, (4,))
    def prepare(self, image): return image.reshape(-1)[:4].astype("float32")
    def encode(self, batch): return {"features": batch}
"""


def test_the_hash_of_the_file_is_in_the_feature_key_and_the_run(file, tmp_path, write_images):
    def plan(text: str):
        with using([file(text)]):
            return plan_of(tmp_path, write_images, encoders=["flat"], metrics=["meandiff"])

    text = METRIC + FULL_ENCODER
    before, same, after = plan(text), plan(text), plan(text + "\n# edited\n")
    of = [each.encoders["flat"][1].fingerprint for each in (before, same, after)]
    assert of[0] == of[1] != of[2]
    assert before.run_id == same.run_id != after.run_id
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert before.plugins["flat"].startswith(f"mine.py+{digest}")
    assert before.plugins["meandiff"] == before.plugins["flat"]


def test_a_file_of_which_nothing_is_used_is_noted(file, tmp_path, write_images):
    with using([file(METRIC)]):
        assert "--plugin mine.py: the config names nothing of it" in plan_of(tmp_path, write_images).notes
        assert not [note for note in plan_of(tmp_path, write_images, metrics=["meandiff"]).notes if "--plugin" in note]


def test_no_key_of_a_config_names_a_file(tmp_path, write_images, file):
    for key in ("plugin", "plugins"):
        with pytest.raises(ChexrayError, match="unknown key"):
            plan_of(tmp_path, write_images, **{key: [str(file(METRIC))]})


# What is called.


class Plain:
    """An encoder that knows neither storage nor precision."""

    def __init__(self, bins: int = 4):
        self.bins = bins


class Loose(Plain):
    def __init__(self, **options):
        super().__init__(**options)


class Careful:
    def __init__(self, *, precision="fp32", storage=None): ...


class Hands(Careful):
    def __init__(self, **options):
        super().__init__(**options)


def test_precision_and_storage_go_to_those_who_accept_them():
    taken = {
        cls.__name__: (accepts(cls, "precision"), accepts(cls, "storage")) for cls in (Plain, Loose, Careful, Hands)
    }
    assert taken == {"Plain": (False,) * 2, "Loose": (False,) * 2, "Careful": (True,) * 2, "Hands": (True,) * 2}


def test_an_encoder_without_a_constructor_is_used(file, tmp_path, write_images):
    text = FULL_ENCODER.replace("(WeightFreeEncoder)", "").replace("self.describe(", "_spec(") + (
        "    def load(self, device): ...\n"
        "def _spec(*given):\n"
        "    return WeightFreeEncoder._describe(type('X', (WeightFreeEncoder,), {'name': 'flat'})(), *given)\n"
    )
    with using([file(text)]):
        assert plan_of(tmp_path, write_images, encoders=["flat"]).encoders["flat"][1].outputs == {"features": 4}
        with pytest.raises(ChexrayError, match="precision"):
            plan_of(tmp_path, write_images, encoders=[{"name": "flat", "precision": "bf16"}])


def rows(values) -> Rows:
    values = np.asarray(values, np.float32)
    return Rows(np.array([f"i{n}" for n in range(len(values))]), values)


def metric_of(returned, outputs=("m",), **more):
    inner = SimpleNamespace(reads="features", outputs=outputs, compute=lambda real, synthetic: returned, **more)
    return plugged_metric(inner, "metric 'm'", "mine.py+0")


@pytest.mark.parametrize("value", [1, 1.5, np.float32(1.5), np.array(1.5)])
def test_a_number_is_a_score(value):
    metric = metric_of(value, better="lower")
    (score,) = metric.score(rows([[1.0], [2.0]]), rows([[1.0], [3.0]]))
    assert (score.value, score.better, score.std_error, score.real_floor) == (float(value), "lower", None, None)
    assert score.params["plugin"] == "mine.py+0"
    assert score.params["std_error_reason"]


@pytest.mark.parametrize("value", [None, float("nan"), np.inf])
def test_no_number_is_a_null_with_a_reason(value):
    (score,) = metric_of(value).score(rows([[1.0]]), rows([[1.0]]))
    assert (score.value, score.status) == (None, "undefined")
    assert "compute returned" in score.reason


@pytest.mark.parametrize(
    ("returned", "outputs", "words"),
    [
        ("text", ("m",), "returned str for m"),
        (np.zeros(3), ("m",), r"ndarray of shape \(3,\)"),
        (True, ("m",), "returned bool"),
        ({"other": 1}, ("m",), "returned"),
        (1.0, ("a", "b"), "expected a mapping with a, b"),
    ],
)
def test_what_is_no_number_is_said(returned, outputs, words):
    with pytest.raises(MetricError, match=words):
        metric_of(returned, outputs).score(rows([[1.0]]), rows([[1.0]]))


def test_too_few_images_and_broken_features_never_reach_it():
    metric = metric_of(1.0, min_samples=3)
    assert metric.score(rows([[1.0]] * 3), rows([[1.0]] * 2))[0].status == "too_few"
    assert metric.score(rows([[1.0]] * 3), rows([[1.0], [np.nan], [1.0]]))[0].status == "undefined"


def test_a_metric_of_synthetic_images_alone_gets_no_real_ones():
    seen = []
    inner = SimpleNamespace(reads="features", outputs=("m",), needs_real=False)
    inner.compute = lambda real, synthetic: seen.append(real) or 1.0
    assert plugged_metric(inner, "metric 'm'", "x").score(rows(np.zeros((0, 1))), rows([[1.0]]))[0].value == 1.0
    assert seen == [None]


def test_scores_of_its_own_are_checked():
    class Own:
        reads = "features"
        outputs = (Output("m"),)

        def score_images(self, real, synthetic, *, seed=0, mapper=None, floor=True):
            return self.returned

    def scored(returned):
        inner = Own()
        inner.returned = returned
        return plugged_metric(inner, "metric 'm'", "x").score_images(rows([[1.0]]), rows([[1.0]]))

    scores, images = scored(([Score("m", 2.0)], {"column": np.zeros(1)}))
    assert scores[0].params == {"plugin": "x"}
    assert list(images) == ["column"]
    for returned in (
        2.0,
        [Score("m", 2.0)],
        ([2.0], {}),
        ([Score("other", 2.0)], {}),
        ([Score("m", 2.0, about={"x": np.float32(1)})], {}),
        ([Score("m", 2.0, ci_low=3.0, ci_high=1.0)], {}),
        ([Score("m", 2.0, std_error=-1.0)], {}),
        ([Score("m", 2.0, status="fine")], {}),
        ([Score("m", None, reason="why")], {}),
        ([Score("m", 2.0)], {"column": np.zeros(2)}),
        ([Score("m", 2.0)], {"sample_id": np.zeros(1)}),
    ):
        with pytest.raises(MetricError, match="score_images returned"):
            scored(returned)


SPEC = EncoderSpec("e", "none", "", "", "p", "fp32", {"features": 2}, (2,), "float32", 1, {})


def encoder_of(**methods):
    usual = {
        "resolve": lambda: SPEC,
        "load": lambda device: None,
        "prepare": lambda image: np.zeros(2),
        "encode": lambda batch: {"features": np.zeros((len(batch), 2))},
    }
    return plugged_encoder(SimpleNamespace(**{**usual, **methods}), "encoder 'e'", "mine.py+0")


def test_features_come_out_in_the_type_of_the_spec():
    encoder = encoder_of(scorer=lambda: "own")
    found = encoder.encode(np.zeros((3, 2)))["features"]
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (3, 2), True)
    assert encoder.resolve().code == "mine.py+0"
    assert encoder.scorer() == "own"
    assert not hasattr(encoder, "mirror_signs")


@pytest.mark.parametrize(
    ("roles", "methods", "expected"),
    [
        ({"space"}, (), {"space"}),
        ({"hash"}, ("mirror_signs",), {"hash"}),
        # Plug-ins written for 0.1.0 say what they are by their methods.
        ({"space"}, ("scorer",), {"pair_scorer"}),
        ({"space"}, ("mirror_signs",), {"hash"}),
        ({"space"}, ("mirror_order",), {"space", "mirror"}),
    ],
)
def test_the_roles_of_a_plug_in_are_those_of_its_spec(roles, methods, expected):
    spec = replace(SPEC, roles=frozenset(roles))
    encoder = encoder_of(resolve=lambda: spec, **{name: lambda: None for name in methods})
    assert encoder.resolve().roles == expected


@pytest.mark.parametrize(
    ("methods", "call", "words"),
    [
        ({"resolve": lambda: None}, None, "resolve returned NoneType, expected an EncoderSpec"),
        ({"resolve": lambda: 1 / 0}, None, "resolve failed .*ZeroDivisionError"),
        ({"resolve": lambda: EncoderSpec(**{**vars(SPEC), "outputs": {"logits": 2}})}, None, "outputs is"),
        ({"resolve": lambda: EncoderSpec(**{**vars(SPEC), "input_shape": 2})}, None, "input_shape is 2"),
        ({"resolve": lambda: EncoderSpec(**{**vars(SPEC), "input_dtype": "object"})}, None, "input_dtype is"),
        ({"resolve": lambda: replace(SPEC, roles=frozenset({"judge"}))}, None, "roles is .*judge.* pair_scorer"),
        ({"resolve": lambda: replace(SPEC, roles=frozenset({"hash"}))}, None, "no `mirror_signs`"),
        ({"load": lambda device: {}["x"]}, ("load", "cpu"), "load failed .*KeyError: 'x'"),
        ({"prepare": lambda image: image.nothing}, ("prepare", np.zeros(2)), "prepare failed .*AttributeError"),
        ({"prepare": lambda image: np.zeros(3)}, ("prepare", np.zeros(2)), r"prepare returned .* \(3,\), expected"),
        ({"encode": lambda batch: batch}, ("encode", np.zeros((1, 2))), "encode returned .*expected a dict"),
        ({"encode": lambda batch: {"x": batch}}, ("encode", np.zeros((1, 2))), "returned x, expected a dict with"),
        ({"encode": lambda batch: {"features": np.zeros(2)}}, ("encode", np.zeros((1, 2))), r"expected shape \(1, 2\)"),
        ({"prepare": lambda image: np.array(["a", "b"])}, ("prepare", np.zeros(2)), "expected numbers in an array"),
        ({"encode": lambda batch: 1 / 0}, ("encode", np.zeros((1, 2))), "encode failed .*ZeroDivisionError"),
    ],
)
def test_what_an_encoder_does_wrong_is_one_line(methods, call, words):
    def used_so():
        encoder = encoder_of(**methods)
        return call and getattr(encoder, call[0])(call[1])

    with pytest.raises(PluginError, match=f"encoder 'e': .*{words}"):
        used_so()


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_an_image_that_cannot_be_prepared_stays_the_engines(error):
    def prepare(image):
        raise error("no")

    with pytest.raises(error):
        encoder_of(prepare=prepare).prepare(np.zeros(2))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("[{'sample_id': 'a'}]", "without uri"),
        ("[{'sample_id': 'a', 'uri': 'a.png'}]", "1 of 1 uris are neither absolute"),
        ("[{'sample_id': ['a'], 'uri': '/a.png'}]", "sample_id as list"),
        ("[{'sample_id': 'a', 'uri': '/a.png', 'labels': 'Edema'}]", "labels as string, expected a list of 14"),
        ("3", "read returned int, expected a table"),
        ("{}['x']", r"read failed \(mine\.py line 3: KeyError: 'x'\)"),
    ],
)
def test_what_a_source_returns_is_checked(returned, words, file, tmp_path, write_images):
    with using([file(SOURCE.replace("...", f"return {returned}"))]), pytest.raises(ChexrayError, match=words):
        plan_of(tmp_path, write_images, real={"source": "mine", "name": "real"})


def test_a_source_may_return_rows_or_a_frame(file, tmp_path, write_images):
    import pandas as pd

    images = sorted(write_images("real", 4).glob("*.png"))
    listed = [{"sample_id": path.stem, "uri": str(path), "sex": "F"} for path in images]
    for made in (listed, pd.DataFrame([{**row, "uri": Path(row["uri"])} for row in listed]).to_dict("records")):
        (tmp_path / "rows.json").write_text(json.dumps(made, default=str))
        text = "import json\nfrom pathlib import Path\n" + SOURCE.replace(
            "...", f"return json.loads(Path({str(tmp_path / 'rows.json')!r}).read_text())"
        )
        with using([file(text)]):
            plan = plan_of(tmp_path, write_images, real={"source": "mine", "name": "real"})
            assert len(plan.real) == 4
            assert plan.code["source mine"].startswith("mine.py+")


@pytest.mark.parametrize(
    ("name", "near"),
    [("FID", "fid"), ("fdi", "fid"), ("kdi", "kid"), ("Vendi", "vendi"), ("inceptionscore", "inception_score"),
     ("fid_infinty", "fid_infinity"), ("inception", "inception_score"), ("meandiff", ""),
     ("xyz", ""), ("a", ""), ("", "")],
)  # fmt: skip
def test_a_hint_is_what_may_have_been_meant(name, near):
    known = ["cmmd", "fid", "fid_infinity", "inception_score", "kid", "prdc", "vendi"]
    assert nearest(name, known) == near


def test_an_output_leads_to_its_metric():
    with pytest.raises(ChexrayError, match="a number of the metric 'prdc'"):
        find("metrics", "Precision")
