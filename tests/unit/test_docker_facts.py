"""What a rootless Podman can bound, by the cgroups that it says it was given."""

from __future__ import annotations

import pytest

from medperf.engines.docker_facts import without_cgroups

ALL = {"memory", "processes", "processors"}


@pytest.mark.parametrize(
    ("version", "controllers", "cannot"),
    [
        ("v1", [], ALL),
        ("v1", ["memory", "pids", "cpu"], ALL),
        ("v2", None, ALL),
        ("v2", ["memory", "pids"], {"processors"}),
        ("v2", ["cpuset", "cpu", "io", "memory", "pids"], set()),
    ],
)
def test_a_rootless_podman_bounds_what_it_was_given_a_cgroup_controller_for(
    version: str, controllers: list[str] | None, cannot: set[str]
) -> None:
    assert without_cgroups({"cgroupVersion": version, "cgroupControllers": controllers}) == cannot
