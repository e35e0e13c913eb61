"""The notifications service, composed."""

from __future__ import annotations

from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import router
from .consumers import CONSUMERS
from .tables import metadata

DEFINITION = Definition(
    name="notifications",
    title="MedPerf notifications",
    metadata=metadata,
    routers=(router, router_of("notifications")),
    consumers=CONSUMERS,
)
