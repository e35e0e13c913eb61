"""A data owner's machine before each step of the path, and what is on the server then."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from faults.clients import Terminal
from faults.federation import raw_data
from medperf import safe_yaml
from medperf.api import Gateway
from medperf.credentials import Keyring
from medperf.datasets import LocalDataset, find_dataset
from medperf.evaluation import Evaluation
from medperf.identity import hash_folders, records_to_json
from medperf.results import name_result
from medperf_contracts.associations import AssociationDecision, AssociationView, NewAssociation
from medperf_contracts.registry import ContainerView, DatasetView
from tutorials.path import EmbeddedServer

BENCHMARK_ID = 1
METRICS_ID = 3
MODEL_ID = 4
_numbers = itertools.count()
# Longer than a test takes, shorter than an access token lasts.
_LOGIN_LEFT_SECONDS = 300.0


@dataclass(frozen=True)
class Stages:
    """`before` has a machine for each step. The person's raw data is in `raw`."""

    server: EmbeddedServer
    raw: Path
    before: dict[str, Terminal] = field(default_factory=dict)

    @classmethod
    def walked(cls, server: EmbeddedServer, terminal: Terminal) -> Stages:
        """Walk the path once, and keep the machine before each step."""
        terminal.folder.mkdir()
        stages = cls(server, raw_data(terminal.folder.with_name("raw"), "one", "three", "fifteen"))
        for name, arguments in stages.commands().items():
            stages.before[name] = terminal.copied_to(terminal.folder.with_name(name.replace(" ", "-")))
            if name == "result submit":
                break  # a result is final: each test has one of its own
            terminal.done(*arguments, stdin="test\n" if name == "login" else "")
            if name == "associate":
                terminal.done("tutorial", "approve")
        return stages

    def at(self, step: str, folder: Path) -> Terminal:
        """A machine of its own, as it is before the step, with a login that lasts for some minutes.

        Copies of one login that must all renew it would end it: the server takes that for theft.
        """
        machine = self.before[step]
        login = Keyring(machine.home.credentials).load()
        if login is not None and login.expires_at - time.time() < _LOGIN_LEFT_SECONDS:
            with self.person(machine) as person:
                person.login(login.username, "test")
        return machine.copied_to(folder)

    def commands(self) -> dict[str, tuple[str, ...]]:
        """What is typed at each step."""
        paths = ("--data_path", str(self.raw / "images"), "--labels_path", str(self.raw / "labels"))
        return {
            "login": ("login", "--username", "testdataowner", "--password_stdin"),
            "create": ("dataset", "create", "--name", "mine", *paths, "--benchmark", "1", "--platform", "sandbox"),
            "submit": ("dataset", "submit", "--data_uid", self.uid_start, "--yes"),
            "associate": ("dataset", "associate", "--benchmark_uid", "1", "--data_uid", "1", "--yes"),
            "run": ("benchmark", "run", "--benchmark", "1", "--data_uid", "1"),
            "result submit": ("result", "submit", "--all", "--yes"),
        }

    @property
    def uid_start(self) -> str:
        """The beginning of the generated UID of the data in `raw`, which is the same on every machine."""
        return "4d7d"

    def with_another_dataset(self, terminal: Terminal) -> LocalDataset:
        """Put a dataset of its own, prepared and not registered, in the place of the machine's."""
        before = find_dataset(terminal.home, self.uid_start)
        (before.data / "case0.txt").write_text(f"ANOTHER {next(_numbers)}")
        identity = hash_folders({"data": before.data, "labels": before.labels})
        folder = before.folder.rename(before.folder.with_name(identity.uid))
        changes = {"folder": folder, "generated_uid": identity.uid, "data_hash": identity.data_hash}
        made = before.model_copy(update={**changes, "server_id": None})
        made.save()
        (folder / "records.json").write_text(records_to_json(identity.records))
        return made

    def with_a_result(self, terminal: Terminal) -> int:
        """Put a dataset that takes part, and its result of model 4, on the machine; the dataset's server UID."""
        made = self.with_another_dataset(terminal)
        with self.person(terminal) as person, self.committee(terminal) as committee:
            dataset = person.post("/datasets", made.body(), DatasetView)
            made.linked_to(dataset.id)
            seen = [f"dataset/{dataset.id}", f"benchmark/{BENCHMARK_ID}"]
            asked = NewAssociation(benchmark_id=BENCHMARK_ID, dataset_id=dataset.id, summary={})
            association = person.post("/associations", asked, AssociationView, seen=seen)
            path = f"/associations/{association.id}/approve"
            committee.post(path, AssociationDecision(reason=""), AssociationView)
            model = person.get(f"/containers/{MODEL_ID}", ContainerView)
            metrics = person.get(f"/containers/{METRICS_ID}", ContainerView)
        now = datetime.now(UTC)
        evaluation = Evaluation(
            dataset_hash=made.data_hash,
            model_hash=model.hash,
            metrics_hash=metrics.hash,
            metrics={"auc": 0.9},
            is_partial=False,
            engine="sandbox",
            started_at=now,
            finished_at=now,
        )
        for name in (terminal.home.results / "names").glob("*.yaml"):
            name.unlink()
        (terminal.home.results / evaluation.key).mkdir()
        record = safe_yaml.dump(evaluation.model_dump(mode="json"))
        (terminal.home.results / evaluation.key / "result.yaml").write_text(record)
        name_result(terminal.home, evaluation, benchmark_id=BENCHMARK_ID, model_id=MODEL_ID, dataset_id=dataset.id)
        return dataset.id

    def person(self, terminal: Terminal) -> Gateway:
        """The server, as the person at the machine talks to it."""
        return Gateway(terminal.home)

    def committee(self, terminal: Terminal) -> Gateway:
        """The server, as the benchmark's committee talks to it."""
        gateway = Gateway(terminal.home, keyring=Keyring(None))
        gateway.login("testbenchmarkowner", "test")
        return gateway
