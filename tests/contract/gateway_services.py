"""Services on an address, as a process: `python gateway_services.py STORE HOST SERVICE=PORT…`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn

from services.embedded.server import compose
from services.embedded.store import Store
from services.kernel.bus import EmbeddedBus
from services.kernel.http import build_app


async def main(store: str, host: str, *served: str) -> None:
    """Serve until killed."""
    services = compose(Store(Path(store)), EmbeddedBus(), host="0.0.0.0", operator_token_hash="nobody's")
    settings = {"host": host, "log_config": None, "access_log": False, "server_header": False}
    await asyncio.gather(
        *(
            uvicorn.Server(
                uvicorn.Config(build_app(services[name]), port=int(port), proxy_headers=False, **settings)
            ).serve()
            for name, _, port in (each.partition("=") for each in served)
        )
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
