"""The identity of prepared data: its definition byte by byte, and what it refuses."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from medperf import identity
from medperf.errors import IntegrityError
from medperf.identity import (
    FileRecord,
    difference,
    hash_folders,
    identify,
    records_from_json,
    records_to_json,
)
from medperf.terminal import printable_path

DATA_HASH = "0867d09d7968f8f874dbad832cc2bd87d19acdc32643f605efe4c3911eb8ef3f"
# The records of the documented example, written out: nothing here is computed by the code under test.
RECORDS = (
    b"data/a.txt\x006\x008e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99\n",
    b"data/a/b.bin\x00256\x004a495ba42461748eca8fdad618f976aa726cc2903de9fcb40735a786ac1c196b\n",
    b"labels/labels.csv\x0022\x006f03f535de5f035a5304b695a632d8b5c71a4ff645914f3490dada7f0bcd3962\n",
)
DOCUMENT = Path(__file__).parents[2] / "docs" / "identity.md"


def example(folder: Path) -> dict[str, Path]:
    """The documented example on disk."""
    (folder / "data/a").mkdir(parents=True)
    (folder / "data/empty").mkdir()
    (folder / "labels").mkdir()
    (folder / "data/a/b.bin").write_bytes(bytes(range(256)))
    (folder / "data/a.txt").write_bytes(b"hello\n")
    (folder / "labels/labels.csv").write_bytes(b"image,finding\na.txt,1\n")
    return {"data": folder / "data", "labels": folder / "labels"}


def test_the_documented_example_has_the_documented_uid(tmp_path: Path) -> None:
    from blake3 import blake3

    found = hash_folders(example(tmp_path))

    assert tuple(bytes(record) for record in found.records) == RECORDS
    assert blake3(b"".join(RECORDS)).hexdigest() == DATA_HASH
    assert found.data_hash == DATA_HASH
    assert found.uid == DATA_HASH[:40]


def test_the_document_says_what_the_code_does() -> None:
    text = DOCUMENT.read_text()
    assert f"Data hash: `{DATA_HASH}`" in text
    assert f"Generated UID: `{DATA_HASH[:40]}`" in text
    for record in RECORDS:
        path, size, content_hash = record.decode().rstrip("\n").split("\0")
        assert any(path in line and size in line and content_hash in line for line in text.splitlines())


def test_records_are_ordered_by_path_bytes_and_not_as_folders_are_walked() -> None:
    paths = [b"data/a/b", b"data/a.txt", b"labels/x", b"data/a-b", b"data/\xff", b"data/z"]
    records = [FileRecord(path, 0, "0" * 64) for path in paths]
    assert [record.path for record in identify(records).records] == sorted(paths)
    assert identify(records).data_hash == identify(reversed(records)).data_hash


def test_an_empty_folder_does_not_count_but_a_file_moved_does(tmp_path: Path) -> None:
    folders = example(tmp_path)
    before = hash_folders(folders).uid
    (tmp_path / "labels/another").mkdir()
    assert hash_folders(folders).uid == before
    (tmp_path / "data/a.txt").rename(tmp_path / "labels/a.txt")
    assert hash_folders(folders).uid != before


def test_times_and_permissions_do_not_count(tmp_path: Path) -> None:
    folders = example(tmp_path)
    before = hash_folders(folders).uid
    os.utime(tmp_path / "data/a.txt", (1, 1))
    (tmp_path / "data/a.txt").chmod(0o640)
    assert hash_folders(folders).uid == before


@pytest.mark.parametrize("missing", ["data", "labels"])
def test_a_missing_folder_is_an_error_and_never_the_hash_of_nothing(tmp_path: Path, missing: str) -> None:
    folders = example(tmp_path)
    folders[missing] = tmp_path / "gone"
    with pytest.raises(IntegrityError, match="gone is missing"):
        hash_folders(folders)


def test_folders_without_a_file_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "data/empty").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    with pytest.raises(IntegrityError, match="no file"):
        hash_folders({"data": tmp_path / "data", "labels": tmp_path / "labels"})


def test_links_are_refused_by_name_wherever_they_lead(tmp_path: Path) -> None:
    folders = example(tmp_path)
    (tmp_path / "data/inside.txt").symlink_to("a.txt")
    with pytest.raises(IntegrityError, match=r"data/inside\.txt is not a regular file"):
        hash_folders(folders)


def test_a_link_to_a_folder_is_refused_and_not_walked(tmp_path: Path) -> None:
    folders = example(tmp_path)
    (tmp_path / "labels/loop").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="labels/loop is not a regular file"):
        hash_folders(folders)


def test_a_folder_that_is_itself_a_link_is_refused(tmp_path: Path) -> None:
    folders = example(tmp_path / "real")
    (tmp_path / "link").symlink_to(folders["data"])
    with pytest.raises(IntegrityError, match="link is not a folder"):
        hash_folders({**folders, "data": tmp_path / "link"})


def test_a_file_that_became_a_link_since_it_was_listed_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "listed").symlink_to("secret")
    with pytest.raises(IntegrityError, match="data/listed cannot be read"):
        identity._record(b"data/listed", os.fsencode(tmp_path / "listed"))


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    folders = example(tmp_path)
    os.mkfifo(tmp_path / "data/pipe")
    with pytest.raises(IntegrityError, match="data/pipe"):
        hash_folders(folders)


def test_a_socket_is_refused(tmp_path: Path) -> None:
    folders = example(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "data/socket"))
        with pytest.raises(IntegrityError, match="data/socket"):
            hash_folders(folders)


def test_a_difference_names_what_changed_what_is_gone_and_what_is_new(tmp_path: Path) -> None:
    folders = example(tmp_path)
    recorded = hash_folders(folders).records
    assert not difference(recorded, hash_folders(folders).records)
    (tmp_path / "data/a.txt").write_bytes(b"hellO\n")
    (tmp_path / "labels/labels.csv").rename(tmp_path / "labels/other.csv")

    found = difference(recorded, hash_folders(folders).records)

    assert str(found) == "changed: data/a.txt; missing: labels/labels.csv; new: labels/other.csv"


def test_a_long_difference_names_ten_files_and_counts_the_rest() -> None:
    recorded = tuple(FileRecord(b"data/%02d" % number, 0, "0" * 64) for number in range(13))
    text = str(difference(recorded, ()))
    assert "data/09 and 3 more" in text
    assert "data/10" not in text


def test_records_survive_being_kept_whatever_bytes_a_name_has(tmp_path: Path) -> None:
    folders = example(tmp_path)
    name = os.fsencode(tmp_path / "data") + b"/\xff\xfe new\nline \xc3\xa4.png"
    with open(name, "wb") as file:  # noqa: PTH123 - pathlib has no bytes
        file.write(b"x")
    found = hash_folders(folders)
    kept = records_from_json(records_to_json(found.records))
    assert kept == found.records
    assert identify(kept).data_hash == found.data_hash


def test_a_name_cannot_paint_a_terminal() -> None:
    assert printable_path(b"data/\x1b[31mred\n\xff\xe2\x80\xae") == r"data/\x1b[31mred\n\xff\u202e"
