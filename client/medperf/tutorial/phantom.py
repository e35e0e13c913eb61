"""The tutorial's data: small drawings in the manner of a chest X-ray, some with an opacity in a lung.

The same count and seed give the same bytes on every machine and Python: pixels come from `random.Random.random`
and from arithmetic that IEEE 754 rounds exactly (+ - * / and comparisons, so no exp or sin), and the PNG files
hold stored blocks, whose bytes do not depend on the version of zlib.
"""

from __future__ import annotations

import binascii
import random
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

DEFAULT_COUNT = 240
DEFAULT_SEED = 20_240_601

IMAGE_SIZE = 72  # pixels a side
POSITIVES_PERCENT = 45

_MARGIN = 2  # how far, in pixels, the body may stand off the image's middle
_CANVAS = IMAGE_SIZE + 2 * _MARGIN
_MIDDLE = _CANVAS // 2
_BODIES = 8  # drawn once for a dataset; each image varies one of them
_STORED_BLOCK_LIMIT = 65_535  # bytes, by RFC 1951

Rows = list[list[float]]


@dataclass(frozen=True)
class _Body:
    """One person's chest on the canvas: intensity of tissue and bone, and how much of a pixel is lung (0 to 1)."""

    tissue: Rows
    lung: Rows
    inner_lung: list[tuple[int, int]]  # (x, y) where an opacity may have its middle


def make_dataset(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = DEFAULT_SEED) -> None:
    """Make `folder/images/*.png` (8-bit grey) and `folder/labels/labels.csv` (columns `image,finding`; 0 or 1).

    The folder appears whole or not at all. Raises `ValueError` for a count below 2 (there would not be one image
    of each class) and `FileExistsError` when the folder holds anything already.
    """
    if count < 2:
        raise ValueError(f"a dataset needs at least 2 images, not {count}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already")
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    (partial / "images").mkdir(parents=True)
    (partial / "labels").mkdir()

    rng = random.Random(seed)  # noqa: S311 - drawings, not secrets
    bodies = [_draw_body(rng) for _ in range(_BODIES)]
    lines = ["image,finding\n"]
    for number, finding in enumerate(_draw_findings(rng, count)):
        name = f"phantom{number:04d}.png"
        pixels = _draw_image(rng, bodies[int(rng.random() * _BODIES)], finding=finding)
        (partial / "images" / name).write_bytes(encode_png(pixels))
        lines.append(f"{name},{int(finding)}\n")
    (partial / "labels" / "labels.csv").write_bytes("".join(lines).encode())
    partial.rename(folder)


def encode_png(rows: list[bytes]) -> bytes:
    """An 8-bit grey PNG of the rows (one byte a pixel, all of the same length), not compressed."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    scanlines = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (_chunk(b"IHDR", header), _chunk(b"IDAT", _stored(scanlines)), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks."""
    blocks = []
    for start in range(0, len(data), _STORED_BLOCK_LIMIT):
        block = data[start : start + _STORED_BLOCK_LIMIT]
        is_last = start + len(block) == len(data)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _draw_findings(rng: random.Random, count: int) -> list[bool]:
    """Which images carry a finding: a fixed share of them, at least one, in an order by chance."""
    positives = max(1, count * POSITIVES_PERCENT // 100)
    findings = [number < positives for number in range(count)]
    # random.shuffle's own draws are not promised to stay the same between versions of Python; random() is.
    for last in range(count - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        findings[last], findings[other] = findings[other], findings[last]
    return findings


def _ellipse(x: float, y: float, width: float, height: float, *, edge: float) -> Rows:
    """How much of each pixel lies in an ellipse of these half-axes: 1 inside, falling to 0 at its border."""
    columns = [((column - x) / width) * ((column - x) / width) for column in range(_CANVAS)]
    rows = []
    for row in range(_CANVAS):
        rest = 1.0 - ((row - y) / height) * ((row - y) / height)
        rows.append([min(1.0, max(0.0, (rest - column) * edge)) for column in columns])
    return rows


def _wave(position: float, period: float, width: float) -> float:
    """A row of triangles: 1 in the middle of each, 0 beyond `width` of it, one every `period`."""
    turns = position / period
    distance = (turns - int(turns)) * period - width
    return max(0.0, 1.0 - abs(distance) / width)


def _draw_body(rng: random.Random) -> _Body:
    trunk = _ellipse(_MIDDLE, _MIDDLE + 6, _between(rng, 35, 37), _between(rng, 46, 48), edge=6)
    reach, wide, high = _between(rng, 14.5, 15.5), _between(rng, 12, 13), _between(rng, 23.5, 25.5)
    top = _MIDDLE - _between(rng, 0, 3)
    left = _ellipse(_MIDDLE - reach, top, wide, high, edge=4)
    right = _ellipse(_MIDDLE + reach, top, wide, high, edge=4)
    heart = _ellipse(
        _MIDDLE + _between(rng, 4, 7), _MIDDLE + 13, _between(rng, 10, 13), _between(rng, 9, 11), edge=3
    )
    phase, bend = _between(rng, 20, 30), _between(rng, 0.008, 0.016)
    tissue, lung, inner = [], [], []
    for y in range(_CANVAS):
        spine_value = 18 + 10 * _wave(y + phase, 7, 2.5)
        tissue_row, lung_row = [], []
        for x in range(_CANVAS):
            off = x - _MIDDLE
            air = max(left[y][x], right[y][x]) * (1.0 - heart[y][x])
            rib = _wave(y + phase + bend * off * off, 9, 1.8)
            spine = max(0.0, 1.0 - (off / 5) * (off / 5))
            tissue_row.append(
                14 + trunk[y][x] * (126 + spine * spine_value + 30 * heart[y][x] + rib * (5 + 11 * air))
            )
            lung_row.append(air)
            if air > 0.95:
                inner.append((x, y))
        tissue.append(tissue_row)
        lung.append(lung_row)
    return _Body(tissue, lung, inner)


def _add_opacity(canvas: Rows, x: float, y: float, radius: float, strength: float) -> None:
    """A round brightening that fades to nothing at its radius."""
    for row in range(max(0, int(y - radius)), min(len(canvas), int(y + radius) + 2)):
        line = canvas[row]
        for column in range(max(0, int(x - radius)), min(len(line), int(x + radius) + 2)):
            rest = 1.0 - ((column - x) * (column - x) + (row - y) * (row - y)) / (radius * radius)
            if rest > 0:
                line[column] += strength * rest * (2.0 - rest)


def _draw_image(rng: random.Random, body: _Body, *, finding: bool) -> list[bytes]:
    lung_air = (_between(rng, 68, 78), _between(rng, 68, 78))  # how much darker each lung is
    canvas = []
    for tissue, lung in zip(body.tissue, body.lung, strict=True):
        halves = [
            [value - air * share for value, share in zip(tissue[side], lung[side], strict=True)]
            for side, air in ((slice(0, _MIDDLE), lung_air[0]), (slice(_MIDDLE, None), lung_air[1]))
        ]
        canvas.append(halves[0] + halves[1])
    for _ in range(3 + int(rng.random() * 4)):  # vessels near the heart, in every image
        side = 1 if rng.random() < 0.5 else -1
        _add_opacity(
            canvas,
            _MIDDLE + side * _between(rng, 6, 15),
            _MIDDLE + _between(rng, -9, 9),
            _between(rng, 2, 4),
            _between(rng, 5, 15),
        )
    if finding:
        x, y = body.inner_lung[int(rng.random() * len(body.inner_lung))]
        _add_opacity(canvas, x, y, _between(rng, 6, 11), _between(rng, 15, 50))
    return _expose(rng, canvas)


def _expose(rng: random.Random, canvas: Rows) -> list[bytes]:
    """Cut the image out of the canvas, with the tube's unevenness, its contrast and noise."""
    from_x, from_y = int(rng.random() * (2 * _MARGIN + 1)), int(rng.random() * (2 * _MARGIN + 1))
    contrast, light = _between(rng, 0.8, 1.15), _between(rng, 0, 25)
    slope_x, slope_y = _between(rng, -0.2, 0.2), _between(rng, -0.2, 0.2)
    noise = _between(rng, 18, 30)
    draw = rng.random
    across = [light + slope_x * (x - IMAGE_SIZE / 2) for x in range(IMAGE_SIZE)]
    rows = []
    for y in range(IMAGE_SIZE):
        down = slope_y * (y - IMAGE_SIZE / 2) - noise
        line = canvas[from_y + y][from_x : from_x + IMAGE_SIZE]
        values = [
            contrast * value + shade + down + noise * (draw() + draw())
            for value, shade in zip(line, across, strict=True)
        ]
        rows.append(bytes([0 if v < 0 else 255 if v > 255 else int(v) for v in values]))
    return rows
