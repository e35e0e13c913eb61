"""The engine that runs a container's image under Apptainer or SingularityCE, as a child process of the client.

Apptainer runs in the launcher's own namespaces, as an unprivileged user who has nothing but what is mounted there:
its set-id programs, configuration and instances are not used (docs/decisions/0013-apptainer.md).
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from medperf.engines.apptainer_machine import check_installation, find_program, parse_installation, remedy
from medperf.engines.apptainer_options import (
    OVERHEAD_BYTES,
    OVERHEAD_PROCESSES,
    WORK,
    Furnished,
    Installation,
    run_options,
    tool_options,
)
from medperf.engines.base import CannotStart, Image, Limits, Outcome, TaskSpec
from medperf.engines.cgroup import Hierarchy
from medperf.engines.confinement import Confinement, confine
from medperf.engines.local import Launch, LocalEngine, Run
from medperf.engines.logs import last_lines
from medperf.engines.machine import read_caller
from medperf.engines.mounts import Mount
from medperf.errors import ClientError, EngineUnavailable
from medperf.image_archives import ImageArchive, as_docker_loads_it, checked_settings

_SIF, _FOLDER = "image.sif", "folder"
# For one machine's use: half the time, a tenth larger. It was tried with 1.4.
_PACKING = ("--mksquashfs-args", "-Xcompression-level 1")
_TAKES_PACKING = (1, 4)
_NOWHERE = Path("/nowhere")
# So Apptainer begins what it says itself.
_SAID = re.compile(r"(FATAL|ERROR) *:")
# When it says that, it is the image's own program that cannot be started.
_OF_THE_IMAGE = re.compile(
    r"executable file not found|exec format error|working directory|FATAL: +(stat|permission) "
)


@dataclass(frozen=True)
class _Sif:
    file: Path
    # Where its program begins.
    folder: PurePosixPath


class ApptainerEngine(LocalEngine):
    """Runs containers that have an image: one that is a Singularity file, or one in an archive.

    `home` is the local folder, which keeps what is made of archives.
    """

    name = "apptainer"
    title = "Apptainer"
    has_images = True

    def __init__(self, home: Path, *, hierarchies: list[Hierarchy] | None = None) -> None:
        super().__init__(hierarchies)
        self._home = home
        self._caller = read_caller()
        # Hashed once for an engine's life: no container can write there.
        self._here: dict[str, _Sif] = {}

    def check(self) -> str:
        """What is here, as a person may want to know it; EngineUnavailable where nothing is, or it is too old."""
        found = self._installation
        return f"{found.title} {'.'.join(map(str, found.version))}"

    def probe(self) -> str:
        """What is here, after it has made a small image and run it; EngineUnavailable with the remedy."""
        from medperf.engines.apptainer_probe import probe_apptainer

        version = self.check()
        probe_apptainer(self)
        return version

    def image_named(self, name: str) -> str | None:
        """None: it keeps images by their hashes only."""
        return None

    def why_no_gpus(self) -> str | None:
        return "Apptainer is given no devices of this machine's"

    def prepare(self, spec: TaskSpec, *, on_line: Callable[[str], None]) -> None:
        self.get_image(_image_of(spec), on_line=on_line)

    def get_image(self, image: Image, *, on_line: Callable[[str], None]) -> str:
        """The ID of the image that is registered, made into a Singularity file where it is none yet.

        EngineUnavailable where it cannot be had.
        """
        if image.sha256 not in self._here:
            self._here[image.sha256] = self._bring(image, on_line)
        return f"sha256:{image.sha256}"

    def start(self, spec: TaskSpec) -> None:
        if spec.run_id in self._runs:
            raise ValueError(f"the run {spec.run_id} was started already")
        image = _image_of(spec)
        self.get_image(image, on_line=lambda _line: None)
        sif = self._here[image.sha256]
        confinement = confine(spec, self._caller)
        furnished = run_options(
            spec,
            confinement,
            sif=sif.file,
            folder=sif.folder,
            installation=self._installation,
        )
        self._begin(spec, confinement, furnished)

    def fault(self, run: Run, report: Mapping[str, int]) -> ClientError | None:
        lines = last_lines(run.spec.log)
        # A container that says nothing but this, and ends so, is taken for Apptainer: its word is not worth more.
        is_own = report.get("exit-code") in (1, 255) and bool(lines) and all(map(_SAID.match, lines))
        if "child-pid" in report and not is_own:
            return None
        said = "\n".join(lines)
        if is_own and _OF_THE_IMAGE.search(said):
            return CannotStart(
                f"The image's program cannot be started: {said}",
                hint="Its owner must correct the image or the manifest's entrypoint.",
            )
        return EngineUnavailable(
            f"Apptainer cannot run a container on this machine; it said\n{said}", hint=remedy(said)
        )

    def make_sif(self, folder: Path, source: str) -> Outcome:
        """Make `image.sif` in a folder of what is there, as Apptainer names it from inside (`docker-archive:…`).

        What it unpacks can do as little as a container: there is no network, no other file, no right. The log,
        beside the folder, says why it failed.
        """
        found = self._installation
        packing = _PACKING if found.name == "apptainer" and found.version[:2] >= _TAKES_PACKING else ()
        return self._run_tool(folder, ("build", "--disable-cache", *packing, f"{WORK}/{_SIF}", source))

    @cached_property
    def _installation(self) -> Installation:
        guessed = Installation(find_program(), "apptainer", (), _NOWHERE, _NOWHERE)
        with tempfile.TemporaryDirectory(prefix="medperf-apptainer-") as place:
            folder = Path(place, "work")
            folder.mkdir()
            # Asked inside too: it answers nobody whose name it does not find.
            outcome = self._run_tool(folder, ("buildcfg",), guessed)
            found = parse_installation(log_of(folder).read_text(errors="replace"), guessed.program)
        if not outcome.succeeded or found is None:
            raise EngineUnavailable(
                f"{guessed.program} does not say its version",
                hint="It is no Apptainer, or a broken one: look at `apptainer buildcfg`.",
            )
        check_installation(found)
        return found

    def _bring(self, image: Image, on_line: Callable[[str], None]) -> _Sif:
        if image.sif is not None:
            return _Sif(image.sif(), PurePosixPath("/"))
        # Late: what needs no archive needs nothing that reads and keeps one.
        from medperf.assets import is_intact, sealed
        from medperf.images import SIFS

        place = self._home / SIFS / image.sha256
        if image.archive is None and not is_intact(place):
            raise EngineUnavailable(
                f"The image {image.name} is known by name only, and {self.title} takes it from a file",
                hint="Import a bundle that has it (`medperf bundle import FILE`), ask its owner to register its"
                " archive (--image_url), or use `--platform docker`.",
            )

        def make(content: Path) -> None:
            if image.archive is None:  # damaged since it was looked at
                raise EngineUnavailable(f"{place} is damaged", hint="Run the same command again.")
            self._convert(image.archive(), image, content, on_line)

        content = sealed(place, make)
        return _Sif(content / _SIF, PurePosixPath((content / _FOLDER).read_text()))

    def _convert(self, archive: ImageArchive, image: Image, content: Path, on_line: Callable[[str], None]) -> None:
        """Fill `content` with a Singularity file of the archive's image, and where its program begins."""
        size = archive.file.stat().st_size / 1e6
        on_line(f"making a Singularity file of the image {image.name} ({size:,.1f} MB); this is done once")
        folder = str(checked_settings(archive).get("WorkingDir") or "/")
        work = content / "work"
        work.mkdir()
        with (work / "image.tar").open("wb") as file:
            for chunk in as_docker_loads_it(archive, with_layout=False):
                file.write(chunk)
        outcome = self.make_sif(work, f"docker-archive:{WORK}/image.tar")
        if not outcome.succeeded or not (work / _SIF).is_file():
            said = "\n".join(f"    {line}" for line in last_lines(log_of(work)))
            raise EngineUnavailable(
                f"{self.title} cannot make a Singularity file of the image {image.name}; it said\n{said}",
                hint="Check the disk's space. If there is some, it is the archive: tell its owner.",
            )
        (work / _SIF).rename(content / _SIF)
        (content / _FOLDER).write_text(folder)
        shutil.rmtree(work)
        log_of(work).unlink()

    def _run_tool(self, folder: Path, words: tuple[str, ...], found: Installation | None = None) -> Outcome:
        """One of Apptainer's own commands, which may write to `folder`, to its end."""
        mount = Mount(folder, PurePosixPath(WORK), writable=True)
        run_id = f"tool{secrets.token_hex(6)}"
        spec = TaskSpec(run_id, words[0], (), (mount,), None, None, log_of(folder), limits=Limits())
        confinement = confine(spec, self._caller)
        self._begin(
            spec,
            confinement,
            tool_options(words, confinement, installation=found or self._installation),
        )
        return self.wait(run_id, on_line=lambda _line: None)

    def _begin(self, spec: TaskSpec, confinement: Confinement, furnished: Furnished) -> None:
        own_root = ("/",) if confinement.root_is_writable else ()
        self.launch(
            Launch(
                spec,
                command=lambda status: (furnished.command, {**furnished.enclosure, "status": status}),
                real_id=confinement.real_id,
                mounts=furnished.mounts,
                memory_folders=(*confinement.memory_folders, *own_root),
                overhead_processes=OVERHEAD_PROCESSES,
                overhead_bytes=OVERHEAD_BYTES,
                environment=furnished.environment,
                # The launcher stays around it, and what is inside knows whether that lives.
                has_gate=False,
                scratch=spec.log.parent / f"{spec.run_id}.tmp",
            )
        )


def log_of(folder: Path) -> Path:
    """Where a command that works in `folder` has its log."""
    return folder.with_name(f"{folder.name}.log")


def _image_of(spec: TaskSpec) -> Image:
    if spec.image is None:
        raise EngineUnavailable(
            "This container has no image: it can only run in the sandbox",
            hint="Use `--platform sandbox`, or ask its owner for an image.",
        )
    return spec.image
