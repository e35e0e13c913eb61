"""What earlier commands left in the client's local folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from medperf import safe_yaml
from medperf.datasets import LocalDataset, Preparation, Source
from medperf.evaluation import Evaluation
from medperf.home import Home
from medperf.results import name_result


def local_dataset(home: Home, digit: str = "a", **changes: Any) -> LocalDataset:
    uid = digit * 40
    values = {
        "folder": home.datasets / uid,
        "generated_uid": uid,
        "data_hash": digit * 64,
        "name": f"mine-{digit}",
        "description": "",
        "location": "",
        "preparation": Preparation(id=1, name="prep", hash="c" * 64),
        "statistics": {},
        "source": Source(data_path="/raw/images", labels_path="/raw/labels"),
        "created_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        **changes,
    }
    dataset = LocalDataset.model_validate(values)
    dataset.folder.mkdir()
    dataset.save()
    return dataset


def local_result(home: Home, dataset: LocalDataset, model_id: int = 4) -> str:
    evaluation = Evaluation(
        dataset_hash=dataset.data_hash,
        model_hash=str(model_id) * 64,
        metrics_hash="e" * 64,
        metrics={"auc": 0.9},
        is_partial=False,
        engine="sandbox",
        started_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        finished_at=datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
    )
    folder = home.results / evaluation.key
    folder.mkdir()
    (folder / "result.yaml").write_text(safe_yaml.dump(evaluation.model_dump(mode="json")))
    named = name_result(home, evaluation, benchmark_id=1, model_id=model_id, dataset_id=dataset.server_id or 1)
    return named.name
