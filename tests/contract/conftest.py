"""What every contract test may ask for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from contract.whole import Whole

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Every service at work together, with people, a model and two benchmarks; one for each file of tests."""
    whole = Whole(tmp_path_factory.mktemp("whole"))
    yield whole
    whole.close()


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    """The maker of the made documents, docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
