"""Datasets prepared on this machine: kept under their identity, found again, checked again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from medperf import safe_yaml
from medperf.credentials import logged_in_user
from medperf.errors import IntegrityError, UsageError
from medperf.files import locked, make_private_folder, write_atomically
from medperf.home import Home
from medperf.identity import (
    FileRecord,
    difference,
    hash_folders,
    identify,
    records_from_json,
)
from medperf_contracts.registry import DatasetView, NewDataset

RECORD = "dataset.yaml"
RECORDS = "records.json"
_LOCKS = ".locks"
# Statistics are at most a megabyte; the rest is a few lines.
_RECORD_LIMIT_BYTES = 4 * 1024 * 1024
# A generated UID has 40 digits; server UIDs stay far below this for as long as anybody types them.
_SERVER_ID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
# Of a generated UID, where a hint says what to type: few enough to type, enough to be one dataset's alone.
_TYPED_DIGITS = 8
# Of a dataset that is not prepared to its end: a generated UID is hex, a server UID digits, this begins neither.
PREPARATION_PREFIX = "prep-"
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


class Link(BaseModel):
    """A dataset's server UID, and whose it is there: the server's ID of the person."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    server_id: int
    owner_id: int


class Preparer(BaseModel):
    """Who was logged in when a dataset was prepared: the server's ID of them, and their name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    user_id: int
    username: str


class LocalDataset(BaseModel):
    """A prepared dataset; `folder` holds `data/`, `labels/`, this record and the records of its files.

    The same data may be registered by each of several people who log in on this machine: `server_id` is the server
    UID of whoever is logged in, in `owner_id`, or of nobody known in records of earlier versions. Nor do these say
    by whom it was prepared.
    """

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
    owner_id: int | None = None
    links_of_others: tuple[Link, ...] = ()
    prepared_by: tuple[Preparer, ...] = ()

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
        recorded = _read_records(self.folder / RECORDS)
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

    def check_prepared_by(self, user_id: int | None, username: str | None) -> None:
        """Raise UsageError where others prepared it: who logs in after them on a machine has not their data."""
        if not self.prepared_by or user_id in {one.user_id for one in self.prepared_by}:
            return
        names = " and ".join(one.username for one in self.prepared_by)
        raise UsageError(
            f"Dataset {self.generated_uid} was prepared on this machine by {names}, and you are logged in as"
            f" {username}: it would be registered as yours.",
            hint=f"Log in as who prepared it (medperf login --username {self.prepared_by[0].username}). If the"
            " data is yours to register, prepare it yourself first: medperf dataset create; its UID is the same.",
        )

    def linked_to(self, server_id: int, owner_id: int | None = None) -> LocalDataset:
        """The dataset with its server UID and whose that is, which are written into its record."""
        seen = self.seen_by(owner_id)
        linked = seen.model_copy(update={"server_id": server_id, "owner_id": owner_id})
        linked.save()
        return linked

    def seen_by(self, user_id: int | None) -> LocalDataset:
        """The dataset as it is for one person: what others registered is no link of theirs."""
        if user_id is None or self.owner_id == user_id:
            return self
        links = {link.owner_id: link.server_id for link in self.links_of_others}
        mine = links.pop(user_id, None)
        owner_id = user_id if mine is not None else None
        if self.server_id is not None:
            if self.owner_id is None:  # of before it was written down whose: of whoever is logged in
                return self
            links[self.owner_id] = self.server_id
        others = tuple(Link(server_id=uid, owner_id=owner) for owner, uid in links.items())
        return self.model_copy(update={"server_id": mine, "owner_id": owner_id, "links_of_others": others})

    def described_as(self, registered: DatasetView) -> LocalDataset:
        """The dataset with what the server says of it, which stands where it was registered before."""
        said = {name: getattr(registered, name) for name in ("name", "description", "location")}
        return self.model_copy(update=said)

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_atomically(self.folder / RECORD, safe_yaml.dump(self.model_dump(mode="json")))


def local_datasets(
    home: Home, *, on_damaged: Callable[[str, IntegrityError], object] | None = None
) -> list[LocalDataset]:
    """Every dataset prepared here, in the order they were made.

    `on_damaged` is told of each whose record cannot be read, by its UID; without it that is IntegrityError.
    """
    found = []
    for folder in sorted(home.datasets.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            found.append(read_dataset(home, folder))
        except IntegrityError as error:
            if on_damaged is None:
                raise
            on_damaged(folder.name, error)
    return sorted(found, key=lambda dataset: dataset.created_at)


def is_server_id(given: str) -> bool:
    """Whether what a person gave is a server UID and not the beginning of a generated one.

    Digits only, at most nine and the first not 0, are a server UID; anything else is a generated one's beginning.
    """
    return _SERVER_ID.fullmatch(given) is not None


def uid_to_type(dataset: LocalDataset) -> str:
    """The beginning of a generated UID that a hint says to type: no server UID, and no other dataset's."""
    uid = dataset.generated_uid
    others = [folder.name for folder in dataset.folder.parent.iterdir() if folder.name != uid]
    for digits in range(_TYPED_DIGITS, len(uid)):
        beginning = uid[:digits]
        if not is_server_id(beginning) and not any(other.startswith(beginning) for other in others):
            return beginning
    return uid


def find_dataset(home: Home, given: str) -> LocalDataset:
    """The dataset that a person means: by server UID, or by the beginning of a generated UID, as `is_server_id`
    tells them apart. UsageError if there is none, or more than one."""
    if given.startswith(PREPARATION_PREFIX):
        raise UsageError(
            f"{given} begins as the UIDs of datasets in preparation do: it has another once it is prepared.",
            hint=f"`medperf dataset prepare --data_uid {given}` goes on with it, where it is one;"
            " `medperf dataset ls --local` shows what is here.",
        )
    damaged: dict[str, IntegrityError] = {}
    known = local_datasets(home, on_damaged=damaged.__setitem__)
    if is_server_id(given):
        for dataset in known:
            if dataset.server_id == int(given):
                return dataset
        _refuse_link_of_another(known, int(given))
        raise _not_here(
            f"No dataset on this machine has the server UID {given}. Up to nine digits that do not begin with 0"
            " are a server UID; of a generated UID give more, ten digits or up to its first letter.",
            damaged,
        )
    begun = given.lower()
    matching = [dataset for dataset in known if given and dataset.generated_uid.startswith(begun)]
    unreadable = [error for uid, error in damaged.items() if given and uid.startswith(begun)]
    if len(matching) == 1 and not unreadable:
        return matching[0]
    if len(unreadable) == 1 and not matching:
        raise unreadable[0]
    if matching or unreadable:
        uids = [*(dataset.generated_uid for dataset in matching), *damaged]
        names = ", ".join(uid for uid in uids if uid.startswith(begun))
        raise UsageError(f"{given!r} begins more than one UID: {names}.", hint="Give more of its digits.")
    raise _not_here(f"No dataset on this machine has a generated UID that begins with {given!r}.", damaged)


def registered_dataset(home: Home, server_id: int) -> LocalDataset:
    """The dataset that is registered under this server UID; UsageError where it is not on this machine."""
    damaged: dict[str, IntegrityError] = {}
    known = local_datasets(home, on_damaged=damaged.__setitem__)
    for dataset in known:
        if dataset.server_id == server_id:
            return dataset
    _refuse_link_of_another(known, server_id)
    raise _not_here(f"The prepared data of dataset {server_id} is not on this machine.", damaged)


def server_ids_of_others(home: Home) -> frozenset[int]:
    """The server UIDs of data on this machine that are those of other people than the one who is logged in."""
    known = local_datasets(home, on_damaged=lambda *_: None)
    return frozenset(link.server_id for dataset in known for link in dataset.links_of_others)


def _refuse_link_of_another(known: list[LocalDataset], server_id: int) -> None:
    for dataset in known:
        if any(link.server_id == server_id for link in dataset.links_of_others):
            raise UsageError(
                f"Dataset {server_id} was registered by somebody else who logged in on this machine.",
                hint="`medperf auth status` shows who you are: log in as that person, or, if it is yours to"
                " register too, prepare it yourself (medperf dataset create), then: `medperf dataset submit"
                f" --data_uid {uid_to_type(dataset)}`.",
            )


def _not_here(message: str, damaged: Mapping[str, IntegrityError]) -> UsageError:
    """The error for a dataset that is not found; one whose record cannot be read may be the one."""
    hint = "`medperf dataset ls --local` shows what is here; `medperf dataset create` prepares a dataset."
    unread = f" The records of {', '.join(damaged)} cannot be read: it may be one of these." if damaged else ""
    return UsageError(message + unread, hint=hint)


def alone_with(
    home: Home, dataset: LocalDataset, *, on_wait: Callable[[str], object] | None = None
) -> AbstractContextManager[None]:
    """Keep other commands off a dataset while this one works on it.

    Busy where another does already; with `on_wait`, which is told of it once, its end is waited for.
    """
    return hold(home, dataset.generated_uid, f"the dataset {dataset.generated_uid}", on_wait)


def read_dataset(home: Home, folder: Path) -> LocalDataset:
    """The dataset kept in a folder, as it is for whoever is logged in.

    IntegrityError where its record cannot be read.
    """
    file = folder / RECORD
    try:
        record = safe_yaml.load(
            file.read_bytes(), what=str(file), limit_bytes=_RECORD_LIMIT_BYTES, error=IntegrityError
        )
        dataset = LocalDataset.model_validate({**record, "folder": folder})
    except (OSError, TypeError, ValidationError, IntegrityError) as error:
        raise IntegrityError(f"The record of a dataset, {file}, cannot be read.", hint=_MEND) from error
    return dataset.seen_by(logged_in_user(home))


def _read_records(file: Path) -> tuple[FileRecord, ...]:
    try:
        return records_from_json(file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"The file records {file} cannot be read.", hint=_MEND) from error


@contextmanager
def hold(home: Home, name: str, what: str, on_wait: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold the lock of this name; with `on_wait` another's end is waited for, else that is Busy."""
    locks = make_private_folder(home.datasets / _LOCKS)
    # However long it takes: what is to be kept took long as well.
    wait_seconds = 0.0 if on_wait is None else math.inf
    with locked(locks / name, what=what, wait_seconds=wait_seconds, on_wait=on_wait):
        yield
