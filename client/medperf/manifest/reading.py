"""Reads a container's manifest, in whichever of the formats that sites have."""

from __future__ import annotations

from medperf import safe_yaml
from medperf.manifest.container_config import read_container_config
from medperf.manifest.mlcube import read_mlcube
from medperf.manifest.model import Manifest
from medperf.manifest.rules import HINT, RuleBroken, mapping

# What only the newer format has.
_NEWER = "container_type"


def parse_manifest(text: str | bytes, *, what: str = "The manifest", is_own: bool = False) -> Manifest:
    """The container that a manifest describes: an `mlcube.yaml` or a `container_config.yaml`, by what it holds.

    BadManifest names the key that breaks a rule, and its line. `is_own` is whether who reads that is the one who
    can correct it.
    """
    document, lines = safe_yaml.load_with_lines(text, what=what, hint=None if is_own else HINT)
    try:
        top = mapping(document, "the manifest")
        return read_container_config(top) if _NEWER in top else read_mlcube(top)
    except RuleBroken as broken:
        raise broken.as_error(lines) from broken
