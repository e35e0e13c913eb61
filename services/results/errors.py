"""Why the results service refuses."""

from __future__ import annotations

from services.kernel.errors import Conflict


class AssociationNotApproved(Conflict):
    code = "association_not_approved"
    hint = "See where the request stands with: medperf association ls"


class BenchmarkNotOpen(Conflict):
    code = "benchmark_not_open"
    hint = "Ask the benchmark's owner; see it with: medperf benchmark view"


class ModelNotInBenchmark(Conflict):
    code = "model_not_in_benchmark"
    hint = "Run the benchmark's models, which are those that are due: medperf benchmark run"


class NotValid(Conflict):
    code = "not_valid"
    hint = "Only its owner can mark it valid again, or bring it into operation."


class AlreadySubmitted(Conflict):
    code = "already_submitted"
    hint = "Nothing is left to do: a result is final. See it with: medperf result ls"


class HashDiffers(Conflict):
    code = "hash_differs"
    hint = "Run the registered containers on the registered data, then submit that result: medperf benchmark run"
