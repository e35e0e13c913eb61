"""A container's manifest: the internal model, the formats it is read from, and what a task is given."""

from medperf.manifest.io import IoPlan, plan_io
from medperf.manifest.model import (
    Docker,
    Kind,
    Manifest,
    Package,
    Parameter,
    Role,
    Sandbox,
    Task,
    fitting_roles,
    lacking,
    own_inputs,
    require_tasks,
)
from medperf.manifest.reading import parse_manifest

__all__ = [
    "Docker",
    "IoPlan",
    "Kind",
    "Manifest",
    "Package",
    "Parameter",
    "Role",
    "Sandbox",
    "Task",
    "fitting_roles",
    "lacking",
    "own_inputs",
    "parse_manifest",
    "plan_io",
    "require_tasks",
]
