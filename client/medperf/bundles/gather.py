"""Making a bundle: everything that a benchmark's containers need, each file by its hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from medperf.assets import Assets
from medperf.bundles.layout import ANSWERS, ASSETS, IMAGES, PACKAGES
from medperf.containers import fetch_container
from medperf.engines.base import Image
from medperf.engines.docker import DockerEngine
from medperf.engines.packages import download
from medperf.errors import EngineUnavailable, IntegrityError, UsageError
from medperf.home import Home
from medperf.image_archives import is_sif, read_image_archive
from medperf.manifest import Manifest, Role
from medperf_contracts.registry import ContainerView


@dataclass(frozen=True)
class Gathering:
    """A bundle's folder while it is filled.

    `platform` is what the site will run containers with: `docker`, `sandbox`, or None for either. `target` is
    pip's words for the site's Python and machine. An image is saved by the first of `engines` that answers.
    """

    folder: Path
    home: Home
    assets: Assets
    engines: Sequence[DockerEngine]
    platform: str | None
    target: Sequence[str]
    say: Callable[[str], None]

    def answer(self, name: str, thing: BaseModel | Sequence[BaseModel]) -> None:
        """Keep what the server says of a thing, or of a list."""
        file = self.folder / ANSWERS / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = thing.model_dump_json().encode() if isinstance(thing, BaseModel) else _as_list(thing)
        file.write_bytes(content)

    def container(self, view: ContainerView, role: Role) -> None:
        """Take in a container: what the server says of it, its files, its packages, its image.

        Raises what stands in the way of running it at a site: IntegrityError, BadManifest, EngineUnavailable where
        its image cannot be had, UsageError where nothing there could run it.
        """
        # Laid out here as it will be there: what cannot be is no use on a stick.
        manifest = fetch_container(view, role=role, home=self.home, assets=self.assets).manifest
        self.answer(f"containers/{view.id}", view)
        if view.additional_files_url is not None and view.additional_files_hash is not None:
            self._asset(view.additional_files_url, view.additional_files_hash)
        can_run = self._sandbox(manifest)
        can_run = self._image(view, manifest, has_another_way=can_run) or can_run
        if not can_run:
            raise UsageError(
                f"Container {view.id} ({view.name}) cannot be run with {self.platform or 'anything'} at a site.",
                hint="Leave out --platform, or ask its owner to register what is missing: a sandbox section, or an"
                " image with its hash.",
            )

    def _asset(self, url: str, sha256: str) -> Path:
        kept = self.assets.fetch(url, sha256)
        place = self.folder / ASSETS / sha256
        place.parent.mkdir(exist_ok=True)
        if not place.exists():
            _link(kept, place)
        return place

    def _sandbox(self, manifest: Manifest) -> bool:
        """Fetch the packages for the sandbox; whether it can run the container."""
        if manifest.sandbox is None or self.platform == "docker":
            return False
        if manifest.sandbox.packages:
            place = self.folder / PACKAGES
            place.mkdir(exist_ok=True)
            download(self.home.environments, manifest.sandbox.packages, place, target=self.target)
        return True

    def _image(self, view: ContainerView, manifest: Manifest, *, has_another_way: bool) -> bool:
        """Take in the image; whether it is here. One that cannot be had is left out where there is another way."""
        if manifest.image_name is None or view.image_hash is None or self.platform == "sandbox":
            return False
        if view.image_url is not None:
            file = self._asset(view.image_url, view.image_hash)
            if not is_sif(file):
                read_image_archive(file, name=view.image_url)
            return True
        try:
            self._save(Image(manifest.image_name, view.image_hash))
        except EngineUnavailable as error:
            if not has_another_way:
                raise
            self.say(f"Left out: the image of container {view.id}; the site runs it in the sandbox. {error}.")
            return False
        return True

    def _save(self, image: Image) -> None:
        place = self.folder / IMAGES / f"{image.sha256}.tar"
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            return
        engine = self._answering()
        with place.open("wb") as file:
            engine.save_image(image, file, on_line=self.say)
        found = read_image_archive(place)
        if image.sha256 not in (found.sha256, *found.digests):
            place.unlink()
            raise EngineUnavailable(
                f"The image {image.name} is registered by the digest of its registry's manifest, which a file of"
                f" {engine.title}'s does not carry",
                hint="Ask its owner to register it as an archive (its --image_url), or have"
                " the site run it in the sandbox (--platform sandbox).",
            )

    def _answering(self) -> DockerEngine:
        """The engine that images are had from; EngineUnavailable, of the first, where none answers."""
        silent: EngineUnavailable | None = None
        for engine in self.engines:
            try:
                engine.check()
            except EngineUnavailable as error:
                silent = silent or error
            else:
                return engine
        if silent is None:
            raise ValueError("no engine is asked for images")
        raise silent


def _as_list(things: Sequence[BaseModel]) -> bytes:
    return TypeAdapter(list[BaseModel]).dump_json(list(things), serialize_as_any=True)


def _link(kept: Path, place: Path) -> None:
    """The same file under a second name, or a copy where the disk has no second names."""
    try:
        os.link(kept, place)
    except OSError:
        shutil.copyfile(kept, place)


def check_is_whole(expected: str, found: str, what: str) -> None:
    """Raise IntegrityError where what the server says of parts does not make the hash of the whole."""
    if expected != found:
        raise IntegrityError(
            f"The hash of {what} is not that of its parts.",
            hint="Do not use it. Tell the server's operator: its registry is damaged or was altered.",
        )
