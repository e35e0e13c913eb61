"""A registered container on this machine: checked against its hashes and laid out to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medperf import archives
from medperf.assets import CONTENT, Assets, sealed
from medperf.cache import note_container
from medperf.engines.choice import Runnable
from medperf.errors import BadManifest, IntegrityError, UsageError
from medperf.home import Home
from medperf.image_archives import ImageArchive
from medperf.images import ArchivedImage, saved_image
from medperf.manifest import Manifest, Role, parse_manifest, require_tasks
from medperf.manifest.model import ADDITIONAL_FILES, takes_additional_files
from medperf_contracts.hashing import container_hash, text_hash
from medperf_contracts.registry import ContainerView

_MANIFEST = "manifest.yaml"


@dataclass(frozen=True)
class LocalContainer:
    """A container whose parts are here and are those that are registered; `hash` says what it does.

    One that is not registered has the `folder` that it is from.
    """

    id: int
    name: str
    hash: str
    manifest: Manifest
    workspace: Path
    image_hash: str | None = None
    folder: Path | None = None
    archived_image: ArchivedImage | None = None
    saved_image: Callable[[], ImageArchive] | None = None

    @property
    def runnable(self) -> Runnable:
        """What decides which engine can run it."""
        name = f"{self.id} ({self.name})" if self.folder is None else f"of {self.folder}"
        return Runnable(
            self.hash,
            name,
            self.manifest,
            self.image_hash,
            is_registered=self.folder is None,
            archived=self.archived_image,
            saved=self.saved_image,
        )

    @property
    def code(self) -> Path | None:
        """The unpacked additional files, if it has any."""
        folder = self.workspace / ADDITIONAL_FILES
        return folder if folder.is_dir() else None


def fetch_container(view: ContainerView, *, role: Role, home: Home, assets: Assets) -> LocalContainer:
    """Bring a registered container here for a role.

    Raises IntegrityError where a part is not what its hash says, BadManifest where the manifest breaks a rule or
    lacks the role's tasks, UsageError where its owner marked it as not valid.
    """
    if not view.is_valid:
        raise UsageError(
            f"Its owner marked the container {_named(view)} as not valid.",
            hint="Ask the benchmark's owner which container replaces it.",
        )
    check_hashes(view)
    manifest = parse_manifest(view.manifest, what=f"The manifest of container {_named(view)}")
    require_tasks(manifest, role)
    archive: Path | None = None
    if view.additional_files_url is not None and view.additional_files_hash is not None:
        archive = assets.fetch(view.additional_files_url, view.additional_files_hash)

    def lay_out(folder: Path) -> None:
        (folder / _MANIFEST).write_bytes(view.manifest.encode())
        workspace = folder / "workspace"
        workspace.mkdir()
        if view.parameters is not None:
            (workspace / "parameters.yaml").write_bytes(view.parameters.encode())
        if archive is not None:
            archives.extract(archive, workspace / ADDITIONAL_FILES)
        elif takes_additional_files(manifest):
            # It has none, and finds an empty folder: manifests name the place whether there is something or not.
            (workspace / ADDITIONAL_FILES).mkdir()

    folder = sealed(home.containers / view.hash, lay_out)
    note_container(folder.parent, view)
    # Behind a URL is an archive, and the hash is the archive's.
    archived = None
    if view.image_url is not None and view.image_hash is not None and manifest.image_name is not None:
        archived = ArchivedImage(manifest.image_name, view.image_url, view.image_hash, assets)
    named = view.image_hash if view.image_url is None else None
    return LocalContainer(
        view.id,
        view.name,
        view.hash,
        manifest,
        folder / "workspace",
        image_hash=named,
        archived_image=archived,
        saved_image=None if named is None else saved_image(assets, named),
    )


def known_name(home: Home, registered_hash: str) -> str | None:
    """What the manifest of a container that was brought here before calls it; None where that cannot be read."""
    file = home.containers / registered_hash / CONTENT / _MANIFEST
    try:
        return parse_manifest(file.read_text(encoding="utf-8"), what=str(file)).name or None
    except (OSError, UnicodeError, BadManifest):
        return None


def check_hashes(view: ContainerView) -> None:
    """Raise IntegrityError, naming the part, unless what the server sent is what its hashes say."""
    _check("manifest", view.manifest, view.manifest_hash, view)
    _check("parameters", view.parameters, view.parameters_hash, view)
    whole = container_hash(
        manifest_hash=view.manifest_hash,
        parameters_hash=view.parameters_hash,
        additional_files_hash=view.additional_files_hash,
        image_hash=view.image_hash,
    )
    if whole != view.hash:
        raise _differs("hash", view)


def _check(part: str, text: str | None, registered: str | None, view: ContainerView) -> None:
    if (None if text is None else text_hash(text)) != registered:
        raise _differs(part, view)


def _differs(part: str, view: ContainerView) -> IntegrityError:
    return IntegrityError(
        f"The {part} of container {_named(view)} is not what its registered hash says.",
        hint="Do not run it. Tell the server's operator: its registry is damaged or was altered.",
    )


def _named(view: ContainerView) -> str:
    return f"{view.id} ({view.name})"
