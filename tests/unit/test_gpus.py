"""Which GPUs of a machine containers may have; the driver's own list is given by a program in its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from medperf.errors import UsageError
from medperf.gpus import allowed_gpus, find_gpus

A, B = "GPU-0a1b2c3d-1111-2222-3333-444455556666", "GPU-f0f0f0f0-1111-2222-3333-444455556666"
LISTED = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})
  MIG 1g.5gb      Device  0: (UUID: MIG-{A[4:]})
GPU 1: Quadro (special) RTX 6000 (UUID: {B})
"""


def nvidia_smi(folder: Path, body: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_gpus_are_those_that_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_gpus() == ()
    nvidia_smi(tmp_path, f"[ \"$*\" = -L ] || exit 9\ncat <<'END'\n{LISTED}END")
    assert find_gpus() == (A, B)
    nvidia_smi(tmp_path, f"echo 'GPU 0: X (UUID: {A})'; exit 255")
    assert find_gpus() == ()
    nvidia_smi(tmp_path, "printf '\\377\\376'")
    assert find_gpus() == ()


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("all", (A, B)),
        ("", ()),
        ("0", ()),
        ("1", (A,)),
        ("2", (A, B)),
        ("device=1", (B,)),
        ("device=1,0,1", (B, A)),
        (f"device={B}", (B,)),
    ],
)
def test_a_person_says_which_gpus_containers_may_have(asked: str, allowed: tuple[str, ...]) -> None:
    assert allowed_gpus(asked, (A, B)) == allowed


@pytest.mark.parametrize("asked", ["3", "some", "-1", "device=2", "device=", "device=GPU-other", "٣"])
def test_gpus_that_are_not_there_are_refused(asked: str) -> None:
    with pytest.raises(UsageError) as refused:
        allowed_gpus(asked, (A, B))
    assert "lists 2, numbered from 0" in refused.value.hint


def test_where_there_is_no_gpu_all_of_them_are_none() -> None:
    assert allowed_gpus("all", ()) == ()
    with pytest.raises(UsageError, match="asks for 1"):
        allowed_gpus("1", ())
