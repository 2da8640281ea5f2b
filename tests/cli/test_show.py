"""`chexray show`: the page of a finished run, or of one of its suites."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from results.privacy_rows import search
from results.test_results_table import run
from typer.testing import CliRunner

from chexray.cli import app
from chexray.cli.runs import plan_or_run
from chexray.errors import ConfigError
from chexray.results.rows import write
from chexray.storage import Storage


def shown(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["show", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_run_shows_every_suite_or_one(tmp_path):
    write(str(tmp_path), [*run(), *search()], Storage())
    whole, private = shown(tmp_path), shown(tmp_path, "privacy")
    assert "fidelity · real: nih" in whole
    assert whole.count("COPIES FOUND") == private.count("COPIES FOUND") == 1
    assert whole.index("memorisation") < whole.index("FIDELITY") < whole.index("COPIES FOUND")
    assert "fidelity" not in private.lower()
    assert max(map(len, whole.splitlines())) <= 100
    with pytest.raises(ConfigError, match=r"no numbers of 'utility'\. It has fidelity, privacy"):
        shown(tmp_path, "utility")


def test_a_run_that_breaks_off_still_says_what_was_found(monkeypatch, capsys):
    def evaluate(config, *, on_suite, **_):
        on_suite("privacy", pd.DataFrame(search()))
        assert "COPIES FOUND" not in capsys.readouterr().out  # once, and last
        raise OSError("the cluster is gone")

    monkeypatch.setattr("chexray.run.evaluation.evaluate", evaluate)
    config = SimpleNamespace(suite=("privacy", "utility"), privacy=SimpleNamespace(duplicates=True))
    with pytest.raises(OSError, match="the cluster is gone"):
        plan_or_run(config, dry_run=False, once=False, verbose=False)
    assert capsys.readouterr().out.count("COPIES FOUND") == 1
