"""Fetching a large file by its URL, taken up again where the connection broke."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import httpx

from .asset_hosts import check_host, origin_of
from .errors import IntegrityError, Refused, ServerUnreachable, UsageError
from .network import Network
from .parts import Part, is_strong
from .proxies import Proxy, proxy_for, refused_by
from .retries import Patience, TryAgain, patiently, retry_after_seconds
from .wire import check_trust, client_for, not_let_through

# Larger than any image known; without a bound a server could fill the disk.
ASSET_BYTES_MOST = 64 * 2**30
_REDIRECTS_MOST = 5
_CHUNK_BYTES = 256 * 1024
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_STATUSES_TO_WAIT_FOR = {429, 500, 502, 503, 504}


class Download:
    """One asset on its way to a sink. Requests carry no login and no cookie, here or across a redirect."""

    def __init__(
        self,
        url: str,
        sink: Callable[[bytes], object],
        *,
        gateway: str,
        on_progress: Callable[[int, int | None], None],
        network: Network,
        transport: httpx.BaseTransport | None,
        bound_seconds: float,
        notice: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._network = network
        self._notice = notice
        self._told = {origin_of(gateway)}
        self._url = self._checked(url, gateway)
        self._sink = sink
        self._on_progress = on_progress
        self._transport = transport
        self._patience = Patience(bound_seconds, notice)
        # What an earlier command has of it is gone on with.
        self._part = sink if isinstance(sink, Part) else None
        self._given = 0 if self._part is None else self._part.given
        self._validator = None if self._part is None else self._part.validator

    def run(self) -> None:
        """Fetch it whole; the bound for trying again begins anew whenever bytes arrive."""
        patiently(self._attempt, self._patience)

    def _checked(self, written: str, base: str) -> str:
        """An asset's address, refused where the way to it could be read or is not HTTP at all."""
        try:
            url = urljoin(base, written)
            parts = urlsplit(url)
            is_usable = parts.scheme in ("http", "https") and httpx.URL(url).host != "" and parts.port != 0
            is_usable = is_usable and url.isprintable()
        except (ValueError, httpx.InvalidURL):
            is_usable = False
        if not is_usable:
            raise UsageError(
                f"{written!r:.300} is no http or https address, so it is not fetched.",
                hint="Ask whoever registered it for an https address.",
            )
        if self._network.is_plain(url):
            self._notice(
                f"Warning: {url} is plain http: who is on the way sees what is fetched. Its hash is checked."
            )
        return url

    def _attempt(self, patience: Patience) -> None:
        url = self._url
        for _ in range(_REDIRECTS_MOST + 1):
            proxy = proxy_for(url) if self._transport is None else None
            addresses = self._allowed(url, proxy)
            self._tell(url)
            try:
                location = self._fetch_from(addresses, url, proxy)
            except httpx.ProxyError as error:
                raise not_let_through(error, proxy, url) from error
            except httpx.TransportError as error:
                check_trust(error, url)
                why = str(error) or type(error).__name__
                way = f"{why}, through the proxy {proxy}" if proxy is not None else why
                raise TryAgain(self._unreachable(way)) from error
            if location is None:
                return
            url = self._checked(location, url)
        raise self._refused("it leads from one address to another without end", 302)

    def _allowed(self, url: str, proxy: Proxy | None) -> list[str]:
        if self._transport is not None:
            return []
        try:
            return check_host(url, gateway=self._gateway, has_proxy=proxy is not None)
        except OSError as error:
            raise TryAgain(self._unreachable(error.strerror or "its name is not known")) from error

    def _tell(self, url: str) -> None:
        """Name a host that is not the gateway before it is asked."""
        origin = origin_of(url)
        if origin not in self._told:
            self._told.add(origin)
            shown = httpx.URL(url)
            self._notice(f"Fetching from {shown.scheme}://{shown.netloc.decode()}; your login does not go there.")

    def _fetch_from(self, addresses: list[str], url: str, proxy: Proxy | None) -> str | None:
        """Fetch by the first of the addresses that answers; by the name where there are none."""
        for address in addresses[:-1]:
            try:
                return self._fetch(url, proxy, address)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                check_trust(error, url)
        return self._fetch(url, proxy, addresses[-1] if addresses else None)

    def _fetch(self, url: str, proxy: Proxy | None, address: str | None) -> str | None:
        """Give the sink what it has not had yet, or return where the file is instead.

        A name is not looked up again for an `address` that was: it could lead elsewhere the second time.
        """
        named = httpx.URL(url)
        # Bytes as they are stored: the hash is of the file, not of what an encoding on the way made of it.
        headers = {"Accept-Encoding": "identity", "Host": named.netloc.decode()}
        if self._given:
            headers["Range"] = f"bytes={self._given}-"
            if self._validator is not None:
                # The rest only if it is still the rest of the same; else the whole of what is there now.
                headers["If-Range"] = self._validator
        with (
            client_for(url, self._network, proxy, self._transport) as client,
            client.stream(
                "GET",
                named if address is None else named.copy_with(host=address),
                headers=headers,
                timeout=_TIMEOUT,
                # The certificate is the name's.
                extensions={"sni_hostname": named.raw_host.decode()},
            ) as response,
        ):
            if response.has_redirect_location:
                return response.headers["location"]
            if response.status_code == 407 and proxy is not None:
                raise refused_by(proxy, url, response.status_code)[0]
            if response.status_code in _STATUSES_TO_WAIT_FOR:
                asked = retry_after_seconds(response.headers.get("retry-after"))
                raise TryAgain(self._unreachable(f"status {response.status_code}"), retry_after_seconds=asked)
            if response.status_code == 416 and self._given:
                return None  # nothing is left to give: only the end of the connection was lost
            if response.status_code not in (200, 206):
                raise self._refused(f"status {response.status_code}", response.status_code)
            self._take(response)
        return None

    def _take(self, response: httpx.Response) -> None:
        self._check_is_the_same(response)
        if self._given and self._part is not None:
            self._part.is_pieced = True
        # A server that knows no ranges sends everything again: what was given already is passed over.
        begins = _first_byte(response) if response.status_code == 206 else 0
        if begins > self._given:
            raise TryAgain(self._unreachable("it sent another part than asked for"))
        to_skip = self._given - begins
        length = response.headers.get("content-length", "")
        total = begins + int(length) if length.isdigit() else None
        for chunk in response.iter_raw(_CHUNK_BYTES):
            fresh = chunk[to_skip:]
            to_skip = max(0, to_skip - len(chunk))
            if not fresh:
                continue
            if self._given + len(fresh) > ASSET_BYTES_MOST:
                raise IntegrityError(
                    f"{self._url} is larger than {ASSET_BYTES_MOST // 2**30} GiB.",
                    hint="Ask whoever registered it: no asset is meant to be so large.",
                )
            self._sink(fresh)
            self._given += len(fresh)
            self._patience.restart()
            self._on_progress(self._given, total)

    def _check_is_the_same(self, response: httpx.Response) -> None:
        """Note what the bytes are of; begin anew where they are of another file than those that are here."""
        validator = _strong_validator(response)
        if self._given and self._validator is not None and validator != self._validator:
            if self._part is None:
                raise IntegrityError(
                    f"{self._url} was replaced while it was fetched.", hint="Run the same command again."
                )
            self._notice(f"{self._url} has been replaced meanwhile: it is fetched from its beginning.")
            self._part.restart()
            self._given, self._validator = 0, None
            if response.status_code == 206:
                raise TryAgain(self._unreachable("it was replaced while it was fetched"))
        if not self._given:
            self._validator = validator
            if self._part is not None:
                self._part.note_validator(validator)

    def _unreachable(self, why: str) -> ServerUnreachable:
        return ServerUnreachable(
            f"{self._url} cannot be fetched ({why}).",
            hint="Check that this machine reaches it (HTTPS_PROXY, NO_PROXY), then run the command again.",
        )

    def _refused(self, why: str, status: int) -> Refused:
        return Refused(
            f"{self._url} cannot be fetched: {why}.",
            hint="Tell whoever registered it: the file is not where they said it is.",
            code="asset_unavailable",
            status=status,
        )


def _strong_validator(response: httpx.Response) -> str | None:
    tag: str = response.headers.get("etag", "")
    return tag if is_strong(tag) else None


def _first_byte(response: httpx.Response) -> int:
    unit, _, rest = response.headers.get("content-range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else 0
