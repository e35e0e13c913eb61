"""A container that is not registered yet: a folder on this machine, checked as whoever runs it will check it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from medperf import archives, safe_yaml
from medperf.assets import Assets
from medperf.containers import LocalContainer, fetch_container
from medperf.errors import BadManifest, IntegrityError, UsageError
from medperf.home import Home
from medperf.identity import difference, hash_folders
from medperf.manifest import Kind, Manifest, Role, Task, fitting_roles, lacking, own_inputs, parse_manifest
from medperf.manifest.model import ADDITIONAL_FILES, Parameter, is_additional_files
from medperf_contracts.hashing import container_hash, text_hash
from medperf_contracts.packing import SKIPPED, pack
from medperf_contracts.registry import ContainerView
from medperf_contracts.values import State

# By either name; what it holds says which format it is.
MANIFESTS = ("mlcube.yaml", "container_config.yaml")
PARAMETERS = "parameters.yaml"
_WORKSPACE = "workspace"
_URL = "/draft"
_INTERPRETERS = ("python", "python3", "sh", "bash")
_TOP = "The archive's top is what is in additional_files, not that folder: `medperf container pack` makes it so."
# An ID is at least 1; nothing asks for this one.
_NO_ID = 1
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Draft:
    """What a manifest's file says, with its parameters; `roles` are those whose tasks it has.

    `additional_files` is their folder on this machine, where there is one.
    """

    source: Path
    manifest_text: str
    manifest: Manifest
    roles: tuple[Role, ...]
    parameters_text: str | None
    additional_files: Path | None

    @classmethod
    def read(cls, path: Path, *, parameters: Path | None = None) -> Draft:
        """The container of a folder with a manifest, or of a manifest's file.

        Parameters are `workspace/parameters.yaml` beside the manifest unless they are given. Raises UsageError for
        what is not there, BadManifest for a manifest that breaks a rule or has the tasks of no role, and for
        parameters that are not YAML.
        """
        source = _manifest_in(path) if path.is_dir() else path
        workspace = source.parent / _WORKSPACE
        text = _text(source)
        manifest = parse_manifest(text, what=f"The manifest {source}", is_own=True)
        roles = fitting_roles(manifest)
        if not roles:
            missing = "; ".join(f"{role} lacks {lacking(manifest, role)}" for role in Role)
            raise BadManifest(
                f"The container of {source} can serve in no role: {missing}.",
                hint="Add the tasks of one role; they are listed in docs/containers.md.",
            )
        if parameters is None and (workspace / PARAMETERS).is_file():
            parameters = workspace / PARAMETERS
        parameters_text = None if parameters is None else _text(parameters)
        if parameters_text is not None:
            safe_yaml.load(parameters_text, what=f"The parameters {parameters}")
        folders = (workspace / ADDITIONAL_FILES, source.parent / ADDITIONAL_FILES)
        additional_files = next((folder for folder in folders if folder.is_dir()), None)
        return cls(source, text, manifest, roles, parameters_text, additional_files)

    def check_own_files(self, additional_files: Path | None) -> None:
        """Raise BadManifest, naming it, unless each file of its own that its tasks or sandbox take is there."""
        self._check_program(additional_files)
        for role in self.roles:
            for task, parameter in own_inputs(self.manifest, role):
                self._check_own_file(task, parameter, additional_files)

    def _check_program(self, additional_files: Path | None) -> None:
        command = self.manifest.sandbox.command if self.manifest.sandbox else ()
        if len(command) < 2 or command[0] not in _INTERPRETERS or command[1].startswith(("-", "/")):
            return
        if additional_files is None or not (additional_files / command[1]).is_file():
            raise BadManifest(
                f"The container's sandbox runs {command[1]}, which is not in its additional files.", hint=_TOP
            )

    def _check_own_file(self, task: Task, parameter: Parameter, additional_files: Path | None) -> None:
        path = PurePosixPath(parameter.default)
        what = f"{parameter.default} (tasks.{task.name}.parameters.inputs.{parameter.name})"
        if path.parts[:1] == (ADDITIONAL_FILES,):
            if additional_files is None and is_additional_files(parameter):
                return  # it finds an empty folder
            if additional_files is None:
                raise BadManifest(
                    f"The container takes {what}, but it has no additional files.",
                    hint="Pack them (`medperf container pack`) and give their address with --additional_files.",
                )
            file = additional_files.joinpath(*path.parts[1:])
            kind = Kind.FILE if file.is_file() else Kind.DIRECTORY if file.is_dir() else None
            if kind is None or parameter.kind not in (None, kind):
                raise BadManifest(
                    f"The container takes {what}, which is not in its additional files"
                    + (f" as a {parameter.kind}." if kind else "."),
                    hint=_TOP,
                )
        elif path != PurePosixPath(PARAMETERS):
            raise BadManifest(
                f"The container takes {what}, which will be on nobody's machine: only {PARAMETERS} and"
                f" {ADDITIONAL_FILES}/ are registered.",
                hint=f"Move it to {ADDITIONAL_FILES}/, and its default in the manifest too.",
            )
        elif self.parameters_text is None:
            raise BadManifest(
                f"The container takes {what}, but it has no parameters.",
                hint=f"Write {_WORKSPACE}/{PARAMETERS} beside the manifest, or give --parameters.",
            )

    def check_holds_the_same(self, unpacked: Path, url: str) -> None:
        """Raise IntegrityError where the additional files on this machine are not those that the URL gives.

        What Python leaves beside code that was run does not count, and neither do modes: `pack` takes neither.
        """
        if self.additional_files is None:
            return
        hint = (
            "What is registered stays for good. Pack the folder anew (medperf container pack) and give that"
            " archive's address; if the archive is right, mend the folder, or move it away."
        )
        try:
            own, given = (
                tuple(one for one in hash_folders({ADDITIONAL_FILES: folder}).records if not _is_skipped(one.path))
                for folder in (self.additional_files, unpacked)
            )
        except IntegrityError as error:
            what = f"{self.additional_files} cannot be compared with what {url} holds: {error}"
            raise IntegrityError(what, hint=hint) from error
        if differing := difference(own, given):
            raise IntegrityError(
                f"{url} does not hold what is in {self.additional_files}. There, as against here: {differing}.",
                hint=hint,
            )

    def lay_out(self, folder: Path, role: Role) -> LocalContainer:
        """The container ready to run, laid out in `folder` as it would be once it is registered.

        So what would not be packed is not there either. UsageError for additional files that cannot be packed.
        """
        self.check_own_files(self.additional_files)
        archive = folder / f"{role}.tar.gz"
        archive_hash = None
        if self.additional_files is not None:
            archive_hash = packed(self.additional_files, archive)

        def stream(_: str, sink: Callable[[bytes], object]) -> None:
            with archive.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    sink(chunk)

        try:
            container = fetch_container(
                self._view(archive_hash),
                role=role,
                home=Home("http://localhost", folder),
                assets=Assets(folder / "assets", stream),
            )
            return replace(container, folder=self.source.parent)
        finally:
            archive.unlink(missing_ok=True)

    def _view(self, archive_hash: str | None) -> ContainerView:
        manifest_hash = text_hash(self.manifest_text)
        parameters_hash = None if self.parameters_text is None else text_hash(self.parameters_text)
        return ContainerView.model_validate(
            {
                "id": _NO_ID,
                "version": 1,
                "name": self.manifest.name,
                "description": "",
                "owner_id": _NO_ID,
                "owner_name": "",
                "state": State.DEVELOPMENT,
                "is_valid": True,
                "hash": container_hash(
                    manifest_hash=manifest_hash,
                    parameters_hash=parameters_hash,
                    additional_files_hash=archive_hash,
                    image_hash=None,
                ),
                "manifest": self.manifest_text,
                "manifest_hash": manifest_hash,
                "parameters": self.parameters_text,
                "parameters_hash": parameters_hash,
                "additional_files_url": None if archive_hash is None else _URL,
                "additional_files_hash": archive_hash,
                "image_url": None,
                "image_hash": None,
                "created_at": datetime.now(UTC),
            }
        )


def _manifest_in(folder: Path) -> Path:
    """A folder's manifest; UsageError where it has one of each name. Where it has none, the first name."""
    found = [folder / name for name in MANIFESTS if (folder / name).exists()]
    if len(found) > 1:
        raise UsageError(
            f"{folder} holds both {' and '.join(MANIFESTS)}.",
            hint="Give the file that is to be used, not the folder.",
        )
    return found[0] if found else folder / MANIFESTS[0]


def _is_skipped(path: bytes) -> bool:
    return any(name.encode() in path.split(b"/") for name in SKIPPED)


def packed(folder: Path, destination: Path) -> str:
    """Pack a folder, with a person's words for what cannot be packed; the archive's SHA-256."""
    content = sum(path.lstat().st_size for path in folder.rglob("*"))
    if content > archives.DEFAULT_LIMIT_BYTES:
        raise UsageError(
            f"{folder} holds {content:,} bytes; an archive may hold {archives.DEFAULT_LIMIT_BYTES:,}.",
            hint="Leave out what a run does not need.",
        )
    try:
        return pack(folder, destination)
    except (NotADirectoryError, ValueError) as error:
        raise UsageError(
            f"{folder} cannot be packed: {error}.", hint="Give a folder of plain files and folders, without links."
        ) from error


def _text(file: Path) -> str:
    """A file as it will be sent, with line ends as `\n`; the API takes no other."""
    try:
        with file.open("rb") as opened:
            content = opened.read(safe_yaml.DEFAULT_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}.",
            hint=f"Give a folder with {' or '.join(MANIFESTS)}, or the manifest's file.",
        ) from error
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadManifest(f"{file} is not text in UTF-8.", hint="Save it as UTF-8 text.") from error
