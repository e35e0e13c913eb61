"""Why the registry refuses."""

from __future__ import annotations

from services.kernel.errors import Conflict


class ContainerExists(Conflict):
    code = "container_exists"
    hint = "Use the one that is there; a container that does something else has other hashes."


class BenchmarkExists(Conflict):
    code = "benchmark_exists"
    hint = "Use the one that is there; a benchmark that measures something else has other parts."


class AlreadyOperational(Conflict):
    code = "already_operational"
    hint = "Nothing is left to do: it is in operation."


class ContainerNotValid(Conflict):
    code = "container_not_valid"
    hint = "Its owner marked it invalid: choose another one, or ask its owner."


class PartsNotOperational(Conflict):
    code = "parts_not_operational"
    hint = "The owner of each container named must bring it into operation and mark it valid."


class ProgressWithdrawn(Conflict):
    code = "progress_withdrawn"
    hint = "It is told no more. If it is to be told again: medperf dataset prepare --send_progress"


class TooManyPreparations(Conflict):
    code = "too_many_preparations"
    hint = "Take back what is of no use any more: medperf dataset progress --mine"


class NothingRegisteredBehindUrl(Conflict):
    code = "nothing_registered_behind_url"
    hint = "A URL only says where something registered by its hash is found; to add a part, register anew."


class NotOperational(Conflict):
    code = "benchmark_not_operational"
    hint = "Its owner brings it into operation first: medperf benchmark set-operational"


class ApprovalDecided(Conflict):
    code = "approval_decided"
    hint = "See it with: medperf benchmark view"
