from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from medperf import safe_yaml
from medperf.engines.mounts import Mount
from medperf.errors import BadManifest, IntegrityError, UsageError
from medperf.manifest import Kind, Manifest, Package, Parameter, Role, Task, parse_manifest, plan_io, require_tasks
from medperf.manifest.model import Gpus

DIGEST = "a" * 64
PREPARATION = f"""\
name: chest-xray-preparation
description: Normalises chest X-rays
authors: [{{name: MedPerf tutorial}}]
platform: {{accelerator_count: 1}}
docker:
  image: "medperf-tutorial/preparation:1.0"
  gpu_args: --gpus=all --shm-size 2g -e MODE=fast
sandbox:
  command: [python, main.py]
  packages:
    - {{name: numpy==2.4.6, hashes: ["sha256:{DIGEST}"]}}
tasks:
  prepare:
    parameters:
      inputs:
        data_path: {{type: directory, default: data}}
        labels_path: labels/
        parameters_file: parameters.yaml
        weights: {{type: file, default: additional_files/weights.npz}}
      outputs:
        output_path: {{type: directory, default: prepared/data}}
        output_labels_path: prepared/labels/
        report_file: report.yaml
  sanity_check:
    parameters: {{inputs: {{data_path: data/, labels_path: labels/, parameters_file: parameters.yaml}}}}
  statistics:
    parameters:
      inputs: {{data_path: data/, labels_path: labels/, parameters_file: parameters.yaml}}
      outputs: {{output_path: {{type: file, default: statistics.yaml}}}}
"""


def changed(path: str, value: Any) -> str:
    """The manifest above with the value at a dotted path replaced."""
    top = safe_yaml.load(PREPARATION, what="")
    *keys, last = path.split(".")
    inner = top
    for key in keys:
        inner = inner[int(key) if key.isdigit() else key]
    inner[int(last) if last.isdigit() else last] = value
    return safe_yaml.dump(top)


def prepare() -> Task:
    return parse_manifest(PREPARATION).tasks["prepare"]


def test_a_manifest_becomes_the_model() -> None:
    manifest = parse_manifest(PREPARATION)
    assert manifest.name == "chest-xray-preparation"
    assert manifest.gpus == "all"
    assert manifest.docker
    assert manifest.docker.image == "medperf-tutorial/preparation:1.0"
    assert manifest.docker.shm_bytes == 2 * 1024**3
    assert manifest.docker.environment == {"MODE": "fast"}
    assert manifest.sandbox
    assert manifest.sandbox.command == ("python", "main.py")
    assert manifest.sandbox.packages == (Package("numpy", "2.4.6", (DIGEST,)),)
    kinds = {parameter.name: parameter.kind for parameter in manifest.tasks["prepare"].inputs}
    assert kinds == {
        "data_path": Kind.DIRECTORY, "labels_path": Kind.DIRECTORY, "parameters_file": None, "weights": Kind.FILE
    }  # fmt: skip


def test_a_tasks_entrypoint_replaces_the_images_and_its_words_come_first() -> None:
    text = (
        "{name: m, docker: {image: a}, tasks: {infer: {entrypoint: python3 /app/infer.py --fast,"
        " parameters: {outputs: {output_path: out/}}}}}"
    )
    task = parse_manifest(text).tasks["infer"]
    assert task.entrypoint == ("python3", "/app/infer.py", "--fast")


@pytest.mark.parametrize("role", list(Role))
def test_a_role_asks_for_its_tasks_and_parameters(role: Role) -> None:
    manifest = parse_manifest(PREPARATION)
    if role is Role.PREPARATION:
        require_tasks(manifest, role)
    else:
        with pytest.raises(BadManifest, match=r"tasks\.(infer|evaluate) is missing"):
            require_tasks(manifest, role)


@pytest.mark.parametrize(
    ("group", "missing"),
    [
        ("prepare.parameters.inputs", "labels_path"),
        ("prepare.parameters.outputs", "output_labels_path"),
        ("sanity_check.parameters.inputs", "data_path"),
        ("statistics.parameters.outputs", "output_path"),
    ],
)
def test_a_missing_parameter_is_named(group: str, missing: str) -> None:
    inner = safe_yaml.load(PREPARATION, what="")["tasks"]
    for key in group.split("."):
        inner = inner[key]
    manifest = parse_manifest(changed(f"tasks.{group}", {key: inner[key] for key in inner if key != missing}))
    with pytest.raises(BadManifest, match=rf"tasks\.{group}\.{missing} is missing"):
        require_tasks(manifest, Role.PREPARATION)


def test_parameters_may_be_missing() -> None:
    top = safe_yaml.load(PREPARATION, what="")
    for task in top["tasks"].values():
        del task["parameters"]["inputs"]["parameters_file"]
    require_tasks(parse_manifest(safe_yaml.dump(top)), Role.PREPARATION)


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("tasks.prepare.parameters.inputs.data_path.default", "/etc", "absolute"),
        ("tasks.prepare.parameters.inputs.data_path.default", "~/data", "'~'"),
        ("tasks.prepare.parameters.inputs.data_path.default", "a/$HOME", r"'\$'"),
        ("tasks.prepare.parameters.inputs.data_path.default", "a/../../b", r"climbs out"),
        ("tasks.prepare.parameters.outputs.report_file", "../report.yaml", "climbs out"),
        ("tasks.prepare.parameters.inputs.data_path.type", "socket", "file or directory"),
        ("tasks.prepare.parameters.outputs.data_path", "x", "is an input too"),
        ("tasks.prepare.parameters.inputs.--privileged", "x", "is not a name"),
        ("tasks.prepare --x", {}, "is not a name"),
        ("tasks.prepare.entrypoint", "python x.py", "beside a sandbox"),
        ("tasks", {}, "1 to 50"),
        ("tasks", None, "is missing"),
        ("tasks", ["prepare"], "must be a mapping"),
        ("docker.image", "--privileged", "must name an image"),
        ("docker.gpu_args", "--gpus=all -v /:/host", "a mount"),
        ("docker.gpu_args", "-v/:/host", "a mount"),
        ("docker.cpu_args", "--volume=/:/host", "a mount"),
        ("docker.cpu_args", "--mount type=bind,src=/,dst=/host", "a mount"),
        ("docker.run_args", "--network=host", "network"),
        ("docker.run_args", "--net host", "network"),
        ("docker.run_args", "-p 80:80", "ports"),
        ("docker.run_args", "--privileged", "privileges"),
        ("docker.run_args", "--cap-add=SYS_ADMIN", "privileges"),
        ("docker.run_args", ["--device", "/dev/sda"], "privileges"),
        ("docker.run_args", {"network": "host"}, "network"),
        ("docker.run_args", "--security-opt seccomp=unconfined", "privileges"),
        ("docker.run_args", "--unheard-of", "only"),
        ("docker.run_args", "'open", "quote"),
        ("docker.gpu_args", "--shm-size=lots", "shm-size"),
        ("docker.gpu_args", "--gpus=some", "a count of 0 to 64"),
        ("docker.gpu_args", "--gpus=65", "a count of 0 to 64"),
        ("docker.gpu_args", "--gpus=2,3", "a count of 0 to 64"),
        ("docker.gpu_args", "--gpus=driver=nvidia", "a count of 0 to 64"),
        ("platform.accelerator_count", "many", "count of accelerators"),
        ("platform.host_memory_gb", "much", "a number of gigabytes"),
        ("platform.host_memory_gb", -1, "a number of gigabytes"),
        ("sandbox.command", "python main.py", "list of words"),
        ("sandbox.command", [], "list of words"),
        ("sandbox.network", True, "is unknown"),
        ("sandbox.packages.0.name", "numpy", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy>=2", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy==2.*", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy @ https://example.org/numpy.whl", "NAME==VERSION"),
        ("sandbox.packages.0.name", "--index-url=https://example.org", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy==2.4.6 --no-binary :all:", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy==2.4.6\n-r /etc/passwd", "NAME==VERSION"),
        ("sandbox.packages.0.name", "numpy[all]==2.4.6", "NAME==VERSION"),
        ("sandbox.packages.0.hashes", [], "at least one"),
        ("sandbox.packages.0.hashes", ["md5:" + "a" * 32], "64 hexadecimal"),
        ("sandbox.packages.0.hashes", ["sha256:" + "a" * 63], "64 hexadecimal"),
        ("sandbox.packages.0.options", "--pre", "no options"),
        ("name", "\x1b[2Jowned", "control characters"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_its_key(path: str, value: Any, fault: str) -> None:
    with pytest.raises(BadManifest, match=fault) as refused:
        parse_manifest(changed(path, value))
    assert path.split(".", maxsplit=1)[0].split(" ", maxsplit=1)[0] in str(refused.value)


@pytest.mark.parametrize(
    ("argued", "count"),
    [
        ("--gpus=all", "all"),
        ("--gpus 2", 2),
        ("--gpus=0", 0),
        ("--gpus=count=3", 3),
        ("--gpus device=1", 1),
        ("--gpus '\"device=0,2\"'", 2),
        ("--gpus '\"device=0,2,capabilities=compute\"'", 2),
        ("--gpus driver=nvidia,count=2", 2),
        ("--gpus capabilities=utility,count=all", "all"),
        ("--gpus '\"all,capabilities=utility\"'", "all"),
        ("--shm-size=1g", 1),
    ],
)
def test_gpus_in_the_arguments_go_before_the_count_of_the_platform(argued: str, count: Gpus) -> None:
    assert parse_manifest(changed("docker.gpu_args", argued)).gpus == count


def test_the_memory_that_a_container_asks_for_is_in_gigabytes() -> None:
    assert parse_manifest(changed("platform.host_memory_gb", 1.5)).memory_bytes == 1.5 * 1024**3
    assert parse_manifest(changed("platform.host_memory_gb", "40")).memory_bytes == 40 * 1024**3
    assert parse_manifest(changed("platform.host_memory_gb", 0)).memory_bytes is None


@pytest.mark.parametrize(
    ("written", "broken", "where"),
    [
        ("gpu_args: --gpus=all", "gpu_args: --network=host", r"line 7, docker\.gpu_args"),
        (
            "labels_path: labels/",
            "labels_path: ../labels",
            r"line 17, tasks\.prepare\.parameters\.inputs\.labels_path",
        ),
        ("--shm-size 2g", "--shm-size 2t", r"line 7, docker\.gpu_args asks for --shm-size"),
        ("report_file: report.yaml", "data_path: x", r"line 23, tasks\.prepare\.parameters\.outputs\.data_path"),
        ("name: numpy==2.4.6", "name: numpy", r"line 11, sandbox\.packages\[0\]\.name"),
        ("{accelerator_count: 1}", "{accelerator_count: many}", r"line 4, platform\.accelerator_count"),
        ("  sanity_check:", "  sanity check:", r"line 24, tasks\.sanity check"),
        # What is not there has no line: it belongs into what stands on that one.
        ('image: "medperf-tutorial/preparation:1.0"', "tag: 1", r"line 5, docker\.image"),
        ("tasks:", "jobs:", r"manifest, tasks is missing"),
    ],
)
def test_an_error_names_the_line_that_its_key_stands_on(written: str, broken: str, where: str) -> None:
    assert written in PREPARATION
    with pytest.raises(BadManifest, match=where):
        parse_manifest(PREPARATION.replace(written, broken, 1))


def test_a_package_twice_under_another_spelling_is_refused() -> None:
    package = {"name": "Num.Py==1", "hashes": [f"sha256:{DIGEST}"]}
    with pytest.raises(BadManifest, match="num-py is there twice"):
        parse_manifest(changed("sandbox.packages", [package, {**package, "name": "num_py==2"}]))


@pytest.mark.parametrize("text", ["", "[]", "just text", "name: x", "{tasks: {a: {}}}"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(BadManifest):
        parse_manifest(text)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "additional_files").mkdir(parents=True)
    (folder / "parameters.yaml").write_text("size: 64")
    (folder / "additional_files" / "weights.npz").write_text("w")
    return folder


@pytest.fixture
def bindings(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "a.png").touch()
    return {"data_path": tmp_path / "images", "labels_path": tmp_path / "labels"}


def test_a_task_sees_the_paths_of_the_docker_runner(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path]
) -> None:
    run = tmp_path / "run"
    plan = plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=run)
    assert plan.arguments == (
        "prepare",
        "--data_path=/mlcube_io0",
        "--labels_path=/mlcube_io1",
        "--parameters_file=/mlcube_io2/parameters.yaml",
        "--weights=/mlcube_io3/weights.npz",
        "--output_path=/mlcube_io4",
        "--output_labels_path=/mlcube_io5",
        "--report_file=/mlcube_io6/report.yaml",
    )
    assert plan.mounts == (
        Mount(tmp_path / "images", PurePosixPath("/mlcube_io0"), False),
        Mount(tmp_path / "labels", PurePosixPath("/mlcube_io1"), False),
        Mount(workspace, PurePosixPath("/mlcube_io2"), False),
        Mount(workspace / "additional_files", PurePosixPath("/mlcube_io3"), False),
        Mount(run / "output_path", PurePosixPath("/mlcube_io4"), True),
        Mount(run / "output_labels_path", PurePosixPath("/mlcube_io5"), True),
        Mount(run / "report_file", PurePosixPath("/mlcube_io6"), True),
    )
    assert plan.outputs["report_file"] == run / "report_file" / "report.yaml"
    assert not run.exists()


def test_a_file_of_the_data_owner_is_mounted_alone(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path]
) -> None:
    other = tmp_path / "my parameters.yaml"
    other.write_text("size: 32")
    plan = plan_io(
        prepare(),
        bindings={**bindings, "parameters_file": other},
        workspace=workspace,
        output_folder=tmp_path / "run",
    )
    assert Mount(other, PurePosixPath("/mlcube_io2/my parameters.yaml"), False) in plan.mounts
    assert "--parameters_file=/mlcube_io2/my parameters.yaml" in plan.arguments


def test_the_same_folder_is_mounted_once(tmp_path: Path, workspace: Path, bindings: dict[str, Path]) -> None:
    both = {"data_path": bindings["data_path"], "labels_path": bindings["data_path"]}
    plan = plan_io(prepare(), bindings=both, workspace=workspace, output_folder=tmp_path / "run")
    assert plan.arguments[1:4] == (
        "--data_path=/mlcube_io0", "--labels_path=/mlcube_io0", "--parameters_file=/mlcube_io1/parameters.yaml"
    )  # fmt: skip


def test_a_tasks_name_is_not_passed_beside_an_entrypoint(tmp_path: Path) -> None:
    task = Task("infer", (), prepare().outputs, ("python3", "/app/infer.py", "--fast"))
    plan = plan_io(task, bindings={}, workspace=tmp_path, output_folder=tmp_path / "run")
    assert plan.arguments[:2] == ("/app/infer.py", "--fast")


def test_inputs_and_outputs_that_resolve_into_each_other_are_refused(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path]
) -> None:
    (tmp_path / "link").symlink_to(bindings["data_path"])
    for output_folder in (tmp_path / "link" / "run", bindings["data_path"], bindings["data_path"] / "run"):
        with pytest.raises(UsageError, match="overlap"):
            plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=output_folder)
    run = tmp_path / "run"
    (run / "inner").mkdir(parents=True)
    (tmp_path / "into_run").symlink_to(run / "inner")
    with pytest.raises(UsageError, match="overlap"):
        plan_io(
            prepare(),
            bindings={**bindings, "data_path": tmp_path / "into_run"},
            workspace=workspace,
            output_folder=run,
        )


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "deep/../../secret", "absolute-inside"])
def test_an_input_link_that_leaves_its_folder_is_refused_by_name(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path], target: str
) -> None:
    (tmp_path / "secret").touch()
    deep = bindings["data_path"] / "deep"
    deep.mkdir()
    (bindings["data_path"] / "fine").symlink_to("a.png")
    targets = {"absolute-inside": bindings["data_path"] / "a.png", "/etc/passwd": Path("/etc/passwd")}
    (deep / "scan.png").symlink_to(targets.get(target, Path("..", target)))
    with pytest.raises(IntegrityError, match=r"deep/scan\.png"):
        plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=tmp_path / "run")


def test_a_link_that_stays_in_its_folder_is_fine(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path]
) -> None:
    (bindings["data_path"] / "again.png").symlink_to("a.png")
    plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=tmp_path / "run")


def test_a_file_of_the_container_that_links_out_of_its_workspace_is_refused(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path]
) -> None:
    weights = workspace / "additional_files" / "weights.npz"
    weights.unlink()
    weights.symlink_to("../../images/a.png")
    with pytest.raises(IntegrityError):
        plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=tmp_path / "run")


def test_a_containers_folder_that_links_out_of_its_workspace_is_refused(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "private").mkdir()
    (workspace / "atlas").symlink_to(tmp_path / "private")
    task = Task("infer", (Parameter("atlas", "atlas", Kind.DIRECTORY),), (), None)
    with pytest.raises(IntegrityError, match="link out of its folder"):
        plan_io(task, bindings={}, workspace=workspace, output_folder=tmp_path / "run")


def test_the_walk_over_an_input_is_bounded(
    tmp_path: Path, workspace: Path, bindings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medperf.manifest.io.MAX_INPUT_ENTRIES", 3)
    for number in range(4):
        (bindings["data_path"] / f"{number}.png").touch()
    with pytest.raises(UsageError, match="more than 3 files"):
        plan_io(prepare(), bindings=bindings, workspace=workspace, output_folder=tmp_path / "run")


def test_what_is_missing_is_named(tmp_path: Path, workspace: Path, bindings: dict[str, Path]) -> None:
    def plan(given: dict[str, Path]) -> None:
        plan_io(prepare(), bindings=given, workspace=workspace, output_folder=tmp_path / "run")

    with pytest.raises(UsageError, match="data_path"):
        plan({**bindings, "data_path": tmp_path / "nowhere"})
    with pytest.raises(UsageError, match="must be a directory"):
        plan({**bindings, "data_path": bindings["data_path"] / "a.png"})
    with pytest.raises(BadManifest, match="'weather'"):
        plan({**bindings, "weather": tmp_path})
    (workspace / "parameters.yaml").unlink()
    with pytest.raises(BadManifest, match=r"tasks\.prepare\.parameters\.inputs\.parameters_file"):
        plan(bindings)


def test_the_model_cannot_be_changed() -> None:
    manifest: Any = parse_manifest(PREPARATION)
    assert isinstance(manifest, Manifest)
    with pytest.raises(TypeError):
        manifest.tasks["other"] = prepare()
