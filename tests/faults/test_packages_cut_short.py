"""The installation of a container's packages, cut short: by a full disk, and by the end of the client."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from faults.test_full_disk import NAMESPACE
from medperf.engines.packages import packages_folder
from medperf.files import remove_abandoned
from medperf.manifest.model import Package

_INSTALL = """
import json, sys
from pathlib import Path
from medperf.engines.packages import install
from medperf.errors import ClientError
from medperf.manifest.model import Package
root, digest = sys.argv[1:]
try:
    install(Path(root), (Package("large", "1.0", (digest,)),), on_line=lambda line: None)
except ClientError as error:
    print(json.dumps([error.exit_code, str(error), error.hint]))
"""
_DISK = """
mount -t tmpfs -o size=1m tmpfs "$1"
mkdir "$1/tmp"
TMPDIR="$1/tmp" "$2" -c "$3" "$1/environments" "$4"
ls -A "$1/environments" >&2
"""


def large_wheel(folder: Path) -> str:
    """A wheel with a module of 4 MB that cannot be compressed; its SHA-256."""
    content = "#" + random.Random(1).randbytes(2_000_000).hex()
    about = "large-1.0.dist-info"
    files = {
        "large.py": content,
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: large\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD"))
    path = folder / "large-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_disk_that_is_full_is_named_and_not_the_package_index(tmp_path: Path) -> None:
    digest = large_wheel(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", _DISK, "sh", str(disk), sys.executable, _INSTALL, digest],
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    exit_code, message, hint = json.loads(done.stdout)
    assert exit_code == 14
    assert "The disk was full" in message
    assert str(disk) in message
    assert "Make space" in hint
    kept = [name for name in done.stderr.split() if not name.endswith((".log", ".lock"))]
    assert kept == [], "nothing but the log is kept"


def test_pip_ends_with_its_client_and_what_it_left_is_found_again(tmp_path: Path) -> None:
    root = tmp_path / "environments"
    with socket.create_server(("127.0.0.1", 0)) as index:  # takes the connection and never answers
        client = subprocess.Popen(
            [sys.executable, "-c", _INSTALL, str(root), "0" * 64],
            env={**os.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple"},
        )
        index.settimeout(60)
        connection, _ = index.accept()
        [partial] = root.glob(".*.partial-*")
        remove_abandoned(root)
        assert partial.exists(), "its client lives"
        client.kill()
        client.wait()
        connection.settimeout(10)
        while connection.recv(65536):  # until the other end, pip, is gone
            pass
        connection.close()
    folder = packages_folder(root, (Package("large", "1.0", ("0" * 64,)),))
    assert [path.name for path in folder.rglob("*")] == ["content"], "nothing of it, and no seal"
    deadline = time.monotonic() + 5
    while partial.exists() and time.monotonic() < deadline:
        remove_abandoned(root)
    assert {path.name for path in root.iterdir()} == {folder.name, f"{folder.name}.lock"}
