"""What a container is, and what of it may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from medperf_contracts import hashing
from medperf_contracts.access import Role
from medperf_contracts.events import ContainerMadeOperational, ContainerRegistered, ContainerUpdated
from medperf_contracts.registry import ContainerChanges, NewContainer
from medperf_contracts.values import State

from ..errors import AlreadyOperational, ContainerNotValid, NothingRegisteredBehindUrl
from .changes import apply


@dataclass(kw_only=True)
class Container:
    """A container as it was registered. What it does never changes: for that, another one is registered."""

    id: int = field(init=False)
    version: int = field(init=False)
    name: str
    description: str
    owner_id: int
    owner_name: str
    state: State
    is_valid: bool
    hash: str
    manifest: str
    manifest_hash: str
    parameters: str | None
    parameters_hash: str | None
    additional_files_url: str | None
    additional_files_hash: str | None
    image_url: str | None
    image_hash: str | None
    created_at: datetime

    @classmethod
    def register(cls, new: NewContainer, *, by: int, owner_name: str, at: datetime) -> Container:
        """A new container, in development; its hashes are computed here from the texts."""
        manifest_hash = hashing.text_hash(new.manifest)
        parameters_hash = None if new.parameters is None else hashing.text_hash(new.parameters)
        return cls(
            name=new.name,
            description=new.description,
            owner_id=by,
            owner_name=owner_name,
            state=State.DEVELOPMENT,
            is_valid=True,
            hash=hashing.container_hash(
                manifest_hash=manifest_hash,
                parameters_hash=parameters_hash,
                additional_files_hash=new.additional_files_hash,
                image_hash=new.image_hash,
            ),
            manifest=new.manifest,
            manifest_hash=manifest_hash,
            parameters=new.parameters,
            parameters_hash=parameters_hash,
            additional_files_url=new.additional_files_url,
            additional_files_hash=new.additional_files_hash,
            image_url=new.image_url,
            image_hash=new.image_hash,
            created_at=at,
        )

    def registered(self) -> ContainerRegistered:
        """The event of a new container."""
        return ContainerRegistered(**self.facts())

    def update(self, changes: ContainerChanges) -> ContainerUpdated | None:
        """Change what may change in any state; None where nothing differs."""
        for part in ("additional_files", "image"):
            if getattr(changes, f"{part}_url") is not None and getattr(self, f"{part}_hash") is None:
                raise NothingRegisteredBehindUrl(f"Container {self.id} was registered without {part}_hash.")
        if not apply(changes, self):
            return None
        return ContainerUpdated(**self.facts())

    def set_operational(self) -> ContainerMadeOperational:
        """From now on everybody can see it and build on it."""
        if self.state is State.OPERATION:
            raise AlreadyOperational(f"Container {self.id} is in operation already.")
        self.state = State.OPERATION
        return ContainerMadeOperational(**self.facts())

    def check_valid(self) -> None:
        """Refuse to build on a container that is marked invalid."""
        if not self.is_valid:
            raise ContainerNotValid(f'Container {self.id}, "{self.name}", is marked invalid.')

    def roles_of(self, user_id: int) -> set[Role]:
        """What a person is to this container."""
        return {Role.OWNER} if user_id == self.owner_id else set()

    def is_visible_to(self, user_id: int) -> bool:
        """Whether a person who is no administrator may know of it."""
        return user_id == self.owner_id or self.state is State.OPERATION

    def facts(self) -> dict[str, Any]:
        """What every event of this container carries."""
        return {
            "id": self.id,
            "name": self.name,
            "owner_id": self.owner_id,
            "hash": self.hash,
            "state": self.state,
            "is_valid": self.is_valid,
        }
