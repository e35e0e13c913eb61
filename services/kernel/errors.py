"""Refusals: what each says, and its status. Plain classes, so that the rules of a domain can raise them."""

from __future__ import annotations

from typing import ClassVar


class AppError(Exception):
    """A refusal: `code` is for programs and never changes, `detail` and `hint` are for people."""

    status: ClassVar[int]
    code: ClassVar[str]
    hint: str = ""

    def __init__(
        self, detail: str, *, hint: str = "", existing: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint or type(self).hint
        self.existing = existing
        self.retry_after_seconds = retry_after_seconds


class BadRequest(AppError):
    status = 400


class Unauthorized(AppError):
    status = 401


class Forbidden(AppError):
    status = 403


class NotFound(AppError):
    status = 404


class Conflict(AppError):
    status = 409


class PreconditionFailed(AppError):
    status = 412


class Unavailable(AppError):
    status = 503


class NotAllowed(Forbidden):
    code = "not_allowed"
    hint = "Ask one who may; the `view` command of the thing shows whose it is."


class NoSuchThing(NotFound):
    code = "no_such_thing"
    hint = "Check the ID; a thing that you may not see is answered the same way."


class ChangedMeanwhile(Conflict):
    code = "changed_meanwhile"
    hint = "Look at it again, then decide again."


class VersionRequired(BadRequest):
    code = "version_required"
    hint = 'Send the version that you saw as If-Match: "3".'


class VersionDiffers(PreconditionFailed):
    code = "precondition_failed"
    hint = "Somebody changed it since: look at it again, then send the change with the new version."


class ServerBusy(Unavailable):
    code = "server_busy"
    hint = "Try again in a moment; nothing was changed."


class StorageFull(Unavailable):
    code = "storage_full"
    hint = "Tell the server's operator to make space; then send the same again, with the same Idempotency-Key."


class StorageFailed(Unavailable):
    code = "storage_failed"
    hint = (
        "Tell the server's operator to look at its database and disk; then send the same again, "
        "with the same Idempotency-Key."
    )


class BodyTooLarge(AppError):
    status = 413
    code = "body_too_large"
    hint = "Send less: scores and summaries are small; larger parts are registered by URL and hash."


class InvalidDocument(BadRequest):
    code = "invalid_document"
    hint = "Send JSON (UTF-8) with an object at its root, without NaN, NUL characters or deep nesting."


class InvalidInput(AppError):
    status = 422
    code = "invalid_input"
    hint = "Correct the fields named."


class NoSuchAddress(NotFound):
    code = "no_such_address"
    hint = "The API is under /api/v1; each service describes itself under /api/v1/openapi/NAME.json."


class MethodNotAllowed(AppError):
    status = 405
    code = "method_not_allowed"
    hint = "The header Allow names what this address answers."


class BadHttpRequest(BadRequest):
    """Whatever else the web framework refuses, with the status that it gives."""

    code = "bad_request"
    hint = "Send the request as the service describes it under /api/v1/openapi/NAME.json."


class InternalError(AppError):
    status = 500
    code = "internal_error"
    hint = "Try again; tell the operator."


def every_error(base: type[AppError] = AppError) -> list[type[AppError]]:
    """All refusals known to this process that have a code of their own."""
    found = [base] if "code" in vars(base) else []
    for child in base.__subclasses__():
        found.extend(every_error(child))
    return found
