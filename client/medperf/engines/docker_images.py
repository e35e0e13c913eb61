"""Which of an engine's images is the registered one, and how it is brought here."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from medperf.engines.base import CannotStart, Image
from medperf.errors import EngineUnavailable, IntegrityError
from medperf.image_archives import ImageArchive, as_docker_loads_it

# A layer of many GB is unpacked before the engine says so.
_LOAD_SECONDS = 1800

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image as DockerImage


def find_image(client: DockerClient, image: Image) -> str | None:
    """The ID of the registered image, where the engine has it under whatever name.

    The registered hash is the image's ID (of its configuration, which names each layer by its content), or the
    digest of its manifest, by which a registry names it.
    """
    from docker.errors import ImageNotFound

    for reference in (*(f"sha256:{digest}" for digest in (image.sha256, *image.digests)), image.name):
        try:
            found = client.images.get(reference)
        except ImageNotFound:
            continue
        if _is_registered(str(found.id), found.attrs.get("RepoDigests") or (), image):
            return str(found.id)
    return None


def declared_volumes(found: DockerImage) -> tuple[PurePosixPath, ...]:
    """The folders that an image declares as volumes, each by one name; CannotStart for what is no folder of it."""
    written = found.attrs["Config"].get("Volumes") or ()
    for path in written:
        if not path.startswith("/") or posixpath.normpath(path).strip("/") == "":
            raise CannotStart(
                f"The image declares a volume at {path!r}, which is no folder inside it",
                hint="Its owner must correct the image.",
            )
    return tuple(dict.fromkeys(PurePosixPath("/", posixpath.normpath(path).lstrip("/")) for path in written))


def pull_image(client: DockerClient, image: Image, *, on_line: Callable[[str], None]) -> str:
    """Pull the registered image; its ID.

    EngineUnavailable where no registry gives it, IntegrityError where one gives another under its name.
    """
    from docker.errors import APIError
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(image.name)
    problem = ""
    is_another = False
    # A tag can be moved on; where the hash is a manifest's, the registry has it by that as well.
    for reference in (tag or "latest", f"sha256:{image.sha256}"):
        try:
            on_line(f"pulling the image {repository} ({reference[:19]})")
            for status in client.api.pull(repository, tag=reference, stream=True, decode=True):
                _tell(status, on_line)
                if status.get("error"):
                    raise APIError(str(status["error"]))
        except APIError as error:
            problem = problem or str(error.explanation or error)
            continue
        found = find_image(client, image)
        if found is not None:
            return found
        is_another = True
    if not is_another:
        raise EngineUnavailable(
            f"The image {image.name} cannot be pulled: {problem.splitlines()[0]}",
            hint="Check that the engine reaches the registry (its proxy, a login with `docker login`), or load the"
            " image from a file with `docker load`.",
        )
    raise IntegrityError(
        f"The image {image.name} that was pulled is not the registered one (sha256:{image.sha256}).",
        hint="Do not run it. Tell the container's owner that the image was replaced.",
    )


def load_image(
    client: DockerClient, image: Image, archive: ImageArchive, *, on_line: Callable[[str], None]
) -> str:
    """Load the image that an archive holds; its ID, which is the one that was read from the archive beforehand.

    EngineUnavailable where the engine refuses it, IntegrityError where what it then has is not that image. What
    the engine says of what it loaded counts for nothing.
    """
    on_line(f"loading the image {image.name} from its archive ({archive.file.stat().st_size / 1e6:,.1f} MB)")
    patience, client.api.timeout = client.api.timeout, _LOAD_SECONDS
    problem = ""
    try:
        for status in client.api.load_image(as_docker_loads_it(archive)):  # type: ignore[no-untyped-call]
            problem = problem or str(status.get("error") or status.get("message") or "")
    finally:
        client.api.timeout = patience
    found = find_image(client, image)
    if found is not None:
        return found
    if problem:
        raise EngineUnavailable(
            f"Docker cannot load the image {image.name}: {problem.splitlines()[0]:.300}",
            hint="Check its disk (`docker system df`). If there is space, it is the archive: tell its owner.",
        )
    raise IntegrityError(
        f"What Docker loaded for {image.name} is not the image of its archive (sha256:{image.sha256}).",
        hint="Do not run it. Where Docker keeps images in containerd, it knows only those of an OCI layout by a"
        " hash of theirs: the owner makes such an archive with Docker 25 or later.",
    )


def save_image(client: DockerClient, image_id: str, file: BinaryIO) -> None:
    """Write an image that the engine has as an archive, without its names."""
    patience, client.api.timeout = client.api.timeout, _LOAD_SECONDS
    try:
        for chunk in client.images.get(image_id).save():
            file.write(chunk)
    finally:
        client.api.timeout = patience


def _is_registered(image_id: str, repository_digests: Any, image: Image) -> bool:
    names = {image_id, *(str(digest).partition("@")[2] for digest in repository_digests)}
    return not names.isdisjoint(f"sha256:{digest}" for digest in (image.sha256, *image.digests))


def _tell(status: dict[str, Any], on_line: Callable[[str], None]) -> None:
    """Say which layers are here; their bytes move too fast to be lines."""
    if status.get("status") in ("Pull complete", "Already exists", "Download complete"):
        on_line(f"image layer {status.get('id', '')}: {str(status['status']).lower()}")
