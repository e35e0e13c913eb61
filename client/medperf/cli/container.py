"""`medperf container`: preparations, models and metrics as they are registered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .changing import UID, check_address, validity_option
from .container_image import check_image_is_said, fetched_image, image_digest
from .listing import Column, choice, mine_option, owner_filter, print_list, print_thing, silent_yes_option
from .prompts import confirm, yes_option
from .session import Session, pass_session
from .tables import json_option

if TYPE_CHECKING:
    from medperf.drafts import Draft
    from medperf_contracts.registry import ContainerView, NewContainer

STATES = ("DEVELOPMENT", "OPERATION")


_DIGEST_DIGITS = 64


@click.group()
def container() -> None:
    """Containers: preparations, models, metrics; register them."""


@container.command()
@mine_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--state", type=choice(STATES), help="Only those in this state.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, mine: bool, name: str | None, state: str | None, as_json_text: bool) -> None:
    """List containers. A model is a container in that role: its UID is the container's."""
    from medperf_contracts.registry import ContainerView

    found = session.gateway.items("/containers", ContainerView, owner=owner_filter(mine), name=name, state=state)
    print_list(found, container_columns(), as_json_text=as_json_text, if_empty="There are no such containers.")


def container_columns() -> list[Column[ContainerView]]:
    """What a list shows of containers, in whatever role."""
    return [
        Column("UID", lambda it: it.id),
        Column("Name", lambda it: it.name),
        Column("Owner", lambda it: it.owner_name),
        Column("State", lambda it: it.state),
        Column("Valid", lambda it: it.is_valid),
    ]


@container.command()
@click.argument("container_uid", type=UID)
@json_option
@silent_yes_option
@pass_session
def view(session: Session, container_uid: int, as_json_text: bool) -> None:
    """Show a container whole, with its manifest and parameters."""
    from medperf_contracts.registry import ContainerView

    print_thing(session, "container", container_uid, ContainerView, as_json_text=as_json_text)


@container.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Else FOLDER.tar.gz here.",
)
@yes_option
def pack(folder: Path, output: Path | None, yes: bool) -> None:
    """Pack additional files, or demo data, into an archive whose hash depends on the files alone.

    FOLDER's content becomes the top of the archive. Links are refused, and no file in it is executable.
    """
    from medperf.drafts import MANIFESTS, packed
    from medperf.errors import UsageError
    from medperf.manifest.model import ADDITIONAL_FILES

    if any((folder / name).exists() for name in MANIFESTS):
        raise UsageError(
            f"{folder} is a whole container: its manifest and parameters are registered as text.",
            hint=f"Pack the folder of its {ADDITIONAL_FILES}.",
        )
    archive = output or Path(f"{folder.resolve().name}.tar.gz")
    if not archive.parent.is_dir():
        raise UsageError(f"There is no folder {archive.parent}.", hint="Make it, or give another --output.")
    if archive.exists():
        confirm(f"Replace {archive}?", yes=yes)
    digest = packed(folder, archive)
    click.echo(printable(f"Packed {archive} ({archive.stat().st_size:,} bytes)"))
    click.echo(f"SHA-256: {digest}")


@container.command()
@click.argument("path", metavar="FILE|FOLDER", type=click.Path(path_type=Path, exists=True))
@click.option("--name", help="Its name, at most 128 characters; else the manifest's.")
@click.option("--description", help="What it is; else the manifest's.")
@click.option(
    "--parameters",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Its parameters; else workspace/parameters.yaml beside the manifest.",
)
@click.option(
    "--additional_files",
    "url",
    metavar="URL",
    help="Where the archive of its additional files is: https://…, or a path of the server such as /assets/…",
)
@click.option("--image_hash", metavar="SHA256", help="The image's ID, with or without sha256: before it.")
@click.option(
    "--image_url",
    metavar="URL",
    help="Where the image is as a file, made by `docker save`; the file's own hash is registered then.",
)
@yes_option
@pass_session
def submit(
    session: Session,
    path: Path,
    name: str | None,
    description: str | None,
    parameters: Path | None,
    url: str | None,
    image_hash: str | None,
    image_url: str | None,
    yes: bool,
) -> None:
    """Register a container: its MLCube folder, or its manifest.

    It is checked, what will be sent is printed, you are asked, it is sent.
    """
    from medperf.bodies import checked_input
    from medperf.drafts import Draft
    from medperf_contracts.accounts import UserView
    from medperf_contracts.registry import ContainerView, NewContainer

    from .changing import register, what_was_given

    for address, option in ((url, "--additional_files"), (image_url, "--image_url")):
        if address is not None:
            check_address(address, option)
    draft = Draft.read(path, parameters=parameters)
    check_image_is_said(draft, image_hash, image_url)
    digest = None if image_hash is None else image_digest(draft, image_hash)
    parts = {"parameters": draft.parameters_text, "image_hash": digest}
    with checked_input():
        body = NewContainer(
            name=draft.manifest.name if name is None else name,
            description=draft.manifest.description if description is None else description,
            manifest=draft.manifest_text,
            **what_was_given(**parts),
        )
    click.echo(f"It can serve as {' and as '.join(draft.roles)}.", err=True)
    if draft.manifest.docker is not None and image_hash is None and image_url is None:
        click.echo(
            "Without --image_hash or --image_url its image is never used: it will run in the sandbox only.",
            err=True,
        )
    session.gateway.get("/users/me", UserView)  # before a long download, not after it
    if url is None:
        _check_nothing_is_left_behind(draft)
    else:
        body = _with_additional_files(session, draft, body, url)
    if image_url is not None:
        body = _body_with(body, "image", image_url, fetched_image(session, image_url))
    made = register(session, "container", body, ContainerView, yes=yes)
    if made.state == "DEVELOPMENT":
        click.echo(f"Next, try it (medperf test run), then: medperf container set-operational {made.id}")


def _check_nothing_is_left_behind(draft: Draft) -> None:
    """Raise UsageError where its additional files would not be registered with it."""
    from medperf.errors import UsageError

    if draft.additional_files is not None:
        raise UsageError(
            f"It has additional files ({draft.additional_files}), and nothing says where their archive is.",
            hint=f"Pack them (medperf container pack {draft.additional_files}), put the archive where sites can"
            " fetch it, and give its address with --additional_files.",
        )
    draft.check_own_files(None)


def _with_additional_files(session: Session, draft: Draft, body: NewContainer, url: str) -> NewContainer:
    """The body with the archive that the URL gives, which must hold what the tasks take."""
    from medperf import archives
    from medperf.scratch import scratch_folder

    from .changing import downloads, fetched_new
    from .progress import Progress

    # Its form is checked before it is fetched; the hash is what the file turns out to have.
    _body_with(body, "additional_files", url, "0" * _DIGEST_DIGITS)
    session.progress = progress = Progress(1)
    archive, digest = fetched_new(downloads(session, progress), url, progress.step)
    with scratch_folder(session.home) as place:
        archives.extract(archive, place / "additional_files")
        draft.check_own_files(place / "additional_files")
        draft.check_holds_the_same(place / "additional_files", url)
    return _body_with(body, "additional_files", url, digest)


def _body_with(body: NewContainer, part: str, url: str, digest: str) -> NewContainer:
    from medperf.bodies import checked_input

    with checked_input():
        return body.model_validate({**body.as_sent(), f"{part}_url": url, f"{part}_hash": digest})


@container.command("set-operational")
@click.argument("container_uid", type=UID)
@yes_option
@pass_session
def set_operational(session: Session, container_uid: int, yes: bool) -> None:
    """Bring your container into operation: everybody sees it, and benchmarks can be made of it."""
    from medperf_contracts.registry import ContainerView

    from . import changing

    meaning = "In OPERATION everybody who is logged in sees it, with its manifest and parameters."
    changed = changing.set_operational(
        session, "container", container_uid, ContainerView, meaning=meaning, yes=yes
    )
    if changed is not None:
        click.echo(f"Next, {_what_next(changed)}")


def _what_next(container: ContainerView) -> str:
    """What its owner can do with a container in operation, by the roles that its tasks allow."""
    from medperf.errors import BadManifest
    from medperf.manifest import Role, fitting_roles, parse_manifest

    of_a_model = (
        f"as a model's owner: medperf model associate --benchmark_uid UID --model_uid {container.id};"
        " as a committee: "
    )
    try:
        is_model = Role.MODEL in fitting_roles(parse_manifest(container.manifest))
    except BadManifest:
        is_model = False
    return f"{of_a_model if is_model else ''}make a benchmark of it: medperf benchmark submit FILE.yaml"


@container.command()
@click.argument("container_uid", type=UID)
@click.option("--description", help="What it is.")
@click.option("--additional_files", "url", metavar="URL", help="Where the same archive is now.")
@click.option("--image_url", metavar="URL", help="Where the same image is as a file.")
@validity_option
@yes_option
@pass_session
def update(
    session: Session,
    container_uid: int,
    description: str | None,
    url: str | None,
    image_url: str | None,
    is_valid: bool | None,
    yes: bool,
) -> None:
    """Change what may change of your container in any state; what it does never changes."""
    from medperf_contracts.registry import ContainerChanges, ContainerView

    from . import changing
    from .progress import Progress

    for address, option in ((url, "--additional_files"), (image_url, "--image_url")):
        if address is not None:
            check_address(address, option)

    def check(thing: ContainerView) -> None:
        if url is not None and thing.additional_files_hash is not None:
            session.progress = progress = Progress(1)
            _, found = changing.fetched_new(changing.downloads(session, progress), url, progress.step)
            changing.check_same(url, found, thing.additional_files_hash, "its additional files")
        if image_url is not None and thing.image_hash is not None:
            changing.check_same(image_url, fetched_image(session, image_url), thing.image_hash, "its image")

    given = changing.what_was_given(
        description=description, additional_files_url=url, image_url=image_url, is_valid=is_valid
    )
    changing.update(
        session, "container", container_uid, ContainerView, ContainerChanges, given, yes=yes, check=check
    )
