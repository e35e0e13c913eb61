"""Files that the operator adds to those the embedded server gives out: a real server, before and while it runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tutorials.path import EmbeddedServer


def add(home: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.main", "asset", "add", str(file)],
        env={**os.environ, "MEDPERF_SERVER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def url_of(added: subprocess.CompletedProcess[str], content: bytes) -> str:
    """The URL that was printed, with the content's hash."""
    found = re.fullmatch(r"URL: (\S+)\nSHA-256: ([0-9a-f]{64})\n", added.stdout)
    assert found is not None, added
    assert found[2] == hashlib.sha256(content).hexdigest()
    return found[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "my model (1).TAR.gz"
    file.write_bytes(b"content" * 1000)
    return file


def test_a_file_is_given_out_under_its_contents_name_also_when_it_was_added_before_the_server_ran(
    tmp_path: Path, file: Path
) -> None:
    home = tmp_path / "store"
    first = url_of(add(home, file), file.read_bytes())
    assert first == f"/assets/{hashlib.sha256(file.read_bytes()).hexdigest()}.tar.gz"
    assert (home.stat().st_mode & 0o777, [path.name for path in home.iterdir()]) == (0o700, ["assets"])
    server = EmbeddedServer(home)
    server.start()
    try:
        other = tmp_path / "noext"
        other.write_bytes(b"other")
        second = url_of(add(home, other), b"other")
        assert httpx.get(server.url + first, trust_env=False).content == file.read_bytes()
        assert httpx.get(server.url + second, trust_env=False).content == b"other"
    finally:
        server.stop()


def test_the_same_file_again_changes_nothing_and_another_content_is_never_replaced(
    tmp_path: Path, file: Path
) -> None:
    home = tmp_path / "store"
    url = url_of(add(home, file), file.read_bytes())
    (kept,) = (home / "assets").iterdir()
    before = kept.stat()
    assert url_of(add(home, file), file.read_bytes()) == url
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    kept.write_bytes(b"altered")
    refused = add(home, file)
    assert (refused.returncode, "with another content than its name says" in refused.stderr) == (1, True)
    assert "What to do: " in refused.stderr
    assert [path.read_bytes() for path in (home / "assets").iterdir()] == [b"altered"]


def test_what_cannot_be_kept_is_said(tmp_path: Path, file: Path) -> None:
    home = tmp_path / "store"
    home.mkdir()
    (home / "assets").write_text("in the way")
    refused = add(home, file)
    assert (refused.returncode, "cannot be added to" in refused.stderr) == (1, True)
    assert add(home, tmp_path / "nowhere").returncode == 2
