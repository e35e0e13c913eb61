"""`medperf result view` on a terminal, and `medperf result report`, by the real commands."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from containers.small import Site
from medperf import safe_yaml
from medperf.cli.main import run
from medperf.home import Home
from medperf.manifest import Role
from medperf.results import find_result, name_result
from peers.kept import local_dataset, local_result

MEDPERF = str(Path(sys.executable).with_name("medperf"))
SERVER = "http://localhost:8000"
ROC = {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.9, 1.0]}
METRICS = {"auc": 0.75, "by_sex": {"f": {"auc": 0.5}}, "cases": 12, "roc": ROC, "\u202eevil": 0.5}


@pytest.fixture
def home(home_folder: Path) -> Home:
    """A local folder with the results of models 2 and 4 on one dataset."""
    there = Home.at(SERVER)
    dataset = local_dataset(there)
    for model_id in (2, 4):
        with_metrics(there, local_result(there, dataset, model_id))
    return there


def with_metrics(home: Home, name: str, **changes: Any) -> None:
    found = find_result(home, name)
    evaluation = found.evaluation.model_copy(update={"metrics": METRICS, **changes})
    record = safe_yaml.dump(evaluation.model_dump(mode="json"))
    folder = home.results / evaluation.key
    folder.mkdir(exist_ok=True)
    (folder / "result.yaml").write_text(record)
    name_result(home, evaluation, benchmark_id=1, model_id=found.model_id, dataset_id=1)


def on_a_terminal(*arguments: str, columns: int = 80, encoding: str = "utf-8") -> list[str]:
    """The lines that a command prints on a terminal of that many columns."""
    # What a process around the tests says of its own terminal is not this one's.
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    environment.pop("COLUMNS", None)
    child = pexpect.spawn(
        MEDPERF, list(arguments), env=environment, dimensions=(50, columns), encoding="utf-8", timeout=60
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    return str(child.before).splitlines()


# On a terminal


def test_on_a_terminal_metrics_are_drawn_below_what_is_printed(home: Home) -> None:
    lines = on_a_terminal("result", "view", "b1m4d1", columns=60)
    drawn = lines[lines.index("Metrics, bars from 0 to 1") :]
    assert lines[0] == "name: b1m4d1"
    assert [line.split()[:2] for line in drawn[1:3]] == [["auc", "0.7500"], ["by_sex.f.auc", "0.5000"]]
    assert "roc: ROC curve, 3 points" in drawn
    assert "█" in drawn[1]
    assert max(len(line) for line in drawn) == 59
    assert "\\u202eevil" in "".join(drawn)
    assert "\u202e" not in "".join(lines)


def test_a_drawing_grows_with_the_terminal(home: Home) -> None:
    lines = on_a_terminal("result", "view", "b1m4d1", columns=90)
    assert max(len(line) for line in lines[lines.index("Metrics, bars from 0 to 1") :]) == 89


def test_a_terminal_that_shows_no_unicode_gets_ascii(home: Home) -> None:
    lines = on_a_terminal("result", "view", "b1m4d1", encoding="ascii")
    drawn = lines[lines.index("Metrics, bars from 0 to 1") :]
    assert "".join(drawn).isascii()
    assert "#" in drawn[1]


def test_a_partial_results_drawing_says_so(home: Home) -> None:
    with_metrics(home, "b1m4d1", is_partial=True)
    assert "Partial: the model failed on some of the cases." in on_a_terminal("result", "view", "b1m4d1")


def test_json_is_json_on_a_terminal_too(home: Home) -> None:
    assert json.loads("\n".join(on_a_terminal("result", "view", "b1m4d1", "--json")))["name"] == "b1m4d1"


def test_where_there_is_no_terminal_nothing_is_drawn(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["result", "view", "b1m4d1"]) == 0
    printed = capsys.readouterr().out
    assert safe_yaml.load(printed, what="what was printed")["name"] == "b1m4d1"
    assert "bars from 0 to 1" not in printed


# The page


def test_a_page_is_written_for_its_owner_alone_and_says_where(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["result", "report", "b1m4d1"]) == 0
    page = Path("medperf-b1m4d1.html")
    assert f"Written: {page.absolute()}" in capsys.readouterr().out
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert [file.name for file in Path().iterdir()] == [page.name]
    assert "<h1>Model 4 on dataset 1 in benchmark 1</h1>" in page.read_text()
    assert '<th scope="col">Model 2</th>' in page.read_text()


def test_a_model_goes_by_its_manifests_name_where_that_is_here(home: Home, tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.home == home
    model = site.container(4, Role.MODEL)
    with_metrics(home, "b1m4d1", model_hash=model.hash)
    assert run(["result", "report", "b1m4d1", "--output", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert f"<h1>Model 4 ({model.manifest.name}) on dataset 1" in page
    assert '<th scope="col">Model 2</th>' in page


def test_the_same_result_gives_the_same_file(home: Home) -> None:
    for name in ("one.html", "two.html"):
        assert run(["result", "report", "b1m4d1", "-o", name]) == 0
    assert Path("one.html").read_bytes() == Path("two.html").read_bytes()


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_that_is_there_is_replaced_only_when_asked_for(
    home: Home, capsys: pytest.CaptureFixture[str], is_link: bool
) -> None:
    page, elsewhere = Path("page.html"), Path("elsewhere")
    elsewhere.write_text("mine")
    if is_link:
        page.symlink_to(elsewhere)
    else:
        page.write_text("mine")
    assert run(["result", "report", "b1m4d1", "--output", "page.html"]) == 3
    assert page.read_text() == "mine"
    assert "Replace page.html?" in capsys.readouterr().err
    assert run(["result", "report", "b1m4d1", "--output", "page.html", "--yes"]) == 0
    assert "<h1>" in page.read_text()
    assert elsewhere.read_text() == "mine"


def test_a_dangling_link_is_asked_about(home: Home) -> None:
    Path("page.html").symlink_to("nowhere")
    assert run(["result", "report", "b1m4d1", "--output", "page.html"]) == 3
    assert Path("page.html").is_symlink()


def test_a_folder_that_is_not_there_is_named(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["result", "report", "b1m4d1", "--output", "none/page.html"]) == 2
    assert "There is no folder none." in capsys.readouterr().err


def test_a_result_that_is_not_here_is_named(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["result", "report", "b9m9d9"]) == 2
    assert "There is no local result 'b9m9d9'" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_damaged_record_beside_it_is_named_and_stops_nothing(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (home.results / "names" / "b1m2d1.yaml").write_text("[")
    assert run(["result", "report", "b1m4d1"]) == 0
    assert "Left out: b1m2d1." in capsys.readouterr().err
    assert "Model 2" not in Path("medperf-b1m4d1.html").read_text()
