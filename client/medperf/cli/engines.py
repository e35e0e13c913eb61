"""How containers are run: the options of every command that runs some, what is asked of it and remembered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medperf.preferences import OTHER_NAMES, PLATFORMS
from medperf.terminal import printable

from .prompts import confirm

if TYPE_CHECKING:
    from medperf.engines.base import Limits
    from medperf.engines.choice import Engines
    from medperf.shares import Shares

    from .session import Session

R = TypeVar("R")

_GIB = 1024**3
_SANDBOX_QUESTION = (
    "Run containers in the sandbox instead: as local processes under bubblewrap, without network, with the same"
    " limits? This is asked once."
)
_WRITABLE_ROOT_QUESTION = (
    "Let the images write to a layer over their own files, thrown away afterwards? It stands in the records."
)


class Amount(click.FloatRange):
    """A number between two others: neither `nan`, which is below and above none, nor more than anybody means."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class PlatformName(click.Choice[str]):
    """A platform, by any of its names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found: str = super().convert(OTHER_NAMES.get(value, value), param, ctx)
        return found


@dataclass(frozen=True)
class How:
    """What a person said of how containers are to be run; None is what was said before, or the default."""

    platform: str | None
    wall_seconds: float | None
    memory_gib: float | None
    cpus: float | None
    root_is_writable: bool
    # As the option was given; None leaves it to the containers, which get what they ask for.
    gpus: str | None = None

    def limits(self, jobs: int) -> Limits:
        """The limits of each task where so many run at once: they share the memory that one would have."""
        from medperf.engines.base import Limits

        given: dict[str, Any] = {"cpus": self.cpus}
        if self.wall_seconds is not None:
            given["wall_seconds"] = self.wall_seconds
        if self.memory_gib is not None:
            given["memory_bytes"] = int(self.memory_gib * _GIB)
        else:
            given["memory_bytes"] = Limits().memory_bytes // jobs
        return Limits(**given)

    def shares(self, jobs: int) -> Shares:
        """What each task gets of this machine; UsageError where GPUs are asked for that are not there."""
        from medperf.shares import Shares

        if self.gpus is not None:
            self.allowed_gpus()
        return Shares(
            self.limits(jobs),
            jobs=jobs,
            memory_is_said=self.memory_gib is not None,
            gpus=self.allowed_gpus,
            to_all=self.gpus is not None,
        )

    def allowed_gpus(self) -> tuple[str, ...]:
        """The GPUs of this machine that containers may have."""
        from medperf.gpus import allowed_gpus
        from medperf.manifest.model import ALL_GPUS

        return allowed_gpus(ALL_GPUS if self.gpus is None else self.gpus, _gpus_here())


@cache
def _gpus_here() -> tuple[str, ...]:
    # Asked once in a command: a driver takes a second to answer.
    from medperf.gpus import find_gpus

    return find_gpus()


def how_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of running containers, given to the command together as `how`."""

    def with_how(
        *args: Any,
        platform: str | None,
        wall_seconds: float | None,
        memory_gib: float | None,
        cpus: float | None,
        writable_root: bool,
        gpus: str | None,
        **kwargs: Any,
    ) -> R:
        how = How(platform, wall_seconds, memory_gib, cpus, writable_root, gpus)
        return command(*args, how=how, **kwargs)

    wrapped: Callable[..., R] = update_wrapper(with_how, command)
    for option in (
        click.option(
            "--writable_root",
            is_flag=True,
            help="Let images write to their own files: to a layer that is thrown away. Not in the sandbox; asks.",
        ),
        click.option(
            "--gpus",
            metavar="WHICH",
            help="GPUs for containers: all, a count, device=0,2, or 0 for none. Unless given, those that ask for"
            " some get them; if given, the others do too.",
        ),
        click.option(
            "--cpus", type=Amount(min=0.1, max=10_000), metavar="N", help="Processors for a task; all of them."
        ),
        click.option(
            "--memory_limit",
            "memory_gib",
            type=Amount(min=0.01, max=1_000_000),
            metavar="GIB",
            help="Memory for a task; three quarters of the machine's for all at once unless given.",
        ),
        click.option(
            "--time_limit",
            "wall_seconds",
            type=Amount(min=1, max=1e9),
            metavar="SECONDS",
            help="How long one task of a container may take; a day unless given.",
        ),
        click.option(
            "--platform",
            type=PlatformName(PLATFORMS),
            help="What runs containers: docker, podman, apptainer (singularity too), sandbox, or auto: the first"
            " that has the registered image. Remembered; MEDPERF_PLATFORM goes before what is remembered.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def make_engines(session: Session, how: How, on_line: Callable[[str], None]) -> Engines:
    """The engines as the person wants them: a platform that is given is remembered once it gives an engine."""
    from medperf.engines.choice import Engines, Platform, Source
    from medperf.preferences import Preferences, platform_of_environment

    file = session.home.preferences
    if how.platform is not None:
        platform, source = how.platform, Source.OPTION
    elif (named := platform_of_environment()) is not None:
        platform, source = named, Source.ENVIRONMENT
    else:
        platform, source = Preferences.load(file).platform, Source.REMEMBERED

    def remember() -> None:
        known = Preferences.load(file)
        if how.platform is None or how.platform == known.platform:
            return
        # Who asks for the sandbox has agreed to it.
        agreed = known.has_agreed_to_sandbox or how.platform == Platform.SANDBOX
        known.model_copy(update={"platform": how.platform, "has_agreed_to_sandbox": agreed}).save(file)

    def agree(why_not_docker: str) -> None:
        known = Preferences.load(file)
        if known.has_agreed_to_sandbox:
            return
        click.echo(printable(f"{why_not_docker}."), err=True)
        confirm(_SANDBOX_QUESTION, yes=session.yes)
        known.model_copy(update={"has_agreed_to_sandbox": True}).save(file)

    if how.root_is_writable and platform != Platform.SANDBOX:
        confirm(_WRITABLE_ROOT_QUESTION, yes=session.yes)
    engines = Engines(
        platform=Platform(platform),
        home=session.home.root,
        packages_root=session.home.environments,
        agree=agree,
        on_line=on_line,
        say=lambda text: click.echo(printable(text), err=True),
        source=source,
        on_chosen=remember,
        gpus=how.allowed_gpus,
    )
    click.get_current_context().call_on_close(engines.close)
    return engines
