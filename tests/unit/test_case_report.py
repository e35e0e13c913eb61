"""What is read of a preparation's report: how many cases are at which stage, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medperf.case_report import LIMIT_BYTES, STAGES_MOST, CaseReport, read_case_report
from medperf.errors import ContainerFailed

# As pipelines for brain tumours write it: a table of data as YAML, its columns first.
TABLE = """
comment:
  AAAC_0|2008.03.30: ''
  AAAC_1|2012.01.02: Mrs. Smith
  AAAC_2|2013.01.02: ''
  AAAC_3|2014.01.02: ''
data_path: {AAAC_0|2008.03.30: /mlcube_io3/a, AAAC_1|2012.01.02: b}
num_changed_voxels: {AAAC_0|2008.03.30: .nan}
status:
  AAAC_0|2008.03.30: 8
  AAAC_1|2012.01.02: -5
  AAAC_2|2013.01.02: -1.1
  AAAC_3|2014.01.02: 8
status_name:
  AAAC_0|2008.03.30: DONE
  AAAC_1|2012.01.02: MANUAL_REVIEW_REQUIRED
  AAAC_2|2013.01.02: MISSING_MODALITIES
  AAAC_3|2014.01.02: DONE
"""


def read(folder: Path, text: str) -> CaseReport | None:
    (folder / "report.yaml").write_text(text)
    return read_case_report(folder / "report.yaml", inside=folder)


def counted(folder: Path, text: str) -> list[tuple[float | None, str, int]]:
    report = read(folder, text)
    assert report is not None
    assert report.cases == sum(stage.cases for stage in report.stages)
    return [(stage.number, stage.name, stage.cases) for stage in report.stages]


def test_a_table_of_columns_is_counted_in_the_stages_order_and_nothing_else_of_it_is_kept(tmp_path: Path) -> None:
    assert counted(tmp_path, TABLE) == [
        (-1.1, "MISSING_MODALITIES", 1),
        (-5.0, "MANUAL_REVIEW_REQUIRED", 1),
        (8.0, "DONE", 2),
    ]
    said = str(read(tmp_path, TABLE))
    assert said == "4 cases: 1 at -1.1 MISSING_MODALITIES, 1 at -5 MANUAL_REVIEW_REQUIRED, 2 at 8 DONE"


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("a: {status: 1, status_name: SEEN}\nb: {status: 1}", [(1.0, "SEEN", 2)]),
        ("a: done\nb: begun\nc: done", [(None, "done", 2), (None, "begun", 1)]),
        ('{"status": {"a": 2, "b": "odd"}}', [(2.0, "", 1), (None, "odd", 1)]),
        ("status_name: {a: DONE}", [(None, "DONE", 1)]),
        ("status: {a: .nan, b: true}", [(None, "nan", 1), (None, "True", 1)]),
        ("a: {comment: nothing}", [(None, "no status", 1)]),
    ],
    ids=["cases first", "plain", "JSON", "names only", "no numbers", "no status"],
)
def test_other_shapes(tmp_path: Path, text: str, stages: list[tuple[float | None, str, int]]) -> None:
    assert counted(tmp_path, text) == stages


@pytest.mark.parametrize("text", ["", "{}", "status: {}", "null"])
def test_nothing_yet_is_no_report(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "is not a mapping"),
        ("status: 3", "not of cases"),
        ("status: {a: 1", "not valid YAML"),
        ("status: &x {a: 1}\nmore: *x", "anchor"),
        ("#" + "x" * LIMIT_BYTES, "larger than"),
    ],
    ids=["list", "scalar", "half", "anchors", "huge"],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ContainerFailed, match=said):
        read(tmp_path, text)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a: secret")
    (tmp_path / "report.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(ContainerFailed, match="cannot be read"):
        read_case_report(tmp_path / "report.yaml", inside=tmp_path)


def test_a_name_can_do_a_terminal_no_harm(tmp_path: Path) -> None:
    [(_, name, _)] = counted(tmp_path, 'a: "\\e[2J\\u202e\\nowned' + "x" * 1000 + '"')
    assert name.isprintable()
    assert len(name) <= 40


def test_stages_without_end_are_counted_together(tmp_path: Path) -> None:
    stages = counted(tmp_path, "\n".join(f"case{number}: {{status: {number}}}" for number in range(1000)))
    assert len(stages) == STAGES_MOST
    assert stages[-1] == (None, "other stages", 1000 - STAGES_MOST + 1)
