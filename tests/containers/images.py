"""Images of the small containers: the program that the sandbox runs, as an image's own."""

from __future__ import annotations

from pathlib import Path

from docker import DockerClient

from containers.small import code
from medperf.manifest import Role


def image_name(role: Role) -> str:
    """What the small container's image is called, in its manifest too."""
    return f"medperf-test/small-{role.value}:1.0"


def built(daemon: DockerClient, base_image: str, folder: Path, *lines: str, name: str | None = None) -> str:
    """The SHA-256 of an image with these lines of a Dockerfile on the base; files beside it can be copied."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text("\n".join([f"FROM sha256:{base_image}", *lines]) + "\n")
    image, _ = daemon.images.build(path=str(folder), network_mode="none", rm=True, tag=name)
    return str(image.id).removeprefix("sha256:")


def small_images(daemon: DockerClient, base_image: str, folder: Path) -> dict[Role, str]:
    """The SHA-256 of each small container's image, by role."""
    hashes = {}
    for role in Role:
        place = folder / role.value
        place.mkdir()
        (place / "main.py").write_bytes(code(role))
        lines = ("COPY main.py /main.py", 'ENTRYPOINT ["python3", "/main.py"]')
        hashes[role] = built(daemon, base_image, place, *lines, name=image_name(role))
    return hashes
