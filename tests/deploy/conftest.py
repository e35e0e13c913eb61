"""The manifests, rendered once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.manifests.objects import Object
from deploy.manifests.render import OVERLAYS, copy_with_secrets, find_kubectl, render


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests with a file for each secret."""
    find_kubectl()
    return copy_with_secrets(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="session")
def rendered(manifests: Path) -> Callable[[str], list[Object]]:
    """An overlay's objects, to look at or to break: each caller has its own."""
    kept = {overlay: render(manifests, overlay) for overlay in OVERLAYS}
    return lambda overlay: copy.deepcopy(kept[overlay])
