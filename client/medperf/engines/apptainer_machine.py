"""Which Apptainer this machine has, and what to do where it does not work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from medperf.engines.apptainer_options import SYSTEM_PATH, Installation
from medperf.engines.machine import user_namespaces_remedy
from medperf.errors import EngineUnavailable

# The first that read an image without a set-id program, each.
_OLDEST = {"apptainer": (1, 1), "singularity-ce": (4, 0)}
_INSTALL = (
    "Ask an administrator for `apptainer` (1.1 or later), `squashfuse` and `fuse-overlayfs`; without one,"
    " Apptainer's own `install-unprivileged.sh` installs it into a folder: put its `bin` on PATH."
)
_FUSE = (
    "Apptainer reads images through FUSE: an administrator runs `modprobe fuse` and `chmod 666 /dev/fuse`, which"
    " is usual."
)


def find_program() -> Path:
    """The program; EngineUnavailable where there is none."""
    found = shutil.which("apptainer") or shutil.which("singularity")
    if found is None:
        raise EngineUnavailable("Apptainer (apptainer or singularity) is not on this machine", hint=_INSTALL)
    return Path(found).resolve()


def parse_installation(said: str, program: Path) -> Installation | None:
    """What it is, from its `buildcfg`; None where that says nothing."""
    rows = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    name = "apptainer" if rows.get("PACKAGE_NAME") == "apptainer" else "singularity-ce"
    version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", rows.get("PACKAGE_VERSION", ""))
    configuration = rows.get("APPTAINER_CONF_FILE") or rows.get("SINGULARITY_CONF_FILE")
    if version is None or configuration is None:
        return None
    numbers = tuple(int(part) for part in version.groups() if part is not None)
    own_programs = Path(rows.get("LIBEXECDIR", "/usr/libexec"), name.removesuffix("-ce"), "bin")
    return Installation(program, name, numbers, Path(configuration), own_programs)


def check_installation(found: Installation) -> None:
    """Raise EngineUnavailable for one that is too old, or that would unpack each image at each run."""
    oldest = _OLDEST[found.name]
    if found.version[:2] < oldest:
        raise EngineUnavailable(
            f"{found.title} {'.'.join(map(str, found.version))} is too old: it cannot run images without set-id"
            " programs",
            hint=f"Install {found.title} {'.'.join(map(str, oldest))} or later, or Apptainer 1.1 or later.",
        )
    looked_in = f"{found.own_programs}:{found.program.parent}:{SYSTEM_PATH}"
    if not any(shutil.which(name, path=looked_in) for name in ("squashfuse_ll", "squashfuse")):
        raise EngineUnavailable(
            f"{found.title} has no squashfuse here, through which it reads images",
            hint="Ask an administrator for `squashfuse`.",
        )


def remedy(said: str) -> str:
    """What to do about an Apptainer that failed with these words."""
    if "fuse" in said and re.search(r"/dev/fuse|mount failed", said):
        return _FUSE
    if "overlay" in said:
        return "Ask an administrator for `fuse-overlayfs`."
    if re.search(r"[Nn]amespace|unshare|uid_map|setgroups|proc", said):
        return user_namespaces_remedy()
    return "Look at the message above; `apptainer exec --userns IMAGE true` shows whether Apptainer works."
