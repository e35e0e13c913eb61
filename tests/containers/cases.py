"""A preparation of cases that tells of each in a report and goes on with it; what a case does is its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from containers.small import Shelf, archive_of, config_of, manifest_of, write_container
from medperf import safe_yaml
from medperf.manifest import Role
from medperf_contracts.registry import ContainerView

# `broken` fails, `slow N` takes N seconds, `unclear` must be mended by hand; all else is done at once.
CODE = """
import json, os, shutil, sys, time
from pathlib import Path
task = sys.argv[1]
places = {name: Path(path) for name, path in (word[2:].split("=", 1) for word in sys.argv[2:])}
lie = places["parameters_file"].read_text().partition("lie: ")[2].strip()
MEND = "MEND ME"
if task == "prepare":
    report = places["report_file"]
    known = json.loads(report.read_text()) if report.exists() and report.stat().st_size else {}
    status, names = known.get("status", {}), known.get("status_name", {})
    def tell(case, number, name):
        status[case], names[case] = number, name
        text = json.dumps({"status": status, "status_name": names, "comment": {case: "Mrs. Smith"}})
        if not os.access(report.parent, os.W_OK):  # a file that is mounted alone is written to
            report.write_text(text)
            return
        part = report.with_suffix(".part")
        part.write_text(text)
        part.rename(report)
    for file in sorted(places["labels_path"].iterdir()):
        shutil.copyfile(file, places["output_labels_path"] / file.name)
    for file in sorted(places["data_path"].iterdir()):
        text, out = file.read_text(), places["output_path"] / file.name
        if status.get(file.stem) == 8:
            continue
        if text == "broken":
            sys.exit(3)
        if text.startswith("slow"):
            print(f"slow {file.stem}", flush=True)
            time.sleep(float(text.split()[1]))
        if text == "unclear" and (not out.exists() or out.read_text() == MEND):
            out.write_text(MEND)
            tell(file.stem, -5.1, "MANUAL_REVIEW_REQUIRED")
            continue
        if text != "unclear":
            out.write_text(text.upper())
        print(f"did {file.stem}", flush=True)
        tell(file.stem, 8, "DONE")
    if lie:
        report.unlink()
    if lie == "huge":
        report.write_text("# " + "x" * 9_000_000)
    elif lie == "link":
        report.symlink_to("/etc/passwd")
    elif lie == "malformed":
        report.write_text("status: {case0: 8")
    elif lie == "paints":
        report.write_text('status: {a: 1}\\nstatus_name: {a: "\\\\e[2J\\\\u202e\\\\nowned"}')
    if lie == "link":
        sys.exit(3)
elif task == "sanity_check":
    sys.exit(any(file.read_text() == MEND for file in places["data_path"].iterdir()) and 4)
else:
    places["output_path"].write_text(f"cases: {len(list(places['data_path'].iterdir()))}\\n")
"""


def manifest(*, image: str = "") -> dict[str, Any]:
    """Its manifest: that of the small preparation, with a report."""
    made = manifest_of(Role.PREPARATION, name="cases", image=image)
    made["tasks"]["prepare"]["parameters"]["outputs"]["report_file"] = "report.yaml"
    return made


def config(*, image: str) -> dict[str, Any]:
    """The same as a `container_config.yaml`."""
    made = config_of(Role.PREPARATION, image=image)
    place = "/volumes/report_file/report.json"
    made["tasks"]["prepare"]["output_volumes"]["report_file"] = {"mount_path": place, "type": "file"}
    made["tasks"]["prepare"]["run_args"]["command"] += f" --report_file={place}"
    return made


def write(folder: Path) -> Path:
    """The container as its owner has it."""
    write_container(folder, Role.PREPARATION)
    (folder / "mlcube.yaml").write_text(safe_yaml.dump(manifest()))
    (folder / "workspace" / "parameters.yaml").write_text("lie:\n")
    (folder / "workspace" / "additional_files" / "main.py").write_text(CODE)
    return folder


def register(
    shelf: Shelf,
    number: int,
    *,
    lie: str = "",
    image: str = "",
    image_hash: str | None = None,
    is_config: bool = False,
) -> ContainerView:
    """Register it, in one of the two formats; `lie` is what it writes into its report at its end."""
    return shelf.add(
        number,
        Role.PREPARATION,
        manifest=json.dumps(config(image=image) if is_config else manifest(image=image)),
        parameters=f"lie: {lie}\n",
        archive=archive_of("main.py", CODE.encode()),
        image_hash=image_hash,
    )
