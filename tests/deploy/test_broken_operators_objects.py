"""Each check also finds what is broken of the operators' objects, and of what other objects say of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.manifests import availability, contents, network, schemas, selectors
from deploy.manifests.breaks import Break, add, assert_found, drop, put
from deploy.manifests.objects import Check, Object

TEMPLATE = ("spec", "override", "statefulSet", "spec", "template", "spec")
CLUSTER, DATABASE = "RabbitmqCluster broker", "Cluster database"
BROKEN: list[tuple[Check, Break, str]] = [
    (schemas.faults, put(CLUSTER, "spec", "replica", value=3), "'replica' was unexpected"),
    (schemas.faults, put(CLUSTER, "spec", "replicas", value="3"), "spec.replicas: '3' is not of type 'integer'"),
    (schemas.faults, put(CLUSTER, "apiVersion", value="rabbitmq.com/v1"), "no rabbitmq.com/v1 RabbitmqCluster"),
    (
        schemas.faults,
        put(CLUSTER, *TEMPLATE, "containers", 0, "volumeMount", value=[]),
        "'volumeMount' was unexpected",
    ),
    (schemas.faults, put(DATABASE, "spec", "storage", "size", value="20GB"), "spec.storage.size: '20GB'"),
    (
        schemas.faults,
        put(DATABASE, "spec", "postgresql", "synchronous", "method", value="all"),
        "'all' is not one of",
    ),
    (schemas.faults, drop(DATABASE, "spec", "instances"), "'instances' is a required property"),
    (schemas.faults, put(DATABASE, "metadata", "namespace", value="default"), "is in namespace default"),
    (selectors.faults, put("PodDisruptionBudget broker", "spec", "selector", value={}), "selects the pods"),
    (selectors.faults, put(DATABASE, "metadata", "name", value="data"), "NetworkPolicy database: "),
    (
        selectors.faults,
        put(
            CLUSTER, *TEMPLATE, "topologySpreadConstraints", 0, "labelSelector", value={"matchLabels": {"a": "b"}}
        ),
        "is spread among pods that it is none of",
    ),
    (contents.faults, drop("Secret broker-certificate"), "there is no Secret broker-certificate"),
    (contents.faults, drop("Secret database"), "there is no Secret database"),
    (contents.faults, put("Secret database", "data", "password", value=""), "Secret database has no password"),
    (contents.faults, drop("Secret database-authority", "data", "ca.crt"), "has no ca.crt"),
    (
        contents.faults,
        drop("Secret broker", "data", "rabbitmq_definitions.json"),
        "has no rabbitmq_definitions.json",
    ),
    (contents.faults, drop(CLUSTER, "spec", "tls"), "amqps://broker.medperf.svc:5671"),
    (contents.faults, drop(DATABASE), "postgresql://database-rw.medperf.svc:5432"),
    (contents.faults, put(CLUSTER, *TEMPLATE, "volumes", value=[]), "mounts definitions, which is no volume"),
    (network.faults, drop("NetworkPolicy broker"), "cannot reach api server on ('TCP', 6443)"),
    (
        network.faults,
        drop("NetworkPolicy database", "spec", "ingress", 1, "from", 1),
        "CloudNativePG cannot reach StatefulSet database on ('TCP', 8000)",
    ),
    (
        network.faults,
        put("NetworkPolicy database", "spec", "egress", 1, "to", 0, "ipBlock", "cidr", value="0.0.0.0/0"),
        "StatefulSet database can reach internet on ('TCP', 443), and has no need to",
    ),
    (
        network.faults,
        add("NetworkPolicy broker", "spec", "ingress", 2, "ports", value={"protocol": "TCP", "port": 15671}),
        "prometheus can reach StatefulSet broker-server on ('TCP', 15671), and has no need to",
    ),
    (
        availability.several,
        put(DATABASE, "spec", "instances", value=1),
        "StatefulSet database: there is one of it",
    ),
    (
        availability.several,
        drop(DATABASE, "spec", "affinity"),
        "StatefulSet database: all of it may be on one node",
    ),
    (availability.several, drop("PodDisruptionBudget broker"), "StatefulSet broker-server: has no budget"),
]


@pytest.mark.parametrize(("check", "change", "fault"), BROKEN, ids=[fault[:60] for _, _, fault in BROKEN])
def test_what_is_broken_of_an_operators_object_is_found(
    rendered: Callable[[str], list[Object]], check: Check, change: Break, fault: str
) -> None:
    assert_found(check, change, fault, of=rendered("operators"))
