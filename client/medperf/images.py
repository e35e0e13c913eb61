"""An image that is registered as an archive: fetched and read when an engine asks for it, then remembered."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medperf.assets import Assets
from medperf.engines.base import Image
from medperf.errors import IntegrityError
from medperf.files import make_private_folder, write_atomically
from medperf.image_archives import ImageArchive, is_sif, read_image_archive

RECORDS = "images"
# In the local folder: what was made for Apptainer of images in archives, each by the hash of its image.
SIFS = "sifs"
_DIGESTS = re.compile(r"([0-9a-f]{64}\n)+", re.ASCII)


@dataclass
class ArchivedImage:
    """The image `name` of a manifest, in the archive behind a URL whose SHA-256 is registered.

    Which image an archive holds is kept beside the fetched files, so that an engine that has the image needs the
    archive no more.
    """

    name: str
    url: str
    sha256: str
    assets: Assets
    known: Image | None = field(default=None, init=False)

    def identify(self) -> Image:
        """Which image it is, from the archive itself; fetched where that is not known yet.

        IntegrityError where the URL gives another file, BadManifest where it is no archive of one image.
        """
        if self.known is None:
            digests = _read_record(self._record)
            if not digests:
                file = self._fetch()
                if is_sif(file):
                    self.known = Image(self.name, self.sha256, sif=self._fetch)
                    return self.known
                digests = _digests(self._read())
            self.known = Image(self.name, digests[0], digests[1:], archive=self._bring)
        return self.known

    def _fetch(self) -> Path:
        return self.assets.fetch(self.url, self.sha256)

    def _bring(self) -> ImageArchive:
        found = self._read()
        if self.known is not None and found.sha256 != self.known.sha256:
            raise IntegrityError(
                f"The record {self._record} named another image than its archive holds. It is mended.",
                hint="Run the same command again.",
            )
        return found

    def _read(self) -> ImageArchive:
        file = self._fetch()
        found = read_image_archive(file, name=self.url)
        write_record(self._record, _digests(found))
        return found

    @property
    def _record(self) -> Path:
        return self.assets.root / RECORDS / self.sha256


def kept_image(root: Path, sha256: str) -> str | None:
    """The ID of the image that the archive with this hash holds, where that is known."""
    record = _read_record(root / RECORDS / sha256)
    return record[0] if record else None


def keep_saved(assets: Assets, image_hash: str, archive_sha256: str) -> None:
    """Remember that the image that is registered by this hash is in the kept file with that one."""
    write_record(_saved(assets.root, image_hash), (archive_sha256,))


def saved_image(assets: Assets, image_hash: str) -> Callable[[], ImageArchive] | None:
    """What brings a registered image from the file that a bundle carried; None where none did."""
    sha256 = saved_file(assets.root, image_hash)
    if sha256 is None or not assets.is_here(sha256):
        return None

    def bring() -> ImageArchive:
        if not assets.has(sha256):
            raise IntegrityError(
                f"The file of the image {image_hash}, which a bundle brought, is damaged.",
                hint="Import the bundle again: medperf bundle import FILE",
            )
        return read_image_archive(assets.place(sha256))

    return bring


def saved_file(root: Path, image_hash: str) -> str | None:
    """The SHA-256 of the file that holds a registered image, where a bundle brought one into these assets."""
    record = _read_record(_saved(root, image_hash))
    return record[0] if record else None


def _saved(root: Path, image_hash: str) -> Path:
    return root / RECORDS / f"saved-{image_hash}"


def write_record(file: Path, digests: tuple[str, ...]) -> None:
    """Keep a list of SHA-256, a line each."""
    make_private_folder(file.parent)
    write_atomically(file, "".join(f"{digest}\n" for digest in digests))


def _digests(archive: ImageArchive) -> tuple[str, ...]:
    return (archive.sha256, *archive.digests)


def _read_record(file: Path) -> tuple[str, ...]:
    """What was kept; nothing where nothing was, or where it is damaged."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(text.split()) if _DIGESTS.fullmatch(text) else ()
