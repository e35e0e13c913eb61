"""The reference model: `infer` by logistic regression."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from failure import Failure


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    infer = parser.add_subparsers(dest="task", required=True).add_parser("infer", allow_abbrev=False)
    for parameter in ("data_path", "parameters_file", "weights", "output_path"):
        infer.add_argument(f"--{parameter}", type=Path, required=True)
    return parser.parse_args(arguments)


def read_batch_size(path: Path) -> int:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    batch_size = content.get("batch_size") if isinstance(content, dict) else None
    if type(batch_size) is not int or not 1 <= batch_size <= 4096:
        raise Failure(f"{path.name} must hold batch_size, a whole number from 1 to 4096")
    return batch_size


def infer(options: argparse.Namespace) -> None:
    # Set before numpy is loaded: each of its threads would reserve memory, and nothing here needs more than one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from cases import list_cases, read_batches, write_predictions
    from logistic import Weights, score

    batch_size = read_batch_size(options.parameters_file)
    try:
        weights = Weights.from_json(json.loads(options.weights.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{options.weights.name} does not hold this model's weights") from error
    paths = list_cases(options.data_path)
    scores: dict[str, float] = {}
    for names, images in read_batches(paths, batch_size):
        scores.update(zip(names, score(weights, images).tolist(), strict=True))
        print(f"infer: {len(scores)}/{len(paths)} cases", flush=True)
    write_predictions(options.output_path, scores)


def main() -> int:
    options = parse(sys.argv[1:])
    try:
        infer(options)
    except (Failure, OSError) as error:
        print(f"{options.task}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
