"""Which services there are, and each put together from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from services.accounts import app as accounts
from services.accounts import commands as accounts_commands
from services.accounts import signing_keys
from services.associations import app as associations
from services.kernel import migrate
from services.kernel.bus import Bus
from services.kernel.service import Definition, Service
from services.kernel.settings import Settings
from services.notifications import app as notifications
from services.registry import app as registry
from services.results import app as results

DEFINITIONS: tuple[Definition, ...] = (
    accounts.DEFINITION,
    registry.DEFINITION,
    associations.DEFINITION,
    results.DEFINITION,
    notifications.DEFINITION,
)


def definition_of(name: str) -> Definition:
    """The service of that name; KeyError if there is none."""
    return {definition.name: definition for definition in DEFINITIONS}[name]


def composed(definition: Definition, settings: Settings, bus: Bus) -> Service:
    """One service, which takes logins by the keys that its settings name."""
    return Service(
        definition, settings, bus, public_keys=lambda: signing_keys.public_keys(settings.public_keys_file)
    )


async def prepare(services: Mapping[str, Service]) -> None:
    """Bring the services' databases to the newest schema, and give the store its identity."""
    for service in services.values():
        await migrate.upgrade(service.database)
    if "accounts" in services:
        async with services["accounts"].database.write() as session:
            await accounts_commands.create_store(session)
    for service in services.values():
        await service.database.close()
