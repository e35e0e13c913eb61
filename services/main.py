"""The operator's command: `medperf-server`."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

import click

from medperf_contracts import __version__

from .dead_letters import dead_letters
from .deployment_cli import migrate, provision_databases, run, secret_files, work
from .operations.cli import events, export, import_, verify
from .user import user

# What a machine's owner can mend: space, a quota, permissions, a failing disk. Any other is a bug of ours.
_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@click.group(context_settings={"token_normalize_func": lambda name: name.replace("_", "-")})
@click.version_option(__version__)
def cli() -> None:
    """Runs MedPerf's server. Its files are in MEDPERF_SERVER_HOME (default ~/.medperf_server)."""
    # Password hashes, scores and the log: whatever the folder's own mode, its files are the operator's alone.
    os.umask(0o077)


cli.add_command(user)
cli.add_command(dead_letters)
for _process in (run, work, migrate, provision_databases, secret_files):
    cli.add_command(_process)
for _operation in (events, verify, export, import_):
    cli.add_command(_operation)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--cert", type=click.Path(path_type=Path), metavar="FILE", help="Serve TLS: the certificate, in PEM."
)
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's key, in PEM.")
@click.option("--log", "log_to", default="", metavar="FILE", help="Where the log goes; - is standard error.")
@click.option("--disorder", "disorder_seed", type=int, default=None, hidden=True)
def up(host: str, port: int, cert: Path | None, key: Path | None, log_to: str, disorder_seed: int | None) -> None:
    """Start all services in this process. Ctrl-C stops it; everything is kept."""
    from .embedded.server import is_loopback, serve
    from .embedded.store import Store
    from .embedded.tls import Certificate

    store = Store.from_environment()
    certificate = Certificate.load(cert, key)
    is_readable = certificate is None and not is_loopback(host)
    with store.locked():
        _configure_log(log_to or str(store.log))
        # The web server ends in order, then raises the signal that stopped it once more.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            serve(
                store,
                host=host,
                port=port,
                disorder_seed=disorder_seed,
                on_ready=lambda url: _say_ready(url, is_readable=is_readable),
                certificate=certificate,
            )
    click.echo("Stopped.")


@cli.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Empty the store: accounts, registrations, results. Refused while the server runs."""
    from .embedded.store import Store

    store = Store.from_environment()
    if not store.home.exists():
        click.echo(f"Nothing to remove: there is no {store.home}.")
        return
    with store.locked():
        contents = store.contents()
        if not contents:
            click.echo(f"Nothing to remove in {store.home}.")
            return
        click.echo("This removes:")
        for path in contents:
            click.echo(f"  {path}")
        if not yes:
            _ask("Remove them?")
        store.empty()
    click.echo("Removed.")


@cli.command()
@click.option("--demo", type=click.Choice(["data"]), required=True, help="data: the data owner's tutorial.")
@click.option(
    "--images",
    type=click.File(),
    metavar="FILE",
    help="What `python -m tutorials.images` wrote: the hashes of the containers' images, for engines.",
)
def seed(demo: str, images: TextIO | None) -> None:
    """Fill the running, empty server for a tutorial. Its people have the password 'test'."""
    from .embedded.seed import read_images, seed_data
    from .embedded.store import Store, StoreError

    store = Store.from_environment()
    running = store.running()
    if running is None:
        raise StoreError(
            f"No server runs on the store {store.home}.", hint="Start it in another terminal: medperf-server up"
        )
    seed_data(store, running, read_images(images.read()) if images else {}, click.echo)
    click.echo(f"Seeded for the demo '{demo}'.")


@cli.group()
def asset() -> None:
    """Files that registered URLs such as /assets/… name."""


@asset.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def add(file: Path) -> None:
    """Serve a copy of FILE, also beside a running server; prints its URL and its SHA-256."""
    from .embedded.assets import add_asset
    from .embedded.store import Store

    added = add_asset(Store.from_environment(), file)
    click.echo(f"URL: {added.url}")
    click.echo(f"SHA-256: {added.sha256}")


def main() -> None:
    """Run the command; what can be foreseen ends with a sentence and a hint, not with a traceback."""
    from .kernel.errors import Unavailable
    from .operator_error import OperatorError

    try:
        cli.main(prog_name="medperf-server")
    except OperatorError as error:
        _fail(str(error), error.hint)
    except Unavailable as refusal:
        _fail(refusal.detail, refusal.hint)
    except OSError as error:
        if error.errno not in _STORAGE_ERRNOS:
            raise
        place = f" ({error.filename})" if error.filename else ""
        _fail(
            f"A file of the server could not be read or written{place}: {error.strerror}.",
            "Make space or mend the permissions, then run the same command again.",
        )


def _fail(message: str, hint: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    click.echo(f"What to do: {hint}", err=True)
    sys.exit(1)


def _say_ready(url: str, *, is_readable: bool) -> None:
    click.echo(f"MedPerf server ready on {url}")
    if is_readable:
        warning = "logins cross the network readable: give --cert and --key, or put TLS in front of this server."
        click.echo(f"Warning: {warning}", err=True)


def _ask(question: str) -> None:
    from .embedded.store import StoreError

    if not sys.stdin.isatty():
        raise StoreError("This must be confirmed, and there is no terminal to ask on.", hint="Add --yes.")
    click.confirm(question, abort=True)


def _configure_log(destination: str) -> None:
    from .embedded.store import LOGS_KEPT
    from .kernel import log

    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if destination != "-":
        handler = log.LogFile(destination, files_kept=LOGS_KEPT)
    log.configure(handler)


if __name__ == "__main__":
    main()
