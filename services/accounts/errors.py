"""Why the accounts service refuses."""

from __future__ import annotations

from services.kernel.errors import Conflict, Unauthorized


class WrongCredentials(Unauthorized):
    code = "wrong_credentials"
    hint = "Check the name and the password; after a reset of the server its accounts are new."


class LoginEnded(Unauthorized):
    code = "login_ended"
    hint = "Log in again: medperf login"


class UserExists(Conflict):
    code = "user_exists"
    hint = "Choose another name."


class StoreNotEmpty(Conflict):
    code = "store_not_empty"
    hint = "Seed a server that was just made, or empty this one first: medperf-server reset"


class StoreNotForDemo(Conflict):
    code = "store_not_for_demo"
    hint = "The demo's people have a known password: seed only an embedded server that listens on 127.0.0.1."
