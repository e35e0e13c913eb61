"""Datasets in preparation: the work of days, kept between the commands that go on with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medperf import safe_yaml
from medperf.case_report import CaseReport, read_case_report
from medperf.containers import LocalContainer
from medperf.datasets import (
    PREPARATION_PREFIX,
    Preparation,
    Preparer,
    Source,
    find_dataset,
    local_datasets,
    uid_to_type,
)
from medperf.datasets import RECORD as DATASET_RECORD
from medperf.engines.outputs import remove_tree
from medperf.errors import ContainerFailed, IntegrityError, UsageError
from medperf.files import write_atomically
from medperf.home import Home
from medperf.manifest.model import REPORT_FILE, Manifest

RECORD = "preparation.yaml"
_WORK = "work"
# In `work`, where no output can have this name: what is about to become a dataset.
STAGING = ".dataset"
_UID = re.compile(PREPARATION_PREFIX + "[0-9a-f]{12}", re.ASCII)
_UID_DIGITS = 12
_RECORD_LIMIT_BYTES = 64 * 1024


class InPreparation(BaseModel):
    """A dataset that is not prepared to its end; `work` holds what its container has written so far.

    `generated_uid` is what became of it. What is in `work` stays until then, whatever happens to commands.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    folder: Path = Field(exclude=True)
    uid: str
    name: str
    description: str
    location: str
    benchmark_id: int | None
    preparation: Preparation
    source: Source
    # Inside `work`.
    report: str
    begun_at: datetime
    prepared_by: tuple[Preparer, ...] = ()
    generated_uid: str | None = None

    @property
    def work(self) -> Path:
        """What the container writes to, one folder for each of its outputs."""
        return self.folder / _WORK

    @property
    def data(self) -> Path:
        """The cases as far as they are prepared."""
        return self.work / "output_path"

    @property
    def labels(self) -> Path:
        """Their labels."""
        return self.work / "output_labels_path"

    def read_report(self) -> CaseReport | None:
        """How far its cases are; None where the container has not said, ContainerFailed where it said nonsense."""
        if not (self.work / self.report).is_file():
            return None
        return read_case_report(self.work / self.report, inside=self.work)

    def so_far(self) -> str:
        """How far its cases are, in a line; for lists, where a report that cannot be read is no error."""
        try:
            report = self.read_report()
        except ContainerFailed as broken:
            return f"its report cannot be shown: {broken}"
        return "no report yet" if report is None else str(report)

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_atomically(self.folder / RECORD, safe_yaml.dump(self.model_dump(mode="json")))

    def becomes(self, generated_uid: str) -> InPreparation:
        """Write down what it is about to become, before its files are moved there."""
        becoming = self.model_copy(update={"generated_uid": generated_uid})
        becoming.save()
        return becoming

    @property
    def has_ended(self) -> bool:
        """Whether it became a dataset. One whose command died before that is open, its files still here."""
        if self.generated_uid is None:
            return False
        return not self.work.is_dir() or (self._datasets / self.generated_uid / DATASET_RECORD).is_file()

    @property
    def _datasets(self) -> Path:
        return self.folder.parent.with_name("datasets")

    def take_back(self) -> None:
        """Put files where the container left them that a command which died was about to move."""
        moved = self.work / STAGING
        for name, place in (("data", self.data), ("labels", self.labels)):
            if (moved / name).is_dir() and not place.exists():
                (moved / name).rename(place)
        if moved.is_dir():
            remove_tree(moved)


def reports_by_case(manifest: Manifest) -> bool:
    """Whether a preparation container tells of each case, and so can go on with what it wrote before."""
    return any(parameter.name == REPORT_FILE for parameter in manifest.tasks["prepare"].outputs)


def go_on(home: Home, key: str, begun: Callable[[Path, str], InPreparation]) -> InPreparation:
    """The preparation with this key as it stands, or a new one; `begun` makes its record, of folder and UID.

    Of one that has ended nothing is left but what it became: it begins anew.
    """
    uid = f"{PREPARATION_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:_UID_DIGITS]}"
    folder = home.preparations / uid
    folder.mkdir(mode=0o700, exist_ok=True)
    wanted = begun(folder, uid)
    try:
        known = read_preparation(folder)
    except IntegrityError:
        known = None  # the work is whole without it
    if known is not None and known.has_ended and known.work.is_dir():
        remove_tree(known.work)
    elif known is not None and not known.has_ended:
        known.take_back()
        said = {
            name: getattr(wanted, name) or getattr(known, name) for name in ("name", "description", "location")
        }
        preparers = tuple(dict.fromkeys((*known.prepared_by, *wanted.prepared_by)))
        wanted = wanted.model_copy(update={**said, "begun_at": known.begun_at, "prepared_by": preparers})
    wanted.save()
    return wanted


def key_of(source: Source, container: LocalContainer | Preparation) -> str:
    """What makes two preparations the same: where their raw data is, and which container prepares it."""
    return f"{source.data_path}\0{source.labels_path}\0{container.hash}"


def new_record(
    folder: Path,
    uid: str,
    *,
    container: LocalContainer,
    source: Source,
    said: tuple[str, str, str],
    benchmark_id: int | None,
    prepared_by: tuple[Preparer, ...],
) -> InPreparation:
    """The record of a preparation that begins; `said` are its name, description and location."""
    [report] = [it for it in container.manifest.tasks["prepare"].outputs if it.name == REPORT_FILE]
    name = report.mount_path.name if report.mount_path is not None else Path(report.default).name
    return InPreparation(
        folder=folder,
        uid=uid,
        name=said[0],
        description=said[1],
        location=said[2],
        benchmark_id=benchmark_id,
        preparation=Preparation(id=container.id, name=container.name, hash=container.hash),
        source=source,
        report=f"{REPORT_FILE}/{name}",
        begun_at=datetime.now(UTC),
        prepared_by=prepared_by,
    )


def read_preparation(folder: Path) -> InPreparation | None:
    """The preparation kept in a folder, None where none is; IntegrityError where its record cannot be read."""
    file = folder / RECORD
    try:
        record = safe_yaml.load(
            file.read_bytes(), what=str(file), limit_bytes=_RECORD_LIMIT_BYTES, error=IntegrityError
        )
        return InPreparation.model_validate({**record, "folder": folder})
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValidationError, IntegrityError) as error:
        raise IntegrityError(
            f"The record of a preparation, {file}, cannot be read.",
            hint="`medperf dataset create` with the same paths makes it anew and goes on with the work beside it.",
        ) from error


def preparations(
    home: Home, *, on_damaged: Callable[[str, IntegrityError], object], with_ended: bool = False
) -> list[InPreparation]:
    """The preparations on this machine that have not ended, in the order in which they began.

    `on_damaged` is told of each whose record cannot be read, by its UID.
    """
    found = []
    for folder in sorted(home.preparations.iterdir()):
        if _UID.fullmatch(folder.name) is None:
            continue
        try:
            known = read_preparation(folder)
        except IntegrityError as error:
            on_damaged(folder.name, error)
            continue
        if known is not None and (with_ended or not known.has_ended):
            found.append(known)
    return sorted(found, key=lambda one: one.begun_at)


def find_preparation(home: Home, given: str) -> InPreparation:
    """The dataset in preparation that a person means by its UID, the beginning of that, or its name.

    UsageError where there is none, more than one, or where it has ended: what is prepared never changes.
    """
    damaged: dict[str, IntegrityError] = {}
    known = preparations(home, on_damaged=damaged.__setitem__, with_ended=True)
    begun = [one for one in known if given.startswith(PREPARATION_PREFIX) and one.uid.startswith(given)]
    matching = begun or [one for one in known if one.name == given]
    open_ones = [one for one in matching if not one.has_ended]
    if len(open_ones) == 1:
        return open_ones[0]
    if open_ones:
        names = ", ".join(one.uid for one in open_ones)
        raise UsageError(f"{given!r} is more than one dataset in preparation: {names}.", hint="Give one of these.")
    for uid, error in damaged.items():
        if given.startswith(PREPARATION_PREFIX) and uid.startswith(given):
            raise error
    if matching and matching[-1].generated_uid is not None:
        _refuse_ended(home, matching[-1].generated_uid, matching[-1].uid)
    try:
        uid = find_dataset(home, given).generated_uid
    except UsageError:
        raise UsageError(
            f"No dataset in preparation on this machine has the name or UID {given!r}.",
            hint="`medperf dataset ls --local` shows what is here; `medperf dataset create` begins one.",
        ) from None
    _refuse_ended(home, uid, given)


def _refuse_ended(home: Home, generated_uid: str, given: str) -> NoReturn:
    known = local_datasets(home, on_damaged=lambda *_: None)
    dataset = next((one for one in known if one.generated_uid == generated_uid), None)
    if dataset is None:
        state = f"is prepared, as dataset {generated_uid}"
    elif dataset.server_id is None:
        state = f"is prepared, as dataset {uid_to_type(dataset)}"
    else:
        state = f"is prepared and on the server, as dataset {dataset.server_id}"
    raise UsageError(
        f"{given} {state}: what is prepared is not changed.",
        hint="To prepare its raw data anew: medperf dataset create; where other files come of it, that is another"
        " dataset, and this one stays.",
    )
