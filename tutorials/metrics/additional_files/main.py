"""The metrics container: `evaluate`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from failure import Failure


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    evaluate = parser.add_subparsers(dest="task", required=True).add_parser("evaluate", allow_abbrev=False)
    for parameter in ("predictions", "labels", "parameters_file", "output_path"):
        evaluate.add_argument(f"--{parameter}", type=Path, required=True)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    # Set before numpy is loaded: each of its threads would reserve memory, and nothing here needs more than one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from evaluate import evaluate

    evaluate(options.predictions, options.labels, options.parameters_file, options.output_path)


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
