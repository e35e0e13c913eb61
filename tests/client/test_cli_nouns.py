"""`ls` and `view` of every noun, and decisions on associations, as a person sees them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from medperf.cli.association import PRIORITY
from medperf.cli.main import run
from medperf.home import Home
from medperf.results import find_result, record_submission
from medperf_contracts.associations import PRIORITY_MOST
from peers import answers
from peers.kept import local_dataset, local_result
from peers.scripted_peer import Asked, Reply, Script, ScriptedPeer

Serve = Callable[[Mapping[str, Reply | Script]], ScriptedPeer]
Printed = Callable[..., str]
MEDPERF = str(Path(sys.executable).with_name("medperf"))

VIEWS: dict[str, Callable[..., dict[str, Any]]] = {
    "benchmark": answers.benchmark,
    "container": answers.container,
    "dataset": answers.dataset,
    "association": answers.association,
    "result": answers.result,
    "notifications": answers.notification,
}


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """What a command that ends well prints."""

    def of(*arguments: str) -> str:
        code = run(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return of


def listed(noun: str, *items: dict[str, Any]) -> dict[str, Reply | Script]:
    return {f"GET /api/v1/{noun.removesuffix('s')}s": Reply.of(answers.page(*items))}


# Lists


def test_benchmarks(serve: Serve, printed: Printed) -> None:
    serve(listed("benchmark", answers.benchmark(1), answers.benchmark(12, approval="PENDING")))
    assert printed("benchmark", "ls") == (
        "  UID  Name      Owner      State      Approval    Valid    Description\n"
        "-----  --------  ---------  ---------  ----------  -------  -----------------\n"
        "    1  chest-1   committee  OPERATION  APPROVED    True     Finds an opacity.\n"
        "   12  chest-12  committee  OPERATION  PENDING     True     Finds an opacity.\n"
    )


def test_containers(serve: Serve, printed: Printed) -> None:
    serve(listed("container", answers.container(1, is_valid=False), answers.container(2)))
    assert printed("container", "ls") == (
        "  UID  Name         Owner      State      Valid\n"
        "-----  -----------  ---------  ---------  -------\n"
        "    1  container-1  committee  OPERATION  False\n"
        "    2  container-2  committee  OPERATION  True\n"
    )


def test_datasets(serve: Serve, printed: Printed) -> None:
    serve(listed("dataset", answers.dataset(1)))
    assert printed("dataset", "ls") == (
        "  UID  Name       Owner    State      Location    Generated UID    Valid\n"
        "-----  ---------  -------  ---------  ----------  ---------------  -------\n"
        "    1  dataset-1  ada      OPERATION  Here        abababababab…    True\n"
    )


def test_associations(serve: Serve, printed: Printed) -> None:
    invited = answers.association(2, part_kind="model", part_id=4, requested_by=3, priority=-5)
    asked = answers.association(3, part_owner_id=7, requested_by=7)
    serve(listed("association", answers.association(1), invited, asked))
    assert printed("association", "ls") == (
        "  UID    Benchmark UID  Benchmark    Part       Part UID  Name    State      Priority  Requested       "
        "  By\n"
        "-----  ---------------  -----------  -------  ----------  ------  -------  ----------  ----------------"
        "  ---------------------\n"
        "    1                1  chest-1      dataset           1  mine    PENDING              2026-01-02 03:04"
        "  you\n"
        "    2                1  chest-1      model             4  mine    PENDING          -5  2026-01-02 03:04"
        "  the benchmark's owner\n"
        "    3                1  chest-1      dataset           1  mine    PENDING              2026-01-02 03:04"
        "  the dataset's owner\n"
    )


def test_results(serve: Serve, printed: Printed) -> None:
    serve(listed("result", answers.result(1), answers.result(2, dataset_id=None, metrics=None)))
    assert printed("result", "ls") == (
        "  UID    Benchmark UID    Model UID  Dataset UID    Partial    Current    Submitted\n"
        "-----  ---------------  -----------  -------------  ---------  ---------  ----------------\n"
        "    1                1            4  1              False      True       2026-01-02 03:05\n"
        "    2                1            4  not shown      False      True       2026-01-02 03:05\n"
    )


def test_notifications(serve: Serve, printed: Printed) -> None:
    serve(listed("notifications", answers.notification(1)))
    assert printed("notifications", "ls") == (
        "  UID  When              About          What                        Read\n"
        "-----  ----------------  -------------  --------------------------  ------\n"
        "    1  2026-01-02 03:04  association/1  Your dataset was approved.  False\n"
    )


@pytest.mark.parametrize("noun", VIEWS)
def test_an_empty_list_says_so(serve: Serve, printed: Printed, noun: str) -> None:
    serve(listed(noun))
    assert printed(noun, "ls").startswith("There are no such")
    assert json.loads(printed(noun, "ls", "--json")) == []


@pytest.mark.parametrize("noun", VIEWS)
def test_a_list_for_programs_holds_the_things_whole(serve: Serve, printed: Printed, noun: str) -> None:
    item = VIEWS[noun](1)
    serve(listed(noun, item, VIEWS[noun](2)))
    shown = json.loads(printed(noun, "ls", "--json"))
    assert [one["id"] for one in shown] == [1, 2]
    assert set(item) <= set(shown[0])


@pytest.mark.parametrize("noun", VIEWS)
def test_a_list_of_several_pages_is_one_list(serve: Serve, printed: Printed, noun: str) -> None:
    def pages(asked: Asked) -> Reply:
        first = int(asked.query.get("cursor", "1"))
        following = str(first + 1) if first < 3 else None
        return Reply.of(answers.page(VIEWS[noun](first), next_cursor=following))

    serve({f"GET /api/v1/{noun.removesuffix('s')}s": pages})
    assert len(printed(noun, "ls").splitlines()) == 2 + 3


@pytest.mark.parametrize(
    ("command", "query"),
    [
        ("benchmark ls --mine --name x --state operation", "owner=me name=x state=OPERATION"),
        ("benchmark ls --approval Pending", "approval=PENDING"),
        ("container ls --mine --state DEVELOPMENT --name x", "owner=me state=DEVELOPMENT name=x"),
        ("dataset ls --mine --benchmark 3", "owner=me benchmark=3"),
        ("association ls --mine --benchmark 3 --dataset 4", "mine=true benchmark=3 dataset=4"),
        ("association ls --model 4 --state pending", "model=4 state=PENDING"),
        ("result ls --mine --benchmark 3 --dataset 4 --model 5", "owner=me benchmark=3 dataset=4 model=5"),
        ("notifications ls --unread", "unread=true"),
        ("notifications ls", ""),
    ],
)
def test_filters_are_asked_of_the_server(serve: Serve, printed: Printed, command: str, query: str) -> None:
    noun = command.partition(" ")[0]
    peer = serve(listed(noun))
    printed(*command.split())
    assert dict(pair.split("=") for pair in query.split()) | {"limit": "100"} == peer.asked[-1].query


def test_a_name_cannot_paint_the_terminal(serve: Serve, printed: Printed) -> None:
    serve(listed("benchmark", answers.benchmark(1, name="\x1b[2J\u202egood", description="\x9b31m")))
    shown = printed("benchmark", "ls")
    assert "\\x1b[2J\\u202egood" in shown
    assert not set("\x1b\x9b\u202e") & set(shown)


# One thing


@pytest.mark.parametrize("noun", VIEWS)
def test_a_thing_is_shown_whole(serve: Serve, printed: Printed, noun: str) -> None:
    thing = VIEWS[noun](7)
    kind = noun.removesuffix("s")
    serve({f"GET /api/v1/{kind}s/7": Reply.of(thing, Medperf_Version=f"{kind}/7@1")})
    shown = yaml.load(printed(noun, "view", "7"), Loader=yaml.BaseLoader)
    assert list(shown) == list(json.loads(printed(noun, "view", "7", "--json")))
    assert set(thing) <= set(shown)
    assert shown["id"] == "7"


def test_what_a_person_may_not_see_is_said_to_be_hidden_and_not_undefined(serve: Serve, printed: Printed) -> None:
    hidden = ("dataset_id", "metrics", "engine", "dataset_hash", "started_at", "finished_at")
    unseen = answers.result(7, **dict.fromkeys(hidden))
    serve(
        {
            "GET /api/v1/results/7": Reply.of(unseen),
            "GET /api/v1/results/8": Reply.of(answers.result(8, metrics={"auc": None})),
            "GET /api/v1/associations/7": Reply.of(answers.association(7, summary=None)),
        }
    )
    shown = printed("result", "view", "7")
    assert [f"{name}: null  # not shown to you\n" in shown for name in hidden] == [True] * len(hidden)
    assert "undefined" not in shown
    assert json.loads(printed("result", "view", "7", "--json"))["metrics"] is None
    assert "auc: null  # undefined\n" in printed("result", "view", "8")
    shown = printed("association", "view", "7")
    assert ("summary: null  # not shown to you\n" in shown, "decided_by: null\n" in shown) == (True, True)


@pytest.mark.parametrize(
    "command", ["benchmark view", "container view", "association view", "association withdraw"]
)
def test_an_id_that_no_thing_can_have_is_refused_here_by_its_bounds(
    serve: Serve, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    peer = serve({})
    assert run([*command.split(), str(2**63)]) == 2
    assert f"is not in the range 1<=x<={2**63 - 1}" in capsys.readouterr().err
    assert peer.asked == []


def test_a_thing_that_is_not_there_is_a_refusal(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve({"GET /api/v1/benchmarks/9": Reply.problem(404, "no_such_thing", "There is no benchmark 9.")})
    assert run(["benchmark", "view", "9"]) == 6
    assert capsys.readouterr().err == "Error: There is no benchmark 9.\nWhat to do: Do something else.\n"


# On this machine


@pytest.fixture
def home(home_folder: Path) -> Home:
    """The folder of a server that nothing listens at: what is local needs no server."""
    return Home.at("http://localhost:8000")


def test_local_datasets_need_no_server(home: Home, printed: Printed) -> None:
    assert printed("dataset", "ls", "--local").startswith("There are no datasets on this machine.")
    local_dataset(home, "a", server_id=3)
    local_dataset(home, "b")
    rule = "-" * 40
    assert printed("dataset", "ls", "--local") == (
        f"{'Generated UID':40}  Name      Server UID  Prepared by         Prepared\n"
        f"{rule}  ------  ------------  ------------------  ----------------\n"
        f"{'a' * 40}  mine-a             3  container 1 · prep  2026-01-02 03:04\n"
        f"{'b' * 40}  mine-b                container 1 · prep  2026-01-02 03:04\n"
    )
    assert [it["name"] for it in json.loads(printed("dataset", "ls", "--local", "--json"))] == ["mine-a", "mine-b"]
    assert yaml.safe_load(printed("dataset", "view", "bbb"))["name"] == "mine-b"
    assert yaml.safe_load(printed("dataset", "view", "--local", "3"))["name"] == "mine-a"


def test_local_results_need_no_server(home: Home, printed: Printed) -> None:
    assert printed("result", "ls", "--local").startswith("There are no such results on this machine.")
    dataset = local_dataset(home, server_id=1)
    for model_id in (2, 4):
        local_result(home, dataset, model_id)
    record_submission(home, find_result(home, "b1m4d1"), 17)
    assert [line.split() for line in printed("result", "ls", "--local").splitlines()[2:]] == [
        ["b1m2d1", "1", "2", "1", "False", "2026-01-02", "03:05"],
        ["b1m4d1", "1", "4", "1", "False", "17", "2026-01-02", "03:05"],
    ]
    assert [it["name"] for it in json.loads(printed("result", "ls", "--local", "--json"))] == ["b1m2d1", "b1m4d1"]
    assert len(printed("result", "ls", "--local", "--model", "4").splitlines()) == 3


@pytest.mark.parametrize(
    "command", ["dataset ls --local --mine", "dataset ls --local --benchmark 7", "result ls --local --mine"]
)
def test_a_filter_that_this_machine_cannot_apply_is_refused(
    home: Home, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    local_result(home, local_dataset(home, server_id=1))
    assert run(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{command.split()[3]} and --local do not go together" in err
    assert "What to do: Leave --local out" in err


# Decisions


def decisions(*known: dict[str, Any]) -> dict[str, Reply | Script]:
    def find(asked: Asked) -> Reply:
        assert {"benchmark": "1", "dataset": "3"}.items() <= asked.query.items()
        return Reply.of(answers.page(*known))

    replies: dict[str, Reply | Script] = {"GET /api/v1/associations": find}
    for verb, state in (("approve", "APPROVED"), ("reject", "REJECTED"), ("withdraw", "WITHDRAWN")):
        for thing in known:
            number = thing["id"]
            replies[f"POST /api/v1/associations/{number}/{verb}"] = Reply.of({**thing, "state": state})
            replies[f"GET /api/v1/associations/{number}"] = Reply.of(thing)
    return replies


PAIR = ("--benchmark_uid", "1", "--data-uid", "3")


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_request_is_decided_by_its_pair(serve: Serve, printed: Printed, verb: str) -> None:
    rejected = answers.association(1, part_id=3, state="REJECTED")
    peer = serve(decisions(rejected, answers.association(2, part_id=3)))
    shown = printed("association", verb, *PAIR, "--reason", "Because.")
    state = {"approve": "APPROVED", "reject": "REJECTED"}[verb]
    assert shown == f"Association 2: dataset 3 (mine) with benchmark 1 (chest-1) is {state}.\n"
    assert peer.asked[-1].path == f"/api/v1/associations/2/{verb}"
    assert peer.asked[-1].json == {"reason": "Because."}


def test_a_request_is_decided_by_its_uid(serve: Serve, printed: Printed) -> None:
    peer = serve(decisions(answers.association(2, part_id=3)))
    assert "is APPROVED." in printed("association", "approve", "2")
    assert peer.asked[-1].path == "/api/v1/associations/2/approve"


@pytest.mark.parametrize("verb", ["approve", "reject", "withdraw"])
@pytest.mark.parametrize("named", [PAIR, ("2",)])
def test_what_is_decided_already_is_the_servers_to_refuse_however_it_is_named(
    serve: Serve, capsys: pytest.CaptureFixture[str], verb: str, named: tuple[str, ...]
) -> None:
    known = [answers.association(number, part_id=3, state="REJECTED") for number in (1, 2)]
    refusal = Reply.problem(409, "already_decided", "Association 2 is REJECTED already.")
    peer = serve({**decisions(*known), f"POST /api/v1/associations/2/{verb}": refusal})
    assert run(["association", verb, *named]) == 6
    assert "Association 2 is REJECTED already." in capsys.readouterr().err
    assert peer.asked[-1].path == f"/api/v1/associations/2/{verb}"


def test_a_request_that_nobody_made_is_said_to_be_none(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(decisions())
    assert run(["association", "approve", *PAIR]) == 2
    assert "Nobody asked that dataset 3 take part in benchmark 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "named",
    ["", "--benchmark_uid 1", "--data_uid 3", "2 --data_uid 3", "--benchmark_uid 1 --data_uid 3 --model_uid 4"],
)
def test_one_association_must_be_named(home_folder: Path, capsys: pytest.CaptureFixture[str], named: str) -> None:
    assert run(["association", "approve", *named.split()]) == 2
    assert "Name one association" in capsys.readouterr().err


def test_withdrawing_asks(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    peer = serve(decisions(answers.association(2, part_id=3, state="APPROVED")))
    assert run(["association", "withdraw", *PAIR]) == 3
    assert not [asked for asked in peer.asked if asked.method == "POST"]
    with pexpect.spawn(MEDPERF, ["association", "withdraw", *PAIR], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("Withdraw it? [y/N]:")
        terminal.sendline("y")
        terminal.expect_exact("is WITHDRAWN.")
        terminal.expect(pexpect.EOF)
    assert run(["association", "withdraw", *PAIR, "--yes"]) == 0


def ordering(*known: dict[str, Any], owner_id: int = 5) -> dict[str, Reply | Script]:
    """A benchmark, what takes part in it as model 4, and a server that sets its priority."""

    def find(asked: Asked) -> Reply:
        assert {"benchmark": "1", "model": "4"}.items() <= asked.query.items()
        return Reply.of(answers.page(*known))

    def changed(asked: Asked) -> Reply:
        return Reply.of({**known[-1], **asked.json, "version": 2})

    return {
        "GET /api/v1/benchmarks/1": Reply.of(answers.benchmark(owner_id=owner_id)),
        "GET /api/v1/associations": find,
        "POST /api/v1/associations/2/set-priority": changed,
    }


SET_PRIORITY = ("association", "set_priority", "--benchmark_uid", "1", "--model_uid")
MODEL_4: dict[str, Any] = {"part_kind": "model", "part_id": 4, "part_name": "cnn", "part_owner_id": 7}


@pytest.mark.parametrize("state", ["PENDING", "APPROVED"])
def test_a_priority_is_shown_asked_about_and_sent(
    serve: Serve, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    over = answers.association(1, **MODEL_4, state="WITHDRAWN", priority=9)
    peer = serve(ordering(over, answers.association(2, **MODEL_4, state=state)))
    assert run([*SET_PRIORITY, "4", "--priority", "-5"]) == 3
    assert not [asked for asked in peer.asked if asked.method == "POST"]
    assert capsys.readouterr().out == (
        f"Association 2: model 4 (cnn) with benchmark 1 (chest-1) is {state}.\n"
        f"Its priority is 0. This change will be sent to {peer.url}:\n\n  priority: -5\n\n"
    )
    command = ["association", "set-priority", "-b", "1", "-m", "4", "-p", "-5"]
    with pexpect.spawn(MEDPERF, command, encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("Change its priority? [y/N]:")
        terminal.sendline("y")
        terminal.expect_exact("Changed: its priority is -5 now.")
        terminal.expect(pexpect.EOF)
    assert run([*SET_PRIORITY, "4", "--priority", "1000", "--yes"]) == 0
    assert [asked.json for asked in peer.asked if asked.method == "POST"] == [{"priority": -5}, {"priority": 1000}]


def test_a_priority_that_it_has_already_is_not_sent(serve: Serve, printed: Printed) -> None:
    peer = serve(ordering(answers.association(2, **MODEL_4, state="APPROVED", priority=7)))
    assert "Its priority is 7 already: nothing was changed.\n" in printed(*SET_PRIORITY, "4", "--priority", "7")
    assert not [asked for asked in peer.asked if asked.method == "POST"]


@pytest.mark.parametrize(
    ("owner_id", "model", "code", "said"),
    [
        (3, "4", 6, "Only its owner may do this with benchmark 1.\nWhat to do: Its owner is committee."),
        (5, "2", 2, "Model 2 is the reference model of benchmark 1: it is run before all others."),
        (5, "4", 2, "Nobody asked that model 4 take part in benchmark 1, as far as you may see."),
    ],
)
def test_whose_order_it_is_not_and_what_has_no_place_in_it_are_refused_before_a_question(
    serve: Serve, capsys: pytest.CaptureFixture[str], owner_id: int, model: str, code: int, said: str
) -> None:
    peer = serve(ordering(owner_id=owner_id))
    assert run([*SET_PRIORITY, model, "--priority", "1"]) == code
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True), err
    assert not [asked for asked in peer.asked if asked.method == "POST"]


def test_an_association_that_is_over_is_the_servers_to_refuse_without_a_question(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = Reply.problem(409, "association_over", "Association 2 is REJECTED: the model is not run.")
    known = ordering(answers.association(2, **MODEL_4, state="REJECTED"))
    serve({**known, "POST /api/v1/associations/2/set-priority": refusal})
    assert run([*SET_PRIORITY, "4", "--priority", "1"]) == 6
    assert "Association 2 is REJECTED" in capsys.readouterr().err


@pytest.mark.parametrize("priority", ["1001", "-1001", "1.5", "high"])
def test_what_is_no_priority_is_refused_before_anything_is_asked_of_the_server(
    serve: Serve, capsys: pytest.CaptureFixture[str], priority: str
) -> None:
    peer = serve({})
    assert run([*SET_PRIORITY, "4", "--priority", priority]) == 2
    assert "Invalid value for '--priority'" in capsys.readouterr().err
    assert peer.asked == []


def test_a_priority_is_bounded_here_as_at_the_server() -> None:
    assert (PRIORITY.min, PRIORITY.max) == (-PRIORITY_MOST, PRIORITY_MOST)


def test_a_reason_out_of_bounds_is_refused_before_it_is_sent(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = serve(decisions(answers.association(2, part_id=3)))
    assert run(["association", "reject", *PAIR, "--reason", "\x1b[31m"]) == 2
    assert "reason: must not hold control characters" in capsys.readouterr().err
    assert not [asked for asked in peer.asked if asked.method == "POST"]


def test_notifications_are_marked_as_read(
    serve: Serve, printed: Printed, capsys: pytest.CaptureFixture[str]
) -> None:
    read = {
        f"POST /api/v1/notifications/{number}/read": Reply.of(answers.notification(number, is_read=True))
        for number in (1, 2)
    }
    peer = serve({**listed("notifications", answers.notification(1), answers.notification(2)), **read})
    assert printed("notifications", "read", "2") == "Marked as read: 1.\n"
    assert printed("notifications", "read", "--all") == "Marked as read: 2.\n"
    posted = [asked.path for asked in peer.asked if asked.method == "POST"]
    assert posted == [f"/api/v1/notifications/{number}/read" for number in (2, 1, 2)]
    assert run(["notifications", "read"]) == 2
    assert run(["notifications", "read", "1", "--all"]) == 2
