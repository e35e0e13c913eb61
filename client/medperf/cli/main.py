"""The `medperf` command: finds the subcommand, and turns an expected failure into a message and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from medperf.errors import ClientError, StorageFailed
from medperf.terminal import printable

from .lazy import LazyGroup
from .session import Session, server_options

COMMANDS = {
    "association": ("medperf.cli.association:association", "Requests to take part in benchmarks, and decisions."),
    "auth": ("medperf.cli.auth:auth", "Who is logged in."),
    "benchmark": ("medperf.cli.benchmark:benchmark", "Benchmarks: look at them, set them up, run them."),
    "bundle": ("medperf.cli.bundle:bundle", "What a benchmark needs, as a file for a site without internet."),
    "cache": ("medperf.cli.cache:cache", "What is kept here that can be had again: look, check, make space."),
    "container": ("medperf.cli.container:container", "Containers: preparations, models, metrics; register them."),
    "dataset": ("medperf.cli.dataset:dataset", "Datasets: prepare, submit, associate."),
    "doctor": ("medperf.cli.doctor:doctor", "What is well here and what is not, and what to do."),
    "login": ("medperf.cli.auth:login", "Log in to the server."),
    "logout": ("medperf.cli.auth:logout", "Log out of the server."),
    "model": ("medperf.cli.model:model", "Models: look at them, ask that one take part."),
    "notifications": ("medperf.cli.notifications:notifications", "What happened that concerns you."),
    "result": ("medperf.cli.result:result", "Results: look at them, submit them."),
    "run": ("medperf.cli.run:run", "Runs of containers on this machine: what became of them, their logs."),
    "storage": ("medperf.cli.storage:storage", "Where the local folder lies, what is in it; move it."),
    "test": ("medperf.cli.test:test", "Try containers out before anything is registered."),
    "tutorial": ("medperf.cli.tutorial:tutorial", "The tutorial's files, and its committee."),
}

INTERRUPTED_EXIT_CODE = 130
# What a machine's owner can mend: space, a quota, permissions, a failing disk. Any other is a bug of ours.
_STORAGE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}
# Of a file that somebody removed, by name or with the folder that it was in.
_GONE_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        # Options accept `_` and `-` alike.
        "token_normalize_func": lambda token: token.replace("-", "_"),
    },
)
@click.version_option(package_name="medperf", message="medperf %(version)s")
@server_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Run medical AI benchmarks on your own data. The data stays; you submit the scores."""
    context.ensure_object(Session)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 when all that was asked was done, else the failure's own code."""
    for stream in (sys.stdout, sys.stderr):
        # A name or a check mark that the terminal's encoding lacks is shown as its escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Who starts it with `nohup` means that it goes on.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end_by_signal)
    sys.exit(run(arguments))


def _end_by_signal(number: int, _: object) -> NoReturn:
    """End as with Ctrl-C, which stops what runs: a container of an engine outlives its client otherwise."""
    for again in (signal.SIGTERM, signal.SIGHUP):  # a terminal that closes may send it twice
        signal.signal(again, signal.SIG_IGN)
    if number == signal.SIGHUP:
        # The terminal cannot be written to any more, or soon: that must not keep anything from being stopped.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            with suppress(OSError):  # closed: nothing is written there
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nowhere, descriptor)
    raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. What is not an expected failure is a bug, and is raised."""
    try:
        outcome = cli.main(arguments, prog_name="medperf", standalone_mode=False)
    except ClientError as error:
        return _report(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as interrupted:
        # A question raises Abort itself; from work it has the interrupt as its cause.
        at_a_question = isinstance(interrupted, click.Abort) and interrupted.__cause__ is None
        kept = "What was finished is kept, what was not begins again with the same command."
        click.echo("Interrupted: nothing was sent." if at_a_question else f"Interrupted. {kept}", err=True)
        return INTERRUPTED_EXIT_CODE
    except OSError as error:
        if _is_removed(error):
            return _report(_removed(error))
        if error.errno not in _STORAGE_ERRNOS:
            _ask_for_report()
            raise
        return _report(_storage_failed(error))
    except Exception:
        _ask_for_report()
        raise
    return outcome if isinstance(outcome, int) else 0


def _report(error: ClientError) -> int:
    click.echo(f"Error: {printable(str(error))}", err=True)
    click.echo(f"What to do: {printable(error.hint)}", err=True)
    return error.exit_code


def _storage_failed(error: OSError) -> StorageFailed:
    place = f" ({error.filename})" if error.filename else ""
    return StorageFailed(
        f"A local file could not be read or written{place}: {error.strerror}.",
        hint="Make space or mend the permissions, or point MEDPERF_HOME and TMPDIR elsewhere; then run it again.",
    )


def _is_removed(error: OSError) -> bool:
    """Whether something of the local folder is gone that was there just now; elsewhere that is a bug of ours."""
    from medperf.home import base_folder

    if error.errno not in _GONE_ERRNOS or not isinstance(error.filename, str | bytes):
        return False
    return Path(os.fsdecode(error.filename)).is_relative_to(base_folder())


def _removed(error: OSError) -> StorageFailed:
    return StorageFailed(
        f"A local file is gone that this command was working with: {os.fsdecode(error.filename)}.",
        hint="Somebody removed it meanwhile. Run the command again: it makes anew what it can.",
    )


def _ask_for_report() -> None:
    click.echo("A fault in medperf itself, not in what you typed. Please report the lines that follow.", err=True)
