"""Containers of a few lines, run by the real sandbox: what each does wrong is said in its parameters."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medperf import safe_yaml
from medperf.assets import Assets
from medperf.containers import LocalContainer, fetch_container
from medperf.engines.base import Limits
from medperf.engines.choice import Engines, Platform
from medperf.home import Home
from medperf.journal import Journal
from medperf.manifest import Role
from medperf.preparation import Description, prepare
from medperf.shares import Shares
from medperf.tasks import Runner
from medperf_contracts.hashing import container_hash, text_hash
from medperf_contracts.registry import ContainerView

_PREAMBLE = """
import os, shutil, signal, sys, time
from pathlib import Path
task = sys.argv[1]
given = dict(word[2:].split("=", 1) for word in sys.argv[2:])
places = {name: Path(value) for name, value in given.items()}
fault = places["parameters_file"].read_text().partition("fault: ")[2].strip()
print(f"{task} begins", flush=True)
if fault == "exits 1":
    sys.exit(1)
while fault == "chatters":
    print("more and more", flush=True)
if fault == "hangs":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)
if fault == "paints":
    escape = chr(27)
    print(f"{escape}[2J{escape}]0;owned{chr(7)}{escape}[31mred{chr(0x9b)}5m and back {chr(0x202e)}", flush=True)
    sys.exit(3)
def act(name):
    if fault != name:
        return
    print(f"secret of a patient, fault {name}", flush=True)
    raise SystemExit(3)
"""

# Prepares text files: upper case. The labels are copied.
_PREPARATION = """
if task == "prepare":
    act("prepare")
    for file in sorted(places["data_path"].iterdir()):
        (places["output_path"] / file.name).write_text(file.read_text().upper())
    for file in sorted(places["labels_path"].iterdir()):
        shutil.copyfile(file, places["output_labels_path"] / file.name)
    if fault == "link":
        (places["output_path"] / "link").symlink_to("/etc/passwd")
    if fault == "slow":
        time.sleep(600)
    if fault == "nothing":
        shutil.rmtree(places["output_path"], ignore_errors=True)
        for file in places["output_labels_path"].iterdir():
            file.unlink()
elif task == "sanity_check":
    act("sanity_check")
    assert all(file.read_text().isupper() for file in places["data_path"].iterdir())
else:
    act("statistics")
    count = len(list(places["data_path"].iterdir()))
    places["output_path"].write_text(f"cases: {count}\\nmean: .nan\\n")
"""

# Scores a file by its length.
_MODEL = """
act("infer")
time.sleep(1.5 if fault == "slow" else 0)
if fault.startswith("writes for "):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the first process of a container ignores it
    (places["output_path"] / "predictions.csv").write_text("case0,half written")
    time.sleep(float(fault.split()[2].rstrip(",")))
    act(fault.partition(", then ")[2] and fault)
lines = [f"{file.name},{len(file.read_text())}" for file in sorted(places["data_path"].iterdir())]
if fault == "no predictions":
    (places["output_path"] / "empty").mkdir()
    sys.exit(0)
(places["output_path"] / "predictions.csv").write_text("\\n".join(lines[:1] if fault == "half" else lines))
print("infer: secret of a patient", flush=True)
act("half")
act("after_writing")
if fault.startswith("writes for "):
    (places["output_path"] / "finished").touch()
"""

_METRICS = """
act("evaluate")
lines = (places["predictions"] / "predictions.csv").read_text().splitlines()
out = places["output_path"]
if fault == "link":
    out.symlink_to("/etc/passwd")
elif fault == "not_yaml":
    out.write_text("auc: [0.9")
elif fault == "list":
    out.write_text("- 0.9")
elif fault == "huge":
    out.write_text("auc: 0.9\\n#" + "x" * 2_000_000)
elif fault == "100 MB":
    out.write_text("auc: 0.9\\n")
    os.truncate(out, 100_000_000)
elif fault == "deep":
    out.write_text("auc: " + "[" * 10_000 + "]" * 10_000)
elif fault == "deep mappings":
    out.write_text("auc: " + "{a: " * 10_000 + "1" + "}" * 10_000)
elif fault == "controls":
    out.write_text('auc: "\\\\e[31m"')
elif fault == "undefined":
    out.write_text("auc: .nan\\nworst: {low: -.inf, high: .inf}\\nlist: [.nan, 1]")
elif fault != "nothing":
    total = sum(int(line.split(",")[1]) for line in lines)
    out.write_text(f"auc: {total / 1000}\\ncounts: {{cases: {len(lines)}}}\\n")
"""


def _tasks(role: Role) -> dict[str, Any]:
    parameters = {"parameters_file": "parameters.yaml"}
    data = {"data_path": {"type": "directory"}, "labels_path": {"type": "directory"}, **parameters}
    if role is Role.PREPARATION:
        prepared = {"output_path": {"type": "directory"}, "output_labels_path": {"type": "directory"}}
        return {
            "prepare": {"parameters": {"inputs": data, "outputs": prepared}},
            "sanity_check": {"parameters": {"inputs": data}},
            "statistics": {"parameters": {"inputs": data, "outputs": {"output_path": "statistics.yaml"}}},
        }
    if role is Role.MODEL:
        inputs = {"data_path": {"type": "directory"}, **parameters}
        return {"infer": {"parameters": {"inputs": inputs, "outputs": {"output_path": {"type": "directory"}}}}}
    inputs = {"predictions": {"type": "directory"}, "labels": {"type": "directory"}, **parameters}
    return {"evaluate": {"parameters": {"inputs": inputs, "outputs": {"output_path": "results.yaml"}}}}


def config_of(role: Role, *, image: str) -> dict[str, Any]:
    """The same container as a `container_config.yaml`: its places are fixed, and its command names them."""
    tasks: dict[str, Any] = {}
    for name, task in _tasks(role).items():
        words, volumes = [name], {}
        for group, kinds in task["parameters"].items():
            for parameter, written in kinds.items():
                kind = "directory" if isinstance(written, dict) else "file"
                place = f"/volumes/{parameter}" + (f"/{written}" if kind == "file" else "")
                volumes.setdefault(f"{group.removesuffix('s')}_volumes", {})[parameter] = {
                    "mount_path": place,
                    "type": kind,
                }
                words.append(f"--{parameter}={place}")
        tasks[name] = {"run_args": {"command": " ".join(words)}, **volumes}
    return {"container_type": "DockerImage", "image": image, "name": f"small-{role.value}", "tasks": tasks}


_CODE = {Role.PREPARATION: _PREPARATION, Role.MODEL: _MODEL, Role.METRICS: _METRICS}


def code(role: Role) -> bytes:
    """The program of a small container."""
    return (_PREAMBLE + _CODE[role]).encode()


def manifest_of(role: Role, *, name: str = "", image: str = "") -> dict[str, Any]:
    """The manifest of a small container, which is its own code in the sandbox, or an image of this name."""
    runs_as = (
        {"docker": {"image": image}} if image else {"sandbox": {"command": ["python", "main.py"], "packages": []}}
    )
    return {"name": name or f"small-{role.value}", **runs_as, "tasks": _tasks(role)}


def write_container(folder: Path, role: Role, *, fault: str = "", name: str = "") -> Path:
    """A small container as its owner has it: an MLCube folder, its additional files not packed yet."""
    additional_files = folder / "workspace" / "additional_files"
    additional_files.mkdir(parents=True)
    (folder / "mlcube.yaml").write_text(safe_yaml.dump(manifest_of(role, name=name)))
    (folder / "workspace" / "parameters.yaml").write_text(f"fault: {fault}\n")
    (additional_files / "main.py").write_bytes(code(role))
    return folder


def write_cases(folder: Path, texts: Sequence[str] = ("one", "three", "fifteen")) -> Path:
    """Raw data for the small containers: `images/`, `labels/`, and the `paths.yaml` that demo data has."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, text in enumerate(texts):
        (folder / "images" / f"case{number}.txt").write_text(text)
    labels = "".join(f"case{number},{number % 2}\n" for number in range(len(texts)))
    (folder / "labels" / "labels.csv").write_text(labels)
    (folder / "paths.yaml").write_text("data_path: images\nlabels_path: labels\n")
    return folder


@dataclass
class Shelf:
    """Registered containers, and the files behind their URLs."""

    files: dict[str, bytes] = field(default_factory=dict)
    views: dict[int, ContainerView] = field(default_factory=dict)
    roles: dict[int, Role] = field(default_factory=dict)

    def register(
        self, number: int, role: Role, *, fault: str = "", image: str = "", image_hash: str | None = None
    ) -> ContainerView:
        """Register a small container; `fault` says what it does wrong."""
        return self.add(
            number,
            role,
            manifest=json.dumps(manifest_of(role, image=image)),
            parameters=f"fault: {fault}\n",
            archive=archive_of("main.py", code(role)),
            image_hash=image_hash,
        )

    def add(
        self,
        number: int,
        role: Role,
        *,
        manifest: str,
        parameters: str,
        archive: bytes | None,
        image_hash: str | None = None,
    ) -> ContainerView:
        """Register a container of these parts, whatever they are; `archive` of additional files, if it has any."""
        url = None if archive is None else f"/assets/{role.value}-{number}.tar"
        if url is not None and archive is not None:
            self.files[url] = archive
        parts = {
            "manifest_hash": text_hash(manifest),
            "parameters_hash": text_hash(parameters),
            "additional_files_hash": None if archive is None else hashlib.sha256(archive).hexdigest(),
            "image_hash": image_hash,
        }
        self.roles[number] = role
        self.views[number] = ContainerView.model_validate(
            {
                "id": number,
                "version": 1,
                "name": f"small-{role.value}-{number}",
                "description": "",
                "owner_id": 1,
                "owner_name": "owner",
                "state": "OPERATION",
                "is_valid": True,
                "hash": container_hash(**parts),
                "manifest": manifest,
                "parameters": parameters,
                "additional_files_url": url,
                "image_url": None,
                "created_at": "2026-01-02T03:04:05Z",
                **parts,
            }
        )
        return self.views[number]

    def download(self, url: str, sink: Callable[[bytes], object]) -> None:
        """Stream what is behind a URL."""
        sink(self.files[url])


def write_tutorial(folder: Path, *, faults: Mapping[str, str] = MappingProxyType({})) -> Path:
    """A folder of small containers laid out as `tutorials/`, from which a server can be seeded."""
    roles = {
        "preparation": Role.PREPARATION,
        "reference_model": Role.MODEL,
        "second_model": Role.MODEL,
        "metrics": Role.METRICS,
    }
    for name, role in roles.items():
        place = folder / name
        (place / "workspace").mkdir(parents=True)
        (place / "additional_files").mkdir()
        (place / "mlcube.yaml").write_text(json.dumps(manifest_of(role)))
        (place / "workspace" / "parameters.yaml").write_text(f"# {name}\nfault: {faults.get(name, '')}\n")
        (place / "additional_files" / "main.py").write_bytes(code(role))
    (folder / "demo_data").mkdir()
    (folder / "demo_data" / "case.txt").write_text("one")
    return folder


def archive_of(name: str, content: bytes) -> bytes:
    """A tar archive of one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def sandbox_only(home: Home) -> Engines:
    """The engines of a person who wants the sandbox."""

    def agree(why: str) -> None:
        raise AssertionError(f"nothing is left to be asked: {why}")

    return Engines(
        platform=Platform.SANDBOX,
        home=home.root,
        packages_root=home.environments,
        agree=agree,
        on_line=lambda _line: None,
        say=lambda _text: None,
    )


class Site:
    """A data owner's machine: a local folder, a runner with the real sandbox, raw data, containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home("http://localhost:8000", folder / "home" / "localhost_8000")
        self.shelf = Shelf()
        self.lines: list[str] = []
        self.steps: list[str] = []
        # A dataset's folder that a test may copy, instead of preparing it once more.
        self.prepared = Path()
        self.journal = Journal(self.home.journal)
        self.data = folder / "raw" / "images"
        self.labels = folder / "raw" / "labels"
        for place in (self.data, self.labels):
            place.mkdir(parents=True)
        for number, text in enumerate(("one", "three", "fifteen")):
            (self.data / f"case{number}.txt").write_text(text)
        (self.labels / "labels.csv").write_text("case0,1\ncase1,0\ncase2,1\n")

    def runner(self, *, wall_seconds: float = 30.0) -> Runner:
        """The runner of a new command."""
        limits = Limits(wall_seconds=wall_seconds, memory_bytes=512 * 1024**2)
        return Runner(self.home, self.journal, sandbox_only(self.home).choose, self.lines.append, Shares(limits))

    def container(self, number: int, role: Role, *, fault: str = "") -> LocalContainer:
        """A small container, registered and brought here."""
        view = self.shelf.register(number, role, fault=fault)
        return self.fetch(view, role)

    def fetch(self, view: ContainerView, role: Role) -> LocalContainer:
        """Bring a registered container here."""
        return fetch_container(
            view, role=role, home=self.home, assets=Assets(self.home.assets, self.shelf.download)
        )


def prepared_dataset(folder: Path) -> Path:
    """The folder of a dataset that the small preparation made; tests work on copies of it."""
    site = Site(folder)
    return prepare(
        site.runner(),
        site.container(1, Role.PREPARATION),
        data_path=site.data,
        labels_path=site.labels,
        about=Description("mytestdata", "", ""),
        step=nullcontext,
    ).folder
