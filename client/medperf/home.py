"""Where the client keeps its things: one folder for each server, under `~/.medperf` or `MEDPERF_HOME`."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from .environment import is_set
from .errors import Busy, StoreChanged, UsageError
from .files import make_private_folder, remove_abandoned, write_atomically
from .folder_lock import FolderLock

if TYPE_CHECKING:
    from medperf_contracts.accounts import ServerView

SERVER_DEFAULT = "http://localhost:8000"
# Any folder on that disk would fail the same: whoever catches all commands' errors says so.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_PORTS = {"http": 80, "https": 443}
# What was copied to another disk, and is being removed.
MOVED_PREFIX = ".{}.moved-"
# Where files and folders are written that are not whole at once, relative to the root. What containers write and
# what containers are laid out of is found again by their own records.
_WRITTEN_IN = ("assets/sha256", "containers/*", "datasets/*", "environments", "preparations/*", "results/*")


def server_url(option: str | None, *, allow_http: bool = False) -> str:
    """The server to talk to: the option, else `MEDPERF_SERVER`, else `http://localhost:8000`, normalised.

    UsageError for what is not a server's address, and for plain http to another machine unless that was asked
    for: a login token would cross the network readable.
    """
    given = option or os.environ.get("MEDPERF_SERVER") or SERVER_DEFAULT
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise _not_an_address(given) from error
    host = parts.hostname
    if parts.scheme not in _PORTS or host is None or not re.fullmatch(r"[a-z0-9.:-]+", host) or port == 0:
        raise _not_an_address(given)
    if parts.username or parts.password or parts.path.strip("/") or parts.query or parts.fragment:
        raise _not_an_address(given)
    if parts.scheme == "http" and not (is_loopback(host) or allow_http or allows_plain_http()):
        raise UsageError(
            f"{given} is not on this machine and is not https: your login would cross the network readable.",
            hint=f"Use https://{parts.netloc}, or ask the operator for the server's https address. On a network"
            " that you trust whole, --allow_http (MEDPERF_ALLOW_HTTP=1) lets it pass.",
        )
    return f"{parts.scheme}://{_bracketed(host)}{'' if port in (None, _PORTS[parts.scheme]) else f':{port}'}"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allows_plain_http() -> bool:
    """Whether `MEDPERF_ALLOW_HTTP` asks for plain http to other machines; UsageError for what is no yes or no."""
    return is_set("MEDPERF_ALLOW_HTTP")


def base_folder() -> Path:
    """The folder that holds one folder a server: `MEDPERF_HOME`, else `~/.medperf`, without links in its path."""
    named = os.environ.get("MEDPERF_HOME")
    return _without_links(Path(named).expanduser() if named else Path.home() / ".medperf")


def entry_of(server: str) -> Path:
    """Where the local folder of a server is looked for: the folder itself, or a link to it."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    name = f"ipv6-{host.replace(':', '-')}" if ":" in host else host
    return base_folder() / f"{name}_{_port(parts)}"


@dataclass(frozen=True)
class Home:
    """The local folder that belongs to one server. Folders are made when first asked for, for their owner only."""

    server: str
    root: Path

    @classmethod
    def at(cls, server: str) -> Home:
        """The folder of the server at a normalised address, such as `~/.medperf/localhost_8000`."""
        entry = entry_of(server)
        root = _without_links(entry)
        if os.path.islink(entry) and not root.exists():  # noqa: PTH114 - Path.is_symlink raises for a name too long
            # Made anew it would be empty: where a disk is not mounted, another one than the one that was meant.
            raise UsageError(
                f"{entry} leads to {root}, and there is nothing.",
                hint="Mount its disk. Where the folder is gone for good, remove the link, or make the folder.",
            )
        return cls(server, root)

    def folder(self, name: str) -> Path:
        """A folder of this home, made if it is not there."""
        return own_folder(self.root / name)

    @contextmanager
    def lock(self) -> Iterator[FolderLock]:
        """Work in this folder beside other commands; Busy while one moves or removes it.

        Every command that works in the folder holds it to its end: see `FolderLock`.
        """
        # By the name under which all look for it, wherever it lies.
        entry = entry_of(self.server)
        own_folder(entry.parent)
        with FolderLock.shared(entry) as lock:
            if _without_links(entry) != self.root:
                raise Busy(f"{self.root} was moved just now.", hint="Run this command again.")
            yield lock

    @property
    def datasets(self) -> Path:
        """Prepared datasets, each in a folder named by its generated UID."""
        return self.folder("datasets")

    @property
    def preparations(self) -> Path:
        """Datasets in preparation, each in a folder named by its UID."""
        return self.folder("preparations")

    @property
    def results(self) -> Path:
        """Results of runs, submitted or not."""
        return self.folder("results")

    @property
    def assets(self) -> Path:
        """Downloaded files, named by their SHA-256."""
        return self.folder("assets")

    @property
    def environments(self) -> Path:
        """Packages installed for sandboxed containers."""
        return self.folder("environments")

    @property
    def containers(self) -> Path:
        """Containers laid out to run."""
        return self.folder("containers")

    @property
    def runs(self) -> Path:
        """One folder for each run of a container's task."""
        return self.folder("runs")

    @property
    def journal(self) -> Path:
        """The SQLite file that records each run."""
        return self.folder(".") / "journal.sqlite"

    @property
    def preferences(self) -> Path:
        """What the person decided once, such as the platform."""
        return self.folder(".") / "preferences.yaml"

    @property
    def credentials(self) -> Path:
        """The login's tokens."""
        return self.folder(".") / "credentials.json"

    @property
    def seen(self) -> Path:
        """The versions of things that the server has shown lately."""
        return self.folder(".") / "seen.json"

    @property
    def store(self) -> Path:
        """The identity of the server's store that this folder belongs to."""
        return self.folder(".") / "store"

    def tidy(self) -> None:
        """Remove what commands that were killed left half-written."""
        try:
            self.root.lstat()
        except OSError:  # nothing is there, or nothing can be: whoever needs the folder says why
            return
        remove_abandoned(self.root)
        for pattern in _WRITTEN_IN:
            for folder in self.root.glob(pattern):
                remove_abandoned(folder)
        entry = entry_of(self.server)
        for old in entry.parent.glob(f"{MOVED_PREFIX.format(entry.name)}*"):
            if old.is_symlink():
                old.unlink()
            elif os.path.islink(entry):  # noqa: PTH114 - as in `at`
                shutil.rmtree(old, ignore_errors=True)

    def check_store(self, answered: ServerView) -> None:
        """Remember which store this folder belongs to, or raise StoreChanged when another one answers now."""
        store_id = str(answered.store_id)
        if not self.store.exists():
            write_atomically(self.store, store_id + "\n")
            return
        known = self.store.read_text().strip()
        if known != store_id:
            raise StoreChanged(
                f"{self.server} now answers with another store than before: server UIDs kept in {self.root} "
                "mean nothing there.",
                hint="If the server was reset on purpose, run `medperf login --yes`: it sets the old folder aside "
                "and logs you in to the new store. If not, ask the operator.",
            )

    def set_aside(self) -> Path:
        """Rename this folder, with everything in it, so that a new one can take its place; return its new path.

        Only for whoever has the folder alone.
        """
        stem = f"{self.root.name}.set-aside-{datetime.now().astimezone():%Y-%m-%d}"
        for number in range(1, 1000):
            target = self.root.with_name(stem if number == 1 else f"{stem}-{number}")
            if not target.exists():
                self.root.rename(target)
                if entry_of(self.server).is_symlink():
                    # What leads to it leads to the new one.
                    own_folder(self.root)
                return target
        raise UsageError(
            f"There are 999 folders named {stem}-… already.", hint=f"Remove some of them from {self.root.parent}."
        )


def own_folder(path: Path) -> Path:
    """A folder for the client's own files, made if it is not there; UsageError where it cannot be."""
    try:
        return make_private_folder(path)
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise
        raise UsageError(
            f"The folder {path} cannot be made: {error.strerror}.",
            hint="Set MEDPERF_HOME to a folder of yours, or mend its owner and permissions.",
        ) from error


def _without_links(path: Path) -> Path:
    """The one name of a folder: whoever compares paths in it, or labels something with it, compares this."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise UsageError(
            f"The folder {path} cannot be reached: {error}.", hint="Set MEDPERF_HOME to a folder of yours."
        ) from error


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _not_an_address(given: str) -> UsageError:
    return UsageError(
        f"{given!r} is not a server's address.",
        hint="Give --server or MEDPERF_SERVER as http://localhost:8000 or https://host[:port], nothing after it.",
    )
