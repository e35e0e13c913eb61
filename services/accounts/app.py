"""The accounts service, composed."""

from __future__ import annotations

from services.kernel.dead_letters_api import router_of
from services.kernel.service import Definition

from .api import router
from .tables import metadata, store
from .tokens import hash_of_password_in

DEFINITION = Definition(
    name="accounts",
    title="MedPerf accounts",
    metadata=metadata,
    first_rows=(store,),
    routers=(router, router_of("accounts")),
    preparations={
        "POST /api/v1/users": hash_of_password_in("password"),
        "POST /api/v1/users/{user_id}/set-password": hash_of_password_in("password"),
        "POST /api/v1/users/me/password": hash_of_password_in("new_password"),
    },
)
