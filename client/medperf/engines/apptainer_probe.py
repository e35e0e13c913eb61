"""Whether Apptainer runs a container here: found by making an image and running it, without anybody's image."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from medperf.engines.apptainer_options import WORK
from medperf.engines.base import Image
from medperf.engines.logs import last_lines
from medperf.engines.probe import reading_spec
from medperf.errors import EngineUnavailable

if TYPE_CHECKING:
    from medperf.engines.apptainer import ApptainerEngine


def probe_apptainer(engine: ApptainerEngine) -> None:
    """Raise EngineUnavailable unless a container of this machine's own programs reads a file that we wrote."""
    from medperf.engines.apptainer import log_of

    with tempfile.TemporaryDirectory(prefix="medperf-probe-") as place:
        folder = Path(place)
        token = secrets.token_hex(16)
        (folder / "token").write_text(token)
        work = folder / "work"
        for name in ("tree/dev", "tree/proc", "tree/tmp"):
            (work / name).mkdir(parents=True)
        made = engine.make_sif(work, f"{WORK}/tree")
        if not made.succeeded:
            raise _failed("An image that holds nothing could not be made", log_of(work))
        image = Image("probe", secrets.token_hex(32), sif=lambda: work / "image.sif")
        spec = reading_spec(folder, image)
        engine.start(spec)
        lines: list[str] = []
        outcome = engine.wait(spec.run_id, on_line=lines.append)
        if not outcome.succeeded or lines != [token]:
            raise _failed(f"A container that reads one file ended with {outcome.cause}", spec.log)


def _failed(what: str, log: Path) -> EngineUnavailable:
    said = " ".join(last_lines(log, 3)) or "it said nothing"
    return EngineUnavailable(f"{what} ({said})", hint="Look at the message; Apptainer may be installed by halves.")
