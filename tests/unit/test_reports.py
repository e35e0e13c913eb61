"""Files of numbers that a container wrote: what is taken of them, and that what is taken can be sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medperf.errors import ContainerFailed
from medperf.reports import read_report
from medperf_contracts.bounds import BODY_BYTES_MOST, BODY_DEPTH_MOST, REPORT_BYTES_MOST, REPORT_DEPTH_MOST
from medperf_contracts.results import NewResult
from services.kernel.http import check_document


def nested(levels: int) -> str:
    return "".join(f"{' ' * level}a:\n" for level in range(levels - 1)) + " " * levels + "b: 1\n"


def read(folder: Path, text: str) -> dict[str, object]:
    file = folder / "results.yaml"
    file.write_text(text)
    return dict(read_report(file, inside=folder, what="The metrics"))


def test_the_largest_and_deepest_report_can_be_sent(tmp_path: Path) -> None:
    numbers = (REPORT_BYTES_MOST - 100) // len("0.123456, ")
    for text in (nested(REPORT_DEPTH_MOST - 1), f"scores: [{', '.join(['0.123456'] * numbers)}]"):
        result = NewResult.model_construct(metrics=read(tmp_path, text))
        body = json.dumps({"metrics": result.metrics}).encode()
        assert len(body) < BODY_BYTES_MOST
        assert check_document(body)
    assert REPORT_DEPTH_MOST < BODY_DEPTH_MOST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested(REPORT_DEPTH_MOST + 1), "levels"),
        (f"scores: [{', '.join(['1'] * (REPORT_BYTES_MOST // 2))}]".replace(", ", ","), "bytes"),
        ("scores: 99999999999999999999", "cannot be kept"),
        ("scores: 0x" + "f" * 5000, "not a number that can be read"),
        ("scores: " + "1:" * 190 + "1.5", "not a number that can be read"),
        ("[1, 2]", "a mapping"),
        ("", "hold nothing"),
        ('"a\\u001b[31m": 1', "control characters"),
    ],
)
def test_a_report_that_could_not_be_sent_is_refused_on_the_site(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ContainerFailed, match=said) as refused:
        read(tmp_path, text)
    assert refused.value.hint.startswith("Tell the container's owner")


def test_a_number_that_is_not_defined_is_null(tmp_path: Path) -> None:
    assert read(tmp_path, "auc: .nan\nworst: -.inf\nbest: .inf\n") == {"auc": None, "worst": None, "best": None}
