"""Whether the server's command takes what the pods tell it, and each process that there must be is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from services.composition import DEFINITIONS
from services.main import cli

from .objects import COMPONENT, PROCESS, Object, workloads

VERBS = {"web": "run", "worker": "work"}
# Run once, in this order, by hand or by themselves.
JOBS = {("provision",), ("migrate",)}


def faults(objects: Sequence[Object]) -> list[str]:
    """What the command would refuse, and what never runs."""
    started: set[tuple[str, ...]] = set()
    found = list(_refused(objects, started))
    needed = {("run", each.name) for each in DEFINITIONS} | JOBS
    needed |= {("work", each.name) for each in DEFINITIONS if each.publishes or each.consumers}
    found += [f"nothing runs `medperf-server {' '.join(command)}`" for command in sorted(needed - started)]
    found += [f"`medperf-server {' '.join(command)}` has no use" for command in sorted(started - needed)]
    return found


def _refused(objects: Sequence[Object], started: set[tuple[str, ...]]) -> Iterator[str]:
    for pod in workloads(objects):
        for container in pod.containers:
            if container.get("command") != ["medperf-server"]:
                continue
            verb, *arguments = container["args"]
            try:
                told = cli.commands[verb].make_context(verb, list(arguments)).params
            except (KeyError, click.UsageError) as error:
                yield f"{pod.title}: medperf-server {' '.join(container['args'])}: {error}"
                continue
            started.add((verb, told["service"]) if "service" in told else (verb,))
            if PROCESS in pod.labels and verb in VERBS.values():
                expected = (VERBS[pod.labels[PROCESS]], pod.labels[COMPONENT])
                if (verb, told["service"]) != expected:
                    yield f"{pod.title}: runs {verb} {told['service']}, not {' '.join(expected)}"
                for option, name in (("port", "api"), ("monitor_port", "monitor")):
                    declared = pod.number_of(name)
                    if option in told and declared != told[option]:
                        yield f"{pod.title}: listens on {told[option]}, and declares {declared} as {name}"
