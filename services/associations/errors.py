"""Why the associations service refuses."""

from __future__ import annotations

from services.kernel.errors import Conflict


class AlreadyDecided(Conflict):
    code = "already_decided"
    hint = "See it with: medperf association view"


class AlreadyLive(Conflict):
    code = "already_live"
    hint = "See it with: medperf association ls"


class NotApproved(Conflict):
    code = "association_not_approved"
    hint = "Only a pending request or an approved association can be withdrawn; ask again with a new request."


class HasNoPriority(Conflict):
    code = "has_no_priority"
    hint = "Name the association of a model: medperf association ls"


class AssociationOver(Conflict):
    code = "association_over"
    hint = "Once it takes part anew it can be given a priority; ask for that with: medperf model associate"


class BenchmarkNotOpen(Conflict):
    code = "benchmark_not_open"
    hint = "Its owner must bring it into operation and have it approved by an administrator."


class PartNotReady(Conflict):
    code = "part_not_ready"
    hint = "Its owner must bring it into operation and mark it valid."


class PreparedDifferently(Conflict):
    code = "prepared_differently"
    hint = "Prepare the data with this benchmark's preparation container: medperf dataset create"


class NeedsNoAssociation(Conflict):
    code = "needs_no_association"
    hint = "Nothing is left to do: the reference model takes part already."


class NoModelOfIt(Conflict):
    code = "no_model_of_it"
    hint = "Ask with a container that is a model: medperf model ls"
