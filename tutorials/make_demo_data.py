"""Makes `demo_data/`, the small dataset that a benchmark offers for trying containers out.

python -m tutorials.make_demo_data
"""

from __future__ import annotations

import shutil
from pathlib import Path

from medperf.tutorial.phantom import make_dataset

FOLDER = Path(__file__).parent / "demo_data"
COUNT = 24
SEED = 14  # neither the tutorial's nor one that the models were trained on

PATHS = """\
data_path: images
labels_path: labels
"""


def main() -> None:
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    make_dataset(FOLDER, count=COUNT, seed=SEED)
    (FOLDER / "paths.yaml").write_text(PATHS)


if __name__ == "__main__":
    main()
