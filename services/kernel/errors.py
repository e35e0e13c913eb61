"""Refusals, and how each becomes a problem document (RFC 9457). One handler; bugs are not caught here."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from medperf_contracts.problems import MEDIA_TYPE, Problem
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException


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
    hint = "Ask the one who may: the message names who that is."


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


class BodyTooLarge(AppError):
    status = 413
    code = "body_too_large"
    hint = "Send less: scores and summaries are small; larger parts are registered by URL and hash."


class InvalidDocument(BadRequest):
    code = "invalid_document"
    hint = "Send JSON (UTF-8) with an object at its root, without NaN, NUL characters or deep nesting."


_HTTP_CODES = {404: "no_such_address", 405: "method_not_allowed", 400: "bad_request"}


def every_error(base: type[AppError] = AppError) -> list[type[AppError]]:
    """All refusals known to this process that have a code of their own."""
    found = [base] if "code" in vars(base) else []
    for child in base.__subclasses__():
        found.extend(every_error(child))
    return found


def problem_response(
    *,
    status: int,
    code: str,
    detail: str,
    hint: str = "",
    existing: str | None = None,
    fields: list[dict[str, Any]] | None = None,
    retry_after_seconds: int | None = None,
) -> Response:
    """The answer that says why a request was refused."""
    problem = Problem(
        title=code.replace("_", " ").capitalize(),
        status=status,
        code=code,
        detail=detail,
        hint=hint,
        existing=existing,
        fields=fields or [],
    )
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install_handlers(app: FastAPI) -> None:
    """Answer every refusal of `app` as a problem document."""
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(StaleDataError, _on_stale)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


async def _on_app_error(request: Request, error: Exception) -> Response:
    refusal = cast(AppError, error)
    return problem_response(
        status=refusal.status,
        code=refusal.code,
        detail=refusal.detail,
        hint=refusal.hint,
        existing=refusal.existing,
        retry_after_seconds=refusal.retry_after_seconds,
    )


async def _on_stale(request: Request, error: Exception) -> Response:
    detail = "Somebody else changed this at the same moment; their change stands."
    return problem_response(status=409, code=ChangedMeanwhile.code, detail=detail, hint=ChangedMeanwhile.hint)


async def _on_invalid(request: Request, error: Exception) -> Response:
    # What was sent is not echoed: it may be a password.
    fields = [
        {"field": ".".join(str(step) for step in problem["loc"]), "problem": problem["msg"]}
        for problem in cast(RequestValidationError, error).errors()
    ]
    detail = "; ".join(f"{field['field']}: {field['problem']}" for field in fields[:5])
    return problem_response(
        status=422, code="invalid_input", detail=detail, hint="Correct the fields named.", fields=fields
    )


async def _on_http(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    code = _HTTP_CODES.get(status, "http_error")
    response = problem_response(status=status, code=code, detail=str(cast(HTTPException, error).detail))
    response.headers.update(cast(HTTPException, error).headers or {})
    return response


async def _on_bug(request: Request, error: Exception) -> Response:
    detail = "The server failed at this request; its log tells the operator why."
    return problem_response(status=500, code="internal_error", detail=detail, hint="Try again; tell the operator.")
