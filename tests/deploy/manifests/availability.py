"""Whether what stands can be stopped, drained and scaled without a request that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from services.process import GRACE_SECONDS

from . import operators
from .objects import COMPONENT, PROCESS, Object, Workload, of_kind, selects, title, workloads

# What nginx takes at most to stop in order; a process of ours: GRACE_SECONDS.
GATEWAY_STOP_SECONDS = 20
# What whoever sends requests takes to learn that a pod goes.
PROPAGATION_SECONDS = 5


def faults(objects: Sequence[Object]) -> list[str]:
    """What an upgrade, a drain or a busy hour would break."""
    objects = operators.standing(objects)
    pods = [pod for pod in workloads(objects) if pod.kind in ("Deployment", "StatefulSet")]
    return [
        *(fault for pod in pods for fault in (*_stop(pod), *_probes(pod))),
        *_budgets(objects, pods),
        *_scalers(objects, pods),
        *_jobs(objects),
    ]


def several(objects: Sequence[Object]) -> list[str]:
    """For a deployment on several nodes: what stands alone, or may be drained all at once."""
    objects = operators.standing(objects)
    pods = [pod for pod in workloads(objects) if pod.kind in ("Deployment", "StatefulSet")]
    budgets = of_kind(objects, "PodDisruptionBudget")
    found = [f"{pod.title}: there is one of it" for pod in pods if _replicas(pod, objects) < 2]
    for pod in pods:
        if not any(selects(budget["spec"]["selector"], pod.labels) for budget in budgets):
            found.append(f"{pod.title}: has no budget")
        if not pod.spec.get("topologySpreadConstraints"):
            found.append(f"{pod.title}: all of it may be on one node")
    return found


def _replicas(pod: Workload, objects: Sequence[Object]) -> int:
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (pod.kind, pod.name):
            return int(scaler["spec"]["minReplicas"])
    return int(pod.owner["spec"].get("replicas", 1))


def _stop(pod: Workload) -> Iterator[str]:
    is_asked = pod.labels.get(PROCESS) == "web" or pod.labels.get(COMPONENT) == "gateway"
    if PROCESS not in pod.labels and not is_asked:
        return
    waits = 0
    for container in pod.containers:
        command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        waits = max(waits, int(command[1]) if command[:1] == ["sleep"] else 0)
    if is_asked and waits < PROPAGATION_SECONDS:
        yield f"{pod.title}: is stopped while requests are still sent to it"
    stops = GRACE_SECONDS if PROCESS in pod.labels else GATEWAY_STOP_SECONDS
    if pod.spec.get("terminationGracePeriodSeconds", 30) < waits + stops:
        yield f"{pod.title}: is killed before it has stopped"
    rolling = pod.owner["spec"].get("strategy", {}).get("rollingUpdate", {})
    if rolling.get("maxUnavailable") != 0:
        yield f"{pod.title}: an upgrade takes an old one before a new one is ready"


def _probes(pod: Workload) -> Iterator[str]:
    main = pod.spec["containers"][0]
    if "readinessProbe" not in main:
        yield f"{pod.title}: is sent requests before it can answer"
    if PROCESS not in pod.labels:
        return
    for kind, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        asked = main.get(kind, {}).get("httpGet", {})
        if (asked.get("path"), pod.number_of(asked.get("port", ""))) != (path, 9000):
            yield f"{pod.title}: its {kind} does not ask {path} on 9000"


def _budgets(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        for pod in pods:
            if selects(budget["spec"]["selector"], pod.labels):
                replicas = _replicas(pod, objects)
                spec = budget["spec"]
                stay = spec["minAvailable"] if "minAvailable" in spec else replicas - spec["maxUnavailable"]
                if stay >= replicas:
                    yield f"{title(budget)}: no node that {pod.title} is on can ever be drained"
                needed = math.floor(replicas / 2) + 1 if pod.kind == "StatefulSet" else 1
                if stay < needed:
                    yield f"{title(budget)}: {stay} of {pod.title} are too few"


def _scalers(objects: Sequence[Object], pods: Sequence[Workload]) -> Iterator[str]:
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        if spec["minReplicas"] >= spec["maxReplicas"]:
            yield f"{title(scaler)}: has nothing to scale"
        target = (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        for pod in pods:
            if (pod.kind, pod.name) == target and "replicas" in pod.owner["spec"]:
                yield f"{title(scaler)}: each apply would undo it, since {pod.title} says how many"


def _jobs(objects: Sequence[Object]) -> Iterator[str]:
    for job in of_kind(objects, "Job"):
        if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure" or job["spec"]["backoffLimit"] < 10:
            yield f"{title(job)}: gives up before the database is there"
