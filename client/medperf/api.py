"""The gateway's API as the client uses it: typed answers, one login, and requests that are safe to repeat."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self, TypeVar, overload

import httpx
from pydantic import ValidationError

from medperf_contracts.accounts import Login, Refresh, ServerView, Tokens
from medperf_contracts.paging import Page
from medperf_contracts.values import Body, ThingView, View
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER, VERSION_HEADER, ThingVersion

from .bodies import checked_input
from .credentials import Credentials, Keyring
from .downloads import Download
from .errors import LoginRequired, ServerUnreachable, StoreChanged
from .home import Home
from .network import Network
from .retries import BOUND_SECONDS, notice_on_stderr
from .seen import Seen
from .wire import Answer, Request, Wire, refusal

V = TypeVar("V", bound=View)
Filter = str | int | bool | None
Sink = Callable[[bytes], object]

API = "/api/v1"
_PAGE_LIMIT = 100
_TOKEN_CODES = {"token_missing", "token_expired", "token_invalid"}
# A token that ends while the request travels would cost a second one.
_RENEW_EARLY_SECONDS = 15.0
_KINDS = {
    "containers": "container",
    "benchmarks": "benchmark",
    "datasets": "dataset",
    "associations": "association",
    "results": "result",
}


class Gateway:
    """A MedPerf server, as one person talks to it.

    Paths are those below `/api/v1`, such as `/benchmarks/1`. Raises LoginRequired, ServerUnreachable, and Refused
    for what the server answers with a problem document. `only_as` is the ID of the one person in whose name it may
    ask; where another is logged in, that is LoginRequired. `ask_login` is asked for the password, given the user
    name, when the login has ended; without it that is LoginRequired. StoreChanged where it ended because another
    store answers now. Without `network` it is what the environment
    and the local folder say.
    """

    def __init__(
        self,
        home: Home,
        *,
        network: Network | None = None,
        transport: httpx.BaseTransport | None = None,
        ask_login: Callable[[str], str] | None = None,
        keyring: Keyring | None = None,
        only_as: int | None = None,
        bound_seconds: float = BOUND_SECONDS,
        notice: Callable[[str], None] = notice_on_stderr,
    ) -> None:
        self._home = home
        self._transport = transport
        self._ask_login = ask_login
        self._only_as = only_as
        self._keyring = keyring or Keyring(home.credentials)
        self._bound_seconds = bound_seconds
        self._notice = notice
        self._network = network or Network.of(home.root)
        self._wire = Wire(
            home.server, network=self._network, transport=transport, bound_seconds=bound_seconds, notice=notice
        )
        self._seen = Seen(home.seen)
        self._credentials: Credentials | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the server."""
        self._wire.close()

    # The login

    def login(self, username: str, password: str) -> Credentials:
        """Log in and keep the tokens; Refused with `wrong_credentials` where name or password is wrong."""
        with checked_input():
            body = Login(username=username, password=password)
        tokens = self._read(self._open("/auth/login", body), Tokens)
        with self._keyring.exclusively():
            self._credentials = Credentials.received(tokens)
            self._keyring.keep(self._credentials)
        return self._credentials

    def logout(self) -> bool:
        """End the login here and on the server; False when there was none. The local tokens go in any case."""
        kept = self._keyring.load()
        if kept is None:
            return False
        self._ask_login = None  # nobody is asked for a password in order to leave
        try:
            key = {IDEMPOTENCY_HEADER: str(uuid.uuid4())}
            self._ask("POST", "/auth/logout", body=Refresh(refresh_token=kept.refresh_token), headers=key)
        except (LoginRequired, StoreChanged):
            pass  # the server had ended it already, or is not the one that knew it
        finally:
            self._keyring.forget()
            self._credentials = None
        return True

    @property
    def user_id(self) -> int | None:
        """The server's ID of who is logged in, as far as this machine knows; None when nobody is."""
        credentials = self._credentials or self._keyring.load()
        return credentials.user_id if credentials else None

    @property
    def username(self) -> str | None:
        """Who is logged in, as far as this machine knows; None when nobody is."""
        credentials = self._credentials or self._keyring.load()
        return credentials.username if credentials else None

    # Requests

    def server(self) -> ServerView:
        """Which store the server has; needs no login."""
        answer = self._wire.ask(Request("GET", f"{API}/server", {}, {}))
        return self._read(answer, ServerView)

    def get(self, path: str, view: type[V], *, seen: Iterable[str] = ()) -> V:
        """One thing. `seen` names what the question builds on, such as `association/7`."""
        answer = self._ask("GET", path, headers=self._seen_header(seen))
        return self._read(answer, view)

    def items(
        self, path: str, view: type[V], *, seen: Iterable[str] = (), is_one_page: bool = False, **filters: Filter
    ) -> Iterator[V]:
        """Every item of a list that the filters leave, page by page as they are asked for."""
        params = {name: _param(value) for name, value in filters.items() if value is not None}
        if not is_one_page:
            params["limit"] = str(_PAGE_LIMIT)
        headers = self._seen_header(seen)
        while True:
            answer = self._ask("GET", path, params=params, headers=headers)
            page = self._read(answer, Page[view])  # type: ignore[valid-type]
            self._note_items(path, page.items)
            yield from page.items
            if page.next_cursor is None:
                return
            if page.next_cursor == params.get("cursor"):
                raise _strange(self._home.server, "a list whose next page is itself")
            params["cursor"] = page.next_cursor

    @overload
    def post(
        self, path: str, body: Body | None, view: type[V], *, seen: Iterable[str] = (), key: str | None = None
    ) -> V: ...
    @overload
    def post(
        self, path: str, body: Body | None, view: None = None, *, seen: Iterable[str] = (), key: str | None = None
    ) -> None: ...
    def post(
        self,
        path: str,
        body: Body | None,
        view: type[V] | None = None,
        *,
        seen: Iterable[str] = (),
        key: str | None = None,
    ) -> V | None:
        """Do something, once. `key` names the intended action; every retry of it carries the same one."""
        headers = {IDEMPOTENCY_HEADER: key or str(uuid.uuid4()), **self._seen_header(seen)}
        answer = self._ask("POST", path, body=body, headers=headers)
        return None if view is None else self._read(answer, view)

    def patch(self, path: str, body: Body, view: type[V], *, version: int) -> V:
        """Change the thing that was seen as `version`; Refused with `precondition_failed` if it changed since.

        Not tried again once it may have arrived: a repeated change would be refused as a lost race with itself.
        """
        headers = {"If-Match": f'"{version}"'}
        answer = self._ask("PATCH", path, body=body, headers=headers, is_repeatable=False)
        return self._read(answer, view)

    def download(
        self, url: str, sink: Sink, *, on_progress: Callable[[int, int | None], None] | None = None
    ) -> None:
        """Hand every byte of an asset to `sink`, in order and once, however often the connection breaks.

        `url` may be a path of the gateway. No token goes with it, wherever it is. `on_progress` gets the bytes so
        far and in all (None when the other side does not say). What the bytes are worth is for the caller to
        check, by their hash.
        """
        Download(
            url,
            sink,
            gateway=self._home.server,
            on_progress=on_progress or (lambda *_: None),
            network=self._network,
            transport=self._transport,
            bound_seconds=self._bound_seconds,
            notice=self._notice,
        ).run()

    # How a request is made

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        is_repeatable: bool = True,
    ) -> Answer:
        """The answer to a request of the person who is logged in; renews the login where that is needed."""
        content, more = _content(body)
        credentials = self._current()
        for is_last in (False, True):
            authorized = {**(headers or {}), **more, "Authorization": f"Bearer {credentials.access_token}"}
            request = Request(method, API + path, params or {}, authorized, content, is_repeatable)
            answer = self._wire.ask(request)
            problem = answer.problem if answer.status == 401 else None
            if problem is None or problem.code not in _TOKEN_CODES:
                break
            if is_last:
                raise _login_ended(self._home.server)
            credentials = self._renewed(credentials)
        if not answer.is_success:
            raise refusal(answer, self._home.server)
        return answer

    def _open(self, path: str, body: Body) -> Answer:
        """Login and refresh: without a token and without an idempotency key. Both may be repeated."""
        content, headers = _content(body)
        return self._wire.ask(Request("POST", API + path, {}, headers, content))

    def _current(self) -> Credentials:
        credentials = self._credentials or self._keyring.load()
        if credentials is None:
            raise LoginRequired(f"You are not logged in to {self._home.server}.", hint="Run `medperf login`.")
        if self._only_as is not None and credentials.user_id != self._only_as:
            raise LoginRequired(
                f"{credentials.username} is logged in here now.",
                hint="Log in again as who began this: `medperf login`.",
            )
        self._credentials = credentials
        if credentials.expires_at - time.time() < _RENEW_EARLY_SECONDS:
            return self._renewed(credentials)
        return credentials

    def _renewed(self, used: Credentials) -> Credentials:
        """A login to go on with after `used`: renewed here, or meanwhile by another terminal."""
        with self._keyring.exclusively():
            kept = self._keyring.load()
            if kept is not None and kept.user_id != used.user_id:
                raise LoginRequired(
                    f"Another terminal has logged in as {kept.username} meanwhile; this command began as "
                    f"{used.username}.",
                    hint=f"Log in as {used.username} again and repeat the command; what it did is kept.",
                )
            if kept is not None and kept.access_token == used.access_token:
                answer = self._open("/auth/refresh", Refresh(refresh_token=kept.refresh_token))
                kept = None
                if answer.status != 401:
                    kept = Credentials.received(self._read(answer, Tokens))
                    self._keyring.keep(kept)
        if kept is not None:
            self._credentials = kept
            return kept
        # What ended the login may be another store behind the same address, which knows none of our IDs.
        self._home.check_store(self.server())
        if self._ask_login is None:
            raise _login_ended(self._home.server)
        renewed = self.login(used.username, self._ask_login(used.username))
        try:
            self._home.check_store(self.server())  # again: somebody may take a day to answer
        except StoreChanged:
            self._keyring.forget()
            raise
        return renewed

    def _read(self, answer: Answer, view: type[V]) -> V:
        if not answer.is_success:
            raise refusal(answer, self._home.server)
        try:
            read = view.model_validate_json(answer.content)
        except ValidationError as error:
            raise _strange(self._home.server, f"something that is no {view.__name__}") from error
        header = answer.headers.get(VERSION_HEADER.lower())
        if header is not None:
            try:
                self._seen.note([ThingVersion.parse(header)])
            except ValueError as error:
                raise _strange(self._home.server, f"the version {header!r}") from error
        return read

    def _note_items(self, path: str, items: list[V]) -> None:
        kind = _KINDS.get(path.strip("/").partition("/")[0])
        if kind is not None:
            self._seen.note(
                ThingVersion(kind, item.id, item.version) for item in items if isinstance(item, ThingView)
            )

    def _seen_header(self, names: Iterable[str]) -> dict[str, str]:
        header = self._seen.header(names)
        return {SEEN_HEADER: header} if header else {}


def _content(body: Body | None) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    return json.dumps(body.as_sent(), separators=(",", ":")).encode(), {"Content-Type": "application/json"}


def _param(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _login_ended(server: str) -> LoginRequired:
    return LoginRequired(
        f"Your login to {server} has ended.",
        hint="Run `medperf login`, then the same command again: what it did so far is kept.",
    )


def _strange(server: str, what: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"{server} answered with {what}.",
        hint="Check the address (--server, MEDPERF_SERVER), and that client and server are of the same version.",
    )
