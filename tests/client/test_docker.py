"""What only Docker has to hold or to say: layers, volumes, containers found by label, an engine that goes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from containers.attack import AS_ROOT, CALLERS, MIB, Client, eventually, make_client, processes_with
from containers.door import Door
from containers.images import built
from containers.small import sandbox_only
from medperf.causes import Cause
from medperf.engines.base import Image
from medperf.engines.docker import DockerEngine
from medperf.engines.docker_images import pull_image
from medperf.engines.docker_options import RUN_LABEL
from medperf.errors import IntegrityError
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.left_over import end_left_over
from peers.runs import open_run


@pytest.fixture(scope="session")
def daemon(base_image: str) -> Iterator[docker.DockerClient]:
    """The engine itself, to look at what is left."""
    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture(params=CALLERS)
def client(request: pytest.FixtureRequest, library: Path, base_image: str) -> Iterator[Client]:
    with make_client("docker", request.param, library, image_sha256=base_image) as made:
        yield made


@pytest.fixture(params=[*(("docker", caller) for caller in CALLERS), ("podman", "root")], ids="-".join)
def image_client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """Each engine that runs images."""
    engine, caller = request.param
    image = request.getfixturevalue("base_image" if engine == "docker" else "podman_base_image")
    with make_client(engine, caller, library, image_sha256=image) as made:
        yield made


@pytest.fixture
def one_client(library: Path, base_image: str) -> Iterator[Client]:
    with make_client("docker", CALLERS[0], library, image_sha256=base_image) as made:
        yield made


def containers_of(daemon: docker.DockerClient, run_id: str) -> list[Container]:
    found: list[Container] = daemon.containers.list(all=True, filters={"label": f"{RUN_LABEL}={run_id}"})
    return found


# What it sees and may do


@pytest.mark.guarantee("host")
@pytest.mark.guarantee("environment")
def test_the_engines_socket_and_the_callers_files_are_not_there(image_client: Client) -> None:
    ran = image_client.run(
        f"""
        for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"):
            print(f"{{path}}={{os.path.exists(path)}}")
        for path in ({str(image_client.folder / "home")!r}, "/mnt", "/srv"):
            print(f"{{path}}={{os.path.exists(path) and bool(os.listdir(path))}}")
        print("names=" + ",".join(sorted(os.environ)))
        mounted = [line.split()[1] for line in open("/proc/mounts") if " rw," in line]
        print("writable=" + ",".join(path for path in mounted if os.access(path, os.W_OK)))
        """
    )
    answers = ran.answers
    assert "SECRET" not in answers.pop("names")
    writable = {path for path in answers.pop("writable").split(",") if not path.startswith(("/dev", "/proc"))}
    # Podman has more folders in memory.
    more = {"/run", "/var/tmp"} if image_client.engine == "podman" else set()
    assert writable - more == {"/tmp", "/mlcube_io1"}
    assert set(answers.values()) == {"False"}


@pytest.mark.guarantee("environment")
def test_the_proxies_of_the_callers_docker_configuration_stay_with_the_caller(
    one_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = one_client.folder / "home" / "docker"
    configuration.mkdir()
    proxies = {"proxies": {"default": {"httpProxy": "http://ana:secret@proxy.example:3128"}}}
    (configuration / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(configuration))
    ran = one_client.run("print('proxies=' + ','.join(name for name in os.environ if 'proxy' in name.lower()))")
    assert ran.answers == {"proxies": ""}


def test_a_volume_inside_an_output_is_refused(
    one_client: Client, daemon: docker.DockerClient, base_image: str, tmp_path: Path
) -> None:
    one_client.image_sha256 = built(daemon, base_image, tmp_path / "image", "VOLUME /mlcube_io1/inner")
    ran = one_client.run("pass")
    assert (ran.error, "/mlcube_io1/inner" in ran.message) == ("CannotStart", True)
    assert list((one_client.folder / "out").iterdir()) == []


def test_nothing_of_a_run_is_left_in_the_engine(one_client: Client, daemon: docker.DockerClient) -> None:
    assert one_client.run("sys.exit(3)").exit_code == 3
    assert containers_of(daemon, one_client.run_id) == []


def test_a_program_that_is_not_there_is_the_containers_failure(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    ran = one_client.run("pass", command=["/no/such/program"])
    assert ran.error == "CannotStart"
    assert "/no/such/program" in ran.message
    assert containers_of(daemon, one_client.run_id) == []


@pytest.mark.guarantee("own files")
def test_an_image_that_must_write_to_itself_is_told_of_the_option_and_gets_a_layer(
    client: Client, daemon: docker.DockerClient
) -> None:
    code = 'open("/opt/mark" if os.getuid() == 0 else "/var/tmp/mark", "w").write("x"); print("written=yes")'
    refused = client.run(code)
    assert refused.exit_code == 1
    assert "--writable_root" in refused.advice
    allowed = client.run(code, root_is_writable=True)
    assert (allowed.exit_code, allowed.answers) == (0, {"written": "yes"})
    assert not Path("/var/tmp/mark").exists()


@pytest.mark.guarantee("own files")
def test_that_layer_is_bounded(one_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = one_client.run(
        """
        for place in range(200):
            open(f"/var/tmp/{place}", "wb").write(bytes(1024 * 1024))
        time.sleep(20)
        """,
        root_is_writable=True,
        limits={"output_bytes": 50 * MIB, "wall_seconds": 15},
    )
    assert ran.cause == "output_limit"


@pytest.mark.guarantee("memory folders")
def test_a_volume_of_the_image_is_memory_and_bounded(
    one_client: Client, daemon: docker.DockerClient, base_image: str, tmp_path: Path
) -> None:
    one_client.image_sha256 = built(daemon, base_image, tmp_path / "image", "VOLUME /weights")
    before = {volume.id for volume in daemon.volumes.list()}
    ran = one_client.run(
        """
        def fill():
            with open("/weights/filler", "wb") as file:
                for _ in range(64):
                    file.write(bytes(1024 * 1024))
                    file.flush()
        attempt("fill", fill)
        """,
        limits={"tmp_bytes": 4 * MIB},
    )
    assert ran.answers == {"fill": "refused OSError 28"}
    assert {volume.id for volume in daemon.volumes.list()} == before


@pytest.mark.guarantee("inputs")
@pytest.mark.skipif(not AS_ROOT, reason="only root can mount the file system that this needs")
def test_a_file_system_mounted_inside_an_input_is_refused_where_it_would_be_writable(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    inner = one_client.folder / "in" / "more data"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    try:
        ran = one_client.run("open('/mlcube_io0/more data/planted', 'w')")
        planted = (inner / "planted").exists()
    finally:
        subprocess.run(["umount", inner], check=True)
    assert not planted
    assert (ran.error, str(inner) in ran.message) == ("EngineUnavailable", True)


@pytest.mark.skipif(not AS_ROOT, reason="only root gives a container another user")
def test_data_that_only_root_can_read_is_refused_with_what_to_do(one_client: Client, tmp_path: Path) -> None:
    # The engine makes readable what lies in the local folder, and nothing else of root's.
    private = one_client.folder / "in" / "scan.txt"
    ran = one_client.run("print(open('/mlcube_io0/scan.txt').read())", home=str(tmp_path / "elsewhere"))
    assert ran.error == "UsageError"
    assert str(private) in ran.message
    assert "chmod -R a+rX" in ran.hint
    assert private.stat().st_mode & 0o777 == 0o600


# The end of a client, and of an engine


def test_a_container_whose_client_was_killed_is_found_by_its_run_and_ended(
    client: Client, daemon: docker.DockerClient
) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    command, environment = client.command(
        "print('started'); time.sleep(60)", command=["python", "main.py", marker], limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    try:
        assert eventually((client.folder / "started").exists)
    finally:
        driver.kill()
        driver.wait()
    # It outlives its client; its label says whose it is.
    with closing(DockerEngine(client.folder)) as engine:
        assert engine.find(client.run_id) == "running"
        assert engine.left_over() == {client.run_id}
        engine.discard(client.run_id)
        assert engine.find(client.run_id) is None
        assert eventually(lambda: not processes_with(marker))
        engine.discard(client.run_id)


def test_an_engine_that_goes_in_the_middle_is_said_and_what_it_left_is_found_later(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    path = one_client.folder / "engine.sock"
    door = Door(path)
    command, environment = one_client.command(
        "print('started'); time.sleep(60)", limits={"wall_seconds": 50}, back_seconds=3
    )
    driver = subprocess.Popen(
        command, env={**environment, "DOCKER_HOST": f"unix://{path}"}, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        assert eventually((one_client.folder / "started").exists)
        door.shut()
        said = driver.communicate(timeout=30)[0]
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    assert '"error": "EngineLost"' in said, said
    assert "has not answered for 3 s in the middle of the task" in said
    with closing(DockerEngine(one_client.folder)) as engine:
        assert engine.left_over() == {one_client.run_id}
        engine.discard(one_client.run_id)
    assert containers_of(daemon, one_client.run_id) == []


def test_an_interrupt_while_the_engine_is_slow_still_leaves_nothing(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    command, environment = one_client.command("print('started'); time.sleep(60)", limits={"wall_seconds": 50})
    for _ in range(3):
        (one_client.folder / "started").unlink(missing_ok=True)
        with ExitStack() as stack:
            driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
            stack.callback(driver.wait)
            stack.callback(driver.kill)
            time.sleep(0.9)  # at about the moment when the container is made and started
            driver.send_signal(signal.SIGINT)
            driver.wait(timeout=30)
        with closing(DockerEngine(one_client.folder)) as engine:
            engine.discard(one_client.run_id)
        assert containers_of(daemon, one_client.run_id) == []
        shutil.rmtree(one_client.folder / "out")
        (one_client.folder / "out").mkdir()


def test_the_next_command_ends_the_container_of_one_that_was_killed_and_closes_its_record(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    home = Home("http://localhost:8000", one_client.folder)
    journal = Journal(home.journal)
    # A client of its own records the run, starts its container, and is killed.
    recorder = (
        "import sys, time; from pathlib import Path; from medperf.journal import Journal; "
        "journal = Journal(Path(sys.argv[1])); "
        "run = journal.open_run(purpose='benchmark run', container_hash='0' * 64, container_name='model',"
        " task='infer', dataset_uid=None, engine='docker', limits={}); "
        "print(run.id, flush=True); time.sleep(600)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", recorder, str(home.journal)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout
    run_id = client.stdout.readline().strip()
    command, environment = one_client.command(
        "print('started'); time.sleep(60)", run_id=run_id, home=str(home.root), limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    assert eventually((one_client.folder / "started").exists)
    said: list[str] = []
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, journal, engines, say=said.append)
        assert said == []
        assert len(containers_of(daemon, run_id)) == 1
        for one in (driver, client):
            one.kill()
            one.communicate()
        end_left_over(home, journal, engines, say=said.append)
    assert containers_of(daemon, run_id) == []
    assert (journal.find(run_id).state, journal.find(run_id).cause) == (RunState.FAILED, Cause.CLIENT_GONE)
    assert len(said) == 1


def test_what_an_engine_still_has_of_a_run_whose_record_is_closed_is_ended_by_the_next_command(
    one_client: Client, daemon: docker.DockerClient
) -> None:
    home = Home("http://localhost:8000", one_client.folder)
    journal = Journal(home.journal)
    run = open_run(journal, engine="docker")
    command, environment = one_client.command(
        "print('started'); time.sleep(60)", run_id=run.id, home=str(home.root), limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    assert eventually((one_client.folder / "started").exists)
    driver.kill()
    driver.wait()
    said: list[str] = []
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, journal, engines, say=said.append)
        assert len(containers_of(daemon, run.id)) == 1  # of a client that lives
        journal.ended(run.id, RunState.FAILED, cause=Cause.ENGINE_GONE, exit_code=None)
        end_left_over(home, journal, engines, say=said.append)
    assert containers_of(daemon, run.id) == []
    assert said == ["A container that docker still had of an earlier command is removed."]


def test_an_image_that_a_registry_gives_under_the_name_of_another_is_refused_as_such(
    daemon: docker.DockerClient, base_image: str
) -> None:
    class Registry:
        """Gives the tag another image, and knows none by the registered hash."""

        images = daemon.images

        class api:  # noqa: N801 - as the SDK names it
            @staticmethod
            def pull(repository: str, tag: str, **_: bool) -> list[dict[str, str]]:
                if tag.startswith("sha256:"):
                    return [{"error": "manifest unknown"}]
                daemon.images.get(f"sha256:{base_image}").tag(repository, tag)
                return [{"status": "Pull complete", "id": "1"}]

    with pytest.raises(IntegrityError, match="is not the registered one"):
        pull_image(Registry(), Image("medperf-test/moved:1", "ab" * 32), on_line=lambda _line: None)  # type: ignore[arg-type]


def test_a_run_whose_engine_does_not_answer_stays_open_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home("http://localhost:8000", tmp_path / "medperf")
    journal = Journal(home.journal)
    monkeypatch.setattr("medperf.client_process.Client.is_alive", lambda _: False)
    run = open_run(journal, engine="docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    said: list[str] = []
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, journal, engines, say=said.append)
    assert "may still go on" in said[0]
    assert journal.find(run.id).state is RunState.QUEUED


def test_an_engine_that_cannot_give_the_gpus_that_it_is_asked_for_says_what_to_install(one_client: Client) -> None:
    ran = one_client.run("pass", limits={"gpus": ["GPU-11111111-2222-3333-4444-555555555555"]})
    assert (ran.error, "device driver" in ran.message) == ("EngineUnavailable", True), ran.message
    assert "NVIDIA's container toolkit" in ran.hint
    assert "--gpus 0" in ran.hint
    assert one_client.run("print('here')").lines == ["here"]
