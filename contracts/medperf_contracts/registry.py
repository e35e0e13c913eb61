"""Bodies and views of the registry: containers, benchmarks, datasets, and how far preparations are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import UUID4, AfterValidator, Field, JsonValue, model_validator

from .values import (
    Blake3,
    Body,
    Changes,
    Decision,
    Document,
    GeneratedUid,
    Id,
    Instant,
    Line,
    Name,
    Prose,
    Sha256,
    State,
    ThingView,
    Url,
)


class NewContainer(Body):
    """A container: its manifest and parameters as text, its larger parts by URL and SHA-256.

    `image_hash` alone is the image's ID or its manifest's digest, for the image that the manifest names; with
    `image_url` it is the SHA-256 of the archive there.
    """

    name: Name
    description: Prose = ""
    manifest: Document
    parameters: Document | None = None
    additional_files_url: Url | None = None
    additional_files_hash: Sha256 | None = None
    image_url: Url | None = None
    image_hash: Sha256 | None = None

    @model_validator(mode="after")
    def _urls_have_hashes(self) -> Self:
        for part in ("additional_files", "image"):
            if getattr(self, f"{part}_url") is not None and getattr(self, f"{part}_hash") is None:
                raise ValueError(f"{part}_url needs {part}_hash, the SHA-256 of what is behind it")
        if self.additional_files_hash is not None and self.additional_files_url is None:
            raise ValueError("additional_files_hash needs additional_files_url")
        return self


class ContainerChanges(Changes):
    """What may change in any state."""

    description: Prose | None = None
    is_valid: bool | None = None
    additional_files_url: Url | None = None
    image_url: Url | None = None


class ContainerView(ThingView):
    """A registered container; `hash` says what it does (see `hashing.container_hash`)."""

    name: str
    description: str
    owner_id: Id
    owner_name: str
    state: State
    is_valid: bool
    hash: Sha256
    manifest: str
    manifest_hash: Sha256
    parameters: str | None
    parameters_hash: Sha256 | None
    additional_files_url: str | None
    additional_files_hash: Sha256 | None
    image_url: str | None
    image_hash: Sha256 | None
    created_at: Instant


class NewBenchmark(Body):
    """A benchmark: its three containers, its demo data, and what of its results is public."""

    name: Name
    description: Prose = ""
    docs_url: Url | None = None
    preparation_id: Id
    reference_model_id: Id
    metrics_id: Id
    demo_data_url: Url | None = None
    demo_data_hash: Sha256 | None = None
    public_scores: bool = False

    @model_validator(mode="after")
    def _demo_data_has_both(self) -> Self:
        if (self.demo_data_url is None) != (self.demo_data_hash is None):
            raise ValueError("demo_data_url and demo_data_hash go together")
        return self


class BenchmarkChanges(Changes):
    """What may change in any state."""

    CLEARABLE: ClassVar[frozenset[str]] = frozenset({"docs_url"})

    description: Prose | None = None
    docs_url: Url | None = None
    demo_data_url: Url | None = None
    is_valid: bool | None = None


class BenchmarkView(ThingView):
    """A registered benchmark; `hash` says what it measures (see `hashing.benchmark_hash`)."""

    name: str
    description: str
    docs_url: str | None
    owner_id: Id
    owner_name: str
    preparation_id: Id
    reference_model_id: Id
    metrics_id: Id
    demo_data_url: str | None
    demo_data_hash: Sha256 | None
    public_scores: bool
    hash: Sha256
    state: State
    approval: Decision
    is_valid: bool
    created_at: Instant


class NewDataset(Body):
    """A prepared dataset's metadata. The data stays where it is."""

    name: Name
    description: Prose = ""
    location: Line = ""
    generated_uid: GeneratedUid
    data_hash: Blake3
    preparation_id: Id
    statistics: dict[str, JsonValue]

    @model_validator(mode="after")
    def _uid_begins_the_hash(self) -> Self:
        if not self.data_hash.startswith(self.generated_uid):
            raise ValueError("generated_uid must be the first 40 hex digits of data_hash")
        return self


class DatasetChanges(Changes):
    """What may change in any state."""

    description: Prose | None = None
    location: Line | None = None
    is_valid: bool | None = None


class DatasetView(ThingView):
    """A registered dataset, as its owner and the owners of benchmarks it asked to join see it."""

    name: str
    description: str
    location: str
    owner_id: Id
    owner_name: str
    generated_uid: GeneratedUid
    data_hash: Blake3
    preparation_id: Id
    preparation_hash: Sha256
    statistics: dict[str, JsonValue]
    state: State
    is_valid: bool
    created_at: Instant


def _one_decimal(number: float) -> float:
    if round(number, 1) != number:
        raise ValueError("must have one decimal at most")
    return number


# Enough for how pipelines number stages (2, and -2.1 for what went wrong there), and little to hide a text in.
StageNumber = Annotated[float, Field(gt=-100, lt=100, strict=True), AfterValidator(_one_decimal)]
STAGES_MOST = 32


class CasesAtStage(Body):
    """How many cases are at a stage, by its number; None counts those whose stage has none."""

    stage: StageNumber | None
    cases: Annotated[int, Field(ge=1, le=10**9, strict=True)]


class NewProgress(Body):
    """How far a site's preparation for a benchmark is: numbers, and nothing else.

    `preparation` is a random number of the site's own, the same each time it tells of the same preparation; once
    that was taken back, another.
    """

    benchmark_id: Id
    preparation: UUID4
    stages: Annotated[tuple[CasesAtStage, ...], Field(min_length=1, max_length=STAGES_MOST)]

    @model_validator(mode="after")
    def _counts_each_stage_once(self) -> Self:
        if len({one.stage for one in self.stages}) < len(self.stages):
            raise ValueError("each stage is counted once")
        return self


class ProgressWithdrawal(Body):
    """What a site wants forgotten, by the number by which it told of it, or may have told."""

    benchmark_id: Id
    preparation: UUID4


class ProgressReceipt(ThingView):
    """That something was told, or taken back: no numbers, since answers are kept for a day."""


class ProgressView(ThingView):
    """How far a preparation is, as the site that prepares and the benchmark's owner see it.

    `began_at` is when the site told of it first, `told_at` when last.
    """

    benchmark_id: Id
    owner_id: Id
    owner_name: str
    preparation: UUID4
    stages: tuple[CasesAtStage, ...]
    began_at: Instant
    told_at: Instant
