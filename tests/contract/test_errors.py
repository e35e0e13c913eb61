"""The refusals: each code means one thing, and says what to do next."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import pytest

import services
from contract.conftest import DOCS
from services.composition import DEFINITIONS
from services.kernel.errors import AppError

SERVICES = [definition.name for definition in DEFINITIONS]
SOURCES = Path(services.__file__).parent


def _every_class(base: type[AppError] = AppError) -> list[type[AppError]]:
    found = [base]
    for child in base.__subclasses__():
        found.extend(_every_class(child))
    return [error for error in found if error.__module__.startswith("services.")]


def _part(error: type[AppError]) -> str:
    return error.__module__.split(".")[1]


@pytest.fixture(scope="module")
def errors() -> list[type[AppError]]:
    """Every refusal with a code, of every module of the services."""
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    return [error for error in _every_class() if "code" in vars(error)]


@pytest.mark.parametrize("service", SERVICES)
def test_a_code_means_one_thing_in_a_service(service: str, errors: list[type[AppError]]) -> None:
    codes = [error.code for error in errors if _part(error) in {service, "kernel"}]
    assert sorted(codes) == sorted(set(codes))


def test_a_code_that_two_services_share_has_the_same_status_in_both(errors: list[type[AppError]]) -> None:
    statuses = defaultdict(set)
    for error in errors:
        statuses[error.code].add(error.status)
    assert {code: found for code, found in statuses.items() if len(found) > 1} == {}
    shared = {code for code in statuses if len([error for error in errors if error.code == code]) > 1}
    assert shared == {"association_not_approved", "benchmark_not_open"}, "each of them says the same fact"


def test_every_refusal_says_what_to_do_next(errors: list[type[AppError]]) -> None:
    assert [error.code for error in errors if not error.hint.strip()] == []
    assert [error.code for error in errors if not re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)] == []
    # A command that is to be typed names its thing, or nothing: never a word that stands for one.
    assert [error.code for error in errors if re.search(r"medperf [a-z -]+.*\b(ID|UID)\b", error.hint)] == []
    assert [error.code for error in errors if not 400 <= error.status <= 599] == []


def test_a_class_of_refusals_without_a_code_is_only_a_base_and_never_raised(errors: list[type[AppError]]) -> None:
    bases = [error for error in _every_class() if error not in errors]
    assert [base.__name__ for base in bases if not base.__subclasses__()] == []
    names = "|".join(base.__name__ for base in bases)
    raised = [
        f"{path.relative_to(SOURCES)}: {found[0]}"
        for path in SOURCES.rglob("*.py")
        for found in re.finditer(rf"raise ({names})\b", path.read_text())
    ]
    assert raised == []


def test_the_page_of_error_codes_lists_every_refusal_once(errors: list[type[AppError]]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \| (.+) \|$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    listed = [(code, int(status), part, hint.replace("\\|", "|")) for code, status, part, hint in rows]
    assert sorted(listed) == sorted((error.code, error.status, _part(error), error.hint) for error in errors)
