"""Accounts: logins and their tokens, users, the store's identity and its mark."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from argon2 import PasswordHasher
from httpx import Response
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.orm.exc import StaleDataError

from medperf_contracts.accounts import ENDED_GOES_ON_MINUTES, NewUser
from service.peer import OPERATOR_TOKEN, Peer
from services.accounts import commands, tokens
from services.accounts.app import DEFINITION
from services.accounts.domain import Login, User
from services.accounts.errors import UserExists
from services.accounts.tables import logins, metadata, users
from services.kernel import clock, migrate
from services.kernel.auth import CLOCKS_DIFFER_SECONDS, Gate
from services.kernel.db import Database
from services.kernel.http import OWN_TRANSACTIONS, PASSWORD_BODIES
from services.kernel.service import Definition
from services.kernel.tables import KERNEL, idempotency_key

SERVER, AUTH, USERS = "/api/v1/server", "/api/v1/auth", "/api/v1/users"
ADA = {"username": "ada", "password": "a long password"}
# Several times the work of the real one, so that what it holds up stands out.
SLOW_HASHER = PasswordHasher(time_cost=20)


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    """The service with an identity, as an embedded server makes it before it listens; nobody has an account."""
    peer = start(DEFINITION)

    async def create_store() -> None:
        async with peer.service.database.write() as session:
            await commands.create_store(session)

    peer.run(create_store())
    return peer


@pytest.fixture
def ada(peer: Peer) -> dict[str, Any]:
    """Ada's account."""
    return done(as_operator(peer, "POST", USERS, ADA), 201)


def as_operator(peer: Peer, method: str, path: str, body: Any = None, /, **options: Any) -> Response:
    return peer.call(method, path, body, token=OPERATOR_TOKEN, **options)


def done(response: Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(response: Response) -> tuple[int, str]:
    assert response.json()["hint"], "a refusal says what to do next"
    return response.status_code, response.json()["code"]


def log_in(peer: Peer, **changed: Any) -> Response:
    return peer.call("POST", f"{AUTH}/login", {**ADA, **changed}, key="")


def refresh(peer: Peer, token: str) -> Response:
    return peer.call("POST", f"{AUTH}/refresh", {"refresh_token": token}, key="")


def count(peer: Peer, table: Any) -> int:
    async def read() -> int:
        async with peer.service.database.read() as session:
            return (await session.execute(select(func.count()).select_from(table))).scalar_one()

    return peer.run(read())


# --- logins ---


def test_a_login_gives_an_access_token_that_says_who_its_person_is(peer: Peer, ada: dict[str, Any]) -> None:
    answer = done(log_in(peer))
    assert (answer["user_id"], answer["username"]) == (ada["id"], "ada")
    assert answer["expires_in_seconds"] <= 15 * 60
    assert answer["expires_in_seconds"] + CLOCKS_DIFFER_SECONDS == ENDED_GOES_ON_MINUTES * 60
    me = peer.call("GET", f"{USERS}/me", token=answer["access_token"])
    assert done(me) == ada
    assert me.headers["Medperf-Version"] == f"user/{ada['id']}@1"


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(peer: Peer, ada: dict[str, Any]) -> None:
    wrong, unknown = log_in(peer, password="a wrong password"), log_in(peer, username="nobody")
    assert refused(wrong) == (401, "wrong_credentials")
    assert wrong.json() == unknown.json()
    assert count(peer, logins) == 0


def test_a_stale_login_keeps_nobody_from_logging_in(peer: Peer, ada: dict[str, Any]) -> None:
    stale = peer.token(ada["id"], seconds=-60)
    assert peer.call("POST", f"{AUTH}/login", ADA, token=stale, key="").status_code == 200


def test_a_refresh_replaces_the_token_by_its_successor(peer: Peer, ada: dict[str, Any]) -> None:
    first = done(log_in(peer))
    second = done(refresh(peer, first["refresh_token"]))
    assert second["refresh_token"] != first["refresh_token"]
    assert peer.call("GET", f"{USERS}/me", token=second["access_token"]).json() == ada
    assert refresh(peer, second["refresh_token"]).status_code == 200


def test_a_refresh_whose_answer_was_lost_may_be_asked_again_until_its_successor_is_used(
    peer: Peer, ada: dict[str, Any]
) -> None:
    first = done(log_in(peer))["refresh_token"]
    refresh(peer, first)
    refresh(peer, first)
    third = done(refresh(peer, first))["refresh_token"]
    done(refresh(peer, third))
    assert refused(refresh(peer, first)) == (401, "login_ended")


def test_a_token_older_than_that_ends_the_login_for_whoever_holds_it(peer: Peer, ada: dict[str, Any]) -> None:
    first = done(log_in(peer))["refresh_token"]
    second = done(refresh(peer, first))["refresh_token"]
    third = done(refresh(peer, second))["refresh_token"]
    assert refused(refresh(peer, first)) == (401, "login_ended")
    # The end was committed although the request was refused: the newest token is good no more.
    assert refused(refresh(peer, third)) == (401, "login_ended")


def test_a_guessed_secret_ends_the_login_and_another_login_goes_on(peer: Peer, ada: dict[str, Any]) -> None:
    guessed, other = done(log_in(peer))["refresh_token"], done(log_in(peer))["refresh_token"]
    login_id = guessed.partition(".")[0]
    assert refused(refresh(peer, f"{login_id}.a-guess-that-is-long-enough")) == (401, "login_ended")
    assert refused(refresh(peer, guessed)) == (401, "login_ended")
    assert refresh(peer, other).status_code == 200


def test_two_sessions_cannot_both_rotate_the_same_token(peer: Peer, ada: dict[str, Any]) -> None:
    """Both would answer a successor, and one of the two would be ended as copied at its next use."""
    done(log_in(peer))

    async def rotate_twice() -> None:
        async with peer.service.database.read() as first:
            held = (await first.scalars(select(Login))).one()
            first.expunge(held)
        for login in (None, held):
            async with peer.service.database.write() as session:
                if login is None:
                    login = (await session.scalars(select(Login))).one()  # noqa: PLW2901
                else:
                    session.add(login)
                login.rotate(login.current_hash, "f" * 64, at=await clock.now(session))

    with pytest.raises(StaleDataError):
        peer.run(rotate_twice())


@pytest.mark.parametrize("token", ["no-login-at-all-in-here", "00000000-0000-0000-0000-000000000000.secret"])
def test_a_token_of_no_login_is_refused(peer: Peer, token: str) -> None:
    assert refused(refresh(peer, token)) == (401, "login_ended")


def test_a_login_that_was_not_used_for_thirty_days_is_over(peer: Peer, ada: dict[str, Any]) -> None:
    token = done(log_in(peer))["refresh_token"]

    async def days_left() -> float:
        async with peer.service.database.read() as session:
            expires_at = (await session.execute(select(logins.c.expires_at))).scalar_one()
            return float((expires_at - await clock.now(session)) / timedelta(days=1))

    async def let_pass(days: float) -> None:
        async with peer.service.database.write() as session:
            expires_at = (await session.execute(select(logins.c.expires_at))).scalar_one()
            await session.execute(update(logins).values(expires_at=expires_at - timedelta(days=days)))

    assert 29.9 < peer.run(days_left()) <= 30
    peer.run(let_pass(29.9))
    token = done(refresh(peer, token))["refresh_token"]
    assert peer.run(days_left()) > 29.9, "each use begins the month anew"
    peer.run(let_pass(30))
    assert refused(refresh(peer, token)) == (401, "login_ended")


def test_a_logout_ends_the_login_that_its_token_belongs_to_and_no_other(peer: Peer, ada: dict[str, Any]) -> None:
    done(as_operator(peer, "POST", USERS, {**ADA, "username": "bob"}), 201)
    one, two = done(log_in(peer)), done(log_in(peer))
    bobs = done(log_in(peer, username="bob"))["refresh_token"]
    used = one["refresh_token"]
    one = done(refresh(peer, used))

    def log_out(refresh_token: str) -> int:
        body = {"refresh_token": refresh_token}
        return peer.call("POST", f"{AUTH}/logout", body, token=one["access_token"]).status_code

    assert log_out(bobs) == log_out("x" * 40) == 204, "and says nothing of what is not the caller's"
    assert log_out(used) == 204
    assert refused(refresh(peer, one["refresh_token"])) == (401, "login_ended")
    for token in (two["refresh_token"], bobs):
        assert refresh(peer, token).status_code == 200


def test_what_is_kept_of_a_login_is_neither_its_password_nor_a_token(peer: Peer, ada: dict[str, Any]) -> None:
    answer = done(log_in(peer))

    async def kept() -> str:
        async with peer.service.database.read() as session:
            rows = [(await session.execute(select(table))).all() for table in (users, logins)]
            return str(rows)

    text = peer.run(kept())
    secret = answer["refresh_token"].partition(".")[2]
    assert ADA["password"] not in text
    assert secret not in text
    assert "$argon2id$" in text


# --- users ---


def test_only_the_operators_token_makes_an_account(peer: Peer, ada: dict[str, Any]) -> None:
    new = {"username": "eve", "password": "x" * 12, "is_admin": True}
    assert refused(peer.call("POST", USERS, new)) == (401, "token_missing")
    assert refused(peer.call("POST", USERS, new, by=ada["id"])) == (403, "not_allowed")
    assert refused(peer.call("POST", USERS, new, by=ada["id"], admin=True)) == (403, "not_allowed")
    assert refused(peer.call("POST", USERS, new, token="operator.guessed")) == (401, "token_invalid")
    assert count(peer, users) == 1


def test_the_operators_token_is_good_on_the_servers_own_machine_only(peer: Peer) -> None:
    for path, body in ((USERS, ADA), (f"{SERVER}/seeding", {"demo": "data"})):
        assert refused(as_operator(peer, "POST", path, body, peer="10.0.0.9")) == (403, "not_allowed")
    assert count(peer, users) == 0
    assert as_operator(peer, "POST", USERS, ADA, peer="::1").status_code == 201
    # A server that listens on one address of the network alone is called from that very address.
    mine, body = f"http://10.0.0.9{USERS}", {**ADA, "username": "eve"}
    assert refused(as_operator(peer, "POST", mine, body, peer="10.0.0.8")) == (403, "not_allowed")
    assert as_operator(peer, "POST", mine, body, peer="10.0.0.9").status_code == 201


def test_a_server_that_wrote_no_operators_token_admits_no_operator(peer: Peer) -> None:
    peer.service.gate = Gate(lambda: KeySet([peer.key]), operator_token_hash=None)
    assert refused(as_operator(peer, "POST", USERS, ADA)) == (401, "token_invalid")


def test_a_name_is_given_once(peer: Peer, ada: dict[str, Any]) -> None:
    again = as_operator(peer, "POST", USERS, {**ADA, "password": "another password"})
    assert refused(again) == (409, "user_exists")
    in_another_case = as_operator(peer, "POST", USERS, {**ADA, "username": "ADA"})
    assert refused(in_another_case) == (409, "user_exists")
    assert "'ada'" in in_another_case.json()["detail"]
    assert log_in(peer).status_code == 200


def test_the_index_alone_refuses_a_name_that_was_taken_meanwhile(peer: Peer, ada: dict[str, Any]) -> None:
    async def add_a_second() -> None:
        async with peer.service.database.write() as session:
            row = dict((await session.execute(select(users))).mappings().one())
            del row["id"]
            await session.execute(insert(users).values(**row))

    with pytest.raises(Exception, match=r"(?i)unique"):
        peer.run(add_a_second())


def test_a_name_that_is_taken_at_this_very_moment_is_refused_like_one_that_was(peer: Peer) -> None:
    """The twin reaches the table with the new row, after the check: as another session's would at that moment."""

    async def make_two() -> None:
        async with peer.service.database.write() as session:
            twin = {"username": "ada", "password_hash": "x", "is_admin": False}
            session.add(User(**twin, created_at=await clock.now(session)))
            await commands.create_user(session, NewUser.model_validate(ADA), "its hash")

    with pytest.raises(UserExists):
        peer.run(make_two())
    assert count(peer, users) == 0


def test_hashing_a_new_password_holds_up_no_other_change(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_hasher", SLOW_HASHER)
    created, longest = peer.run(work_beside(peer, peer.send("POST", USERS, ADA, token=OPERATOR_TOKEN)))
    path, new = f"{USERS}/{done(created, 201)['id']}/set-password", {"password": "another password"}
    changed, longest_of_change = peer.run(work_beside(peer, peer.send("POST", path, new, token=OPERATOR_TOKEN)))
    done(changed)
    assert max(longest, longest_of_change) < 0.5, "of a hash: how long another change waited"
    done(peer.call("POST", f"{AUTH}/login", ADA | new))


def test_a_login_holds_up_nothing_else_in_the_process(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password takes a core for a while: on the event loop, every request of every service would stand still."""
    monkeypatch.setattr(tokens, "_hasher", SLOW_HASHER)
    done(as_operator(peer, "POST", USERS, ADA), 201)
    for password, status in ((ADA["password"], 200), ("a wrong password", 401)):
        login = peer.send("POST", f"{AUTH}/login", ADA | {"password": password})
        answer, longest = peer.run(work_beside(peer, login))
        assert answer.status_code == status
        assert longest < 0.5, "of a hash: how long the process stood still"


async def work_beside(peer: Peer, asked: Coroutine[Any, Any, Response]) -> tuple[Response, float]:
    """The answer, and how long other changes had to wait meanwhile: the longest, as a part of one hash's time."""
    began = time.monotonic()
    await asyncio.to_thread(SLOW_HASHER.hash, "any")
    hash_seconds = time.monotonic() - began
    asking = asyncio.create_task(asked)
    longest, before = 0.0, time.monotonic()
    while not asking.done():
        async with peer.service.database.write() as session:
            await session.execute(text("SELECT 1"))
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return await asking, longest / hash_seconds


def test_a_time_without_a_zone_is_not_stored(peer: Peer) -> None:
    async def store() -> None:
        async with peer.service.database.write() as session:
            twin = {"username": "ada", "password_hash": "x", "is_admin": False}
            session.add(User(**twin, created_at=datetime(2026, 1, 1)))  # noqa: DTZ001 (that is the point)

    with pytest.raises(StatementError, match="without a zone"):
        peer.run(store())


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"password": ""}, 422),
        ({"password": "x" * 7}, 400),
        ({"password": "x" * 8}, 201),
        ({"password": "x" * 1024}, 201),
        ({"password": "x" * 1025}, 422),
        ({"username": ""}, 422),
        ({"username": "x" * 64}, 201),
        ({"username": "x" * 65}, 422),
        ({"username": "two words"}, 422),
        ({"username": "-begins-badly"}, 422),
        ({"is_superuser": True}, 422),
    ],
)
def test_a_name_and_a_password_have_bounds(peer: Peer, changed: dict[str, Any], status: int) -> None:
    response = as_operator(peer, "POST", USERS, ADA | changed)
    assert response.status_code == status
    assert count(peer, users) == (status == 201)
    assert "xxx" not in response.text or "username" in changed, "what was sent may be a password: it is not echoed"


def test_the_same_key_makes_one_account(peer: Peer) -> None:
    first = as_operator(peer, "POST", USERS, ADA, key="one-key-for-ada")
    again = as_operator(peer, "POST", USERS, ADA, key="one-key-for-ada")
    assert (again.status_code, again.json()) == (201, first.json())
    assert count(peer, users) == 1


def test_all_accounts_are_shown_to_administrators_and_the_operator_in_pages(peer: Peer) -> None:
    ids = [
        done(as_operator(peer, "POST", USERS, {**ADA, "username": name}), 201)["id"] for name in ("a", "b", "c")
    ]
    assert refused(peer.call("GET", USERS, by=ids[0])) == (403, "not_allowed")
    for options in ({"by": ids[0], "admin": True}, {"token": OPERATOR_TOKEN}):
        first = done(peer.call("GET", f"{USERS}?limit=2", **options))
        rest = done(peer.call("GET", f"{USERS}?limit=2&cursor={first['next_cursor']}", **options))
        assert [user["id"] for user in first["items"] + rest["items"]] == ids
        assert rest["next_cursor"] is None
        assert "password" not in str(first)


def test_a_login_without_an_account_is_no_login(peer: Peer) -> None:
    """A store that was put back from an older copy can meet a token of an account that it does not have."""
    assert refused(peer.call("GET", f"{USERS}/me", by=777)) == (401, "token_invalid")


# --- what an operator changes ---


def change(peer: Peer, user: dict[str, Any], what: str, body: Any = None, /) -> dict[str, Any]:
    return done(as_operator(peer, "POST", f"{USERS}/{user['id']}/{what}", body or {}))


@pytest.fixture
def root(peer: Peer) -> dict[str, Any]:
    """An administrator's account."""
    return done(as_operator(peer, "POST", USERS, {**ADA, "username": "root", "is_admin": True}), 201)


def test_a_disabled_account_neither_logs_in_nor_goes_on_until_it_is_enabled(
    peer: Peer, ada: dict[str, Any], root: dict[str, Any]
) -> None:
    mine, roots = done(log_in(peer)), done(log_in(peer, username="root"))
    shown = change(peer, ada, "disable")
    assert (shown["is_active"], shown["version"]) == (False, ada["version"] + 1)
    assert refused(log_in(peer)) == (403, "account_disabled")
    assert refused(refresh(peer, mine["refresh_token"])) == (401, "login_ended")
    assert refresh(peer, roots["refresh_token"]).status_code == 200, "others go on"
    assert change(peer, ada, "enable")["is_active"] is True
    assert refused(refresh(peer, mine["refresh_token"])) == (401, "login_ended")
    assert log_in(peer).status_code == 200


def test_who_does_not_know_the_password_is_not_told_that_an_account_is_disabled(
    peer: Peer, ada: dict[str, Any]
) -> None:
    change(peer, ada, "disable")
    assert refused(log_in(peer, password="a wrong password")) == (401, "wrong_credentials")


@pytest.mark.parametrize(
    ("what", "code"), [("disable", "account_disabled"), ("set-password", "wrong_credentials")]
)
def test_a_login_whose_password_was_being_checked_meanwhile_is_refused(
    peer: Peer, ada: dict[str, Any], what: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every place where a password is checked is taken: the login has read the account, and waits for one."""
    hashed = peer.run(tokens.hash_password("another password"))
    places = asyncio.Semaphore(0)
    monkeypatch.setattr(tokens, "_hashing", places)

    async def change_while_it_waits() -> Response:
        logging_in = asyncio.create_task(peer.send("POST", f"{AUTH}/login", ADA, key=""))
        async with asyncio.timeout(10):
            while not places._waiters:
                await asyncio.sleep(0.01)
        async with peer.service.database.write() as session:
            if what == "disable":
                await commands.disable_user(session, ada["id"])
            else:
                (await session.get_one(User, ada["id"])).set_password(hashed)
        places.release()
        return await logging_in

    assert refused(peer.run(change_while_it_waits()))[1] == code
    assert count(peer, logins) == 0


def test_the_last_active_administrator_stays(peer: Peer, ada: dict[str, Any], root: dict[str, Any]) -> None:
    def disabled(user: dict[str, Any]) -> Response:
        return as_operator(peer, "POST", f"{USERS}/{user['id']}/disable", {})

    assert refused(disabled(root)) == (409, "last_administrator")
    assert "'root'" in disabled(root).json()["detail"]
    assert log_in(peer, username="root").status_code == 200
    change(peer, ada, "make-admin")
    assert done(disabled(root))["is_active"] is False
    assert refused(disabled(ada)) == (409, "last_administrator"), "a disabled one does not count"
    assert done(disabled(root))["is_active"] is False, "what is so already is no refusal"


def test_an_administrator_is_one_from_the_next_token_on(peer: Peer, ada: dict[str, Any]) -> None:
    login = done(log_in(peer))
    assert change(peer, ada, "make-admin")["is_admin"] is True
    assert refused(peer.call("GET", USERS, token=login["access_token"])) == (403, "not_allowed")
    login = done(refresh(peer, login["refresh_token"]))
    assert peer.call("GET", USERS, token=login["access_token"]).status_code == 200


def test_another_password_ends_the_logins_that_the_old_one_began(peer: Peer, ada: dict[str, Any]) -> None:
    login = done(log_in(peer))
    change(peer, ada, "set-password", {"password": "another password"})
    assert refused(refresh(peer, login["refresh_token"])) == (401, "login_ended")
    assert refused(log_in(peer)) == (401, "wrong_credentials")
    assert log_in(peer, password="another password").status_code == 200


def test_a_short_password_changes_nothing(peer: Peer, ada: dict[str, Any]) -> None:
    login = done(log_in(peer))
    short = as_operator(peer, "POST", f"{USERS}/{ada['id']}/set-password", {"password": "x" * 7})
    assert refused(short) == (400, "password_too_short")
    assert "8 characters" in short.json()["detail"]
    assert refresh(peer, login["refresh_token"]).status_code == 200
    assert log_in(peer).status_code == 200


def test_the_people_of_a_demo_may_have_its_short_password(peer: Peer) -> None:
    done(as_operator(peer, "POST", f"{SERVER}/seeding", {"demo": "data"}), 201)
    assert as_operator(peer, "POST", USERS, {"username": "ada", "password": "test"}).status_code == 201


@pytest.mark.parametrize("command", ["disable", "enable", "make-admin", "set-password"])
def test_only_the_operator_changes_an_account_that_is_there(peer: Peer, ada: dict[str, Any], command: str) -> None:
    body = {"password": "another password"} if command == "set-password" else {}
    path = f"{USERS}/{ada['id']}/{command}"
    assert refused(peer.call("POST", path, body, by=ada["id"])) == (403, "not_allowed")
    assert refused(peer.call("POST", path, body, by=ada["id"], admin=True)) == (403, "not_allowed")
    assert refused(as_operator(peer, "POST", path, body, peer="10.0.0.9")) == (403, "not_allowed")
    missing = as_operator(peer, "POST", f"{USERS}/777/{command}", body)
    assert refused(missing) == (404, "no_such_thing")
    assert done(peer.call("GET", f"{USERS}/me", by=ada["id"])) == ada


def test_an_account_is_found_by_its_name(peer: Peer, ada: dict[str, Any], root: dict[str, Any]) -> None:
    def found(name: str) -> list[Any]:
        return done(as_operator(peer, "GET", f"{USERS}?username={name}"))["items"]  # type: ignore[no-any-return]

    assert found("ada") == [ada]
    assert found("nobody") == []


def test_accounts_of_the_first_schema_are_active(empty_database: str) -> None:
    columns = "id, version, username, password_hash, is_admin, created_at"
    insert_old = f"INSERT INTO users ({columns}) VALUES ({{0}}, 1, '{{0}}', 'x', FALSE, 1)"

    async def work() -> list[bool]:
        database = Database(empty_database, service="accounts")
        async with database.engine.begin() as connection:
            await connection.run_sync(lambda sync: command.upgrade(migrate.config_of("accounts", sync), "0001"))
            await connection.exec_driver_sql(insert_old.format(1))
        await migrate.upgrade(database)
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql(insert_old.format(2))
            kept = list((await connection.execute(select(users.c.is_active))).scalars())
        await database.close()
        return kept

    assert asyncio.run(work()) == [True, True]


# --- a person's own password ---


def changed_password(peer: Peer, login: dict[str, Any], **changed: str) -> Response:
    body = {
        "old_password": ADA["password"],
        "new_password": "a new password",
        "refresh_token": login["refresh_token"],
    }
    return peer.call("POST", f"{USERS}/me/password", body | changed, token=login["access_token"], key="one-key-1")


def test_a_person_who_changes_their_password_stays_logged_in_here_and_nowhere_else(
    peer: Peer, ada: dict[str, Any], root: dict[str, Any]
) -> None:
    here, elsewhere, roots = done(log_in(peer)), done(log_in(peer)), done(log_in(peer, username="root"))
    assert changed_password(peer, here).status_code == 204
    assert changed_password(peer, here).status_code == 204, "the answer was lost: the same request again"
    assert refresh(peer, here["refresh_token"]).status_code == 200
    assert refresh(peer, roots["refresh_token"]).status_code == 200
    assert refused(refresh(peer, elsewhere["refresh_token"])) == (401, "login_ended")
    assert refused(log_in(peer)) == (401, "wrong_credentials")
    assert log_in(peer, password="a new password").status_code == 200


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"old_password": "a wrong password"}, 401, "wrong_credentials"),
        ({"new_password": "x" * 7}, 400, "password_too_short"),
        ({"new_password": ADA["password"]}, 400, "password_unchanged"),
        ({"new_password": "x" * 1025}, 422, "invalid_input"),
    ],
)
def test_a_password_that_is_not_changed_ends_no_login(
    peer: Peer, ada: dict[str, Any], changed: dict[str, str], status: int, code: str
) -> None:
    here, elsewhere = done(log_in(peer)), done(log_in(peer))
    assert refused(changed_password(peer, here, **changed)) == (status, code)
    assert refresh(peer, elsewhere["refresh_token"]).status_code == 200
    assert log_in(peer).status_code == 200


def test_a_disabled_person_does_not_change_their_password_with_the_token_that_they_still_have(
    peer: Peer, ada: dict[str, Any]
) -> None:
    here = done(log_in(peer))
    change(peer, ada, "disable")
    assert refused(changed_password(peer, here)) == (403, "account_disabled")


def test_what_is_remembered_of_a_request_is_no_quicker_way_to_guess_its_password(peer: Peer) -> None:
    as_operator(peer, "POST", USERS, ADA, key="one-key-for-ada")

    async def kept() -> list[str]:
        async with peer.service.database.read() as session:
            return list((await session.execute(select(idempotency_key.c.body_hash))).scalars())

    (kept_hash,) = peer.run(kept())
    quick = {hashlib.sha256(json.dumps(ADA, sort_keys=True).encode()).hexdigest()}
    assert kept_hash not in quick
    other = as_operator(peer, "POST", USERS, {**ADA, "password": "another password"}, key="one-key-for-ada")
    assert refused(other) == (409, "idempotency_key_reused")


def test_every_body_with_a_password_is_remembered_so(peer: Peer) -> None:
    document = peer.app.openapi()
    schemas = document["components"]["schemas"]
    found = set()
    for path, operations in document["paths"].items():
        if "requestBody" in operations.get("post", {}):
            schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            if any("password" in name for name in schemas[schema.rpartition("/")[2]]["properties"]):
                found.add(f"POST {path}")
    assert found - OWN_TRANSACTIONS == PASSWORD_BODIES


# --- keys ---


def test_the_public_keys_verify_a_login_and_hold_no_private_part(peer: Peer, ada: dict[str, Any]) -> None:
    shown = done(peer.call("GET", f"{AUTH}/jwks"))
    (key,) = shown["keys"]
    assert "d" not in key
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    token = done(log_in(peer))["access_token"]
    claims = jwt.decode(token, KeySet.import_key_set(shown), algorithms=["Ed25519"]).claims
    assert (claims["sub"], claims["admin"]) == (str(ada["id"]), False)
    assert claims["exp"] - claims["iat"] == done(log_in(peer))["expires_in_seconds"]


def test_two_logins_of_one_second_have_different_access_tokens(peer: Peer, ada: dict[str, Any]) -> None:
    tokens = {done(log_in(peer))["access_token"] for _ in range(5)}  # of some 0.5 s
    assert len(tokens) == 5


# --- the store ---


def test_a_server_says_which_store_it_has_to_anybody(peer: Peer) -> None:
    first, again = done(peer.call("GET", SERVER)), done(peer.call("GET", SERVER))
    assert first["store_id"] == again["store_id"]
    assert (first["is_embedded"], first["seeded_with"]) == (True, None)


def test_an_empty_store_is_marked_before_its_first_account(peer: Peer) -> None:
    marked = done(as_operator(peer, "POST", f"{SERVER}/seeding", {"demo": "data"}), 201)
    assert marked["seeded_with"] == "data"
    assert done(peer.call("GET", SERVER))["seeded_with"] == "data"
    again = as_operator(peer, "POST", f"{SERVER}/seeding", {"demo": "data"})
    assert refused(again) == (409, "store_not_empty")


def test_a_store_with_an_account_is_not_marked(peer: Peer, ada: dict[str, Any]) -> None:
    response = as_operator(peer, "POST", f"{SERVER}/seeding", {"demo": "data"})
    assert refused(response) == (409, "store_not_empty")
    assert done(peer.call("GET", SERVER))["seeded_with"] is None


@pytest.mark.parametrize(("is_embedded", "is_on_loopback"), [(False, True), (True, False)])
def test_a_server_that_others_can_reach_is_not_marked(peer: Peer, is_embedded: bool, is_on_loopback: bool) -> None:
    peer.service.settings = replace(peer.service.settings, is_embedded=is_embedded, is_on_loopback=is_on_loopback)
    response = as_operator(peer, "POST", f"{SERVER}/seeding", {"demo": "data"})
    assert refused(response) == (409, "store_not_for_demo")
    assert done(peer.call("GET", SERVER))["seeded_with"] is None


def test_nobody_but_the_operator_marks_a_store(peer: Peer) -> None:
    for options in ({"by": 1}, {"by": 1, "admin": True}):
        response = peer.call("POST", f"{SERVER}/seeding", {"demo": "data"}, **options)
        assert refused(response) == (403, "not_allowed")


# --- tables ---


def test_the_migrations_make_what_the_tables_say(peer: Peer) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, [KERNEL, metadata]))  # type: ignore[arg-type]

    async def compare() -> list[Any]:
        async with peer.service.database.engine.connect() as connection:
            return await connection.run_sync(differences)

    assert peer.run(compare()) == []
