"""One service on an address, as a process: `python gateway_services.py STORE SERVICE HOST PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from services.embedded.server import compose
from services.embedded.store import Store
from services.kernel.bus import EmbeddedBus
from services.kernel.http import build_app


def main(store: str, name: str, host: str, port: str) -> None:
    """Serve until told to stop."""
    services = compose(Store(Path(store)), EmbeddedBus(), host="0.0.0.0", operator_token_hash="nobody's")
    uvicorn.run(
        build_app(services[name]),
        host=host,
        port=int(port),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
