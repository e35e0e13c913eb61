"""Whether Docker runs a container here: found by running one, without any image of anybody's."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from medperf.engines.base import Image
from medperf.engines.logs import last_lines
from medperf.engines.probe import reading_spec
from medperf.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

    from medperf.engines.docker import DockerEngine

_EMPTY_TAR = bytes(1024)


def probe_docker(engine: DockerEngine, client: DockerClient) -> None:
    """Raise EngineUnavailable unless a container of this machine's own programs reads a file that we wrote.

    That fails too where the engine is on another machine: it would not see the data.
    """
    from docker.errors import NotFound

    name = f"medperf-probe:{secrets.token_hex(8)}"
    said = client.api.import_image_from_data(
        _EMPTY_TAR, repository=name.partition(":")[0], tag=name.partition(":")[2]
    )
    sha256 = str(json.loads(said.splitlines()[-1])["status"]).removeprefix("sha256:")
    try:
        with tempfile.TemporaryDirectory(prefix="medperf-probe-") as place:
            folder = Path(place)
            folder.chmod(0o755)
            token = secrets.token_hex(16)
            (folder / "token").write_text(token)
            (folder / "token").chmod(0o644)
            _read_token(engine, folder, Image(name, sha256), token)
    finally:
        try:
            client.images.remove(name, force=True)
        except NotFound:  # Podman leaves what is imported without the name
            client.images.remove(f"sha256:{sha256}", force=True)


def _read_token(engine: DockerEngine, folder: Path, image: Image, token: str) -> None:
    spec = reading_spec(folder, image)
    engine.start(spec)
    lines: list[str] = []
    outcome = engine.wait(spec.run_id, on_line=lines.append)
    engine.discard(spec.run_id)
    if not outcome.succeeded or lines != [token]:
        said = " ".join(last_lines(spec.log, 3)) or "it said nothing"
        raise EngineUnavailable(
            f"A container that reads one file ended with {outcome.cause}, exit code {outcome.exit_code} ({said})",
            hint="Is the engine on another machine, or kept from this one's files? It must see the local folder.",
        )
