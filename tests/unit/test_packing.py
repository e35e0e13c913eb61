"""Archives whose bytes depend on the files alone, also where they are larger than a block."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from medperf.archives import extract
from medperf_contracts.packing import STORED_BLOCK_LIMIT, pack


@pytest.mark.parametrize("size", [0, 1, STORED_BLOCK_LIMIT - 1, STORED_BLOCK_LIMIT, 3 * STORED_BLOCK_LIMIT + 7])
def test_files_of_any_size_are_unpacked_as_they_were(tmp_path: Path, size: int) -> None:
    (tmp_path / "folder").mkdir()
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "folder" / "file").write_bytes(content)
    archive = tmp_path / "a.tar.gz"
    assert pack(tmp_path / "folder", archive) == hashlib.sha256(archive.read_bytes()).hexdigest()
    gzip.decompress(archive.read_bytes())  # the standard library agrees that it is whole
    extract(archive, tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "file").read_bytes() == content


def test_a_folder_that_holds_the_archive_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is inside"):
        pack(tmp_path, tmp_path / "a.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_there_stays_where_packing_fails(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.tar.gz").write_text("mine")
    with pytest.raises(ValueError, match="holds no files"):
        pack(tmp_path / "folder", tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "folder"]
