"""`medperf association`: requests to take part in a benchmark, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from medperf.errors import UsageError
from medperf.terminal import printable

from .changing import UID, check_owner
from .listing import Column, choice, mine_option, print_list, print_thing, silent_yes_option, when
from .prompts import confirm, show_before_sending, yes_option
from .session import Session, pass_session
from .tables import json_option

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf_contracts.associations import AssociationView

P = ParamSpec("P")
R = TypeVar("R")

# As the server bounds it; a test compares them.
PRIORITY = click.IntRange(min=-1000, max=1000)
STATES = ("PENDING", "APPROVED", "REJECTED", "WITHDRAWN")


@click.group()
def association() -> None:
    """Requests to take part in benchmarks, and decisions on them."""


@association.command()
@mine_option
@click.option("--benchmark", type=UID, metavar="UID", help="Only those with this benchmark.")
@click.option("--dataset", type=UID, metavar="UID", help="Only those of this dataset.")
@click.option("--model", type=UID, metavar="UID", help="Only those of this model.")
@click.option("--state", type=choice(STATES), help="Only those in this state.")
@click.option("--pending", is_flag=True, help="Only those that wait for your decision.")
@json_option
@silent_yes_option
@pass_session
def ls(
    session: Session,
    mine: bool,
    benchmark: int | None,
    dataset: int | None,
    model: int | None,
    state: str | None,
    pending: bool,
    as_json_text: bool,
) -> None:
    """List associations: what you asked for, and what is yours to decide."""
    from medperf_contracts.associations import AssociationView

    if_empty = "There are no such associations. `medperf dataset associate` asks for one."
    if pending:
        if state is not None:
            raise UsageError("--pending says the state already.", hint="Leave --state out.")
        mine, state, if_empty = True, "PENDING", "Nothing waits for your decision."
    columns = [
        Column[AssociationView]("UID", lambda it: it.id),
        Column[AssociationView]("Benchmark UID", lambda it: it.benchmark_id),
        Column[AssociationView]("Benchmark", lambda it: it.benchmark_name),
        Column[AssociationView]("Part", lambda it: it.part_kind),
        Column[AssociationView]("Part UID", lambda it: it.part_id),
        Column[AssociationView]("Name", lambda it: it.part_name),
        Column[AssociationView]("State", lambda it: it.state),
        Column[AssociationView]("Priority", lambda it: it.priority if it.part_kind == "model" else None),
        Column[AssociationView]("Requested", lambda it: when(it.requested_at)),
        Column[AssociationView]("By", lambda it: _who_asked(it, session.gateway.user_id)),
    ]
    found = session.gateway.items(
        "/associations",
        AssociationView,
        mine=mine or None,
        benchmark=benchmark,
        dataset=dataset,
        model=model,
        state=state,
    )
    shown = _for_me_to_decide(session.gateway, found) if pending else found
    print_list(shown, columns, as_json_text=as_json_text, if_empty=if_empty)


def _who_asked(association: AssociationView, me: int | None) -> str:
    """Which side asked, as the person who reads it knows the sides."""
    if association.requested_by == me:
        return "you"
    if association.requested_by == association.part_owner_id:
        return f"the {association.part_kind}'s owner"
    return "the benchmark's owner"


def _for_me_to_decide(gateway: Gateway, found: Iterable[AssociationView]) -> Iterator[AssociationView]:
    """Those of a person's own associations that the other side asked for."""
    from medperf_contracts.accounts import UserView

    me = gateway.get("/users/me", UserView).id
    return (one for one in found if one.requested_by != me)


@association.command()
@click.argument("association_uid", type=UID)
@json_option
@silent_yes_option
@pass_session
def view(session: Session, association_uid: int, as_json_text: bool) -> None:
    """Show an association whole, with what the compatibility test gave."""
    from medperf_contracts.associations import AssociationView

    hidden = frozenset({"summary"})  # it holds scores, which administrators do not see
    print_thing(session, "association", association_uid, AssociationView, as_json_text=as_json_text, hidden=hidden)


def _which(command: Callable[P, R]) -> Callable[P, R]:
    """Add the ways to name one association: its UID, or the pair that it joins; and the reason."""
    for option in (
        click.option("--reason", default="", metavar="TEXT", help="Why; both sides see it."),
        click.option("--model_uid", type=UID, metavar="UID", help="The model of the pair."),
        click.option("--data_uid", type=UID, metavar="UID", help="The dataset of the pair: its server UID."),
        click.option("--benchmark_uid", type=UID, metavar="UID", help="The benchmark of the pair."),
        click.argument("association_uid", type=UID, required=False),
    ):
        command = option(command)
    return command


@association.command()
@_which
@silent_yes_option
@pass_session
def approve(
    session: Session,
    association_uid: int | None,
    benchmark_uid: int | None,
    data_uid: int | None,
    model_uid: int | None,
    reason: str,
) -> None:
    """Approve a request that the other side made."""
    named = _named(association_uid, benchmark_uid, data_uid, model_uid)
    asked = named.find(session.gateway, "PENDING")
    click.echo(described(decide(session.gateway, asked, "approve", reason)))


@association.command()
@_which
@silent_yes_option
@pass_session
def reject(
    session: Session,
    association_uid: int | None,
    benchmark_uid: int | None,
    data_uid: int | None,
    model_uid: int | None,
    reason: str,
) -> None:
    """Reject a request that the other side made. It may be made again, as a new one."""
    named = _named(association_uid, benchmark_uid, data_uid, model_uid)
    asked = named.find(session.gateway, "PENDING")
    click.echo(described(decide(session.gateway, asked, "reject", reason)))


@association.command()
@_which
@yes_option
@pass_session
def withdraw(
    session: Session,
    association_uid: int | None,
    benchmark_uid: int | None,
    data_uid: int | None,
    model_uid: int | None,
    reason: str,
    yes: bool,
) -> None:
    """Withdraw from an association. Nothing more is due for it; accepted results stay."""
    from medperf_contracts.associations import LIVE

    named = _named(association_uid, benchmark_uid, data_uid, model_uid)
    asked = named.find(session.gateway, "PENDING", "APPROVED")
    click.echo(described(asked))
    if asked.state in LIVE:
        confirm("Withdraw it?", yes=yes)
    click.echo(described(decide(session.gateway, asked, "withdraw", reason)))


@association.command("set_priority")
@click.option(
    "--benchmark_uid", "-b", type=UID, required=True, metavar="UID", help="The benchmark, which is yours."
)
@click.option("--model_uid", "-m", type=UID, required=True, metavar="UID", help="The model that takes part in it.")
@click.option(
    "--priority",
    "-p",
    type=PRIORITY,
    required=True,
    metavar="N",
    help="A whole number from -1000 to 1000: a higher one is run first. 0 where none was set.",
)
@yes_option
@pass_session
def set_priority(session: Session, benchmark_uid: int, model_uid: int, priority: int, yes: bool) -> None:
    """Say how early a model of your benchmark is run by those who run all of them.

    The reference model is run first, then the others by priority, those of the same one by their UIDs.
    """
    from medperf_contracts.associations import LIVE, AssociationPriority, AssociationView

    from .work import benchmark_view

    benchmark = benchmark_view(session.gateway, benchmark_uid)
    check_owner(session, "benchmark", benchmark)
    if model_uid == benchmark.reference_model_id:
        raise UsageError(
            f"Model {model_uid} is the reference model of benchmark {benchmark_uid}: it is run before all others.",
            hint=f"Name another of its models: medperf association ls --benchmark {benchmark_uid}",
        )
    asked = Named(None, benchmark_uid, None, model_uid).find(session.gateway)
    click.echo(described(asked))
    body = AssociationPriority(priority=priority)
    if asked.state in LIVE:
        if asked.priority == priority:
            click.echo(f"Its priority is {priority} already: nothing was changed.")
            return
        show_before_sending(
            f"Its priority is {asked.priority}. This change will be sent to {session.server}:", body
        )
        confirm("Change its priority?", yes=yes)
    changed = session.gateway.post(f"/associations/{asked.id}/set-priority", body, AssociationView)
    click.echo(f"Changed: its priority is {changed.priority} now.")


def _named(
    association_uid: int | None, benchmark_uid: int | None, data_uid: int | None, model_uid: int | None
) -> Named:
    """What a person named, before anything is asked of the server; UsageError unless it is one association."""
    pair = (benchmark_uid, data_uid, model_uid)
    is_pair = benchmark_uid is not None and (data_uid is None) != (model_uid is None)
    is_uid = association_uid is not None and pair == (None, None, None)
    if not is_uid and (not is_pair or association_uid is not None):
        raise UsageError(
            "Name one association: its UID, or --benchmark_uid with --data_uid or --model_uid.",
            hint="`medperf association ls` shows them all.",
        )
    return Named(association_uid, benchmark_uid, data_uid, model_uid)


@dataclass(frozen=True)
class Named:
    """One association, by its UID or by the pair that it joins."""

    association_uid: int | None
    benchmark_uid: int | None
    data_uid: int | None
    model_uid: int | None

    def find(self, gateway: Gateway, *states: str) -> AssociationView:
        """The association; of a pair, which may have several, the newest in one of `states`, else the newest.

        One that is in none of them is the server's to refuse, as where it is named by its UID.
        """
        from medperf_contracts.associations import AssociationView

        if self.association_uid is not None:
            name = f"association/{self.association_uid}"
            return gateway.get(f"/associations/{self.association_uid}", AssociationView, seen=[name])
        pair = list(
            gateway.items(
                "/associations",
                AssociationView,
                benchmark=self.benchmark_uid,
                dataset=self.data_uid,
                model=self.model_uid,
            )
        )
        for candidate in reversed(pair):
            if candidate.state in states:
                return candidate
        if pair:
            return pair[-1]
        what = f"dataset {self.data_uid}" if self.data_uid else f"model {self.model_uid}"
        raise UsageError(
            f"Nobody asked that {what} take part in benchmark {self.benchmark_uid}, as far as you may see.",
            hint="`medperf association ls` shows what there is; `medperf auth status` shows who you are.",
        )


def decide(gateway: Gateway, asked: AssociationView, decision: str, reason: str) -> AssociationView:
    """Approve, reject or withdraw; the association as it then is."""
    from medperf.bodies import checked_input
    from medperf_contracts.associations import AssociationDecision, AssociationView

    with checked_input():
        body = AssociationDecision(reason=reason)
    return gateway.post(f"/associations/{asked.id}/{decision}", body, AssociationView)


def described(asked: AssociationView) -> str:
    """An association in one line."""
    return printable(
        f"Association {asked.id}: {asked.part_kind} {asked.part_id} ({asked.part_name}) with benchmark "
        f"{asked.benchmark_id} ({asked.benchmark_name}) is {asked.state}."
    )
