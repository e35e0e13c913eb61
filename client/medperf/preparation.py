"""Preparing data: a preparation container's tasks on raw data, and what they made kept under its identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from medperf.bodies import in_words
from medperf.containers import LocalContainer
from medperf.credentials import Keyring
from medperf.datasets import RECORDS, LocalDataset, Preparation, Preparer, Source, alone_with, hold, read_dataset
from medperf.engines.outputs import remove_tree
from medperf.errors import IntegrityError, UsageError
from medperf.files import write_atomically
from medperf.home import Home
from medperf.identity import UID_DIGITS, Identity, fingerprint, hash_folders, records_to_json
from medperf.manifest.model import METADATA_PATH
from medperf.preparations import STAGING, InPreparation, go_on, key_of, new_record, reports_by_case
from medperf.reports import read_report
from medperf.tasks import Runner, TaskOutputs
from medperf_contracts.registry import NewDataset

# Inside the folder of the outputs, where none can have this name.
_REPLACED = ".replaced"


@dataclass(frozen=True)
class Description:
    """What a person says of a dataset."""

    name: str
    description: str
    location: str


def prepare(
    runner: Runner,
    container: LocalContainer,
    *,
    data_path: Path,
    labels_path: Path,
    about: Description,
    step: Callable[[str], AbstractContextManager[object]],
    benchmark_id: int | None = None,
    watch: Callable[[InPreparation], AbstractContextManager[object]] = nullcontext,
) -> LocalDataset:
    """Prepare data with a benchmark's preparation container, and keep it under its identity.

    No dataset is kept unless all of prepare, sanity_check and statistics end well; what those of them wrote that
    did waits for the same command. Where the same data was prepared before, that dataset is kept, with what the
    person says of it now unless it is registered already. Another command that works on that one is waited for.
    `step` is entered around each step, by its name.
    Where the container reports case by case, its work is kept until all ended well, and each call goes on with it;
    `watch` is entered, with where that is, while it works.
    """
    _check(about)
    inputs = {"data_path": readable_input(data_path), "labels_path": readable_input(labels_path)}
    source = Source(data_path=_text(inputs["data_path"]), labels_path=_text(inputs["labels_path"]))
    key = key_of(source, container)
    place = hashlib.sha256(key.encode())
    what = f"the preparation of {source.data_path}"
    with hold(runner.home, f"prepare-{place.hexdigest()}", what), ExitStack() as lent:
        runs = []

        def run(
            task: str, bindings: Mapping[str, Path], content: Mapping[str, str] | None, kept_in: Path | None = None
        ) -> TaskOutputs:
            with step(task):
                lend = runner.run(
                    container, task, bindings, purpose="dataset create", content=content, kept_in=kept_in
                )
                outputs = lent.enter_context(lend)
            runs.append(outputs.run_id)
            return outputs

        ongoing: InPreparation | None = None
        made: Mapping[str, str] | None = None
        if reports_by_case(container.manifest):
            ongoing = go_on(
                runner.home,
                key,
                lambda folder, uid: new_record(
                    folder,
                    uid,
                    container=container,
                    source=source,
                    said=(about.name, about.description, about.location),
                    benchmark_id=benchmark_id,
                    prepared_by=_whoever_is_logged_in(runner.home),
                ),
            )
            with watch(ongoing):
                prepared = run("prepare", inputs, {"in_preparation": ongoing.uid}, ongoing.work)
        else:
            prepared = run("prepare", inputs, {name: _fingerprint(path) for name, path in inputs.items()})
            made = dict.fromkeys(("data_path", "labels_path"), prepared.run_id)
        folders = {
            "data_path": prepared.paths["output_path"],
            "labels_path": prepared.paths["output_labels_path"],
        }
        if METADATA_PATH in prepared.paths:
            folders[METADATA_PATH] = prepared.paths[METADATA_PATH]

        def run_on_prepared(task: str) -> TaskOutputs:
            taken = {parameter.name for parameter in container.manifest.tasks[task].inputs}
            return run(task, {name: path for name, path in folders.items() if name in taken}, made)

        run_on_prepared("sanity_check")
        written = run_on_prepared("statistics")
        statistics = read_report(
            written.paths["output_path"], inside=written.folder, what="The statistics of the prepared data"
        )
        with step("hash"):
            try:
                identity = hash_folders({"data": folders["data_path"], "labels": folders["labels_path"]})
            except IntegrityError:
                for run_id in runs:  # it would be so again, each time that it was gone on with
                    runner.journal.release(run_id)
                raise
        dataset = LocalDataset(
            folder=runner.home.datasets / identity.uid,
            generated_uid=identity.uid,
            data_hash=identity.data_hash,
            name=about.name,
            description=about.description if ongoing is None else ongoing.description,
            location=about.location if ongoing is None else ongoing.location,
            preparation=Preparation(id=container.id, name=container.name, hash=container.hash),
            statistics=statistics,
            source=source,
            created_at=datetime.now(UTC),
            prepared_by=_whoever_is_logged_in(runner.home) if ongoing is None else ongoing.prepared_by,
        )
        with alone_with(runner.home, dataset, on_wait=runner.on_line):
            # From now on they are the dataset's, and nobody goes on with what is left of them. The first one last:
            # the others are of its outputs.
            for run_id in reversed(runs):
                runner.journal.release(run_id)
            if ongoing is not None:
                ongoing = ongoing.becomes(identity.uid)
            kept = _keep(runner.home, dataset, identity, prepared)
            if ongoing is not None:
                remove_tree(ongoing.work)
        runner.journal.belong_to(kept.generated_uid, runs)
        return kept


def _whoever_is_logged_in(home: Home) -> tuple[Preparer, ...]:
    kept = Keyring(home.credentials).load()
    return () if kept is None else (Preparer(user_id=kept.user_id, username=kept.username),)


def _keep(home: Home, dataset: LocalDataset, identity: Identity, prepared: TaskOutputs) -> LocalDataset:
    existing = _existing(home, dataset.folder)
    if existing is not None:
        dataset = _continued(existing, dataset)
        if _is_intact(existing):
            dataset.save()
            return dataset
    staging = prepared.folder / STAGING
    staging.mkdir(mode=0o700)
    prepared.paths["output_path"].rename(staging / "data")
    prepared.paths["output_labels_path"].rename(staging / "labels")
    write_atomically(staging / RECORDS, records_to_json(identity.records))
    dataset.model_copy(update={"folder": staging}).save()
    if dataset.folder.exists():
        dataset.folder.rename(prepared.folder / _REPLACED)
    staging.rename(dataset.folder)
    return dataset


def _existing(home: Home, folder: Path) -> LocalDataset | None:
    """What was kept here before; None too where its record is damaged, so that preparing again mends it."""
    try:
        return read_dataset(home, folder)
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
        preparers = tuple(dict.fromkeys((*existing.prepared_by, *dataset.prepared_by)))
        more = {"links_of_others": existing.links_of_others, "prepared_by": preparers}
        return dataset.model_copy(update={**said, **more})
    if existing.preparation.hash != dataset.preparation.hash:
        raise UsageError(
            f"This data is registered as dataset {existing.server_id}, prepared by container"
            f" {existing.preparation.id} ({existing.preparation.name}); now another one made the same files.",
            hint="Use that dataset with benchmarks that share its preparation container.",
        )
    return existing


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
            f"The dataset's {field} cannot be used: {in_words(first)}.", hint=f"Change --{field}."
        ) from error


def _text(path: Path) -> str:
    """A path as text for the record, where a name that is no UTF-8 stands with escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _fingerprint(path: Path) -> str:
    """What tells this data from what it was before; UsageError for what in it cannot be read."""
    try:
        return fingerprint(path)
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read: {error.strerror}.",
            hint="Run medperf as a user who may read all of the data, or mend its permissions; it is only read.",
        ) from error


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
