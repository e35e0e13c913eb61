"""Fills an empty embedded server for the tutorial, through its own API, so that events flow as they always do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path

import httpx
from pydantic import TypeAdapter, ValidationError

from medperf_contracts.packing import pack
from medperf_contracts.values import Sha256

from .operator import Answer, Person, reach
from .store import Running, Store, StoreError

DEMO = "data"
PASSWORD = "test"  # noqa: S105 (the tutorial's, known to everybody: a store that has it stays on loopback)
ADMINISTRATOR = "testadmin"
BENCHMARK_OWNER = "testbenchmarkowner"
MODEL_OWNER = "testmodelowner"
DATA_OWNER = "testdataowner"


def seed_data(store: Store, running: Running, images: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Seed the running server for the data owner's tutorial: people, containers, benchmark; no dataset.

    `images` gives the SHA-256 of containers' images by the names of their folders, where there are images.
    """
    with reach(running) as http:
        operator = Person(http, store.operator_token.read_text())
        operator.post("server/seeding", {"demo": DEMO})
        people = _people(http, operator)
        say(f"Accounts (password '{PASSWORD}'): {', '.join(people)}")
        with as_file(files("tutorials")) as tutorials:
            _register(store, Path(tutorials), people, images, say)


def read_images(text: str) -> dict[str, str]:
    """The hashes that `tutorials.images` wrote; StoreError for anything else."""
    try:
        return TypeAdapter(dict[str, Sha256]).validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"The file of images is not what it should be: {error.errors()[0]['msg']}.",
            hint="Make it with: python -m tutorials.images -o images.json",
        ) from None


def _people(http: httpx.Client, operator: Person) -> dict[str, Person]:
    people = {}
    for name in (ADMINISTRATOR, BENCHMARK_OWNER, MODEL_OWNER, DATA_OWNER):
        operator.post("users", {"username": name, "password": PASSWORD, "is_admin": name == ADMINISTRATOR})
        answer = http.post("/api/v1/auth/login", json={"username": name, "password": PASSWORD})
        people[name] = Person(http, answer.raise_for_status().json()["access_token"])
    return people


def _register(
    store: Store,
    tutorials: Path,
    people: dict[str, Person],
    images: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    committee, model_owner = people[BENCHMARK_OWNER], people[MODEL_OWNER]

    def container(folder: str, name: str, owner: Person) -> Answer:
        return _container(store, tutorials / folder, name, images.get(folder), owner)

    preparation = container("preparation", "chest-xray-preparation", committee)
    reference_model = container("reference_model", "chest-xray-logistic", committee)
    metrics = container("metrics", "chest-xray-metrics", committee)
    second_model = container("second_model", "chest-xray-convnet", model_owner)
    say("Containers: 1 preparation, 2 reference model, 3 metrics, 4 second model")
    demo_url, demo_hash = _asset(store, tutorials / "demo_data", "demo-data")
    benchmark = committee.post(
        "benchmarks",
        {
            "name": "chest-xray-tutorial",
            "description": "Finds opacities in chest X-rays: the tutorial's benchmark",
            "preparation_id": preparation.body["id"],
            "reference_model_id": reference_model.body["id"],
            "metrics_id": metrics.body["id"],
            "demo_data_url": demo_url,
            "demo_data_hash": demo_hash,
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


def _container(store: Store, folder: Path, name: str, image_hash: str | None, owner: Person) -> Answer:
    url, digest = _asset(store, folder / "additional_files", name)
    made = owner.post(
        "containers",
        {
            "name": name,
            "manifest": (folder / "mlcube.yaml").read_text(),
            "parameters": (folder / "workspace" / "parameters.yaml").read_text(),
            "additional_files_url": url,
            "additional_files_hash": digest,
            "image_hash": image_hash,
        },
    )
    return owner.post(f"containers/{made.body['id']}/set-operational", {})


def _asset(store: Store, folder: Path, name: str) -> tuple[str, str]:
    """Pack a folder into the served assets; its URL and SHA-256."""
    packed = store.assets / f"{name}.tar.gz"
    digest = pack(folder, packed)
    return f"/assets/{packed.name}", digest
