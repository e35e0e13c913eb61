"""Datasets prepared on this machine: made by a preparation container, kept under their identity, checked again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from medperf import safe_yaml
from medperf.containers import LocalContainer
from medperf.errors import IntegrityError, UsageError
from medperf.files import locked, make_private_folder, write_atomically
from medperf.home import Home
from medperf.identity import (
    UID_DIGITS,
    FileRecord,
    Identity,
    difference,
    hash_folders,
    identify,
    records_from_json,
    records_to_json,
)
from medperf.reports import read_report
from medperf.tasks import Runner, TaskOutputs
from medperf_contracts.registry import NewDataset

_RECORD = "dataset.yaml"
_RECORDS = "records.json"
_LOCKS = ".locks"
# Inside a run's own folder, where no output can have this name.
_STAGING = ".dataset"
_REPLACED = ".replaced"
# Statistics are at most a megabyte; the rest is a few lines.
_RECORD_LIMIT_BYTES = 4 * 1024 * 1024
# A generated UID has 40 digits; server UIDs stay far below this for as long as anybody types them.
_SERVER_ID_DIGITS = 9
_MEND = "Prepare the data again with `medperf dataset create`; the same input gives the same UID."


class Preparation(BaseModel):
    """The container that prepared a dataset."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str
    hash: str


class Source(BaseModel):
    """Where the data came from, as absolute paths. It is never sent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    data_path: str
    labels_path: str


class LocalDataset(BaseModel):
    """A prepared dataset; `folder` holds `data/`, `labels/`, this record and the records of its files."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    folder: Path = Field(exclude=True)
    generated_uid: str
    data_hash: str
    name: str
    description: str
    location: str
    preparation: Preparation
    statistics: dict[str, JsonValue]
    source: Source
    created_at: datetime
    server_id: int | None = None

    @property
    def data(self) -> Path:
        """The prepared data."""
        return self.folder / "data"

    @property
    def labels(self) -> Path:
        """The prepared labels."""
        return self.folder / "labels"

    def verify(self) -> None:
        """Hash the prepared folders again; IntegrityError names the files that differ."""
        recorded = _read_records(self.folder / _RECORDS)
        if identify(recorded).data_hash != self.data_hash:
            raise IntegrityError(
                f"The file records of dataset {self.generated_uid} are not those its UID was made of.", hint=_MEND
            )
        changes = difference(recorded, hash_folders({"data": self.data, "labels": self.labels}).records)
        if changes:
            raise IntegrityError(
                f"The prepared data of dataset {self.generated_uid} is not what was prepared: {changes}.",
                hint=_MEND,
            )

    def body(self) -> NewDataset:
        """What is sent when the dataset is registered: metadata only."""
        return NewDataset(
            name=self.name,
            description=self.description,
            location=self.location,
            generated_uid=self.generated_uid,
            data_hash=self.data_hash,
            preparation_id=self.preparation.id,
            statistics=self.statistics,
        )

    def linked_to(self, server_id: int) -> LocalDataset:
        """The dataset with its server UID, which is written into its record."""
        linked = self.model_copy(update={"server_id": server_id})
        linked.save()
        return linked

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_atomically(self.folder / _RECORD, safe_yaml.dump(self.model_dump(mode="json")))


@dataclass(frozen=True)
class Description:
    """What a person says of a dataset."""

    name: str
    description: str
    location: str


def local_datasets(home: Home) -> list[LocalDataset]:
    """Every dataset prepared here, in the order they were made."""
    found = [_read(folder) for folder in home.datasets.iterdir() if (folder / _RECORD).exists()]
    return sorted(found, key=lambda dataset: dataset.created_at)


def is_server_id(given: str) -> bool:
    """Whether what a person gave is a server UID rather than the beginning of a generated one."""
    return given.isascii() and given.isdecimal() and len(given) <= _SERVER_ID_DIGITS


def find_dataset(home: Home, given: str) -> LocalDataset:
    """The dataset that a person means: by server UID, or by the beginning of a generated UID.

    A number of at most nine digits that is a local dataset's server UID means that one; anything else is the
    beginning of a generated UID. UsageError if there is none, or more than one.
    """
    known = local_datasets(home)
    if is_server_id(given):
        for dataset in known:
            if dataset.server_id == int(given):
                return dataset
    matching = [dataset for dataset in known if given and dataset.generated_uid.startswith(given.lower())]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(dataset.generated_uid for dataset in matching)
        raise UsageError(f"{given!r} begins more than one UID: {names}.", hint="Give more of its digits.")
    raise UsageError(
        f"No dataset on this machine has the server UID or the generated UID {given!r}.",
        hint="`medperf dataset ls --local` shows what is here; `medperf dataset create` prepares one.",
    )


def registered_dataset(home: Home, server_id: int) -> LocalDataset:
    """The dataset that is registered under this server UID; UsageError where it is not on this machine."""
    for dataset in local_datasets(home):
        if dataset.server_id == server_id:
            return dataset
    raise UsageError(
        f"The prepared data of dataset {server_id} is not on this machine.",
        hint="`medperf dataset ls --local` shows what is here; submit the result where the data is.",
    )


def alone_with(home: Home, dataset: LocalDataset) -> AbstractContextManager[None]:
    """Keep other commands off a dataset while this one works on it; Busy where another does already."""
    return _locked(home, dataset.generated_uid, f"the dataset {dataset.generated_uid}")


def prepare(
    runner: Runner,
    container: LocalContainer,
    *,
    data_path: Path,
    labels_path: Path,
    about: Description,
    step: Callable[[str], AbstractContextManager[object]],
) -> LocalDataset:
    """Prepare data with a benchmark's preparation container, and keep it under its identity.

    Nothing is kept unless all of prepare, sanity_check and statistics end well. Where the same data was prepared
    before, that dataset is kept, with what the person says of it now unless it is registered already. `step` is
    entered around each step, by its name.
    """
    _check(about)
    inputs = {"data_path": readable_input(data_path), "labels_path": readable_input(labels_path)}
    source = Source(data_path=_text(inputs["data_path"]), labels_path=_text(inputs["labels_path"]))
    place = hashlib.sha256(f"{source.data_path}\0{source.labels_path}\0{container.hash}".encode())
    what = f"the preparation of {source.data_path}"
    with _locked(runner.home, f"prepare-{place.hexdigest()}", what), ExitStack() as lent:

        def run(task: str, bindings: Mapping[str, Path]) -> TaskOutputs:
            with step(task):
                return lent.enter_context(runner.run(container, task, bindings, purpose="dataset create"))

        prepared = run("prepare", inputs)
        folders = {
            "data_path": prepared.paths["output_path"],
            "labels_path": prepared.paths["output_labels_path"],
        }
        run("sanity_check", folders)
        written = run("statistics", folders)
        statistics = read_report(
            written.paths["output_path"], inside=written.folder, what="The statistics of the prepared data"
        )
        with step("hash"):
            identity = hash_folders({"data": folders["data_path"], "labels": folders["labels_path"]})
        dataset = LocalDataset(
            folder=runner.home.datasets / identity.uid,
            generated_uid=identity.uid,
            data_hash=identity.data_hash,
            name=about.name,
            description=about.description,
            location=about.location,
            preparation=Preparation(id=container.id, name=container.name, hash=container.hash),
            statistics=statistics,
            source=source,
            created_at=datetime.now(UTC),
        )
        with alone_with(runner.home, dataset):
            return _keep(dataset, identity, prepared)


def _keep(dataset: LocalDataset, identity: Identity, prepared: TaskOutputs) -> LocalDataset:
    existing = _existing(dataset.folder)
    if existing is not None:
        dataset = _continued(existing, dataset)
        if _is_intact(existing):
            dataset.save()
            return dataset
    staging = prepared.folder / _STAGING
    staging.mkdir(mode=0o700)
    prepared.paths["output_path"].rename(staging / "data")
    prepared.paths["output_labels_path"].rename(staging / "labels")
    write_atomically(staging / _RECORDS, records_to_json(identity.records))
    dataset.model_copy(update={"folder": staging}).save()
    if dataset.folder.exists():
        dataset.folder.rename(prepared.folder / _REPLACED)
    staging.rename(dataset.folder)
    return dataset


def _existing(folder: Path) -> LocalDataset | None:
    """What was kept here before; None too where its record is damaged, so that preparing again mends it."""
    try:
        return _read(folder)
    except IntegrityError:
        return None


def _is_intact(dataset: LocalDataset) -> bool:
    try:
        dataset.verify()
    except IntegrityError:
        return False
    return True


def _continued(existing: LocalDataset, dataset: LocalDataset) -> LocalDataset:
    """What stands of a dataset that is prepared once more: all of it once the server knows it, else what is not
    said anew."""
    if existing.server_id is None:
        said = {name: getattr(dataset, name) or getattr(existing, name) for name in ("description", "location")}
        return dataset.model_copy(update=said)
    if existing.preparation.hash != dataset.preparation.hash:
        raise UsageError(
            f"This data is registered as dataset {existing.server_id}, prepared by container"
            f" {existing.preparation.id} ({existing.preparation.name}); now another one made the same files.",
            hint="Use that dataset with benchmarks that share its preparation container.",
        )
    return existing


def _read(folder: Path) -> LocalDataset:
    file = folder / _RECORD
    try:
        record = safe_yaml.load(
            file.read_bytes(), what=str(file), limit_bytes=_RECORD_LIMIT_BYTES, error=IntegrityError
        )
        return LocalDataset.model_validate({**record, "folder": folder})
    except (OSError, TypeError, ValidationError) as error:
        raise IntegrityError(f"The record {file} cannot be read.", hint=_MEND) from error


def _read_records(file: Path) -> tuple[FileRecord, ...]:
    try:
        return records_from_json(file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"The file records {file} cannot be read.", hint=_MEND) from error


@contextmanager
def _locked(home: Home, name: str, what: str) -> Iterator[None]:
    locks = make_private_folder(home.datasets / _LOCKS)
    with locked(locks / name, what=what):
        yield


def _check(about: Description) -> None:
    """The server's bounds on what a person writes: before the work, not after it."""
    try:
        NewDataset(
            name=about.name,
            description=about.description,
            location=about.location,
            generated_uid="0" * UID_DIGITS,
            data_hash="0" * 64,
            preparation_id=1,
            statistics={},
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        raise UsageError(
            f"The dataset's {field} cannot be used: {first['msg']}.", hint=f"Change --{field}."
        ) from error


def _text(path: Path) -> str:
    """A path as text for the record, where a name that is no UTF-8 stands with escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def readable_input(path: Path) -> Path:
    """The absolute path of an input; UsageError unless it is there, can be read and holds something."""
    try:
        resolved = path.resolve(strict=True)
        is_empty = resolved.is_dir() and not any(resolved.iterdir())
        if resolved.is_file():
            resolved.open("rb").close()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the path and its permissions."
        ) from error
    if is_empty:
        raise UsageError(f"{path} is empty.", hint="Give the folder that holds the data.")
    return resolved
