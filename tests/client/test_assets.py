"""Registered files: verified by their hash, kept by their hash, never run when altered."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medperf.assets import Assets, sealed
from medperf.errors import IntegrityError, ServerUnreachable
from medperf.files import remove_abandoned

CONTENT = b"weights" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "/assets/weights.tar.gz"


class Source:
    """What is behind the URL, in pieces, counting how often it is asked for."""

    def __init__(self, content: bytes = CONTENT, *, breaks_after: int | None = None, seconds: float = 0.0) -> None:
        self.content = content
        self.breaks_after = breaks_after
        self.seconds = seconds
        self.asked: list[str] = []

    def __call__(self, url: str, sink: Callable[[bytes], object]) -> None:
        self.asked.append(url)
        for piece in self._pieces():
            sink(piece)
            time.sleep(self.seconds)
        if self.breaks_after is not None:
            raise ServerUnreachable("cut off", hint="again")

    def _pieces(self) -> Iterator[bytes]:
        content = self.content[: self.breaks_after]
        for begin in range(0, len(content), 65_536):
            yield content[begin : begin + 65_536]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_is_fetched_once_and_kept_under_its_hash(tmp_path: Path) -> None:
    source = Source()
    first = Assets(tmp_path, source).fetch(URL, SHA256)
    again = Assets(tmp_path, source).fetch("/assets/elsewhere", SHA256)
    assert first == again == tmp_path / "sha256" / SHA256
    assert first.read_bytes() == CONTENT
    assert source.asked == [URL]


def test_another_content_than_registered_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is registered"):
        Assets(tmp_path, Source(CONTENT + b"!")).fetch(URL, SHA256)
    assert files_in(tmp_path) == []


def test_half_a_download_is_never_taken_for_the_whole(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable):
        Assets(tmp_path, Source(breaks_after=200_000)).fetch(URL, SHA256)
    assert files_in(tmp_path / "sha256") == []
    assert Assets(tmp_path, Source()).fetch(URL, SHA256).read_bytes() == CONTENT


def test_what_a_killed_client_had_fetched_is_neither_used_nor_kept(tmp_path: Path) -> None:
    (tmp_path / "sha256").mkdir()
    (tmp_path / "sha256" / f".{SHA256}.partial-x").write_bytes(CONTENT * 2)
    assert Assets(tmp_path, Source()).fetch(URL, SHA256).read_bytes() == CONTENT
    remove_abandoned(tmp_path / "sha256")
    assert len(files_in(tmp_path)) == 1


def test_a_kept_file_that_was_damaged_is_fetched_again(tmp_path: Path) -> None:
    source = Source()
    assets = Assets(tmp_path, source)
    assets.fetch(URL, SHA256).write_bytes(CONTENT[:-1])
    assert assets.fetch(URL, SHA256).read_bytes() == CONTENT
    assert len(source.asked) == 2


def test_two_clients_at_once_fetch_one_file_once(tmp_path: Path) -> None:
    source = Source(seconds=0.02)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(Assets(tmp_path, source).fetch(URL, SHA256)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "sha256" / SHA256] * 3
    assert len(source.asked) == 1


class Builder:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "code").mkdir()
        (folder / "code/main.py").write_text("print(1)\n")


@pytest.mark.parametrize(
    "alter",
    [
        lambda content: (content / "code/main.py").write_text("print(2)\n"),
        lambda content: (content / "code/main.py").unlink(),
        lambda content: (content / "code/more.py").write_text(""),
        lambda content: (content / "code/link").symlink_to("main.py"),
        lambda content: (content.parent / "blake3").unlink(),
    ],
    ids=["edited", "removed", "added", "linked", "built by halves"],
)
def test_a_folder_that_was_altered_is_built_anew(tmp_path: Path, alter: Callable[[Path], object]) -> None:
    build = Builder()
    content = sealed(tmp_path / "thing", build)
    assert sealed(tmp_path / "thing", build) == content
    assert build.times == 1
    alter(content)
    assert sealed(tmp_path / "thing", build) == content
    assert build.times == 2
    assert [path.name for path in files_in(content)] == ["main.py"]
    assert (content / "code/main.py").read_text() == "print(1)\n"


def test_a_folder_that_could_not_be_built_is_built_the_next_time(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        sealed(tmp_path / "thing", fail)
    content = sealed(tmp_path / "thing", Builder())
    assert [path.name for path in files_in(content)] == ["main.py"]
