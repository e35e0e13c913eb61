"""Demo data: an archive of a few raw cases with `paths.yaml`, which says where its data and its labels are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medperf import archives, safe_yaml
from medperf.errors import BadManifest

PATHS_FILE = "paths.yaml"
_PATHS_BYTES_MOST = 64 * 1024
_HINT = (
    "The demo data's owner must pack a folder with its cases and a paths.yaml that says, relative to it,"
    " `data_path: …` and `labels_path: …` (docs/containers.md)."
)


@dataclass(frozen=True)
class DemoData:
    """Unpacked demo data: what a preparation container is given."""

    data_path: Path
    labels_path: Path


def unpack_demo_data(archive: Path, folder: Path) -> DemoData:
    """Unpack an archive of demo data as the new folder `folder`.

    Raises BadManifest for an archive that `archives.extract` refuses, and where `paths.yaml` at its top is missing
    or does not name, inside the archive, `data_path` and `labels_path`.
    """
    archives.extract(archive, folder)
    file = folder / PATHS_FILE
    if not file.is_file():
        raise BadManifest(f"The demo data has no {PATHS_FILE} at its top.", hint=_HINT)
    with file.open("rb") as opened:
        text = opened.read(_PATHS_BYTES_MOST + 1)
    paths = safe_yaml.load(text, what=f"The demo data's {PATHS_FILE}", limit_bytes=_PATHS_BYTES_MOST)
    if not isinstance(paths, dict):
        raise BadManifest(f"The demo data's {PATHS_FILE} must be a mapping.", hint=_HINT)
    return DemoData(*(_inside(folder, paths.get(key), key) for key in ("data_path", "labels_path")))


def _inside(folder: Path, named: object, key: str) -> Path:
    if not isinstance(named, str) or not named:
        raise BadManifest(f"The demo data's {PATHS_FILE} does not say {key}.", hint=_HINT)
    path = PurePosixPath(named)
    # An archive holds no links once it is unpacked, so that the words decide.
    if path.is_absolute() or ".." in path.parts or "\0" in named:
        raise BadManifest(f"The demo data's {key} ({named!r:.80}) leads out of the archive.", hint=_HINT)
    if not (folder / path).exists():
        raise BadManifest(f"The demo data's {key} ({named!r:.80}) is not in the archive.", hint=_HINT)
    return folder / path
