"""Wheels of one module, made here."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from medperf.manifest.model import Package


def wheel(folder: Path, name: str = "tiny", version: str = "1.0", *, needs: str = "") -> Package:
    """A wheel with one module, and the package that names it."""
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_record_hash(text)},{len(text)}" for path, text in files.items()]
    record = f"{about}/RECORD"
    files[record] = "\n".join([*lines, f"{record},,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return Package(name, version, (hashlib.sha256(path.read_bytes()).hexdigest(),))


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
