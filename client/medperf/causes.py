"""Why a run of a container's task ended as it did: the list of all causes, each with what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Cause(StrEnum):
    """A cause class, as the journal keeps it. The list is in docs/runs.md."""

    EXIT_CODE = "exit_code"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    PROCESS_LIMIT = "process_limit"
    CANCELLED = "cancelled"
    ENGINE_GONE = "engine_gone"
    CANNOT_START = "cannot_start"
    BAD_OUTPUT = "bad_output"
    BAD_MANIFEST = "bad_manifest"
    INTEGRITY = "integrity"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    DISK_FULL = "disk_full"
    CLIENT_GONE = "client_gone"
    CLIENT_ERROR = "client_error"


NEXT_STEP: Mapping[Cause, str] = MappingProxyType(
    {
        Cause.EXIT_CODE: (
            "Read the log. If it names something of your data, mend that and try again; else tell the container's"
            " owner."
        ),
        Cause.TIME_LIMIT: (
            "Give it more time with --time_limit SECONDS if the container is known to need it, else tell its"
            " owner."
        ),
        Cause.OUT_OF_MEMORY: (
            "Allow more with --memory_limit GIB if the container is known to need it and the machine has it, else"
            " tell its owner."
        ),
        Cause.OUTPUT_LIMIT: (
            "This limit is fixed: use fewer cases if it writes so much for each, else tell its owner."
        ),
        Cause.PROCESS_LIMIT: "This limit is fixed: tell its owner, who can have it start fewer.",
        Cause.CANCELLED: "Somebody stopped it. Run the same command again when it is to be done.",
        Cause.ENGINE_GONE: "Its engine ended in the middle, or the machine did. Run the same command again.",
        Cause.CANNOT_START: "Tell its owner: the image or the manifest's entrypoint must be corrected.",
        Cause.BAD_OUTPUT: "Tell its owner: what it wrote is not what its task must write.",
        Cause.BAD_MANIFEST: "Tell its owner: the manifest must be corrected.",
        Cause.INTEGRITY: "A file is not what its hash says: read the error, and do not use what it names.",
        Cause.ENGINE_UNAVAILABLE: "`medperf doctor` says what is wrong with the engine: mend it and run it again.",
        Cause.DISK_FULL: "Make space, or point MEDPERF_HOME elsewhere; then run the same command again.",
        Cause.CLIENT_GONE: "The command that ran it was killed. Run the same command again.",
        Cause.CLIENT_ERROR: "The command's own message said why. Run it again.",
    }
)
