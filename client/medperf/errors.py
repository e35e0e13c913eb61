"""The client's error tree: what happened, what to do next, and the command's exit code."""

from __future__ import annotations


class ClientError(Exception):
    """An expected failure that a person can act on.

    The message says what happened, the hint what to do. Caught once, in `medperf.cli.main`, which prints both
    and exits with `exit_code`. The codes are listed in docs/exit-codes.md.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ClientError):
    """What was typed cannot be done: a missing option, a path that is not there, an unknown UID."""

    exit_code = 2


class NotConfirmed(ClientError):
    """A question was answered with no, or could not be asked because there is no terminal and no `--yes`."""

    exit_code = 3


class LoginRequired(ClientError):
    """No login for this server, or one that can no longer be refreshed."""

    exit_code = 4


class ServerUnreachable(ClientError):
    """The server could not be reached, or kept failing, within the bound for retries."""

    exit_code = 5


class Refused(ClientError):
    """The server refused the request; `code` is the stable code of its problem document.

    `existing` names, as kind/ID, the thing that is there already, where that is the reason.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str, code: str, status: int, existing: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status
        self.existing = existing


class ContainerFailed(ClientError):
    """A container's task failed: its exit code, its time limit, or what it wrote."""

    exit_code = 7


class IntegrityError(ClientError):
    """A hash is not the one that is registered or recorded, or a file that must not be there is."""

    exit_code = 8


class EngineUnavailable(ClientError):
    """No engine on this machine can run the container."""

    exit_code = 9


class BadManifest(ClientError):
    """A container's manifest, parameters or archive breaks the rules; the message names the key or the file."""

    exit_code = 10


class StoreChanged(ClientError):
    """The address that the local folder belongs to now answers with another server's store."""

    exit_code = 11


class Busy(ClientError):
    """Another command is working on the same thing."""

    exit_code = 12


class PartlyDone(ClientError):
    """Some of what was asked was done and some was not; what was done is kept."""

    exit_code = 13


class StorageFailed(ClientError):
    """A local file could not be read or written: a full disk, a read-only folder, missing permissions."""

    exit_code = 14


class NotApproved(ClientError):
    """What must be approved first is not: the benchmark, or the dataset's association with it."""

    exit_code = 15


class ProblemsFound(ClientError):
    """A look at this machine, its network and the server found a problem; each says what to do."""

    exit_code = 16


class VersionMismatch(ClientError):
    """Client and server are of releases that do not understand each other."""

    exit_code = 17
