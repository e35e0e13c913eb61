"""The preparation container: `prepare`, `sanity_check` and `statistics`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from failure import Failure


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, outputs in (
        ("prepare", ["output_path", "output_labels_path"]),
        ("sanity_check", []),
        ("statistics", ["output_path"]),
    ):
        task = tasks.add_parser(name, allow_abbrev=False)
        for parameter in ("data_path", "labels_path", "parameters_file", *outputs):
            task.add_argument(f"--{parameter}", type=Path, required=True)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    # Set before numpy is loaded: each of its threads would reserve memory, and nothing here needs more than one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from parameters import read_parameters

    parameters = read_parameters(options.parameters_file)
    if options.task == "prepare":
        from prepare import prepare

        prepare(
            options.data_path, options.labels_path, parameters, options.output_path, options.output_labels_path
        )
    elif options.task == "sanity_check":
        from prepared import check

        check(options.data_path, options.labels_path, parameters)
    else:
        from summary import write_statistics

        write_statistics(options.data_path, options.labels_path, parameters, options.output_path)


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        run(options)
    except (Failure, OSError) as error:
        print(f"{options.task}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
