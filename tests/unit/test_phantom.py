"""The tutorial's data: the same bytes everywhere, real PNG files, labels that agree with the files."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medperf.tutorial import phantom
from medperf.tutorial.phantom import DEFAULT_COUNT, encode_png, make_dataset

SIX_OF_SEED_1 = "9e7f87a6dcfddfec3f27ea9075375030e01ff0e2a23b2338aef6aefca33fafb7"


def hash_of(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()


def labels_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_count_and_seed_always_give_the_same_bytes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "made", count=6, seed=1)
    assert hash_of(tmp_path / "made") == SIX_OF_SEED_1


def test_another_seed_gives_other_images(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one", count=4, seed=1)
    make_dataset(tmp_path / "two", count=4, seed=2)
    one, two = (sorted((tmp_path / name / "images").iterdir()) for name in ("one", "two"))
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(one, two, strict=True))


def test_only_arithmetic_that_every_machine_rounds_alike_is_used() -> None:
    tree = ast.parse(Path(phantom.__file__).read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    operators = {type(node.op) for node in ast.walk(tree) if isinstance(node, ast.BinOp | ast.AugAssign)}
    draws = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rng"
    }
    assert not imported & {"math", "cmath", "statistics", "numpy"}
    assert ast.Pow not in operators
    assert draws == {"random"}


def test_a_dataset_has_at_least_200_grey_images_with_a_label_each(tmp_path: Path) -> None:
    make_dataset(tmp_path / "made")
    rows = labels_of(tmp_path / "made")
    images = sorted((tmp_path / "made" / "images").iterdir())
    assert len(images) == DEFAULT_COUNT >= 200
    assert [row["image"] for row in rows] == [path.name for path in images]
    assert {tuple(row) for row in rows} == {("image", "finding")}
    positives = sum(row["finding"] == "1" for row in rows)
    negatives = sum(row["finding"] == "0" for row in rows)
    assert positives + negatives == len(rows)
    assert 0.4 <= positives / len(rows) <= 0.6
    for path in images[:10]:
        with Image.open(path) as image:
            pixels = image.tobytes()
            assert (image.format, image.mode, image.size) == ("PNG", "L", (phantom.IMAGE_SIZE,) * 2)
            assert max(pixels) - min(pixels) > 100


@pytest.mark.parametrize("count", [2, 3, 5])
def test_even_a_small_dataset_has_both_classes(tmp_path: Path, count: int) -> None:
    make_dataset(tmp_path / "made", count=count)
    assert {row["finding"] for row in labels_of(tmp_path / "made")} == {"0", "1"}


def test_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        make_dataset(tmp_path / "made", count=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "own.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        make_dataset(tmp_path / "made", count=2)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["own.txt"]


def test_what_an_interrupted_run_left_is_not_part_of_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".made.partial" / "images"
    left.mkdir(parents=True)
    (left / "phantom9999.png").write_bytes(b"half")
    make_dataset(tmp_path / "made", count=2)
    assert len(list((tmp_path / "made" / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.randoms(use_true_random=False))
def test_any_image_survives_its_png(width: int, height: int, rng: random.Random) -> None:
    rows = [rng.randbytes(width) for _ in range(height)]
    with Image.open(io.BytesIO(encode_png(rows))) as image:
        assert image.size == (width, height)
        assert image.tobytes() == b"".join(rows)


def test_an_image_beyond_one_stored_block_survives_its_png() -> None:
    rows = [bytes([y % 251]) * 700 for y in range(300)]
    with Image.open(io.BytesIO(encode_png(rows))) as image:
        assert image.tobytes() == b"".join(rows)
