import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medperf import archives
from medperf.errors import BadManifest


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(folder: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    path = folder / "additional_files.tar"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_and_folders_are_unpacked(tmp_path: Path, mode: str) -> None:
    path = archive(
        tmp_path,
        entry("./", type=tarfile.DIRTYPE, mode=0o700),
        entry("main.py", b"print()", mode=0o4755, uid=1234),
        entry("deep/er/weights.bin", b"w" * 100_000, mode=0o600),
        entry("deep", type=tarfile.DIRTYPE, mode=0),
        entry("a" * 150 + "/long", b"x"),
        mode=mode,
    )
    archives.extract(path, tmp_path / "code")
    assert (tmp_path / "code/deep/er/weights.bin").read_bytes() == b"w" * 100_000
    assert (tmp_path / "code/main.py").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "code/main.py").stat().st_uid == os.getuid()
    assert (tmp_path / "code/deep/er/weights.bin").stat().st_mode & 0o7777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"additional_files.tar", "code"}


def sparse(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1,999,1",
                        "GNU.sparse.size": "1000"}  # fmt: skip
    return info


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ([entry("/etc/passwd", b"x")], "absolute"),
        ([entry("a/../../x", b"x")], r"climbs out"),
        ([entry("..", type=tarfile.DIRTYPE)], r"climbs out"),
        ([entry("a", type=tarfile.SYMTYPE, linkname="b")], "is a link"),
        ([entry("a", b"x"), entry("b", type=tarfile.LNKTYPE, linkname="a")], "is a link"),
        ([entry("a", type=tarfile.SYMTYPE, linkname="/etc"), entry("a/x", b"x")], "is a link"),
        ([entry("a", type=tarfile.FIFOTYPE)], "device or pipe"),
        ([entry("a", type=tarfile.CHRTYPE)], "device or pipe"),
        ([entry("a", type=tarfile.BLKTYPE)], "device or pipe"),
        ([(sparse(entry("a", b"xy")[0]), b"xy")], "sparse"),
        ([entry("a", b"x"), entry("./a", b"y")], "there twice"),
        ([entry("a", type=tarfile.DIRTYPE), entry("a", type=tarfile.DIRTYPE)], "there twice"),
        ([entry("a", b"x"), entry("a/b", b"y")], "inside a file"),
        ([entry("a/b", b"x"), entry("a", b"y")], "there twice"),
        ([entry("a" * 300, b"x")], "longer than a file system"),
        ([entry("b/" * 2000 + "x", b"x")], "longer than a file system"),
        ([entry("a", b"x" * 600), entry("b", b"x" * 600)], "larger than 1,000 bytes"),
    ],
)
def test_what_could_do_harm_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], fault: str
) -> None:
    path = archive(tmp_path, entry("first", b"ok"), *entries)
    with pytest.raises(BadManifest, match=fault):
        archives.extract(path, tmp_path / "code", limit_bytes=1000)
    assert [left.name for left in tmp_path.iterdir()] == ["additional_files.tar"]


def test_the_number_of_entries_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 5)
    with pytest.raises(BadManifest, match="more than 5 entries"):
        archives.extract(archive(tmp_path, *(entry(str(n)) for n in range(6))), tmp_path / "code")


def test_a_name_that_unpacks_to_gigabytes_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_HEADER_BYTES", 1_000_000)
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type = tarfile.GNUTYPE_LONGNAME
    long_name.size = 10_000_000
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(long_name.tobuf() + bytes(20_000_000)))
    with pytest.raises(BadManifest, match="headers are too large"):
        archives.extract(path, tmp_path / "code")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + b"\0\1\2\3" + data[204:],
        lambda data: b"this is a page that says 404",
        lambda data: gzip.compress(b"not a tar archive at all" * 100),
    ],
)
def test_a_damaged_archive_is_an_error_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = archive(tmp_path, entry("weights", os.urandom(50_000)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadManifest, match=r"cannot be unpacked|ends early"):
        archives.extract(path, tmp_path / "code")
    assert [left.name for left in tmp_path.iterdir()] == ["additional_files.tar"]


def test_a_destination_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "kept").touch()
    with pytest.raises(OSError, match="not empty"):
        archives.extract(archive(tmp_path, entry("new", b"x")), tmp_path / "code")
    assert [left.name for left in (tmp_path / "code").iterdir()] == ["kept"]
