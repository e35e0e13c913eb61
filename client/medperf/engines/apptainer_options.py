"""A confinement as Apptainer's command line, and as what the launcher lays around Apptainer.

Pure: facts about the machine come in, nothing is looked up here. Apptainer makes its namespaces inside of the
launcher's, which are stronger: there is no other process, no network and no way to a further namespace, whatever
Apptainer does. Of the machine's own configuration of Apptainer nothing counts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from medperf.engines.base import TaskSpec
from medperf.engines.bubblewrap import INSIDE_ID
from medperf.engines.confinement import Confinement
from medperf.engines.mounts import Mount

# Where the launcher stages what is mounted, and where it lays out the rest.
STAGE = PurePosixPath("/tmp")  # noqa: S108 - a tmpfs of the launcher's own mount namespace
WORK = STAGE / "0"
_OWN = STAGE / "own"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_DEVICES = ("full", "null", "random", "urandom", "zero")
_STREAMS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
_MEMORY = ("/dev/shm", "/tmp")  # noqa: S108 - the container's own
# Its threads and those of what reads the image for it: 18 were counted. A program in Go that gets no more ends.
OVERHEAD_PROCESSES = 32
# Each of its threads reserves a stack of 8 MiB, of which it uses little.
OVERHEAD_BYTES = 128 * 1024**2
# What a plain installation adds to every container is left out, and what a site's administrator adds by this file:
# a confinement is the same on every machine.
_CONFIGURATION = """\
allow setuid = no
config passwd = no
config group = no
config resolv_conf = no
mount proc = yes
mount sys = no
mount dev = no
mount devpts = no
mount home = no
mount tmp = no
mount hostfs = no
mount slave = no
user bind control = yes
enable fusemount = no
enable overlay = yes
enable underlay = yes
sessiondir max size = {layer_mib}
always use nv = no
always use rocm = no
systemd cgroups = no
"""


@dataclass(frozen=True)
class Installation:
    """An Apptainer, or a SingularityCE, on this machine."""

    program: Path
    # As it calls itself: `apptainer`, `singularity`, `singularity-ce`.
    name: str
    version: tuple[int, ...]
    # Its site-wide configuration.
    configuration: Path
    # Where programs that it starts may have come with it.
    own_programs: Path

    @property
    def title(self) -> str:
        """What a person calls it."""
        return "Apptainer" if self.name == "apptainer" else "SingularityCE"

    @property
    def prefix(self) -> str:
        """What its variables' names begin with."""
        return "APPTAINER" if self.name == "apptainer" else "SINGULARITY"


@dataclass(frozen=True)
class Furnished:
    """A command, and what is around it."""

    command: tuple[str, ...]
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    # What the launcher lays out, as its plan has it but for the descriptor of the status.
    enclosure: Mapping[str, object]


def run_options(
    spec: TaskSpec,
    confinement: Confinement,
    *,
    sif: Path,
    folder: PurePosixPath,
    installation: Installation,
) -> Furnished:
    """The run of `spec` of the image `sif`, begun in `folder`."""
    image = Mount(sif, STAGE, writable=False)
    words = ["--userns", "--containall", "--no-eval"]
    home = f"{_OWN}/tmp:/tmp"  # noqa: S108 - the container's own
    words += ["--no-mount", "bind-paths", "--home", home, "--cwd", str(folder)]
    words += ["--mount", _bind(_OWN / "dev", PurePosixPath("/dev"), writable=False)]
    if confinement.root_is_writable:
        words.append("--writable-tmpfs")
    for place, mount in enumerate(confinement.mounts, start=1):
        words += ["--mount", _bind(STAGE / str(place), mount.inside, writable=mount.writable)]
    program = ["exec", *words, f"{STAGE}/0", spec.entrypoint] if spec.entrypoint is not None else []
    program = program or ["run", *words, f"{STAGE}/0"]
    own = {name: value for name, value in confinement.environment.items() if name != "HOME"}
    return Furnished(
        command=(str(installation.program), "--silent", "--nocolor", *program, *spec.arguments),
        mounts=(image, *confinement.mounts),
        environment=MappingProxyType(
            {
                **_environment(installation),
                **{f"{installation.prefix}ENV_{name}": value for name, value in own.items()},
            }
        ),
        enclosure=_enclosure(confinement, installation),
    )


def tool_options(words: tuple[str, ...], confinement: Confinement, *, installation: Installation) -> Furnished:
    """Another command of Apptainer, with the run's only mount, if it has one, to work in."""
    work = {"TMPDIR": str(WORK), f"{installation.prefix}_TMPDIR": str(WORK)}
    return Furnished(
        command=(str(installation.program), "--nocolor", *words),
        mounts=confinement.mounts,
        environment=MappingProxyType({**_environment(installation), **work}),
        enclosure=_enclosure(confinement, installation),
    )


def _environment(installation: Installation) -> dict[str, str]:
    """Apptainer's own: of the caller's nothing reaches it."""
    kept = f"{_OWN}/kept"
    return {
        "PATH": f"{installation.program.parent}:{SYSTEM_PATH}",
        "HOME": kept,
        "LANG": "C.UTF-8",
        # Else it has threads by the number of processors.
        "GOMAXPROCS": "2",
        f"{installation.prefix}_CONFIGDIR": kept,
        f"{installation.prefix}_CACHEDIR": kept,
        f"{installation.prefix}_TMPDIR": kept,
    }


def _enclosure(confinement: Confinement, installation: Installation) -> Mapping[str, object]:
    own = [(f"{_OWN}", 2**20), (f"{_OWN}/kept", 2**24), (f"{_OWN}/dev", 2**16)]
    # Where an image may write over its own files, it does so there.
    layer = confinement.limits.tmp_bytes if confinement.root_is_writable else 0
    return {
        # To a namespace all files of others are this one's, so that an image can be let write over its own.
        "inside_id": INSIDE_ID,
        # Apptainer's own.
        "namespaces": 1,
        "folders": [*own, *((f"{_OWN}{path}", confinement.memory_folders[path]) for path in _MEMORY)],
        "links": {f"{_OWN}/dev/{name}": f"/proc/self/fd{number}" for name, number in _STREAMS.items()},
        "binds": {f"{_OWN}/dev/{name}": f"/dev/{name}" for name in _DEVICES},
        "files_folder": f"{_OWN}/kept",
        "files": {
            # It runs for no user whose name it does not find.
            "/etc/passwd": f"container:x:{INSIDE_ID}:{INSIDE_ID}:container:{_OWN}/kept:/bin/sh\n",
            "/etc/group": f"container:x:{INSIDE_ID}:\n",
            str(installation.configuration): _CONFIGURATION.format(layer_mib=1 + layer // 2**20),
        },
    }


def _bind(source: PurePosixPath, target: PurePosixPath, *, writable: bool) -> str:
    written = io.StringIO()
    fields = ["type=bind", f"source={source}", f"destination={target}", *([] if writable else ["ro"])]
    csv.writer(written, lineterminator="").writerow(fields)
    return written.getvalue()
