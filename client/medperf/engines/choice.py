"""Which engine runs a container here, and why: never another one silently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medperf.engines.base import Engine, Image
from medperf.environment import is_set
from medperf.errors import ClientError, EngineUnavailable, Refused, ServerUnreachable
from medperf.manifest.model import ALL_GPUS, Manifest

if TYPE_CHECKING:
    from medperf.engines.apptainer import ApptainerEngine
    from medperf.engines.docker import DockerEngine
    from medperf.engines.sandbox import SandboxEngine
    from medperf.image_archives import ImageArchive
    from medperf.images import ArchivedImage


# A site's word that no container runs unless its engine holds all that it can hold elsewhere.
_REQUIRE = "MEDPERF_REQUIRE_BOUNDS"


class Platform(StrEnum):
    """What a person may ask for."""

    AUTO = "auto"
    DOCKER = "docker"
    PODMAN = "podman"
    APPTAINER = "apptainer"
    SANDBOX = "sandbox"


class Source(StrEnum):
    """Who said which platform it is to be."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    REMEMBERED = "remembered"


# The engines of each platform that are asked for an image, in their order.
_BY_PLATFORM = {
    Platform.AUTO: ("docker", "podman", "apptainer"),
    Platform.DOCKER: ("docker",),
    Platform.PODMAN: ("podman",),
    Platform.APPTAINER: ("apptainer",),
    Platform.SANDBOX: ("sandbox",),
}
# By its source: how a platform was asked for, and how to ask for another.
_ASKED = {
    Source.OPTION: ("--platform {platform}", ""),
    Source.ENVIRONMENT: (
        "MEDPERF_PLATFORM={platform}",
        " MEDPERF_PLATFORM asks for {platform}: change it or unset it, or give `--platform auto`.",
    ),
    Source.REMEMBERED: (
        "remembered --platform {platform}",
        " {platform} is remembered from an earlier `--platform`: `--platform auto` changes it.",
    ),
}


@dataclass(frozen=True)
class Choice:
    """An engine for one container, and why it is this one."""

    engine: Engine
    reason: str


@dataclass(frozen=True)
class Runnable:
    """What decides which engine can run a container."""

    hash: str
    name: str
    manifest: Manifest = field(compare=False)
    image_hash: str | None
    # One that is not is a folder of this machine, and its image the one that Docker has under its name.
    is_registered: bool = True
    archived: ArchivedImage | None = field(default=None, compare=False)
    saved: Callable[[], ImageArchive] | None = field(default=None, compare=False)

    @property
    def image(self) -> Image | None:
        """Its image, where both manifest and registration say which; one in an archive, once that was read."""
        if self.archived is not None:
            return self.archived.known
        if self.manifest.docker is None or self.image_hash is None:
            return None
        return Image(self.manifest.docker.image, self.image_hash, archive=self.saved)


@dataclass
class Engines:
    """The engines of this machine, each made when it is first looked at.

    `home` is the server's local folder, `packages_root` where the sandbox keeps packages. `agree` is asked once,
    with the reason, before `auto` takes the sandbox; it raises where the person does not agree. `say` is told
    each choice, `on_line` how an image comes here, `on_chosen` that the platform gave an engine. `source` is who
    asked for the platform, `gpus` says which of this machine's containers may have.
    """

    platform: Platform
    home: Path
    packages_root: Path
    agree: Callable[[str], None]
    on_line: Callable[[str], None]
    say: Callable[[str], None]
    source: Source = Source.OPTION
    on_chosen: Callable[[], None] = lambda: None
    gpus: Callable[[], tuple[str, ...]] = tuple
    _chosen: dict[Runnable, Choice] = field(default_factory=dict)
    _looked_at: set[str] = field(default_factory=set)

    @cached_property
    def docker(self) -> DockerEngine:
        """The Docker engine, whether it answers or not."""
        from medperf.engines.docker import DockerEngine

        return DockerEngine(self.home)

    @cached_property
    def podman(self) -> DockerEngine:
        """The Podman engine, whether it answers or not."""
        from medperf.engines.docker import DockerEngine
        from medperf.engines.docker_connection import podman

        return DockerEngine(self.home, podman())

    @cached_property
    def apptainer(self) -> ApptainerEngine:
        """Apptainer, whether it works here or not."""
        from medperf.engines.apptainer import ApptainerEngine

        return ApptainerEngine(self.home)

    @cached_property
    def sandbox(self) -> SandboxEngine:
        """The sandbox, whether it works here or not."""
        from medperf.engines.sandbox import SandboxEngine

        return SandboxEngine(self.packages_root)

    def close(self) -> None:
        """Close what was opened to look at engines."""
        for name in vars(self).keys() & {"docker", "podman"}:
            vars(self)[name].close()

    def named(self, name: str) -> Engine:
        """The engine that a record names; ValueError for one that this version does not know."""
        engine: Engine = getattr(self, _BY_PLATFORM[Platform(name)][0])
        return engine

    def choose(self, container: Runnable) -> Choice:
        """The engine for a container, its image brought here; EngineUnavailable says why there is none."""
        if container not in self._chosen:
            try:
                choice = self._choose(container)
                self._look_at(choice.engine)
            except EngineUnavailable as error:
                raise type(error)(str(error), hint=f"{error.hint}{self._how_to_change()}") from error
            self.on_chosen()
            self.say(f"Container {container.name} runs in {choice.engine.name} ({choice.reason})")
            self._tell_gpus(container, choice.engine)
            self._chosen[container] = choice
        return self._chosen[container]

    def _tell_gpus(self, container: Runnable, engine: Engine) -> None:
        """Say where a container does not get the GPUs that it asks for."""
        asked = container.manifest.gpus
        if asked == 0:
            return
        why_not = engine.why_no_gpus()
        there = self.gpus() if why_not is None else ()
        if why_not is None and not there:
            why_not = "there is none here that it may have"
        if why_not is not None:
            self.say(f"Note: {container.name} asks for GPUs. It gets none, and has the processors: {why_not}.")
        elif asked != ALL_GPUS and asked > len(there):
            self.say(f"Note: {container.name} asks for {asked} GPUs. It gets {len(there)}.")

    def _look_at(self, engine: Engine) -> None:
        """Say what an engine cannot hold a container to here; EngineUnavailable where the site forbids that."""
        if engine.name in self._looked_at:
            return
        for weakness in engine.weaknesses():
            if is_set(_REQUIRE):
                raise EngineUnavailable(
                    f"In {engine.name} here {weakness}, and {_REQUIRE}=1 forbids that",
                    hint=f"docs/security.md has what each engine holds. Mend it, or unset {_REQUIRE}.",
                )
            self.say(f"Note: in {engine.name} here {weakness}.")
        self._looked_at.add(engine.name)

    def image_here(self, name: str) -> str | None:
        """The SHA-256 of the image that an engine has under this name; None where none has it, or answers.

        Who wants the sandbox needs none, and no engine is asked.
        """
        for engine in self._with_images():
            try:
                engine.check()
            except EngineUnavailable:
                continue
            return engine.image_named(name)
        return None

    def _choose(self, container: Runnable) -> Choice:
        if self.platform is Platform.SANDBOX:
            _check_sandbox(container)
            return Choice(self.sandbox, self._asked())
        missing = None
        for engine in self._that_may_run(container):
            try:
                image_id = self._image_in(engine, container)
            except _NotThere as why_not:
                # The first that answers is the one that this machine has; if none does, the first is spoken of.
                if missing is None or not why_not.is_silent:
                    missing = why_not
                if not why_not.is_silent:
                    break
                continue
            wanted = "auto" if self.platform is Platform.AUTO else self._asked()
            return Choice(engine, f"{wanted}: it has the registered image {image_id[:19]}")
        if missing is None:
            raise ValueError(f"{self.platform} has no engine")
        if self.platform is not Platform.AUTO or container.manifest.sandbox is None:
            raise missing.error from missing
        self.agree(str(missing.error))
        return Choice(self.sandbox, f"auto, agreed to: {missing}")

    def _with_images(self) -> tuple[DockerEngine | ApptainerEngine, ...]:
        """The engines that are asked for an image, in their order."""
        names = () if self.platform is Platform.SANDBOX else _BY_PLATFORM[self.platform]
        return tuple(getattr(self, name) for name in names)

    def _that_may_run(self, container: Runnable) -> tuple[DockerEngine | ApptainerEngine, ...]:
        if self.platform is Platform.AUTO and container.manifest.is_singularity:
            return (self.apptainer,)
        return self._with_images()

    def _asked(self) -> str:
        return _ASKED[self.source][0].format(platform=self.platform)

    def _how_to_change(self) -> str:
        return "" if self.platform is Platform.AUTO else _ASKED[self.source][1].format(platform=self.platform)

    def _image_in(self, engine: DockerEngine | ApptainerEngine, container: Runnable) -> str:
        """The ID of the container's image, brought here; IntegrityError where another goes by its name.

        That is no reason to take another engine: whoever replaced the image may have replaced more.
        """
        try:
            engine.check()
        except EngineUnavailable as error:
            raise _NotThere(f"no {engine.title} engine answers", error, is_silent=True) from error
        name = container.manifest.image_name
        if name is None:
            missing = EngineUnavailable(
                f"The container {container.name} has no image",
                hint="Use `--platform sandbox`, or ask its owner for an image.",
            )
            raise _NotThere("the container has no image", missing)
        takes_files = engine.name == Platform.APPTAINER
        if takes_files and container.archived is None and container.saved is None:
            # Most are named only: where Docker does not answer, that is what is said of them.
            raise _NotThere("the registered image is in no file", _in_no_file(container, name), is_silent=True)
        image = self._image_of(container, name, engine.title)
        if image.sif is not None and not takes_files:
            raise _NotThere("the image is one of Singularity", _of_singularity(container, engine), is_silent=True)
        try:
            return engine.get_image(image, on_line=self.on_line)
        except (EngineUnavailable, Refused, ServerUnreachable) as error:
            raise _NotThere("the registered image cannot be had", error) from error

    def _image_of(self, container: Runnable, name: str, title: str) -> Image:
        """Which image the container's is; one in an archive is fetched where that is not known yet."""
        if container.archived is not None:
            try:
                return container.archived.identify()
            except (EngineUnavailable, Refused, ServerUnreachable) as error:
                raise _NotThere("the registered image cannot be had", error) from error
        if container.image is None and not container.is_registered:
            missing = EngineUnavailable(
                f"The container {container.name} names the image {name}, which {title} does not have",
                hint=f"Build it, or bring it with `{title.lower()} pull` or `{title.lower()} load`; or use"
                " `--platform sandbox`.",
            )
            raise _NotThere("its image is not here", missing)
        if container.image is None:
            missing = EngineUnavailable(
                f"The container {container.name} was registered without its image's hash: no image can be known to"
                " be the registered one",
                hint="Use `--platform sandbox`, or ask its owner to register it with the image's hash.",
            )
            raise _NotThere("the container was registered without its image's hash", missing)
        return container.image


class _NotThere(Exception):
    """Why an engine does not run a container: in words that may leave the site with a result, and as an error."""

    def __init__(self, why: str, error: ClientError, *, is_silent: bool = False) -> None:
        super().__init__(why)
        self.error = error
        self.is_silent = is_silent


def _in_no_file(container: Runnable, name: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"The container {container.name} names the image {name}, and Apptainer takes images from files only",
        hint="Import a bundle that has the image (`medperf bundle import FILE`), or ask its owner to register its"
        " archive (--image_url).",
    )


def _of_singularity(container: Runnable, engine: DockerEngine | ApptainerEngine) -> EngineUnavailable:
    return EngineUnavailable(
        f"The image of container {container.name} is one of Singularity (SIF), which {engine.title} does not run",
        hint="Use `--platform apptainer`, or ask its owner for an archive made by `docker save`.",
    )


def _check_sandbox(container: Runnable) -> None:
    if container.manifest.sandbox is None:
        raise EngineUnavailable(
            f"The container {container.name} has no sandbox section: it can only run as an image",
            hint="Use `--platform docker`, or ask its owner for a sandbox section.",
        )
