"""Removing what the tutorial made on this machine, and nothing else."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medperf.datasets import LocalDataset, alone_with, local_datasets
from medperf.errors import Busy
from medperf.evaluation import find_evaluation
from medperf.home import Home
from medperf.journal import Journal
from medperf.results import LocalResult, forget_result, local_results

from .files import DATASET, TutorialFolder, find_folder


@dataclass(frozen=True)
class Leavings:
    """What the tutorial left on this machine.

    `evaluations` are the scores on its datasets, by the folder that each is kept in; `results` are their names.
    `caches` can be fetched again, and the login be made again: both go with the tutorial's folder or dataset.
    `is_all` says that no other dataset is in the server's local folder, which then goes whole. `orphans` look like
    the tutorial's, but the folder that would prove it is gone: they stay.
    """

    folders: tuple[TutorialFolder, ...]
    datasets: tuple[LocalDataset, ...]
    results: tuple[LocalResult, ...]
    evaluations: tuple[Path, ...]
    run_ids: tuple[str, ...]
    caches: tuple[Path, ...]
    login: Path | None
    is_all: bool
    orphans: tuple[LocalDataset, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether nothing of the tutorial's is here, so that nothing is removed."""
        return not (self.folders or self.datasets)


def find_leavings(home: Home, here: Path) -> Leavings:
    """What the tutorial made: in the folder `here`, and in those that local datasets were prepared from."""
    if not home.root.is_dir():
        folder = find_folder(here)
        return Leavings((folder,) if folder else (), (), (), (), (), (), None, False, ())
    datasets = local_datasets(home)
    candidates = {here.absolute(), *(_made_from(dataset) for dataset in datasets)}
    folders = [folder for folder in map(find_folder, sorted(candidates)) if folder is not None]
    sources = {(str(folder.images.resolve()), str(folder.labels.resolve())) for folder in folders}
    mine = [it for it in datasets if (it.source.data_path, it.source.labels_path) in sources]
    uids = {dataset.generated_uid for dataset in mine}
    hashes = {dataset.data_hash for dataset in mine}
    runs = [run for run in Journal(home.journal).runs() if run.dataset_uid in uids]
    return Leavings(
        folders=tuple(folders),
        datasets=tuple(mine),
        results=tuple(result for result in local_results(home) if result.evaluation.dataset_hash in hashes),
        evaluations=tuple(
            folder for folder in sorted(home.results.iterdir()) if _dataset_of(home, folder) in hashes
        ),
        run_ids=tuple(run.id for run in runs),
        caches=tuple(
            folder for folder in (home.assets, home.environments, home.containers) if any(folder.iterdir())
        ),
        login=home.credentials if home.credentials.exists() else None,
        is_all=len(mine) == len(datasets),
        orphans=tuple(it for it in datasets if it not in mine and not _made_from(it).exists() and _looks_made(it)),
    )


def remove(home: Home, leavings: Leavings) -> list[Path]:
    """Remove them; what of the tutorial's folders a person has put there, and stays.

    Busy, before anything is removed, while another command runs a container or works on a dataset. What tells
    whose a thing is goes after the thing, the tutorial's folders last: so that an interrupted removal can be taken
    up.
    """
    if home.root.is_dir():
        _check_idle(home)
        with ExitStack() as alone:
            for dataset in leavings.datasets:
                alone.enter_context(alone_with(home, dataset))
            _remove_local(home, leavings)
    return [entry for folder in leavings.folders for entry in folder.remove()]


def _remove_local(home: Home, leavings: Leavings) -> None:
    for result in leavings.results:
        forget_result(home, result)
    for folder in (*leavings.evaluations, *(home.runs / run_id for run_id in leavings.run_ids), *leavings.caches):
        if folder.exists():
            shutil.rmtree(folder)
    Journal(home.journal).forget(list(leavings.run_ids))
    for dataset in leavings.datasets:
        shutil.rmtree(dataset.folder)
    if leavings.login is not None:
        leavings.login.unlink(missing_ok=True)
    if leavings.is_all:
        shutil.rmtree(home.root)


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
    evaluation = find_evaluation(home, folder.name)
    return None if evaluation is None else evaluation.dataset_hash
