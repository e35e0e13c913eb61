"""One request to the gateway and its answer, tried again where that can do no harm."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from medperf_contracts.problems import Problem
from medperf_contracts.releases import (
    CLIENT,
    CLIENT_HEADER,
    OLDEST_SERVER,
    SERVER_HEADER,
    is_older,
    release_in,
)

from .errors import ClientError, Refused, ServerUnreachable, VersionMismatch
from .network import Network
from .proxies import Proxy, proxy_for, refused_by, status_of
from .retries import Patience, TryAgain, patiently, retry_after_seconds

# 200 containers with the longest manifests and parameters, and room to spare.
_ANSWER_BYTES_MOST = 128 * 1024 * 1024
_ATTEMPT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
# `in_progress` is our own earlier attempt, still at work; `not_known_yet` is a service that has not heard yet.
_CODES_TO_WAIT_FOR = {"in_progress", "not_known_yet"}
_CUT_OFF = "its answer was cut off"
_AS_TLS_ANSWERS_HTTP = {_CUT_OFF, "Connection reset by peer"}
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = {62, 64}
_STATUSES_TO_WAIT_FOR = {429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Answer:
    """A whole answer: its status, its headers by lower-case name, its bytes."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether the request was done."""
        return 200 <= self.status < 300

    @property
    def problem(self) -> Problem | None:
        """Why it was not done, as a service says it; None when something else answered."""
        try:
            return Problem.model_validate_json(self.content)
        except ValueError:
            return None


@dataclass(frozen=True)
class Request:
    """What is asked of the gateway; `is_repeatable` says that asking twice does the same as asking once."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes | None = None
    is_repeatable: bool = True


class Wire:
    """Requests to one gateway."""

    def __init__(
        self,
        server: str,
        *,
        network: Network,
        transport: httpx.BaseTransport | None,
        bound_seconds: float,
        notice: Callable[[str], None],
    ) -> None:
        self._server = server
        self._bound_seconds = bound_seconds
        self._notice = notice
        network.is_plain(server)
        self._proxy = proxy_for(server) if transport is None else None
        self._client = client_for(server, network, self._proxy, transport)
        self._client.headers[CLIENT_HEADER] = CLIENT

    def ask(self, request: Request) -> Answer:
        """The answer, whatever its status but one that may pass; ServerUnreachable when there is none."""
        patience = Patience(self._bound_seconds, self._notice)
        return patiently(lambda within: self._attempt(request, within), patience)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _attempt(self, request: Request, patience: Patience) -> Answer:
        try:
            answer = self._exchange(request, patience)
        except httpx.ProxyError as error:
            raise not_let_through(error, self._proxy, self._server) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            check_trust(error, self._server)
            raise TryAgain(self._unreachable(_plain(error))) from error
        except httpx.RequestError as error:
            raise self._lost(request, _plain(error)) from error
        check_release(answer, self._server)
        if answer.status == 407 and self._proxy is not None:
            raise refused_by(self._proxy, self._server, answer.status)[0]
        if answer.status in _STATUSES_TO_WAIT_FOR:
            raise self._failing(request, answer)
        if answer.status == 409 and (problem := answer.problem) and problem.code in _CODES_TO_WAIT_FOR:
            raise self._failing(request, answer)
        if answer.is_success and answer.content and not _is_json(answer.content):
            raise self._lost(request, _CUT_OFF)
        return answer

    def _exchange(self, request: Request, patience: Patience) -> Answer:
        left = max(patience.left_seconds, 1.0)
        timeout = httpx.Timeout(min(_READ_SECONDS, left), connect=min(_CONNECT_SECONDS, left))
        deadline = time.monotonic() + _ATTEMPT_SECONDS
        with self._client.stream(
            request.method,
            request.path,
            params=dict(request.params),
            headers=dict(request.headers),
            content=request.content,
            timeout=timeout,
        ) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _ANSWER_BYTES_MOST:
                    raise ServerUnreachable(
                        f"{self._server} answered with more than {_ANSWER_BYTES_MOST} bytes.",
                        hint="Check that this address is a MedPerf server, and tell its operator.",
                    )
                if time.monotonic() > deadline:
                    # Each read came in time, but at this pace the whole never would.
                    raise httpx.ReadTimeout("too slow", request=response.request)
            return Answer(response.status_code, dict(response.headers), bytes(content))

    def _lost(self, request: Request, why: str) -> Exception:
        """The request may have been done, and the answer is lost."""
        if request.is_repeatable:
            return TryAgain(self._unreachable(why))
        return ServerUnreachable(
            f"{self._server} did not answer ({why}): the change may have been made or not.",
            hint="Look at the thing with its `view` command, then run this command again if it is needed.",
        )

    def _failing(self, request: Request, answer: Answer) -> Exception:
        problem = answer.problem
        asked = retry_after_seconds(answer.headers.get("retry-after"))
        why = f"status {answer.status}" + (f": {problem.detail.rstrip('.')}" if problem else "")
        error: ClientError = self._unreachable(why)
        if problem is not None and problem.code in _CODES_TO_WAIT_FOR:
            error = refusal(answer, self._server)
        # Of a database that went away, nobody knows whether it had done it.
        is_lost = problem is not None and problem.code == "storage_failed"
        is_surely_not_done = answer.status in (409, 429, 503) and not is_lost
        if request.is_repeatable or is_surely_not_done:
            return TryAgain(error, retry_after_seconds=asked)
        return self._lost(request, why)

    def _unreachable(self, why: str) -> ServerUnreachable:
        way = f" through the proxy {self._proxy}" if self._proxy is not None else ""
        is_perhaps_tls = why in _AS_TLS_ANSWERS_HTTP and self._server.startswith("http://")
        is_https = (
            " A server of TLS answers so to plain http: perhaps its address is https://…" if is_perhaps_tls else ""
        )
        return ServerUnreachable(
            f"The server at {self._server} is not answering{way} ({why}).",
            hint="Check that it runs and that this machine reaches it (--server, MEDPERF_SERVER; HTTPS_PROXY,"
            " NO_PROXY; `medperf doctor` looks at each), "
            f"then run the same command again: nothing is sent twice.{is_https}",
        )


def check_release(answer: Answer, server: str) -> None:
    """Raise VersionMismatch where client or server is too old for the other, whatever else was answered."""
    release = release_in(answer.headers.get(SERVER_HEADER.lower()), "medperf-server")
    if release is not None and is_older(release, OLDEST_SERVER):
        raise VersionMismatch(
            f"{server} is of release {release}, which this client ({CLIENT}) no longer understands.",
            hint=f"Ask its operator for release {OLDEST_SERVER} or later, or install a client of its release.",
        )
    problem = answer.problem if answer.status == 426 else None
    if problem is not None and problem.code == "client_too_old":
        raise VersionMismatch(f"{server}: {problem.detail}", hint=problem.hint)


def refusal(answer: Answer, server: str) -> Refused:
    """What an answer that is no success says, as an error for the person."""
    problem = answer.problem
    if problem is not None:
        return Refused(
            problem.detail,
            hint=problem.hint or "Change what the message names, then run the command again.",
            code=problem.code,
            status=answer.status,
            existing=problem.existing,
        )
    if answer.status in _REDIRECTS and "location" in answer.headers:
        return Refused(
            f"{server} sends on to {answer.headers['location']} (status {answer.status}). That is not followed,"
            " and nothing was sent there: your login is for this address alone.",
            hint="If the operator says that the server has moved there, give its new address (--server,"
            " MEDPERF_SERVER).",
            code="redirected",
            status=answer.status,
        )
    return Refused(
        f"{server} answered with status {answer.status}, and not as a MedPerf server does.",
        hint="Check the address (--server, MEDPERF_SERVER); a proxy on the way may have answered instead.",
        code="not_a_problem_document",
        status=answer.status,
    )


def client_for(
    url: str, network: Network, proxy: Proxy | None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """An HTTP client for one origin. It follows no redirect, and reads nothing from the environment by itself.

    Without TLS there are no certificates to load, which takes longer than the request.
    """
    parts = urlsplit(url)
    schemes = {parts.scheme} if proxy is None else {parts.scheme, urlsplit(proxy.url).scheme}
    trusted = network.trusted() if "https" in schemes else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(
        base_url=f"{parts.scheme}://{parts.netloc}",
        transport=transport,
        proxy=None if proxy is None else httpx.Proxy(proxy.url, ssl_context=_of_proxy(proxy, trusted)),
        trust_env=False,
        follow_redirects=False,
        verify=trusted,
        headers={"User-Agent": "medperf"},
    )


def _of_proxy(proxy: Proxy, trusted: ssl.SSLContext) -> ssl.SSLContext | None:
    return trusted if urlsplit(proxy.url).scheme == "https" else None


def not_let_through(error: httpx.ProxyError, proxy: Proxy | None, url: str) -> Exception:
    """What to raise where the proxy refused to connect to `url`: nothing of the request was sent."""
    if proxy is None:
        raise TypeError("only a proxy refuses so")
    refusal, may_pass = refused_by(proxy, url, status_of(str(error)))
    return TryAgain(refusal) if may_pass else refusal


def check_trust(error: httpx.TransportError, server: str) -> None:
    """Raise ServerUnreachable where the other side's certificate is not trusted: trying again cannot help."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        hint = (
            "Ask whoever runs it for the address that its certificate is made for; the server's is given as"
            " --server (MEDPERF_SERVER). No CA mends this."
        )
        if cause.verify_code in _OTHER_NAME:
            raise ServerUnreachable(
                f"The certificate of {server} is made for another name ({cause.verify_message}).",
                hint=hint,
            ) from error
        raise ServerUnreachable(
            f"The certificate of {server} is not trusted on this machine ({cause.verify_message}).",
            hint="If your site has a CA of its own, or a proxy that signs its connections, give that CA's file as"
            " --ca FILE (MEDPERF_CA); otherwise do not go on, and tell the server's operator.",
        ) from error


def _plain(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return _CUT_OFF
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
