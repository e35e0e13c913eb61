"""What the overlays render to holds together, as far as that can be said without a cluster."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.manifests import availability, contents, network, operators, processes, rights, schemas, selectors
from deploy.manifests.objects import Check, Object, of_kind, title, workloads
from deploy.manifests.render import CERTIFICATES, OVERLAYS, SOURCE, render

CHECKS = {
    "schemas": schemas.faults,
    "selectors": selectors.faults,
    "contents": contents.faults,
    "processes": processes.faults,
    "rights": rights.faults,
    "network": network.faults,
    "availability": availability.faults,
}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_an_overlay_has_no_fault(rendered: Callable[[str], list[Object]], overlay: str, check: Check) -> None:
    assert check(rendered(overlay)) == []


@pytest.mark.parametrize("overlay", ["production", "operators"])
def test_nothing_stands_alone_on_several_nodes(rendered: Callable[[str], list[Object]], overlay: str) -> None:
    assert availability.several(rendered(overlay)) == []


def test_what_operators_start_of_ours_is_confined(rendered: Callable[[str], list[Object]]) -> None:
    objects = rendered("operators")
    assert list(operators.unconfined(objects)) == []
    [cluster] = of_kind(objects, "RabbitmqCluster")
    pod = cluster["spec"]["override"]["statefulSet"]["spec"]["template"]["spec"]
    pod["securityContext"]["runAsNonRoot"] = False
    del pod["initContainers"][0]["securityContext"]
    assert len(list(operators.unconfined(objects))) == 2


def test_a_failover_of_the_database_loses_no_commit(rendered: Callable[[str], list[Object]]) -> None:
    """A commit is answered for once a second machine has it, and never before."""
    [database] = of_kind(rendered("operators"), "Cluster")
    synchronous = database["spec"]["postgresql"]["synchronous"]
    assert (synchronous["number"], synchronous["dataDurability"]) == (1, "required")
    assert database["spec"]["instances"] > 1 + synchronous["number"], "one may be away"


def test_images_have_their_versions_in_one_place(rendered: Callable[[str], list[Object]]) -> None:
    assert rights.scattered_versions(SOURCE) == []
    versions = {
        overlay: {
            container["image"].partition(":")[0]: container["image"]
            for pod in workloads(operators.standing(rendered(overlay)))
            for container in pod.containers
        }
        for overlay in OVERLAYS
    }
    for overlay in ("production", "operators"):
        common = versions["small"].keys() & versions[overlay].keys()
        assert common == {"medperf-server", "nginx", "rabbitmq"}
        assert all(versions["small"][image] == versions[overlay][image] for image in common)


def test_no_secret_is_in_the_repository() -> None:
    ignored = (SOURCE / "kubernetes" / ".gitignore").read_text().split()
    assert {"secrets/files/", "overlays/*/certificates/"} <= set(ignored)


def test_a_new_secret_has_its_pods_replaced(manifests: Path, rendered: Callable[[str], list[Object]]) -> None:
    """A rotated password is a file that changed: its Secret has another name then, so that its pods start anew."""
    before = {title(item): item for item in rendered("small") if item["kind"] == "Deployment"}
    file = manifests / "secrets" / "files" / "results_database_password"
    kept = file.read_text()
    try:
        file.write_text("another\n")
        after = {title(item): item for item in render(manifests, "small") if item["kind"] == "Deployment"}
    finally:
        file.write_text(kept)
    changed = {name for name, item in after.items() if item != before[name]}
    assert changed == {"Deployment results", "Deployment results-worker"}


def test_the_files_that_an_operator_needs_are_all_used(manifests: Path) -> None:
    """A file that no kustomization names would be made, kept and rotated for nothing."""
    text = "\n".join(file.read_text() for file in manifests.rglob("kustomization.yaml"))
    made = {file.name for file in (manifests / "secrets" / "files").iterdir()}
    unused = {name for name in made if f"files/{name}\n" not in text}
    # For whoever administers the broker: no pod reads it.
    assert unused == {"broker_admin_password"}
    assert all(f"certificates/{name}" in text for names in CERTIFICATES.values() for name in names)


def test_the_guides_own_overlay_has_no_fault(manifests: Path, tmp_path: Path) -> None:
    guide = (SOURCE / "kubernetes" / "README.md").read_text()
    [overlay] = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    shutil.copytree(manifests.parent, tmp_path / "deploy")
    copy = tmp_path / "deploy" / manifests.name
    site = copy / "overlays" / "site"
    site.mkdir()
    (site / "kustomization.yaml").write_text(textwrap.dedent(overlay))
    objects = render(copy, "site")
    assert [fault for check in CHECKS.values() for fault in check(objects)] == []
    hosts = {rule["host"] for item in objects if item["kind"] == "Ingress" for rule in item["spec"]["rules"]}
    images = {container["image"] for pod in workloads(objects) for container in pod.containers}
    assert hosts == {"medperf.hospital.org"}
    assert "registry.hospital.org/medperf-server:0.1.0" in images
    assert "medperf-server:0.1.0" not in images


def test_the_guide_names_each_certificate() -> None:
    guide = (SOURCE / "kubernetes" / "README.md").read_text()
    assert [name for names in CERTIFICATES.values() for name in names if f"`{name}`" not in guide] == []
