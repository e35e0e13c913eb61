"""Removing what the tutorial made on this machine, and nothing else."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from medperf.datasets import RECORD, LocalDataset, alone_with, local_datasets
from medperf.errors import Busy, IntegrityError
from medperf.evaluation import find_evaluation
from medperf.home import Home, entry_of
from medperf.journal import Journal
from medperf.results import NAMES, LocalResult, forget_result, local_results

from .files import DATASET, TutorialFolder, find_folder

# What commands keep in a server's local folder beside what a person made with them.
_KEPT_BY_COMMANDS = frozenset(
    {
        *("assets", "containers", "datasets", "environments", "results", "runs", "scratch"),
        *("journal.sqlite", "journal.sqlite-shm", "journal.sqlite-wal", "preferences.yaml", "store"),
        *("credentials.json", "credentials.lock", "left-over.lock", "seen.json", "seen.lock"),
    }
)


# In a server's local folder from the moment on when all of it is being removed. Hidden: nobody made it.
_BEGUN = ".tutorial-clean"


@dataclass(frozen=True)
class Leavings:
    """What the tutorial left on this machine.

    `evaluations` are the scores on its datasets, by the folder that each is kept in; `results` are their names.
    `caches` can be fetched again, and the login be made again: both go with the tutorial's dataset. `strangers`,
    in the server's local folder, are not known to be the tutorial's: they stay. `orphans` among them look like the
    tutorial's, but the folder that would prove it is gone.
    """

    folders: tuple[TutorialFolder, ...]
    datasets: tuple[LocalDataset, ...]
    results: tuple[LocalResult, ...]
    evaluations: tuple[Path, ...]
    run_ids: tuple[str, ...]
    caches: tuple[Path, ...]
    login: Path | None
    strangers: tuple[Path, ...]
    orphans: tuple[LocalDataset, ...]
    # Whether a removal of all of it was begun before, and cut off.
    was_begun: bool = False

    @property
    def is_all(self) -> bool:
        """Whether nothing else is in the server's local folder, which then goes whole."""
        return (bool(self.datasets) or self.was_begun) and not self.strangers

    @property
    def is_nothing(self) -> bool:
        """Whether nothing of the tutorial's is here, so that nothing is removed."""
        return not (self.folders or self.datasets or self.is_all)


def find_leavings(home: Home, here: Path) -> Leavings:
    """What the tutorial made: in the folder `here`, and in those that local datasets were prepared from."""
    if not home.root.is_dir():
        folder = find_folder(here)
        return Leavings((folder,) if folder else (), (), (), (), (), (), None, (), ())
    # The mark goes last, and the folder itself after it. Looked at first: what follows makes folders there.
    was_begun = (home.root / _BEGUN).exists() or not any(home.root.iterdir())
    datasets = local_datasets(home, on_damaged=lambda *_: None)
    candidates = {here.absolute(), *(_made_from(dataset) for dataset in datasets)}
    folders = [folder for folder in map(find_folder, sorted(candidates)) if folder is not None]
    sources = {(str(folder.images.resolve()), str(folder.labels.resolve())) for folder in folders}
    mine = [it for it in datasets if (it.source.data_path, it.source.labels_path) in sources]
    uids = {dataset.generated_uid for dataset in mine}
    hashes = {dataset.data_hash for dataset in mine}
    runs = [run.id for run in Journal(home.journal).runs() if run.dataset_uid in uids]
    named = [it for it in local_results(home, on_damaged=lambda *_: None) if it.evaluation.dataset_hash in hashes]
    evaluations = [it for it in _entries(home.results) if it.name != NAMES and _dataset_of(home, it) in hashes]
    caches = [it for it in (home.assets, home.environments, home.containers) if any(it.iterdir())] if mine else []
    known = {
        *(dataset.folder for dataset in mine),
        *(home.results / NAMES / f"{result.name}.yaml" for result in named),
        *evaluations,
        *(home.runs / run_id for run_id in runs),
    }
    return Leavings(
        folders=tuple(folders),
        datasets=tuple(mine),
        results=tuple(named),
        evaluations=tuple(evaluations),
        run_ids=tuple(runs),
        caches=tuple(caches),
        login=home.credentials if mine and home.credentials.exists() else None,
        strangers=tuple(it for it in _made_by_persons(home) if it not in known),
        orphans=tuple(it for it in datasets if it not in mine and not _made_from(it).exists() and _looks_made(it)),
        was_begun=was_begun,
    )


def _made_by_persons(home: Home) -> list[Path]:
    """What is in a server's local folder because somebody wanted it: data, scores, logs, files of their own."""
    return [
        *(entry for entry in _entries(home.root) if entry.name not in _KEPT_BY_COMMANDS),
        *_entries(home.datasets),
        *(entry for entry in _entries(home.results) if entry.name != NAMES),
        *_entries(home.results / NAMES),
        *_entries(home.runs),
    ]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what commands hide there (locks, what is not whole yet) and empty folders."""
    shown = (entry for entry in folder.glob("*") if not entry.name.startswith("."))
    return sorted(entry for entry in shown if not entry.is_dir() or any(entry.iterdir()))


def remove(home: Home, leavings: Leavings) -> list[Path]:
    """Remove them; what of the tutorial's folders a person has put there, and stays.

    For whoever has the local folder alone. Busy, before anything is removed, where a program runs a container or
    works on a dataset all the same. What tells whose a thing is goes after the thing, the tutorial's folders last:
    so that an interrupted removal can be taken up.
    """
    if home.root.is_dir():
        _check_idle(home)
        with ExitStack() as alone:
            for dataset in leavings.datasets:
                alone.enter_context(alone_with(home, dataset))
            _remove_local(home, leavings)
    return [entry for folder in leavings.folders for entry in folder.remove()]


def _remove_local(home: Home, leavings: Leavings) -> None:
    if leavings.is_all:
        (home.root / _BEGUN).touch()
    for result in leavings.results:
        forget_result(home, result)
    for folder in (*leavings.evaluations, *(home.runs / run_id for run_id in leavings.run_ids), *leavings.caches):
        _remove_tree(folder)
    Journal(home.journal).forget(list(leavings.run_ids))
    if leavings.login is not None:
        leavings.login.unlink(missing_ok=True)
    for dataset in leavings.datasets:
        _remove_but_last(dataset.folder, RECORD)
    if leavings.is_all:
        _remove_but_last(home.root, _BEGUN)
        entry = entry_of(home.server)
        if entry.is_symlink():
            entry.unlink()


def _remove_tree(folder: Path) -> None:
    """Remove a folder, also where somebody else removes it at the same time."""
    while folder.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _remove_but_last(folder: Path, name: str) -> None:
    """Remove a folder, the file that tells whose it is after all else in it."""
    for entry in list(folder.iterdir()):
        if entry.is_dir():
            _remove_tree(entry)
        elif entry.name != name:
            entry.unlink(missing_ok=True)
    (folder / name).unlink(missing_ok=True)
    _remove_tree(folder)


def _check_idle(home: Home) -> None:
    for run in Journal(home.journal).runs():
        if run.state in ("queued", "running") and run.client.is_alive():
            raise Busy(
                f"Another command runs {run.task} of {run.container_name} (process {run.client.pid}).",
                hint="Wait until it has ended, or end it, then run this command again.",
            )


def _made_from(dataset: LocalDataset) -> Path:
    return Path(dataset.source.data_path).parent.parent


def _looks_made(dataset: LocalDataset) -> bool:
    return Path(dataset.source.data_path).parent.name == DATASET


def _dataset_of(home: Home, folder: Path) -> str | None:
    try:
        evaluation = find_evaluation(home, folder.name)
    except IntegrityError:
        return None  # whose it is cannot be told
    return None if evaluation is None else evaluation.dataset_hash
