"""Refusals of the gateway itself: what the proxy of a deployment answers where no service does."""

from __future__ import annotations

from services.kernel.errors import AppError, BadRequest


class TlsRequired(BadRequest):
    code = "tls_required"
    hint = "Use the same address with https://. What was sent was readable on the way: change a password in it."


class AddressTooLong(AppError):
    status = 414
    code = "address_too_long"
    hint = "Ask with fewer or shorter parameters."


class BadRange(AppError):
    status = 416
    code = "bad_range"
    hint = "Ask for the file from its beginning."


class HeadersTooLarge(AppError):
    status = 431
    code = "headers_too_large"
    hint = "Send smaller headers: log in again where it is the token, name fewer things in Medperf-Seen."


class TooManyRequests(AppError):
    status = 429
    code = "too_many_requests"
    hint = "Nothing was done: send the same again after the seconds that Retry-After names."


class ServiceUnreachable(AppError):
    status = 502
    code = "service_unreachable"
    hint = "Send the same again in a moment, with the same Idempotency-Key; tell the operator if it stays so."


class ServiceTooSlow(AppError):
    status = 504
    code = "service_too_slow"
    hint = "It may have been done: send the same again in a moment, with the same Idempotency-Key."
