"""How a refusal becomes a problem document (RFC 9457). One handler for each kind; bugs are logged, not hidden."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException

from medperf_contracts.problems import MEDIA_TYPE, Problem

from .errors import (
    AppError,
    BadHttpRequest,
    ChangedMeanwhile,
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    NoSuchAddress,
    VersionDiffers,
)

_OF_HTTP: dict[int, type[AppError]] = {404: NoSuchAddress, 405: MethodNotAllowed}


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


def told_as(request: Request, error: Exception) -> tuple[int, str]:
    """The status and the code with which `error` is answered."""
    match error:
        case AppError():
            return error.status, error.code
        case StaleDataError():
            lost = _lost(request)
            return lost.status, lost.code
        case RequestValidationError():
            return InvalidInput.status, InvalidInput.code
        case HTTPException():
            return error.status_code, _OF_HTTP.get(error.status_code, BadHttpRequest).code
    return InternalError.status, InternalError.code


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
    lost = _lost(request)
    detail = "Somebody else changed this at the same moment; their change stands."
    return problem_response(status=lost.status, code=lost.code, detail=detail, hint=lost.hint)


def _lost(request: Request) -> type[AppError]:
    # Whoever named a version learns that it is no longer the one, whichever of the two checks found out.
    return VersionDiffers if "if-match" in request.headers else ChangedMeanwhile


async def _on_invalid(request: Request, error: Exception) -> Response:
    # What was sent is not echoed: it may be a password.
    fields = [
        {"field": ".".join(str(step) for step in problem["loc"]), "problem": problem["msg"]}
        for problem in cast(RequestValidationError, error).errors()
    ]
    detail = "; ".join(f"{field['field']}: {field['problem']}" for field in fields[:5])
    return problem_response(
        status=InvalidInput.status,
        code=InvalidInput.code,
        detail=detail,
        hint=InvalidInput.hint,
        fields=fields,
    )


async def _on_http(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    refusal = _OF_HTTP.get(status, BadHttpRequest)
    detail = str(cast(HTTPException, error).detail)
    response = problem_response(status=status, code=refusal.code, detail=detail, hint=refusal.hint)
    response.headers.update(cast(HTTPException, error).headers or {})
    return response


async def _on_bug(request: Request, error: Exception) -> Response:
    detail = "The server failed at this request; its log tells the operator why."
    bug = InternalError
    return problem_response(status=bug.status, code=bug.code, detail=detail, hint=bug.hint)
