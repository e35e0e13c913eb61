"""What only Apptainer has to hold or to say: its images, its configuration, the machines where it cannot work."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from containers.attack import AS_ROOT, CALLERS, Client, cgroups_of, eventually, make_client, processes_with
from containers.image_files import config, layer, of_docker, of_oci, sha256, write_tar
from containers.small import Site, config_of, manifest_of
from medperf.assets import Assets
from medperf.bundles.gather import Gathering
from medperf.cache import Kind, kept_things
from medperf.containers import LocalContainer
from medperf.engines.apptainer import ApptainerEngine, log_of
from medperf.engines.apptainer_machine import check_installation, parse_installation
from medperf.engines.apptainer_options import WORK
from medperf.engines.base import Image, Limits, TaskSpec
from medperf.engines.choice import Engines, Platform
from medperf.engines.docker import DockerEngine
from medperf.engines.probe import program_files
from medperf.errors import BadManifest, EngineUnavailable, IntegrityError
from medperf.image_archives import ImageArchive, read_image_archive
from medperf.manifest import Role
from medperf.shares import Shares
from medperf.tasks import Runner
from medperf_contracts.hashing import container_hash
from medperf_contracts.registry import ContainerView

pytestmark = pytest.mark.usefixtures("base_sif")

URL = "/assets/image.tar"
# A model that is a few lines of a shell's own words: a small image has nothing else.
MODEL = b"""
for word in "$@"; do
    case "$word" in --data_path=*) data=${word#*=};; --output_path=*) out=${word#*=};; esac
done
for file in "$data"/*; do read -r line < "$file"; echo "${file##*/},${#line}"; done > "$out/predictions.csv"
"""
PREDICTIONS = "case0.txt,3\ncase1.txt,5\ncase2.txt,7\n"


@pytest.fixture(params=CALLERS)
def client(request: pytest.FixtureRequest, library: Path, base_sif: Path) -> Iterator[Client]:
    """Apptainer alone."""
    with make_client("apptainer", request.param, library, sif=str(base_sif)) as made:
        yield made


@pytest.fixture
def one_client(library: Path, base_sif: Path) -> Iterator[Client]:
    with make_client("apptainer", CALLERS[0], library, sif=str(base_sif)) as made:
        yield made


@pytest.fixture(scope="module")
def shell() -> bytes:
    """A layer with a shell of this machine, and the model."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in program_files("/bin/sh"):
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size, entry.mode = path.stat().st_size, 0o755
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
        entry = tarfile.TarInfo("model.sh")
        entry.size, entry.mode = len(MODEL), 0o644
        archive.addfile(entry, io.BytesIO(MODEL))
    return packed.getvalue()


def image_file(place: Path, *layers: bytes, **settings: object) -> ImageArchive:
    """An archive of an image of these layers, whose program is the model."""
    own = {"Entrypoint": ["/bin/sh", "/model.sh"], **settings}
    entries, _ = of_docker(*layers, settings=own)
    return read_image_archive(write_tar(place / "image.tar", entries))


@pytest.fixture(scope="module")
def archive(shell: bytes, tmp_path_factory: pytest.TempPathFactory) -> ImageArchive:
    return image_file(tmp_path_factory.mktemp("image"), shell)


@pytest.fixture(scope="module")
def sif(archive: ImageArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image as a Singularity file."""
    work = tmp_path_factory.mktemp("sif") / "work"
    work.mkdir()
    (work / "image.tar").write_bytes(archive.file.read_bytes())
    made = ApptainerEngine(work.parent).make_sif(work, f"docker-archive:{WORK}/image.tar")
    assert made.succeeded, log_of(work).read_text()
    return work / "image.sif"


# What it sees


@pytest.mark.guarantee("host")
def test_of_the_host_only_what_is_named_is_visible(client: Client) -> None:
    with tempfile.TemporaryDirectory() as other_run:
        Path(other_run).chmod(0o755)
        Path(other_run, "result").write_text("another's")
        home = str(client.folder / "home")
        ran = client.run(
            f"""
            for path in ({home!r}, {other_run!r}, "/tmp/own", "/run/docker.sock", "/var/lib/apptainer/mnt"):
                print(f"{{path}}={{os.path.exists(path)}}")
            for path in ("/tmp", "/dev/shm", "/root", "/home", "/mnt", "/sys"):
                print(f"{{path}}={{os.access(path, os.R_OK) and bool(os.listdir(path))}}")
            for number in os.listdir("/proc/self/fd"):
                if os.path.exists(f"/proc/self/fd/{{number}}/etc"):
                    print(f"descriptor {{number}}=leads out")
            mounted = [line.split() for line in open("/proc/mounts")]
            writable = [row[1] for row in mounted if row[3].startswith("rw") and os.access(row[1], os.W_OK)]
            print("writable=" + ",".join(path for path in writable if not path.startswith("/proc")))
            print("host name=" + os.uname().nodename)
            print("devices=" + ",".join(sorted(os.listdir("/dev"))))
            """
        )
    answers = ran.answers
    devices = {"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"}
    assert set(answers.pop("devices").split(",")) == devices
    written = {f"/dev/{name}" for name in ("full", "null", "random", "urandom", "zero")}
    assert set(answers.pop("writable").split(",")) - written == {"/tmp", "/dev/shm", "/mlcube_io1"}
    assert answers.pop("host name") == "container"
    assert set(answers.values()) == {"False"}


@pytest.mark.skipif(not AS_ROOT, reason="only root can give the machine another configuration for a moment")
def test_what_the_machines_administrator_adds_to_containers_is_not_added_to_these(one_client: Client) -> None:
    said = subprocess.run(["apptainer", "buildcfg"], capture_output=True, text=True, check=True).stdout
    configuration = parse_installation(said, Path("/")).configuration  # type: ignore[union-attr]
    secret = one_client.folder / "home" / "id_rsa"
    other = one_client.folder / "apptainer.conf"
    other.write_text(f"{configuration.read_text()}\nbind path = {secret}:/etc/hostname\nmount hostfs = yes\n")
    command, environment = one_client.command(
        """
        print("added=" + str("private" in open("/etc/hostname").read() or os.path.exists("/etc/apptainer")))
        places = [row.split()[1] for row in open("/proc/mounts")]
        print("mounted=" + ",".join(place for place in places if place.startswith("/etc")))
        """
    )
    script = f'mount --bind "{other}" "{configuration}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
        env=environment, capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    assert json.loads(done.stdout)["lines"] == ["added=False", "mounted="]


@pytest.mark.guarantee("environment")
def test_the_environment_is_cleared(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINERENV_PLANTED", "yes")
    monkeypatch.setenv("APPTAINER_BIND", "/etc/ssl")
    ran = client.run(
        """
        print("names=" + ",".join(sorted(os.environ)))
        print("home=" + os.environ["HOME"])
        print("own=" + os.environ["MODE"])
        """,
        environment={"MODE": '`id` $(id), "it\'s" = $HOME', "LD_PRELOAD": "/nowhere.so"},
    )
    names = set(ran.answers["names"].split(","))
    own = {name for name in names if re.match("(APPTAINER|SINGULARITY)_", name)}
    plain = {
        "HOME",
        "LANG",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PROMPT_COMMAND",
        "PS1",
        "PWD",
        "TMPDIR",
        "USER",
    }
    assert names - own - plain == {"LD_PRELOAD", "MODE", "PYTHONUNBUFFERED"}
    assert (ran.answers["home"], ran.answers["own"]) == ("/tmp", '`id` $(id), "it\'s" = $HOME')


@pytest.mark.guarantee("killed")
def test_it_dies_with_a_client_that_is_killed(client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    command, environment = client.command(
        "print('started'); time.sleep(60)", command=["python", "main.py", marker], limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    try:
        assert eventually((client.folder / "started").exists)
        family = tree_of(driver.pid)
        assert processes_with(marker)
        assert any(b"squashfuse" in (process / "cmdline").read_bytes() for process in family)
    finally:
        driver.kill()
        driver.wait()
    assert eventually(lambda: not any((process / "exe").exists() for process in family), seconds=5)
    killed = client.run_id
    # What it could not remove itself the next run removes.
    client.run("pass")
    assert not cgroups_of(killed)


def tree_of(pid: int) -> list[Path]:
    """The processes below this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [Path("/proc", child), *tree_of(int(child))]
    return found


@pytest.mark.guarantee("own files")
def test_an_image_that_must_write_to_itself_gets_a_bounded_layer_where_a_person_agreed(one_client: Client) -> None:
    code = """
    attempt("beside", lambda: open("/var/tmp/planted", "w").write("x"))
    def fill():
        with open("/var/tmp/filler", "wb") as file:
            for _ in range(64):
                file.write(bytes(1024 * 1024))
                file.flush()
    attempt("fill", fill)
    """
    assert one_client.run(code).answers["beside"].startswith("refused")
    ran = one_client.run(code, root_is_writable=True, limits={"tmp_bytes": 4 * 1024**2})
    assert ran.answers == {"beside": "done 1", "fill": "refused OSError 28"}


# Its command line


def test_no_shell_reads_the_arguments(client: Client) -> None:
    words = ["a b", "$(touch /tmp/planted)", "`id`", '"', "'", "*", "", "--help", "x;y", "$HOME", "ü"]
    ran = client.run(
        "import json; print('words=' + json.dumps(sys.argv[1:])); print('planted=' + str(os.listdir('/tmp')))",
        arguments=words,
    )
    assert json.loads(ran.answers["words"]) == words
    assert ran.answers["planted"] == "[]"


def test_paths_are_taken_as_they_are(client: Client) -> None:
    # On the host, and in the container: a comma and a quote end a field, a colon a path, to others.
    odd = client.folder / "a b,c:d\"e'f=ü$(x)\n"
    odd.mkdir()
    (odd / "scan.txt").write_text("another patient")
    places = {str(odd): '/in,1/x:y "z"\t=', str(odd / "scan.txt"): "/mlcube_io7/a,b:c.txt"}
    below = client.folder / "below"
    below.mkdir()
    ran = client.run(
        f"""
        for place in {list(places.values())!r}:
            file = place if place.endswith(".txt") else place + "/scan.txt"
            print("read=" + open(file).read())
            attempt("write", lambda: open(file, "w"))
        open("/tmp/deep/er/result", "w").write("made")
        """,
        more_inputs=places,
        more_outputs={str(below): "/tmp/deep/er"},
    )
    assert [line for line in ran.lines if line.startswith("read=")] == ["read=another patient"] * 2
    assert ran.answers["write"].startswith("refused")
    assert (below / "result").read_text() == "made"


def test_a_program_that_is_not_there_is_the_images_failure(one_client: Client) -> None:
    ran = one_client.run("pass", command=["/no/such/program"])
    assert (ran.error, "/no/such/program" in ran.message) == ("CannotStart", True)


def test_a_container_that_ends_as_apptainer_would_is_not_taken_for_it(one_client: Client) -> None:
    ran = one_client.run("print('reading'); print('FATAL:   no weights'); sys.exit(255)")
    assert (ran.cause, ran.exit_code) == ("exit_code", 255)


# Its images


def test_what_is_made_of_an_archive_is_made_once_and_kept_by_its_hash(
    archive: ImageArchive, tmp_path: Path
) -> None:
    lines: list[str] = []
    errors: list[BaseException] = []
    image = Image("small", archive.sha256, archive=lambda: archive)

    def bring() -> None:
        try:
            assert ApptainerEngine(tmp_path).get_image(image, on_line=lines.append) == f"sha256:{archive.sha256}"
        except BaseException as error:  # noqa: BLE001 - a thread's own would be lost
            errors.append(error)

    together = [threading.Thread(target=bring) for _ in range(2)]
    for one in together:
        one.start()
    for one in together:
        one.join()
    assert not errors
    assert ["this is done once" in line for line in lines] == [True]
    content = tmp_path / "sifs" / archive.sha256 / "content"
    assert {file.name for file in content.iterdir()} == {"image.sif", "folder"}
    # By name only, it is known as long as it is whole.
    named = Image("small", archive.sha256)
    assert ApptainerEngine(tmp_path).get_image(named, on_line=lines.append)
    with (content / "image.sif").open("ab") as file:
        file.write(b"tampered")
    with pytest.raises(EngineUnavailable, match="known by name only"):
        ApptainerEngine(tmp_path).get_image(named, on_line=lines.append)
    bring()
    assert not errors
    assert len(lines) == 2
    assert not (content / "image.sif").read_bytes().endswith(b"tampered")


@pytest.mark.parametrize("form", [of_docker, of_oci])
def test_the_program_begins_where_the_image_says(
    shell: bytes, tmp_path: Path, form: Callable[..., tuple[dict[str, bytes], str]]
) -> None:
    settings = {"WorkingDir": "/srv/my app", "Entrypoint": ["/bin/sh", "-c", 'echo "$PWD" "$MODE" "$1"', "sh"]}
    settings["Env"] = ["MODE=fast"]
    entries, image_id = form(shell, layer("srv/my app/file"), settings=settings)
    archive = read_image_archive(write_tar(tmp_path / "image.tar", entries))
    engine = ApptainerEngine(tmp_path)
    image = Image("small", image_id, archive=lambda: archive)
    spec = TaskSpec("there", "infer", ("$(id)",), (), None, None, tmp_path / "log", image=image)
    engine.prepare(spec, on_line=lambda _line: None)
    engine.start(spec)
    lines: list[str] = []
    outcome = engine.wait("there", on_line=lines.append)
    assert (outcome.exit_code, lines) == (0, ["/srv/my app fast $(id)"])


def test_an_archive_whose_layer_is_another_one_is_not_run(tmp_path: Path) -> None:
    # The image's hash is its configuration's, which names the layers by theirs.
    made = config(layer("model.sh", MODEL), settings={"Entrypoint": ["/bin/sh", "/model.sh"]})
    listed = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    entries = {
        "config.json": made,
        "layer.tar": layer("model.sh", b"exit 0"),
        "manifest.json": json.dumps(listed).encode(),
    }
    other = read_image_archive(write_tar(tmp_path / "image.tar", entries))
    image = Image("small", other.sha256, archive=lambda: other)
    # Nothing of it is taken for an image by the next command.
    for _ in range(2):
        with pytest.raises(BadManifest, match="its layers are not those of its configuration"):
            ApptainerEngine(tmp_path).get_image(image, on_line=lambda _line: None)


def registered(site: Site, image: Path, *, is_singularity: bool) -> ContainerView:
    """A model whose image is registered as this file."""
    written = config_of(Role.MODEL, image="https://example.org/model.sif")
    written["container_type"] = "SingularityFile"
    manifest = written if is_singularity else manifest_of(Role.MODEL, image="hospital/model:1")
    view = site.shelf.add(4, Role.MODEL, manifest=json.dumps(manifest), parameters="fault: \n", archive=b"")
    digest = sha256(image.read_bytes())
    parts = {"manifest_hash": view.manifest_hash, "parameters_hash": view.parameters_hash}
    whole = container_hash(additional_files_hash=None, image_hash=digest, **parts)
    site.shelf.files[URL] = image.read_bytes()
    no_files = {"additional_files_url": None, "additional_files_hash": None}
    return view.model_copy(update={**no_files, "image_url": URL, "image_hash": digest, "hash": whole})


def engines(site: Site, platform: str) -> Engines:
    return Engines(
        platform=Platform(platform),
        home=site.home.root,
        packages_root=site.home.environments,
        agree=lambda why: pytest.fail(f"nothing is left to be asked: {why}"),
        on_line=site.lines.append,
        say=site.lines.append,
    )


def predictions(site: Site, model: LocalContainer, here: Engines) -> str:
    runner = Runner(
        site.home, site.journal, here.choose, site.lines.append, Shares(Limits(memory_bytes=512 * 1024**2))
    )
    with runner.run(model, "infer", {"data_path": site.data}, purpose="benchmark run") as outputs:
        return (outputs.paths["output_path"] / "predictions.csv").read_text()


@pytest.fixture
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where neither Docker nor Podman answers."""
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(name, f"unix://{tmp_path}/nobody.sock")


@pytest.mark.usefixtures("no_daemon")
@pytest.mark.parametrize("platform", ["apptainer", "auto"])
@pytest.mark.parametrize("kind", ["file in its manifest", "file behind a docker section", "archive"])
def test_a_registered_file_is_run(
    platform: str, kind: str, archive: ImageArchive, sif: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    image = archive.file if kind == "archive" else sif
    view = registered(site, image, is_singularity=kind == "file in its manifest")
    model = site.fetch(view, Role.MODEL)
    with closing(engines(site, platform)) as here:
        choice = here.choose(model.runnable)
        assert choice.engine.name == "apptainer"
        wanted = "auto" if platform == "auto" else "--platform apptainer"
        known = archive.sha256 if kind == "archive" else sha256(sif.read_bytes())
        assert choice.reason == f"{wanted}: it has the registered image sha256:{known[:12]}"
        assert predictions(site, model, here) == PREDICTIONS
    made = [kept for kept in kept_things(site.home) if kept.kind is Kind.SIF]
    assert [(kept.name, kept.containers, kept.is_whole()) for kept in made] == (
        [(archive.sha256, (f"{view.id} ({view.name})",), True)] if kind == "archive" else []
    )


def test_a_bundle_carries_it(sif: Path, tmp_path: Path) -> None:
    site, folder = Site(tmp_path), tmp_path / "bundle"
    folder.mkdir()
    view = registered(site, sif, is_singularity=True)
    assets = Assets(site.home.assets, site.shelf.download)
    docker = DockerEngine(site.home.root)
    Gathering(folder, site.home, assets, docker, None, (), site.lines.append).container(view, Role.MODEL)
    assert (folder / "assets" / sha256(sif.read_bytes())).is_file()


@pytest.mark.usefixtures("base_image")
def test_docker_is_not_given_a_singularity_file(sif: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    for is_singularity in (True, False):
        model = site.fetch(registered(site, sif, is_singularity=is_singularity), Role.MODEL)
        with closing(engines(site, "docker")) as here, pytest.raises(EngineUnavailable) as refused:
            here.choose(model.runnable)
        assert "(SIF), which Docker does not run" in str(refused.value)
        assert "--platform apptainer" in (refused.value.hint or "")


def test_a_file_that_is_not_the_registered_one_is_not_run(sif: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    view = registered(site, sif, is_singularity=True)
    site.shelf.files[URL] = sif.read_bytes() + b"\0"
    with closing(engines(site, "apptainer")) as here, pytest.raises(IntegrityError, match="is registered"):
        here.choose(site.fetch(view, Role.MODEL).runnable)
    # Nor one that was altered where it is kept.
    site.shelf.files[URL] = sif.read_bytes()
    with closing(engines(site, "apptainer")) as here:
        here.choose(site.fetch(view, Role.MODEL).runnable)
    kept = site.home.assets / "sha256" / sha256(sif.read_bytes())
    kept.write_bytes(kept.read_bytes() + b"\0")
    site.shelf.files[URL] = b"gone"
    with closing(engines(site, "apptainer")) as here, pytest.raises(IntegrityError, match="is registered"):
        here.choose(site.fetch(view, Role.MODEL).runnable)


@pytest.mark.usefixtures("no_daemon")
def test_an_image_that_is_known_by_name_only_is_refused_with_what_to_do(tmp_path: Path) -> None:
    site = Site(tmp_path)
    view = site.shelf.register(4, Role.MODEL, image="hospital/model:1", image_hash="1" * 64)
    model = site.fetch(view, Role.MODEL)
    with closing(engines(site, "apptainer")) as here, pytest.raises(EngineUnavailable) as refused:
        here.choose(model.runnable)
    assert "takes images from files only" in str(refused.value)
    assert "medperf bundle import" in (refused.value.hint or "")
    # Of a machine where nothing is said to be wanted, it is Docker that is missing.
    with closing(engines(site, "auto")) as here, pytest.raises(EngineUnavailable, match="Docker"):
        here.choose(model.runnable)


# Machines where it cannot work


def refusal(client: Client, *before: str) -> dict[str, str]:
    """What the probe says where the machine was changed by these commands, for it alone."""
    command, environment = client.command("", probe=True)
    script = " && ".join([*before, 'exec "$@"'])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
        env=environment, capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    said: dict[str, str] = json.loads(done.stdout)
    assert said["error"] == "EngineUnavailable", said
    return said


def test_a_machine_where_it_works_is_found_to_work(client: Client) -> None:
    assert re.match(r"Apptainer 1\.\d+\.\d+", client.run("", probe=True).said["probed"])


@pytest.mark.skipif(not AS_ROOT, reason="only root can take these away for a moment")
@pytest.mark.parametrize(
    ("before", "hint"),
    [
        ("mount --bind /dev/null /dev/fuse", "modprobe fuse"),
        ("for one in $(which -a squashfuse squashfuse_ll); do mount --bind /dev/null $one; done", "`squashfuse`"),
    ],
)
def test_what_is_missing_is_named(one_client: Client, before: str, hint: str) -> None:
    assert hint in refusal(one_client, before)["hint"]


def test_where_namespaces_are_forbidden_the_setting_is_named(one_client: Client) -> None:
    command, environment = one_client.command("", probe=True)
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-ec", script, "sh", *command],
        env=environment, capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["error"] == "EngineUnavailable"
    assert "user.max_user_namespaces" in said["hint"]


def test_a_machine_without_it_is_told_how_to_have_it(one_client: Client) -> None:
    command, environment = one_client.command("", probe=True)
    done = subprocess.run(
        command, env={**environment, "PATH": "/nowhere"}, capture_output=True, text=True, timeout=60, check=True
    )
    assert "install-unprivileged.sh" in json.loads(done.stdout)["hint"]


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("apptainer", "1.0.3", False),
        ("apptainer", "1.1.0", True),
        ("apptainer", "1.4.5-2", True),
        ("singularity", "3.8.7-1.el8", False),
        ("singularity-ce", "4.0.0", True),
    ],
)
def test_one_that_needs_set_id_programs_is_too_old(name: str, version: str, fits: bool) -> None:
    of = "APPTAINER" if name == "apptainer" else "SINGULARITY"
    said = f"PACKAGE_NAME={name}\nPACKAGE_VERSION={version}\n{of}_CONF_FILE=/etc/one.conf\n"
    found = parse_installation(said, Path("/usr/bin/one"))
    assert found is not None
    assert (found.prefix, found.configuration) == (of, Path("/etc/one.conf"))
    if fits:
        check_installation(found)
    else:
        with pytest.raises(EngineUnavailable, match="too old"):
            check_installation(found)


def test_where_no_cgroup_can_be_made_that_is_found_out_and_a_site_may_forbid_it(
    archive: ImageArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "only looked at" in ApptainerEngine(tmp_path, hierarchies=[]).weaknesses()[0]
    site = Site(tmp_path)
    model = site.fetch(registered(site, archive.file, is_singularity=False), Role.MODEL)
    with closing(engines(site, "apptainer")) as here:
        here.__dict__["apptainer"] = ApptainerEngine(site.home.root, hierarchies=[])
        monkeypatch.setenv("MEDPERF_REQUIRE_BOUNDS", "1")
        with pytest.raises(EngineUnavailable, match="MEDPERF_REQUIRE_BOUNDS=1 forbids"):
            here.choose(model.runnable)
        monkeypatch.delenv("MEDPERF_REQUIRE_BOUNDS")
        assert here.choose(model.runnable).engine.name == "apptainer"
