"""Taking a bundle in: every hash checked first, then its files put where the commands look for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medperf.archives import extract
from medperf.assets import Assets
from medperf.bundles.layout import (
    ANSWERS,
    ASSETS,
    BYTES_MOST,
    IMAGES,
    MANIFEST,
    PACKAGES,
    Bundle,
    copy_bundle,
    read_bundle,
    read_manifest,
)
from medperf.containers import check_hashes
from medperf.engines.packages import WHEELS
from medperf.errors import IntegrityError
from medperf.files import flush_to_disk, locked, make_private_folder
from medperf.home import Home
from medperf.image_archives import read_image_archive
from medperf.images import keep_saved
from medperf.offline import FOLDER
from medperf.scratch import scratch_folder
from medperf_contracts.accounts import ServerView, UserView
from medperf_contracts.associations import AssociationView
from medperf_contracts.registry import BenchmarkView, ContainerView, DatasetView
from medperf_contracts.results import DueView

_WAIT_SECONDS = 3600.0
# What each answer is, by the folder or the file that it is in.
_VIEWS: dict[str, TypeAdapter[object]] = {
    "server": TypeAdapter(ServerView),
    "me": TypeAdapter(UserView),
    "benchmarks": TypeAdapter(BenchmarkView),
    "containers": TypeAdapter(ContainerView),
    "datasets": TypeAdapter(DatasetView),
    "associations": TypeAdapter(list[AssociationView]),
    "due": TypeAdapter(list[DueView]),
}


@contextmanager
def opened_bundle(given: Path, home: Home) -> Iterator[tuple[Bundle, Path]]:
    """A bundle, from a file or a folder, copied into the local folder and found whole.

    Raises UsageError for what is no bundle, BadManifest for an archive that is damaged, IntegrityError where a
    file is not what the manifest, or its own name, says.
    """
    with scratch_folder(home) as scratch:
        folder = scratch / "bundle"
        if given.is_dir():
            _copy(given, folder)
        else:
            extract(given, folder, limit_bytes=BYTES_MOST)
        bundle = read_bundle(folder, name=given.name)
        _check_meaning(bundle, folder)
        yield bundle, folder


def server_of(bundle: Bundle, folder: Path) -> ServerView:
    """What the bundle's server said of itself."""
    view = _read(bundle, folder / ANSWERS / "server.json")
    if not isinstance(view, ServerView):
        raise _not_as_named("server.json")
    return view


def bring(bundle: Bundle, folder: Path, home: Home, assets: Assets) -> None:
    """Put a checked bundle's files where the commands look; what earlier bundles brought stays, or is renewed.

    The answers come last, so that they never speak of what is not here.
    """
    flush_to_disk(folder)
    offline = make_private_folder(home.root / FOLDER)
    with locked(offline / ".lock", what="the import of a bundle", wait_seconds=_WAIT_SECONDS):
        for file in bundle.files:
            kind, _, name = file.path.partition("/")
            if kind == ASSETS:
                assets.keep(folder / file.path, file.sha256)
            elif kind == IMAGES:
                assets.keep(folder / file.path, file.sha256)
                keep_saved(assets, name.removesuffix(".tar"), file.sha256)
            elif kind == PACKAGES:
                _move(folder / file.path, home.environments / WHEELS / name)
        for file in bundle.files:
            if file.path.startswith(f"{ANSWERS}/"):
                _move(folder / file.path, offline / file.path)
        _move(folder / MANIFEST, offline / MANIFEST)


def _copy(given: Path, folder: Path) -> None:
    """Copy a folder that is a bundle, so that nothing changes under the check."""
    read_manifest(given, given.name)  # before anything is copied: it may be any folder
    copy_bundle(given, folder)


def _move(file: Path, place: Path) -> None:
    make_private_folder(place.parent)
    file.replace(place)


def _check_meaning(bundle: Bundle, folder: Path) -> None:
    """Raise IntegrityError unless each file is what its own name says: a hash, an image's, an answer of a kind."""
    for file in bundle.files:
        kind, _, name = file.path.partition("/")
        if kind == ASSETS and name != file.sha256:
            raise _not_as_named(file.path)
        if kind == IMAGES:
            found = read_image_archive(folder / file.path)
            if name.removesuffix(".tar") not in (found.sha256, *found.digests):
                raise _not_as_named(file.path)
        if kind == ANSWERS:
            view = _read(bundle, folder / file.path)
            if isinstance(view, ContainerView):
                check_hashes(view)
            if (
                isinstance(view, BenchmarkView | ContainerView | DatasetView)
                and f"/{view.id}.json" not in file.path
            ):
                raise _not_as_named(file.path)
    server_of(bundle, folder)


def _read(bundle: Bundle, file: Path) -> object:
    kind = file.stem if file.parent.name == ANSWERS else file.parent.name
    try:
        return _VIEWS[kind].validate_json(file.read_bytes())
    except (KeyError, FileNotFoundError, ValidationError) as error:
        raise IntegrityError(
            f"The bundle of benchmark {bundle.benchmark_id} holds no answer of a server in {kind}/{file.name}.",
            hint="It was made by another release, or damaged: have it made again (medperf bundle export).",
        ) from error


def _not_as_named(path: str) -> IntegrityError:
    return IntegrityError(
        f"The bundle's file {path} is not what its name says.",
        hint="Do not use the bundle: whoever made or carried it altered it. Have it made again.",
    )
