"""The accounts service, composed."""

from __future__ import annotations

from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import router
from .tables import metadata

DEFINITION = Definition(
    name="accounts",
    title="MedPerf accounts",
    metadata=metadata,
    routers=(router, router_of("accounts")),
)
