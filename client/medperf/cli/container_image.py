"""The image of a container that is registered: by its ID, or as an archive that every site can fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medperf.errors import UsageError

if TYPE_CHECKING:
    from medperf.drafts import Draft

    from .session import Session

_DIGEST_DIGITS = 64
_INSPECT = "docker image inspect --format '{{.Id}}'"


def check_image_is_said(draft: Draft, image_hash: str | None, image_url: str | None) -> None:
    """Raise UsageError where nothing says which image it is though one is needed, or where one cannot be."""
    docker, is_singularity = draft.manifest.docker, draft.manifest.is_singularity
    if image_hash is not None and image_url is not None:
        raise UsageError(
            "--image_hash and --image_url do not go together: of an archive, the file's own hash is registered.",
            hint="Leave out --image_hash: what --image_url gives is fetched, read and hashed.",
        )
    option = "--image_hash" if image_hash is not None else "--image_url" if image_url is not None else None
    if image_url is None and (is_singularity or (docker is not None and docker.is_archive)):
        raise UsageError(
            "The manifest says that its image is a file, and nothing says where that is.",
            hint="Give --image_url: where every site can fetch it.",
        )
    if option is not None and docker is None and not is_singularity:
        raise UsageError(
            f"{option} says which image it must be, but the manifest names no image.",
            hint="Leave it out, or add a docker section to the manifest.",
        )
    if option is None and docker is not None and draft.manifest.sandbox is None:
        raise UsageError(
            "Nothing but an image can run this container, and nothing says which image it must be.",
            hint=f"Give --image_hash; this prints it: {_INSPECT} {docker.image}. Where sites have no registry to"
            " pull from, give its archive (docker save) instead: --image_url.",
        )


def image_digest(draft: Draft, given: str) -> str:
    """An image's SHA-256 as it is registered; UsageError for what is none."""
    digest = given.removeprefix("sha256:").lower()
    if len(digest) != _DIGEST_DIGITS or set(digest) - set("0123456789abcdef"):
        image = draft.manifest.docker.image if draft.manifest.docker else ""
        raise UsageError(
            f"{given!r:.90} is not the SHA-256 of an image.", hint=f"This prints it: {_INSPECT} {image}"
        )
    return digest


def fetched_image(session: Session, url: str) -> str:
    """The SHA-256 of the archive behind a URL; BadManifest unless it holds exactly one image, whole."""
    from medperf.image_archives import is_sif, read_image_archive

    from .changing import downloads, fetched_new
    from .progress import Progress

    session.progress = progress = Progress(1)
    archive, digest = fetched_new(downloads(session, progress), url, progress.step)
    if not is_sif(archive):
        read_image_archive(archive, name=url)
    return digest
