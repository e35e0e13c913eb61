"""A site without internet: the server's answers as a bundle brought them, behind the gateway's own seam."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from pydantic import ValidationError

from medperf.api import API, Gateway
from medperf.bundles.layout import ANSWERS, MANIFEST, Bundle, stamp
from medperf.credentials import Credentials, Keyring
from medperf.datasets import LocalDataset, alone_with, local_datasets
from medperf.environment import is_set
from medperf.errors import Busy, UsageError
from medperf.home import Home
from medperf.network import Network
from medperf_contracts.registry import DatasetView

FOLDER = "offline"
ENVIRONMENT = "MEDPERF_OFFLINE"
_THING = re.compile(r"/(benchmarks|containers|datasets)/([1-9][0-9]*)")
_LISTS = {"/associations": "associations", "/due": "due"}
_NO_INDEX = "PIP_NO_INDEX"
_ASK = "Without --offline (MEDPERF_OFFLINE) the server is asked."


def is_offline(given: bool) -> bool:
    """Whether the server is not to be asked; UsageError where `MEDPERF_OFFLINE` is no yes or no."""
    return is_set(ENVIRONMENT) or given


@contextmanager
def without_index() -> Iterator[None]:
    """Have pip look for packages in what bundles brought, and at no index: nobody reaches one."""
    before = os.environ.get(_NO_INDEX)
    os.environ[_NO_INDEX] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_INDEX)
        if before is not None:
            os.environ[_NO_INDEX] = before


def kept_bundle(home: Home) -> Bundle | None:
    """The manifest of the bundle that was brought here last; None where there was none, or it is damaged."""
    with suppress(OSError, ValidationError):
        return Bundle.model_validate_json((home.root / FOLDER / MANIFEST).read_bytes())
    return None


def offline_gateway(home: Home, *, notice: Callable[[str], None]) -> Gateway:
    """The gateway that answers from what bundles brought; UsageError where none was imported.

    Nothing can be sent through it, and nothing of it reaches the network.
    """
    bundle = kept_bundle(home)
    if bundle is None:
        raise UsageError(
            f"No bundle of {home.server} was imported on this machine: there is nothing to work from offline.",
            hint="`medperf bundle import FILE` brings one; " + _ASK,
        )
    notice(f"Offline: the server is as {bundle.made_by.username} saw it at {stamp(bundle.made_at)}.")
    link_datasets(home)
    answers = _Answers(home.root / FOLDER / ANSWERS)
    return Gateway(home, network=Network(), transport=answers, keyring=_Maker(bundle), notice=notice)


def nothing_is_sent() -> UsageError:
    """What is said to whoever wants something sent."""
    return UsageError(
        "Offline nothing can be sent to the server.",
        hint="`medperf result export` and `medperf dataset export` write files to carry to a machine that reaches"
        f" it. {_ASK}",
    )


def link_datasets(home: Home) -> list[LocalDataset]:
    """Give datasets prepared here the server UIDs that bundles know of the same data; those that got one now."""
    linked = []
    known = local_datasets(home, on_damaged=lambda *_: None)
    for file in sorted((home.root / FOLDER / ANSWERS / "datasets").glob("*.json")):
        try:
            view = DatasetView.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue  # it is asked for by its UID, and told of then
        for dataset in known:
            if dataset.data_hash == view.data_hash and dataset.server_id is None:
                with suppress(Busy), alone_with(home, dataset):
                    linked.append(dataset.described_as(view).linked_to(view.id, view.owner_id))
    return linked


class _Maker(Keyring):
    """Stands for who made the bundle: what it answers is what they may see."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(None)
        maker = bundle.made_by
        self.keep(Credentials(maker.id, maker.username, "offline", "offline", math.inf))


class _Answers(httpx.BaseTransport):
    """Answers requests from the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if not path.startswith(API):
            raise UsageError(f"{request.url} is not on this machine, and no bundle brought it.", hint=_ASK)
        path = path.removeprefix(API)
        if request.method != "GET":
            raise nothing_is_sent()
        file = self._file(path, request.url.params)
        if file is None or not file.is_file():
            asked = f"{path}?{request.url.query.decode()}" if request.url.query else path
            raise UsageError(
                f"No bundle brought {asked} to this machine.",
                hint=f"Have a bundle made that holds it (medperf bundle export --help). {_ASK}",
            )
        content = file.read_bytes()
        if path in _LISTS:
            content = json.dumps({"items": json.loads(content), "next_cursor": None}).encode()
        return httpx.Response(200, content=content, headers={"content-type": "application/json"})

    def _file(self, path: str, params: httpx.QueryParams) -> Path | None:
        if path == "/server":
            return self._folder / "server.json"
        if path == "/users/me":
            return self._folder / "me.json"
        if found := _THING.fullmatch(path):
            return self._folder / found[1] / f"{found[2]}.json"
        if path in _LISTS and params.get("benchmark") and params.get("dataset"):
            return self._folder / _LISTS[path] / f"{int(params['benchmark'])}-{int(params['dataset'])}.json"
        return None
