"""Reading and measuring what a container wrote, on folders as it may leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medperf.engines.outputs import check_outputs, read_output, take_over, used_bytes
from medperf.errors import ContainerFailed


@pytest.mark.parametrize("swapped", ["results.yaml", "deep"], ids=["the file", "a folder above it"])
def test_a_link_swapped_in_after_the_check_is_not_read_through(tmp_path: Path, swapped: str) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work / "deep", home):
        folder.mkdir(parents=True)
        (folder / "results.yaml").write_text(f"auc: {folder.name}")
    file = work / "deep" / "results.yaml"
    check_outputs(work)
    assert read_output(file, inside=work, limit_bytes=100) == b"auc: deep"
    if swapped == "deep":
        (work / "deep").rename(work / "elsewhere")
        (work / "deep").symlink_to(home)
    else:
        file.unlink()
        file.symlink_to(home / "results.yaml")
    with pytest.raises(ContainerFailed, match="cannot be read"):
        read_output(file, inside=work, limit_bytes=100)


def test_a_link_in_the_outputs_is_neither_measured_through_nor_taken_over(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
    (home / "large").write_bytes(bytes(10_000_000))
    (home / "large").chmod(0o000)
    (work / "folder").symlink_to(home)
    (work / "file").symlink_to(home / "large")
    assert used_bytes([work], stop_above=10**9) < 100_000
    take_over(work, owner=os.getuid(), group=os.getgid())
    assert (home / "large").stat().st_mode & 0o777 == 0


def test_names_that_make_a_path_longer_than_the_kernel_takes_are_measured_taken_over_and_checked(
    tmp_path: Path,
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 255, dir_fd=descriptor)
        inner = os.open("d" * 255, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    with os.fdopen(os.open("file", os.O_WRONLY | os.O_CREAT, 0o444, dir_fd=descriptor), "wb") as file:
        file.write(bytes(1_000_000))
    assert used_bytes([tmp_path], stop_above=10**9) > 1_000_000
    take_over(tmp_path, owner=os.getuid(), group=os.getgid())
    assert os.stat("file", dir_fd=descriptor).st_mode & 0o777 == 0o644
    check_outputs(tmp_path)
    os.symlink("file", "link", dir_fd=descriptor)
    os.close(descriptor)
    with pytest.raises(ContainerFailed, match="wrote a link: d"):
        check_outputs(tmp_path)
