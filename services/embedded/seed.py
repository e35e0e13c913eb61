"""Fills an empty embedded server for the tutorial, through its own API, so that events flow as they always do."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medperf_contracts.packing import pack
from medperf_contracts.values import Sha256
from services.caller import Answer, Person

from .operator import reach
from .store import Running, Store, StoreError

DEMO = "data"
PASSWORD = "test"  # noqa: S105 (the tutorial's, known to everybody: a store that has it stays on loopback)
ADMINISTRATOR = "testadmin"
BENCHMARK_OWNER = "testbenchmarkowner"
MODEL_OWNER = "testmodelowner"
DATA_OWNER = "testdataowner"
ASSETS = {
    "chest-xray-preparation": "preparation/additional_files",
    "chest-xray-logistic": "reference_model/additional_files",
    "chest-xray-metrics": "metrics/additional_files",
    "chest-xray-convnet": "second_model/additional_files",
    "demo-data": "demo_data",
}


@dataclass(frozen=True)
class Asset:
    """A packed folder among the served assets."""

    url: str
    digest: str


def seed_data(store: Store, running: Running, images: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Seed the running server for the data owner's tutorial: people, containers, benchmark; no dataset.

    `images` gives the SHA-256 of containers' images by the names of their folders, where there are images. Cut off
    at any step, as by a full disk, it goes on from there when it is run again: each step has its own key.
    """
    with (
        reach(running) as http,
        as_file(files("tutorials")) as tutorials,
        store.seeding() as seeding,
    ):
        keys = (str(uuid.uuid5(seeding, str(step))) for step in itertools.count())
        operator = Person(http, store.operator_token.read_text(), keys)
        # Before anything is registered: a half-written one is never trusted.
        assets = {name: _pack(store, Path(tutorials) / folder, name) for name, folder in ASSETS.items()}
        operator.post("server/seeding", {"demo": DEMO})
        people = _people(operator)
        say(f"Accounts (password '{PASSWORD}'): {', '.join(people)}")
        _register(Path(tutorials), assets, people, images, say)


def read_images(text: str) -> dict[str, str]:
    """The hashes that `tutorials.images` wrote; StoreError for anything else."""
    try:
        return TypeAdapter(dict[str, Sha256]).validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"The file of images is not what it should be: {error.errors()[0]['msg']}.",
            hint="Make it with: python -m tutorials.images -o images.json",
        ) from None


def _people(operator: Person) -> dict[str, Person]:
    people = {}
    for name in (ADMINISTRATOR, BENCHMARK_OWNER, MODEL_OWNER, DATA_OWNER):
        operator.post("users", {"username": name, "password": PASSWORD, "is_admin": name == ADMINISTRATOR})
        login = replace(operator, token="").post("auth/login", {"username": name, "password": PASSWORD})
        people[name] = replace(operator, token=login.body["access_token"])
    return people


def _register(
    tutorials: Path,
    assets: dict[str, Asset],
    people: dict[str, Person],
    images: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    committee, model_owner = people[BENCHMARK_OWNER], people[MODEL_OWNER]

    def container(folder: str, name: str, owner: Person) -> Answer:
        return _container(tutorials / folder, name, assets[name], images.get(folder), owner)

    preparation = container("preparation", "chest-xray-preparation", committee)
    reference_model = container("reference_model", "chest-xray-logistic", committee)
    metrics = container("metrics", "chest-xray-metrics", committee)
    second_model = container("second_model", "chest-xray-convnet", model_owner)
    say("Containers: 1 preparation, 2 reference model, 3 metrics, 4 second model")
    benchmark = committee.post(
        "benchmarks",
        {
            "name": "chest-xray-tutorial",
            "description": "Finds opacities in chest X-rays: the tutorial's benchmark",
            "preparation_id": preparation.body["id"],
            "reference_model_id": reference_model.body["id"],
            "metrics_id": metrics.body["id"],
            "demo_data_url": assets["demo-data"].url,
            "demo_data_hash": assets["demo-data"].digest,
        },
    )
    number = benchmark.body["id"]
    committee.post(f"benchmarks/{number}/set-operational", {})
    approved = people[ADMINISTRATOR].post(f"benchmarks/{number}/approve", {})
    request = model_owner.post(
        "associations",
        {"benchmark_id": number, "model_id": second_model.body["id"]},
        seen=(approved.version, second_model.version),
    )
    committee.post(f"associations/{request.body['id']}/approve", {})
    say("Benchmark: 1, approved, with models 2 and 4")


def _container(folder: Path, name: str, additional_files: Asset, image_hash: str | None, owner: Person) -> Answer:
    made = owner.post(
        "containers",
        {
            "name": name,
            "manifest": (folder / "mlcube.yaml").read_text(),
            "parameters": (folder / "workspace" / "parameters.yaml").read_text(),
            "additional_files_url": additional_files.url,
            "additional_files_hash": additional_files.digest,
            "image_hash": image_hash,
        },
    )
    return owner.post(f"containers/{made.body['id']}/set-operational", {})


def _pack(store: Store, folder: Path, name: str) -> Asset:
    packed = store.assets / f"{name}.tar.gz"
    return Asset(f"/assets/{packed.name}", pack(folder, packed))
