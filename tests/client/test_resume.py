"""A file on its way: gone on with after a cut, also by the next command; never put together of two files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from medperf import parts
from medperf.api import Gateway
from medperf.assets import Assets
from medperf.errors import IntegrityError, Refused, ServerUnreachable
from medperf.home import Home
from medperf.parts import PARTS_MOST, Part, kept_parts
from peers.scripted_peer import Asked, Reply, ScriptedPeer

CONTENT = bytes(range(251)) * 8000
OTHER = bytes(reversed(CONTENT))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "/assets/weights.tar"
_FETCHES = """
import sys
from pathlib import Path
from medperf.api import Gateway
from medperf.assets import Assets
from medperf.home import Home
server, root, url, sha256 = sys.argv[1:]
home = Home(server, Path(root))
Assets(home.assets, Gateway(home, bound_seconds=60).download).fetch(url, sha256)
"""


@dataclass
class FileServer:
    """Gives out one file, which a test may replace; `cuts` says where the next answers are cut off."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    knows_ranges: bool = True
    knows_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    # Replaces the file once an answer was begun.
    then: tuple[bytes, str | None] | None = None
    seconds: float = 0.0

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        time.sleep(self.seconds)
        content, tag = self.content, self.tag
        cut = self.cuts.pop(0) if self.cuts else None
        if self.then is not None:
            (self.content, self.tag), self.then = self.then, None
        headers = {} if tag is None else {"ETag": tag}
        first = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        is_same = not self.knows_if_range or asked.headers.get("if-range", tag) == tag
        if first == 0 or not self.knows_ranges or not is_same:
            return Reply(200, content, headers, cut_after=cut)
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return Reply(206, content[first:], headers, cut_after=cut)

    @property
    def ranges(self) -> list[str | None]:
        return [asked.headers.get("range") for asked in self.asked]


@pytest.fixture
def files() -> FileServer:
    return FileServer()


@pytest.fixture
def peer(files: FileServer) -> Iterator[ScriptedPeer]:
    with ScriptedPeer(files) as peer:
        yield peer


@dataclass
class Machine:
    """Where commands fetch the file, each anew."""

    home: Home
    notices: list[str] = field(default_factory=list)

    def fetch(self, *, bound_seconds: float = 5.0) -> bytes:
        with Gateway(self.home, bound_seconds=bound_seconds, notice=self.notices.append) as gateway:
            assets = Assets(self.home.assets, gateway.download, on_wait=self.notices.append)
            return assets.fetch(URL, SHA256).read_bytes()

    def cut_off(self) -> None:
        """A command that does not wait for the server to come back."""
        with pytest.raises(ServerUnreachable):
            self.fetch(bound_seconds=0.01)

    @property
    def parts(self) -> list[Path]:
        return kept_parts(self.home.assets / "parts")

    @property
    def kept(self) -> list[str]:
        return [path.name for path in (self.home.assets / "sha256").iterdir()]


@pytest.fixture
def machine(peer: ScriptedPeer, tmp_path: Path) -> Machine:
    return Machine(Home(peer.url, tmp_path / "home"))


def test_the_next_command_asks_for_the_rest_only_and_only_of_the_same_file(
    machine: Machine, files: FileServer
) -> None:
    files.cuts = [700_000]
    machine.cut_off()
    (part,) = machine.parts
    had = part.stat().st_size
    assert 500_000 < had <= 700_000
    assert part.read_bytes() == CONTENT[:had]
    assert machine.kept == []
    assert machine.fetch() == CONTENT
    assert files.ranges == [None, f"bytes={had}-"]
    assert files.asked[1].headers["if-range"] == '"one"'
    assert list((machine.home.assets / "parts").iterdir()) == []


def test_a_command_that_is_killed_leaves_what_it_had(machine: Machine, files: FileServer) -> None:
    files.cuts = [1_500_000]
    command = [sys.executable, "-c", _FETCHES, machine.home.server, str(machine.home.root), URL, SHA256]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as fetching:
        try:
            deadline = time.monotonic() + 20
            while not (machine.parts and machine.parts[0].stat().st_size >= 1_000_000):
                assert time.monotonic() < deadline
                time.sleep(0.02)
                files.seconds = 2.0
        finally:
            fetching.kill()
    files.seconds = 0.0
    had = machine.parts[0].stat().st_size
    assert machine.fetch() == CONTENT
    assert files.ranges[-1] == f"bytes={had}-"


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"one"'])
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_answer_that_is_cut_again_and_again_gives_the_file_at_last(
    machine: Machine, files: FileServer, tag: str | None, knows_ranges: bool
) -> None:
    files.tag, files.knows_ranges = tag, knows_ranges
    files.cuts = [300_000, 600_000, 900_000]
    machine.cut_off()
    assert machine.fetch() == CONTENT
    # A weak validator says nothing of bytes.
    assert {asked.headers.get("if-range") for asked in files.asked[1:]} == {tag if tag == '"one"' else None}


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize("is_another_command", [True, False])
def test_a_file_that_was_replaced_in_the_middle_is_fetched_from_its_beginning(
    machine: Machine, files: FileServer, knows_if_range: bool, is_another_command: bool
) -> None:
    files.content, files.tag, files.knows_if_range = OTHER, '"old"', knows_if_range
    files.cuts, files.then = [700_000], (CONTENT, '"one"')
    if is_another_command:
        machine.cut_off()
    assert machine.fetch() == CONTENT
    assert any("has been replaced meanwhile" in notice for notice in machine.notices)
    assert len(files.asked) == (2 if knows_if_range else 3)


def test_without_a_validator_the_hash_decides_and_what_is_a_mixture_is_fetched_once_more(
    machine: Machine, files: FileServer
) -> None:
    files.content, files.tag = OTHER, None
    files.cuts, files.then = [700_000], (CONTENT, None)
    machine.cut_off()
    had = machine.parts[0].stat().st_size
    assert machine.fetch() == CONTENT
    assert files.ranges == [None, f"bytes={had}-", None]


def test_another_file_than_the_registered_one_is_refused_and_nothing_of_it_stays(
    machine: Machine, files: FileServer
) -> None:
    files.content, files.cuts = OTHER, [700_000]
    machine.cut_off()
    with pytest.raises(IntegrityError, match="is registered"):
        machine.fetch()
    assert (machine.parts, machine.kept) == ([], [])
    # Once whole, once more from its beginning: no more is asked of a server that gives another file.
    assert len(files.asked) == 3


def test_what_is_gone_is_not_kept_in_part(machine: Machine, files: FileServer, peer: ScriptedPeer) -> None:
    files.cuts = [700_000]
    machine.cut_off()
    peer.script = lambda _: Reply(404)
    with pytest.raises(Refused):
        machine.fetch()
    assert machine.parts == []


@pytest.mark.parametrize("note", ["", "one", 'W/"one"', '"a\r\nX-More: b"', "\xff"])
def test_a_note_that_is_damaged_is_not_sent(machine: Machine, files: FileServer, note: str) -> None:
    files.cuts = [700_000]
    machine.cut_off()
    (part,) = machine.parts
    part.with_name(f"{part.name}.validator").write_text(note, encoding="latin-1", newline="")
    assert machine.fetch() == CONTENT
    assert "if-range" not in files.asked[-1].headers


def test_a_part_that_was_damaged_is_not_gone_on_with_for_good(machine: Machine, files: FileServer) -> None:
    files.cuts = [700_000]
    machine.cut_off()
    (part,) = machine.parts
    part.write_bytes(bytes(600_000))
    assert machine.fetch() == CONTENT
    assert files.ranges == [None, "bytes=600000-", None]


def test_two_commands_at_once_fetch_it_once_and_the_second_says_that_it_waits(
    machine: Machine, files: FileServer
) -> None:
    files.seconds = 1.0
    other = Machine(machine.home)
    first = threading.Thread(target=machine.fetch)
    first.start()
    while not files.asked:
        time.sleep(0.01)
    assert other.fetch() == CONTENT
    first.join()
    assert len(files.asked) == 1
    assert [notice for notice in other.notices if "waiting until it has ended" in notice]
    assert f"the download of {URL}" in other.notices[0]


def cut_off(folder: Path, url: str) -> None:
    with Part(folder, url, SHA256) as part:
        part(b"x")
        raise ServerUnreachable("cut", hint="again")


def test_parts_are_few_and_not_kept_for_ever_but_one_that_is_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(PARTS_MOST + 3):
        with pytest.raises(ServerUnreachable):
            cut_off(tmp_path, f"/{number}")
        newest = kept_parts(tmp_path)[0]
        os.utime(newest, (time.time() + number, time.time() + number))
    assert len(kept_parts(tmp_path)) == PARTS_MOST
    assert newest in kept_parts(tmp_path)
    monkeypatch.setattr(parts, "_KEPT_SECONDS", -3600.0)
    with Part(tmp_path, "/written", SHA256) as written, Part(tmp_path, "/another", SHA256):
        written(b"x")
        assert len(kept_parts(tmp_path)) == 2


def test_a_file_without_a_registered_hash_is_not_put_together_of_two(machine: Machine, files: FileServer) -> None:
    files.content, files.tag = OTHER, '"old"'
    files.cuts, files.then = [700_000], (CONTENT, '"one"')
    with Gateway(machine.home, bound_seconds=5.0, notice=machine.notices.append) as gateway:
        assets = Assets(machine.home.assets, gateway.download)
        with pytest.raises(IntegrityError, match="was replaced while it was fetched"):
            assets.fetch_new(URL)
        assert assets.fetch_new(URL)[1] == SHA256
