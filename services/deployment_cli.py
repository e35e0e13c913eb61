"""`medperf-server run|work|migrate|provision|secrets`: the processes of a deployment, and what they need first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from medperf_contracts.access import SERVICES

_service = click.argument("service", type=click.Choice(SERVICES))
_host = click.option("--host", default="0.0.0.0", show_default=True, help="The address to listen on.")  # noqa: S104
_monitor_port = click.option(
    "--monitor-port",
    default=9000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Where /live, /ready and /metrics are answered; nothing routes to it from outside.",
)


@click.command()
@_service
@_host
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Of the API.")
@_monitor_port
def run(service: str, host: str, port: int, monitor_port: int) -> None:
    """Run the web process of one service of a deployment."""
    from .deployment import Deployment
    from .process import run_web

    _log_to_standard_output()
    run_web(Deployment.from_environment(), service, host=host, port=port, monitor_port=monitor_port)


@click.command()
@_service
@_host
@_monitor_port
def work(service: str, host: str, monitor_port: int) -> None:
    """Run the worker of one service of a deployment: it publishes and consumes events."""
    from .deployment import Deployment
    from .process import run_worker

    _log_to_standard_output()
    run_worker(Deployment.from_environment(), service, host=host, monitor_port=monitor_port)


@click.command()
@click.argument("services", nargs=-1, type=click.Choice(SERVICES))
def migrate(services: tuple[str, ...]) -> None:
    """Bring the databases of a deployment to the newest schema: of these services, or of all."""
    from .deployment import Deployment
    from .kernel import log
    from .process import migrate_all

    log.configure(log.warnings_only())
    asyncio.run(migrate_all(Deployment.from_environment(), services or SERVICES))
    click.echo("Every schema is the newest.")


@click.command("provision")
def provision_databases() -> None:
    """Make each service's database and roles in PostgreSQL; again: set their passwords to the secrets."""
    from .deployment import Deployment
    from .kernel import log
    from .provision import provision

    log.configure(log.warnings_only())
    asyncio.run(provision(Deployment.from_environment()))
    click.echo("Every service has its database and its roles.")


@click.group("secrets")
def secret_files() -> None:
    """The secret files of a deployment."""


@secret_files.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--group", type=int, metavar="GID", help="A group whose members may read them, such as containers'.")
def create(folder: Path, group: int | None) -> None:
    """Make every secret in FOLDER that is not there yet."""
    from .secret_files import create as create_secrets

    for name in create_secrets(folder, group=group):
        click.echo(f"Made {folder / name}")
    click.echo(f"All secrets are in {folder}. Keep a copy of it where only operators can read it.")


@secret_files.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("names", nargs=-1, required=True)
def renew(folder: Path, names: tuple[str, ...]) -> None:
    """Replace secrets in FOLDER by new ones: the processes take them as docs/operating.md says."""
    from .secret_files import renew as renew_secret

    for name in names:
        renew_secret(folder, name)
        click.echo(f"Renewed {folder / name}")


def _log_to_standard_output() -> None:
    import logging
    import sys

    from .kernel import log

    log.configure(logging.StreamHandler(sys.stdout))
    log.log_what_nobody_catches()
