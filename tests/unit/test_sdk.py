"""What `import medperf` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import medperf


def test_everything_exported_is_there() -> None:
    assert sorted(medperf._EXPORTS) == sorted(medperf.__all__)
    for name in medperf.__all__:
        assert getattr(medperf, name).__module__.startswith("medperf.")


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = medperf.nothing


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import medperf, sys; print(sorted(name for name in sys.modules if name.partition('.')[0] == 'medperf'))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "['medperf']"
