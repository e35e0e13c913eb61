"""Labels: a CSV file of a name and a finding, which is 0 or 1."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

from failure import Failure, refuse

FILE_NAME = "labels.csv"


def read_labels(folder: Path, key: str) -> dict[str, int]:
    """The finding of each name in `folder/labels.csv`, whose columns are `key` and `finding`.

    Names are brought to Unicode's composed form: some file systems decompose them, spreadsheets do not.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise Failure(f"there is no {FILE_NAME} in the labels folder")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Failure(f"{FILE_NAME} is not CSV in UTF-8: {error}") from error
    if not rows or rows[0][1] != [key, "finding"]:
        raise Failure(f"{FILE_NAME} must begin with the line {key},finding")
    findings: dict[str, int] = {}
    problems = []
    for number, row in rows[1:]:
        if len(row) != 2:
            problems.append(f"line {number} has {len(row)} columns, not 2")
            continue
        name = unicodedata.normalize("NFC", row[0])
        if row[1] not in {"0", "1"}:
            problems.append(f"the finding of {name!r} is {row[1]!r}, not 0 or 1")
        elif name in findings:
            problems.append(f"{name!r} is there twice")
        else:
            findings[name] = int(row[1])
    refuse(problems, FILE_NAME)
    if not findings:
        raise Failure(f"{FILE_NAME} holds no labels")
    return findings


def write_labels(folder: Path, findings: dict[str, int]) -> None:
    """Write `folder/labels.csv` with the columns `case,finding`, sorted by case."""
    with (folder / FILE_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "finding"])
        writer.writerows(sorted(findings.items()))
