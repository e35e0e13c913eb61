"""The sandbox's packages, installed by the real pip from wheels made here."""

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.wheels import wheel
from medperf.engines import packages
from medperf.engines.base import TaskSpec
from medperf.engines.sandbox import SandboxEngine
from medperf.errors import EngineUnavailable, IntegrityError
from medperf.manifest.model import Package, Sandbox
from medperf.network import Network
from peers.certificates import Authority
from peers.scripted_peer import Reply, ScriptedPeer, by_path

BUILT_BY_ITSELF = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1.0"
"""


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    # As a site without a network is told to do.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_packages_are_installed_once_and_kept_by_hash(wheels: Path, tmp_path: Path) -> None:
    wanted = (wheel(wheels),)
    root = tmp_path / "packages"
    lines: list[str] = []
    folder = packages.install(root, wanted, on_line=lines.append)
    assert (folder / "tiny.py").read_text() == "VERSION = '1.0'\n"
    key = packages.packages_folder(root, wanted)
    assert folder.parent == key
    assert len(lines) == 1
    assert "tiny" in lines[0]
    assert {path.name for path in root.iterdir()} == {key.name, f"{key.name}.log", f"{key.name}.lock"}
    next(wheels.iterdir()).unlink()
    assert packages.install(root, wanted, on_line=lines.append) == folder
    assert len(lines) == 1


def test_other_hashes_are_other_packages(wheels: Path, tmp_path: Path) -> None:
    package = wheel(wheels)
    other = Package(package.name, package.version, ("0" * 64,))
    assert packages.packages_folder(tmp_path, (package,)) != packages.packages_folder(tmp_path, (other,))


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    wheel(wheels)
    root = tmp_path / "packages"
    with pytest.raises(IntegrityError, match="not the one that its manifest names"):
        packages.install(root, (Package("tiny", "1.0", ("0" * 64,)),), on_line=lambda line: None)
    assert {path.suffix for path in root.iterdir()} == {".log", ".lock"}


def test_a_package_that_is_not_there_says_what_to_do(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable) as refused:
        packages.install(tmp_path / "packages", (Package("tiny", "1.0", ("0" * 64,)),), on_line=lambda line: None)
    assert "No matching distribution" in str(refused.value)
    assert "no wheel of it" in refused.value.hint


def test_a_source_distribution_is_never_built(wheels: Path, tmp_path: Path) -> None:
    source = wheels / "tiny-1.0.zip"
    built = tmp_path / "built"
    with zipfile.ZipFile(source, "w") as archive:
        # A back end inside the package: building it needs nothing else, and runs its code.
        archive.writestr("tiny-1.0/pyproject.toml", BUILT_BY_ITSELF)
        archive.writestr("tiny-1.0/PKG-INFO", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0/backend.py", f"open({str(built)!r}, 'w')\n")
    wanted = Package("tiny", "1.0", (hashlib.sha256(source.read_bytes()).hexdigest(),))
    with pytest.raises(EngineUnavailable):
        packages.install(tmp_path / "packages", (wanted,), on_line=lambda line: None)
    assert not built.exists()


def test_what_a_package_needs_is_not_fetched_by_itself(wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "hidden")
    folder = packages.install(
        tmp_path / "packages", (wheel(wheels, needs="Requires-Dist: hidden\n"),), on_line=lambda line: None
    )
    assert (folder / "tiny.py").exists()
    assert not (folder / "hidden.py").exists()


def test_two_at_once_install_once_and_both_get_the_whole_folder(wheels: Path, tmp_path: Path) -> None:
    wanted = (wheel(wheels),)
    root = tmp_path / "packages"
    root.mkdir()
    both_began = threading.Barrier(2)
    lines: list[str] = []
    found: list[bytes] = []

    def install() -> None:
        both_began.wait(30)
        found.append((packages.install(root, wanted, on_line=lines.append) / "tiny.py").read_bytes())

    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"VERSION = '1.0'\n"] * 2
    assert len(lines) == 1


@pytest.mark.parametrize(
    "alter",
    [
        lambda folder: (folder / "tiny.py").write_text("VERSION = 'evil'\n"),
        lambda folder: (folder / "sitecustomize.py").write_text("print('evil')\n"),
        lambda folder: (folder / "tiny.py").unlink(),
        lambda folder: (folder.parent / "blake3").unlink(),
    ],
    ids=["edited", "added", "removed", "installed by halves"],
)
def test_packages_that_were_altered_never_run_and_are_installed_anew(
    wheels: Path, tmp_path: Path, alter: Callable[[Path], object]
) -> None:
    package = wheel(wheels)
    case = tmp_path / "case"
    case.mkdir()
    spec = TaskSpec(
        "run1",
        "ask",
        (),
        (),
        None,
        Sandbox(("python", "-c", "import tiny; print(tiny.VERSION)"), (package,)),
        case / "log",
    )

    def run() -> list[str]:
        """As a command does it: an engine of its own."""
        engine = SandboxEngine(tmp_path / "packages")
        lines: list[str] = []
        engine.prepare(spec, on_line=lines.append)
        engine.start(spec)
        assert engine.wait(spec.run_id, on_line=lines.append).succeeded
        return lines

    installing = "installing packages: tiny 1.0"
    assert run() == [installing, "1.0"]
    assert run() == ["1.0"]
    alter(packages.packages_folder(tmp_path / "packages", (package,)) / "content")
    assert run() == [installing, "1.0"]


def test_a_task_whose_packages_were_not_looked_at_does_not_start(wheels: Path, tmp_path: Path) -> None:
    package = wheel(wheels)
    packages.install(tmp_path / "packages", (package,), on_line=lambda line: None)
    spec = TaskSpec("run1", "ask", (), (), None, Sandbox(("python", "-c", "pass"), (package,)), tmp_path / "log")
    with pytest.raises(EngineUnavailable, match="not installed"):
        SandboxEngine(tmp_path / "packages").start(spec)


def test_a_commands_tasks_look_at_their_packages_once(wheels: Path, tmp_path: Path) -> None:
    package = wheel(wheels)
    spec = TaskSpec("run1", "ask", (), (), None, Sandbox(("python", "-c", "pass"), (package,)), tmp_path / "log")
    engine = SandboxEngine(tmp_path / "packages")
    engine.prepare(spec, on_line=lambda line: None)
    lock = packages.packages_folder(tmp_path / "packages", (package,)).with_suffix(".lock")
    lock.unlink()
    engine.prepare(spec, on_line=lambda line: None)
    assert not lock.exists()


def test_what_an_install_that_was_killed_left_is_never_taken_for_the_whole(wheels: Path, tmp_path: Path) -> None:
    wanted = (wheel(wheels),)
    root = tmp_path / "packages"
    folder = packages.packages_folder(root, wanted)
    (folder / "content").mkdir(parents=True)
    (folder / "content" / "half.py").write_text("x = ")
    content = packages.install(root, wanted, on_line=lambda line: None)
    assert not (content / "half.py").exists()
    assert (content / "tiny.py").exists()


def test_a_missing_pip_is_said(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match="needs pip") as refused:
        packages.install(tmp_path / "packages", (wheel(wheels),), on_line=lambda line: None)
    assert "ensurepip" in refused.value.hint


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Authority, Package]]:
    """A package index with TLS by a site's own CA, the only source of pip here; the CA, and what it holds."""
    authority = Authority(tmp_path / "authority")
    files = tmp_path / "index"
    files.mkdir()
    package = wheel(files)
    (file,) = files.iterdir()
    page = f'<a href="/{file.name}">{file.name}</a>'.encode()
    replies = {
        "GET /simple/tiny/": Reply(200, page, {"Content-Type": "text/html"}),
        f"GET /{file.name}": Reply(200, file.read_bytes()),
    }
    with ScriptedPeer(by_path(replies), tls=authority.server("127.0.0.1")) as peer:
        for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", f"{peer.url}/simple")
        yield authority, package


def test_pip_trusts_a_sites_own_ca_beside_the_machines_store(
    index: tuple[Authority, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, package = index
    root = tmp_path / "packages"
    with pytest.raises(EngineUnavailable) as refused:
        packages.install(root, (package,), on_line=lambda line: None)
    assert "--ca FILE (MEDPERF_CA)" in refused.value.hint
    other = Authority(tmp_path / "other", "the machine's own")
    monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    # pip would take this in place of the file that it is given.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.file))
    bundle = Network.of(tmp_path, ca=str(authority.file)).bundle()
    assert bundle is not None
    assert authority.file.read_text() in bundle
    assert other.file.read_text() in bundle
    assert bundle.count("BEGIN CERTIFICATE") > 100, "the public authorities stay"
    packages.trust(root, bundle)
    assert (packages.install(root, (package,), on_line=lambda line: None) / "tiny.py").exists()


def test_pip_decides_for_itself_again_once_no_ca_is_named(
    index: tuple[Authority, Package], tmp_path: Path
) -> None:
    authority, package = index
    root = tmp_path / "packages"
    packages.trust(root, Network.of(tmp_path, ca=str(authority.file)).bundle())
    packages.trust(root, Network.of(tmp_path).bundle())
    with pytest.raises(EngineUnavailable, match="could not be installed"):
        packages.install(root, (package,), on_line=lambda line: None)


def test_a_password_in_an_indexs_address_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://eva:sesame@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(EngineUnavailable) as refused:
        packages.install(tmp_path / "packages", (Package("tiny", "1.0", ("0" * 64,)),), on_line=lambda line: None)
    assert "127.0.0.1:1" in str(refused.value)
    assert not any(part in str(refused.value) + refused.value.hint for part in ("eva", "sesame"))
