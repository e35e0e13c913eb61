"""The tutorial's containers, their code run directly: what they make, and what they refuse."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tutorials
from medperf.archives import extract
from medperf.manifest import Role, parse_manifest, require_tasks
from medperf.tutorial.phantom import make_dataset
from medperf_contracts.packing import pack
from tutorials import train

TUTORIALS = Path(str(tutorials.__file__)).parent
REPOSITORY = TUTORIALS.parent
ROLES = {
    "preparation": Role.PREPARATION,
    "reference_model": Role.MODEL,
    "second_model": Role.MODEL,
    "metrics": Role.METRICS,
}
MODELS = ["reference_model", "second_model"]
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Site:
    """A site's own data, and where its prepared form goes."""

    data: Path
    labels: Path
    prepared: Path

    def prepare(self) -> subprocess.CompletedProcess[str]:
        return run(
            "preparation",
            "prepare",
            data_path=self.data,
            labels_path=self.labels,
            output_path=self.prepared / "data",
            output_labels_path=self.prepared / "labels",
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        return run(
            "preparation",
            "sanity_check",
            data_path=self.prepared / "data",
            labels_path=self.prepared / "labels",
        )

    def statistics(self) -> subprocess.CompletedProcess[str]:
        return run(
            "preparation",
            "statistics",
            data_path=self.prepared / "data",
            labels_path=self.prepared / "labels",
            output_path=self.prepared / "statistics.yaml",
        )

    def infer(self, model: str, **changed: Path) -> subprocess.CompletedProcess[str]:
        return run(
            model,
            "infer",
            **{
                "data_path": self.prepared / "data",
                "weights": TUTORIALS / model / "additional_files" / "weights.json",
                "output_path": self.prepared / model,
                **changed,
            },
        )

    def evaluate(self, model: str, **changed: Path) -> subprocess.CompletedProcess[str]:
        return run(
            "metrics",
            "evaluate",
            **{
                "predictions": self.prepared / model,
                "labels": self.prepared / "labels",
                "output_path": self.prepared / f"{model}.yaml",
                **changed,
            },
        )

    def results(self, model: str) -> Any:
        return yaml.safe_load((self.prepared / f"{model}.yaml").read_text())


def run(container: str, task: str, **parameters: Path) -> subprocess.CompletedProcess[str]:
    parameters.setdefault("parameters_file", TUTORIALS / container / "workspace" / "parameters.yaml")
    program = TUTORIALS / container / "additional_files" / "main.py"
    return subprocess.run(
        [sys.executable, str(program), task, *(f"--{name}={path}" for name, path in parameters.items())],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The task ended with 1 and one line that holds all the words."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert ": error: " in lines[0]
    for word in words:
        assert word in lines[0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(container: str, module: str) -> Any:
    return train.import_module(TUTORIALS / container / "additional_files" / f"{module}.py")


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The tutorial's own data, prepared, scored and measured once."""
    folder = tmp_path_factory.mktemp("tutorial")
    make_dataset(folder / "source")
    site = Site(folder / "source" / "images", folder / "source" / "labels", folder / "prepared")
    succeed(site.prepare())
    for model in MODELS:
        succeed(site.infer(model))
        succeed(site.evaluate(model))
    return site


@pytest.fixture
def small(tmp_path: Path) -> Site:
    """Eight images to break."""
    make_dataset(tmp_path / "source", count=8, seed=3)
    return Site(tmp_path / "source" / "images", tmp_path / "source" / "labels", tmp_path / "prepared")


@pytest.fixture
def prepared(small: Site) -> Site:
    """Eight prepared images to break."""
    succeed(small.prepare())
    return small


# Whole runs


def test_every_task_runs_to_its_end_on_the_tutorials_data(tutorial: Site) -> None:
    succeed(tutorial.check())
    succeed(tutorial.statistics())
    statistics = yaml.safe_load((tutorial.prepared / "statistics.yaml").read_text())
    assert (statistics["cases"], statistics["positives"], statistics["negatives"]) == (240, 108, 132)
    assert statistics["image_size"] == [64, 64]


def test_both_models_find_the_opacities_the_second_better_and_neither_perfectly(tutorial: Site) -> None:
    reference, second = (tutorial.results(model)["auc"] for model in MODELS)
    assert 0.8 <= reference < second <= 0.97


def test_the_two_models_give_different_scores(tutorial: Site) -> None:
    one, two = (rows_of(tutorial.prepared / model / "predictions.csv") for model in MODELS)
    assert [row["case"] for row in one] == [row["case"] for row in two]
    assert sum(a["score"] != b["score"] for a, b in zip(one, two, strict=True)) > 200


def test_every_task_runs_to_its_end_on_real_x_rays(site_data: Path, tmp_path: Path) -> None:
    site = Site(site_data / "images", site_data / "labels", tmp_path)
    succeed(site.prepare())
    succeed(site.check())
    succeed(site.statistics())
    statistics = yaml.safe_load((tmp_path / "statistics.yaml").read_text())
    for model in MODELS:
        succeed(site.infer(model))
        succeed(site.evaluate(model))
        assert site.results(model)["counts"]["cases"] == statistics["cases"]
        assert 0 <= site.results(model)["auc"] <= 1


def test_the_demo_data_is_where_its_paths_file_says(tmp_path: Path) -> None:
    demo = TUTORIALS / "demo_data"
    paths = yaml.safe_load((demo / "paths.yaml").read_text())
    site = Site(demo / paths["data_path"], demo / paths["labels_path"], tmp_path)
    succeed(site.prepare())
    succeed(site.check())
    assert len(list(site.data.iterdir())) == 24
    assert sum(len(content) for content in bytes_of(demo).values()) < 150_000


def test_progress_is_printed_while_the_work_goes_on(tutorial: Site, tmp_path: Path) -> None:
    again = Site(tutorial.data, tutorial.labels, tmp_path)
    assert [f"prepare: {n}/240 images" for n in range(40, 241, 40)] == succeed(again.prepare()).splitlines()
    scored = succeed(tutorial.infer("reference_model", output_path=tmp_path / "scores"))
    assert [f"infer: {n}/240 cases" for n in (64, 128, 192, 240)] == scored.splitlines()


# Preparation


def test_the_same_data_prepared_twice_is_the_same_in_every_byte(small: Site, tmp_path: Path) -> None:
    succeed(small.prepare())
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(small.data, elsewhere, copy_function=shutil.copyfile)
    again = Site(elsewhere, small.labels, tmp_path / "again")
    succeed(again.prepare())
    assert bytes_of(small.prepared) == bytes_of(again.prepared)


def test_prepared_images_are_plain_grey_files_of_one_size(prepared: Site) -> None:
    images = sorted((prepared.prepared / "data").iterdir())
    assert [path.name for path in images] == [f"phantom{number:04d}.pgm" for number in range(8)]
    for path in images:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PPM", "L", (64, 64))
    source = [row["finding"] for row in rows_of(prepared.labels / "labels.csv")]
    assert [row["finding"] for row in rows_of(prepared.prepared / "labels" / "labels.csv")] == source


@pytest.mark.parametrize(
    ("mode", "ending", "size"),
    [
        ("RGB", "jpg", (300, 200)),
        ("I;16", "png", (90, 140)),
        ("F", "tiff", (64, 80)),
        ("P", "png", (500, 60)),
        ("LA", "png", (49, 48)),
        ("1", "bmp", (100, 100)),
    ],
)
def test_other_sizes_and_kinds_of_image_are_prepared_too(
    small: Site, mode: str, ending: str, size: tuple[int, int]
) -> None:
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 256
    if mode == "I;16":
        image = Image.fromarray((ramp * 250).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray((ramp / 1000).astype(np.float32))
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    image.save(small.data / f"other.{ending}")
    with (small.labels / "labels.csv").open("a") as file:
        file.write(f"other.{ending},1\n")
    succeed(small.prepare())
    succeed(small.check())
    with Image.open(small.prepared / "data" / "other.pgm") as made:
        assert np.ptp(np.asarray(made)) > 32


def test_intensities_beyond_the_percentiles_do_not_flatten_an_image(small: Site) -> None:
    path = small.data / "phantom0000.png"
    with Image.open(path) as image:
        pixels = np.array(image)
    Image.fromarray(pixels.astype(np.uint16)).save(path)
    succeed(small.prepare())
    plain = (small.prepared / "data" / "phantom0000.pgm").read_bytes()
    burnt = pixels.astype(np.uint16)
    burnt[0, :10] = 65_535  # a marker of lead on the film: ten of 5,184 pixels
    Image.fromarray(burnt).save(path)
    succeed(small.prepare())
    difference = np.frombuffer((small.prepared / "data" / "phantom0000.pgm").read_bytes()[-4096:], np.uint8)
    original = np.frombuffer(plain[-4096:], np.uint8)
    assert np.mean(np.abs(difference.astype(int) - original.astype(int))) < 3


def test_names_with_spaces_and_letters_of_any_alphabet_are_kept(small: Site) -> None:
    (small.data / "phantom0000.png").rename(small.data / "Röntgen, Überblick 1.png")
    labels = (small.labels / "labels.csv").read_text().replace("phantom0000.png", '"Röntgen, Überblick 1.png"')
    (small.labels / "labels.csv").write_text(labels, encoding="utf-8")
    succeed(small.prepare())
    succeed(small.check())
    assert (small.prepared / "data" / "Röntgen, Überblick 1.pgm").is_file()


def test_a_spreadsheets_byte_order_mark_and_line_endings_are_read(small: Site) -> None:
    path = small.labels / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    succeed(small.prepare())


def test_a_decomposed_file_name_matches_its_composed_label(small: Site) -> None:
    (small.data / "phantom0000.png").rename(small.data / "u\u0308.png")
    path = small.labels / "labels.csv"
    path.write_text(path.read_text().replace("phantom0000.png", "\u00fc.png"), encoding="utf-8")
    succeed(small.prepare())
    assert (small.prepared / "data" / "\u00fc.pgm").is_file()


def test_hidden_files_are_left_out(small: Site) -> None:
    (small.data / ".DS_Store").write_bytes(b"\0")
    succeed(small.prepare())


def edit_labels(site: Site, old: str, new: str) -> None:
    path = site.labels / "labels.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_image_without_a_label_is_refused_by_name(small: Site) -> None:
    shutil.copy(small.data / "phantom0000.png", small.data / "extra.png")
    fail(small.prepare(), "'extra.png' has an image but no label")


def test_a_label_without_an_image_is_refused_by_name(small: Site) -> None:
    (small.data / "phantom0003.png").unlink()
    fail(small.prepare(), "'phantom0003.png' has a label but no image")


@pytest.mark.parametrize("value", ["2", "", "yes", "0.5", "-1"])
def test_a_finding_that_is_neither_0_nor_1_is_refused_by_name(small: Site, value: str) -> None:
    text = (small.labels / "labels.csv").read_text()
    (small.labels / "labels.csv").write_text(re.sub(r"phantom0002\.png,\d", f"phantom0002.png,{value}", text))
    fail(small.prepare(), "labels.csv", f"the finding of 'phantom0002.png' is '{value}'")


def test_a_label_given_twice_is_refused_by_name(small: Site) -> None:
    edit_labels(small, "phantom0001.png", "phantom0002.png")
    fail(small.prepare(), "'phantom0002.png' is there twice")


def test_two_images_that_differ_in_their_ending_only_are_refused_by_name(small: Site) -> None:
    shutil.copy(small.data / "phantom0001.png", small.data / "phantom0001.bmp")
    fail(small.prepare(), "'phantom0001.bmp'", "'phantom0001.png'", "the same name but for the ending")


def test_a_name_that_would_paint_a_terminal_is_refused_and_shown_harmlessly(small: Site) -> None:
    (small.data / "phantom0001.png").rename(small.data / "a\x1b[31m\n.png")
    edit_labels(small, "phantom0001.png", '"a\x1b[31m\n.png"')
    done = small.prepare()
    fail(done, r"'a\x1b[31m\n.png' has a character in its name that cannot be printed")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not an image", "cannot be read as an image"),
        (b"", "cannot be read as an image"),
        ("truncated", "cannot be read as an image"),
        ("bad checksum", "cannot be read as an image"),
        ("small", "is 80x40, the shorter side must have 48 pixels"),
        ("flat", "has no contrast"),
        ("two frames", "holds more than one image"),
        ("not a number", "holds values that are not numbers"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_by_name(small: Site, content: bytes | str, words: str) -> None:
    path = small.data / "phantom0004.png"
    whole = path.read_bytes()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "truncated":
        path.write_bytes(whole[:3000])
    elif content == "bad checksum":
        path.write_bytes(whole[:3000] + b"\xff" + whole[3001:])
    elif content == "small":
        Image.new("L", (80, 40)).save(path)
    elif content == "flat":
        Image.new("L", (80, 80), 100).save(path)
    elif content == "two frames":
        frames = [Image.new("L", (80, 80), shade) for shade in (0, 100)]
        frames[0].save(path, format="TIFF", save_all=True, append_images=frames[1:])
    else:
        Image.fromarray(np.full((80, 80), np.nan, np.float32)).save(path, format="TIFF")
    fail(small.prepare(), f"'phantom0004.png' {words}")


def test_ten_problems_are_named_and_the_others_counted(small: Site) -> None:
    for number in range(13):
        (small.data / f"extra{number:02d}.png").write_bytes(b"")
    done = small.prepare()
    fail(done, "'extra00.png'", "'extra09.png'", "and 3 more")
    assert "extra10" not in done.stderr


def test_a_folder_among_the_images_is_refused_by_name(small: Site) -> None:
    (small.data / "more").mkdir()
    fail(small.prepare(), "'more' is not a file")


def test_an_empty_folder_of_images_is_refused(small: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fail(Site(tmp_path / "empty", small.labels, small.prepared).prepare(), "holds no images")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no labels.csv"),
        (b"", "must begin with the line image,finding"),
        (b"file,label\na.png,1\n", "must begin with the line image,finding"),
        (b"image,finding\n", "holds no labels"),
        (b"image,finding\na.png,1,2\n", "line 2 has 3 columns"),
        (b"image,finding\n\xff.png,1\n", "is not CSV in UTF-8"),
        (b'image,finding\n"a.png,1\n', "is not CSV in UTF-8"),
    ],
)
def test_a_labels_file_that_is_not_one_is_refused(small: Site, content: bytes | None, words: str) -> None:
    path = small.labels / "labels.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    fail(small.prepare(), words)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("image_size: [", "parameters.yaml is not YAML"),
        ("[]", "must hold exactly"),
        ("image_size: 64\n", "must hold exactly"),
        (
            "{image_size: big, minimum_size: 48, low_percentile: 1, high_percentile: 99}",
            "image_size must be a whole number",
        ),
        ("{image_size: 4, minimum_size: 48, low_percentile: 1, high_percentile: 99}", "image_size must be 8"),
        ("{image_size: 64, minimum_size: 48, low_percentile: 99, high_percentile: 1}", "low_percentile"),
    ],
)
def test_preparation_refuses_parameters_that_make_no_sense(
    small: Site, tmp_path: Path, parameters: str, words: str
) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(parameters)
    done = run(
        "preparation",
        "prepare",
        data_path=small.data,
        labels_path=small.labels,
        parameters_file=path,
        output_path=small.prepared / "data",
        output_labels_path=small.prepared / "labels",
    )
    fail(done, "parameters.yaml", words)


# The check of what was prepared


def test_the_check_names_a_prepared_image_that_was_cut_short(prepared: Site) -> None:
    path = prepared.prepared / "data" / "phantom0002.pgm"
    path.write_bytes(path.read_bytes()[:-1])
    fail(prepared.check(), "'phantom0002.pgm' is not a grey image of 64x64 bytes")


def test_the_check_names_a_prepared_image_that_is_flat(prepared: Site) -> None:
    (prepared.prepared / "data" / "phantom0002.pgm").write_bytes(b"P5\n64 64\n255\n" + bytes(4096))
    fail(prepared.check(), "'phantom0002.pgm' has no contrast")


def test_the_check_names_a_case_without_image_and_one_without_label(prepared: Site) -> None:
    data = prepared.prepared / "data"
    (data / "phantom0002.pgm").rename(data / "unknown.pgm")
    fail(prepared.check(), "'phantom0002' has a label but no image", "'unknown' has an image but no label")


def test_the_check_names_files_that_do_not_belong_there(prepared: Site) -> None:
    (prepared.prepared / "data" / "notes.txt").write_text("")
    (prepared.prepared / "labels" / "copy.csv").write_text("")
    fail(prepared.check(), "'notes.txt' is not a prepared image", "'copy.csv' is not labels.csv")


@pytest.mark.parametrize("finding", ["0", "1"])
def test_the_check_refuses_data_of_one_class(prepared: Site, finding: str) -> None:
    path = prepared.prepared / "labels" / "labels.csv"
    path.write_text(re.sub(r",\d", f",{finding}", path.read_text()))
    fail(prepared.check(), f"no case has the finding {1 - int(finding)}")


def test_statistics_are_those_of_all_pixels_and_name_no_case(prepared: Site) -> None:
    succeed(prepared.statistics())
    text = (prepared.prepared / "statistics.yaml").read_text()
    pixels = np.concatenate(
        [np.frombuffer(path.read_bytes()[-4096:], np.uint8) for path in (prepared.prepared / "data").iterdir()]
    )
    assert yaml.safe_load(text)["intensity"] == {
        "mean": round(float(pixels.mean()), 2),
        "standard_deviation": round(float(pixels.std()), 2),
    }
    assert "phantom" not in text


def test_statistics_refuse_images_that_are_not_those_of_the_labels(prepared: Site) -> None:
    (prepared.prepared / "data" / "phantom0002.pgm").unlink()
    fail(prepared.statistics(), "there are 7 images but 8 labels")


# Models


@pytest.mark.parametrize("model", MODELS)
def test_a_model_refuses_a_prepared_image_of_another_size_by_name(prepared: Site, model: str) -> None:
    (prepared.prepared / "data" / "phantom0002.pgm").write_bytes(b"P5\n32 32\n255\n" + bytes(1024))
    fail(prepared.infer(model), "'phantom0002.pgm' is not a grey image of 64x64 bytes")
    assert not (prepared.prepared / model).exists()


@pytest.mark.parametrize("model", MODELS)
def test_a_model_refuses_an_empty_folder(prepared: Site, model: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fail(prepared.infer(model, data_path=tmp_path / "empty"), "holds no prepared images")


@pytest.mark.parametrize(("model", "other"), [MODELS, MODELS[::-1]])
def test_a_model_refuses_the_others_weights(prepared: Site, model: str, other: str) -> None:
    weights = TUTORIALS / other / "additional_files" / "weights.json"
    fail(prepared.infer(model, weights=weights), "weights.json does not hold this model's weights")


@pytest.mark.parametrize(("model", "array"), [("reference_model", "mean"), ("second_model", "output_bias")])
def test_a_model_refuses_weights_of_another_shape(prepared: Site, model: str, array: str, tmp_path: Path) -> None:
    content = json.loads((TUTORIALS / model / "additional_files" / "weights.json").read_text())
    content[array] = content[array] + [0.5] if model == "second_model" else content[array][:1]
    (tmp_path / "weights.json").write_text(json.dumps(content))
    done = prepared.infer(model, weights=tmp_path / "weights.json")
    fail(done, "weights.json does not hold this model's weights")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("parameters", ["batch_size: 0", "batch_size: many", "[]", "{"])
def test_a_model_refuses_parameters_that_make_no_sense(
    prepared: Site, model: str, parameters: str, tmp_path: Path
) -> None:
    (tmp_path / "parameters.yaml").write_text(parameters)
    fail(prepared.infer(model, parameters_file=tmp_path / "parameters.yaml"), "parameters.yaml")


@pytest.mark.parametrize("model", MODELS)
def test_scores_do_not_depend_on_the_batch(tutorial: Site, model: str, tmp_path: Path) -> None:
    (tmp_path / "parameters.yaml").write_text("batch_size: 7")
    succeed(tutorial.infer(model, parameters_file=tmp_path / "parameters.yaml", output_path=tmp_path / "out"))
    scores, others = (
        np.array([float(row["score"]) for row in rows_of(path / "predictions.csv")])
        for path in (tmp_path / "out", tutorial.prepared / model)
    )
    assert np.abs(scores - others).max() <= 1e-6


def test_training_follows_the_slope_of_its_loss() -> None:
    model = load("second_model", "convnet")
    rng = np.random.default_rng(1)
    values = {name: rng.normal(0, 0.3, shape) for name, shape in model.SHAPES.items()}
    images, findings = rng.random((3, 64, 64)) - 0.5, np.array([0.0, 1.0, 1.0])

    def loss(changed: dict[str, Any]) -> float:
        scores = model.score(model.Weights(**changed), images)
        return float(-np.mean(findings * np.log(scores) + (1 - findings) * np.log(1 - scores)))

    slopes = train.gradients(model, model.Weights(**values), images, findings)
    for name, slope in slopes.items():
        direction = rng.normal(size=slope.shape)
        ahead = loss({**values, name: values[name] + 1e-6 * direction})
        behind = loss({**values, name: values[name] - 1e-6 * direction})
        assert (ahead - behind) / 2e-6 == pytest.approx(float(np.sum(slope * direction)), rel=1e-4, abs=1e-7)


# Metrics


def write_scores(folder: Path, scores: list[str], findings: list[str]) -> tuple[Path, Path]:
    for name, column, values in (("p", "score", scores), ("l", "finding", findings)):
        (folder / name).mkdir(exist_ok=True)
        file = "predictions.csv" if column == "score" else "labels.csv"
        lines = [f"case,{column}", *(f"c{number},{value}" for number, value in enumerate(values))]
        (folder / name / file).write_text("\n".join(lines) + "\n")
    return folder / "p", folder / "l"


def evaluate(folder: Path, scores: list[str], findings: list[str]) -> subprocess.CompletedProcess[str]:
    predictions, labels = write_scores(folder, scores, findings)
    return run("metrics", "evaluate", predictions=predictions, labels=labels, output_path=folder / "results.yaml")


def test_the_measures_are_those_of_a_table_counted_by_hand(tmp_path: Path) -> None:
    # At 0.5: two of three positives found, one of four negatives called a positive; 0.5 itself counts as called.
    succeed(evaluate(tmp_path, ["0.9", "0.5", "0.2", "0.6", "0.4", "0.2", "0.1"], list("1110000")))
    assert yaml.safe_load((tmp_path / "results.yaml").read_text()) == {
        "auc": round(8.5 / 12, 6),
        "sensitivity": round(2 / 3, 6),
        "specificity": 0.75,
        "f1": round(4 / 6, 6),
        "accuracy": round(5 / 7, 6),
        "counts": {
            "cases": 7,
            "positives": 3,
            "negatives": 4,
            "true_positives": 2,
            "false_positives": 1,
            "true_negatives": 3,
            "false_negatives": 1,
        },
    }


def test_a_measure_that_is_undefined_is_null(tmp_path: Path) -> None:
    succeed(evaluate(tmp_path, ["0.1", "0.2"], ["0", "0"]))
    results = yaml.safe_load((tmp_path / "results.yaml").read_text())
    assert (results["auc"], results["sensitivity"], results["f1"]) == (None, None, None)
    assert (results["specificity"], results["accuracy"]) == (1.0, 1.0)
    succeed(evaluate(tmp_path, ["0.1", "0.7"], ["1", "1"]))
    results = yaml.safe_load((tmp_path / "results.yaml").read_text())
    assert (results["auc"], results["specificity"], results["sensitivity"]) == (None, None, 0.5)


SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), st.booleans()))


@settings(max_examples=200, deadline=None)
@given(SCORED)
def test_the_auc_is_the_share_of_pairs_in_the_right_order(scored: list[tuple[float, bool]]) -> None:
    positives = [score for score, finding in scored if finding]
    negatives = [score for score, finding in scored if not finding]
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    expected = round(wins / (len(positives) * len(negatives)), 6) if positives and negatives else None
    scores = np.array([score for score, _ in scored], dtype=float)
    findings = np.array([int(finding) for _, finding in scored], dtype=int)
    assert load("metrics", "measures").auc(scores, findings) == expected


@pytest.mark.parametrize(
    ("scores", "findings", "words"),
    [
        (["0.5"], ["0", "1"], "case 'c1' has no score"),
        (["0.5", "0.5", "0.5"], ["0", "1"], "case 'c2' has a score but no label"),
        (["0.5", "1.5"], ["0", "1"], "the score of 'c1' is '1.5'"),
        (["0.5", "nan"], ["0", "1"], "the score of 'c1' is 'nan'"),
        (["0.5", "high"], ["0", "1"], "the score of 'c1' is 'high'"),
        (["0.5", "0.5"], ["0", "2"], "the finding of 'c1' is '2'"),
        (["0.5,1", "0.5"], ["0", "1"], "predictions.csv: a line has 3 columns"),
        (["0.5", "0.5\nc1,0.6"], ["0", "1"], "'c1' is there twice"),
        ([], ["0", "1"], "predictions.csv holds no cases"),
    ],
)
def test_the_metrics_refuse_predictions_and_labels_that_do_not_fit(
    tmp_path: Path, scores: list[str], findings: list[str], words: str
) -> None:
    fail(evaluate(tmp_path, scores, findings), words)
    assert not (tmp_path / "results.yaml").exists()


def test_the_metrics_refuse_a_missing_file_and_a_wrong_header(tmp_path: Path) -> None:
    predictions, labels = write_scores(tmp_path, ["0.5"], ["1"])
    (predictions / "predictions.csv").write_text("name,value\n")
    output = tmp_path / "results.yaml"
    fail(run("metrics", "evaluate", predictions=predictions, labels=labels, output_path=output), "case,score")
    (predictions / "predictions.csv").unlink()
    fail(
        run("metrics", "evaluate", predictions=predictions, labels=labels, output_path=output),
        "there is no predictions.csv",
    )


@pytest.mark.parametrize(
    "parameters", ["threshold: high", "threshold: 2", "threshold: .nan", "threshold: true", "[]", "{"]
)
def test_the_metrics_refuse_a_threshold_that_makes_no_sense(
    tutorial: Site, tmp_path: Path, parameters: str
) -> None:
    (tmp_path / "parameters.yaml").write_text(parameters)
    fail(tutorial.evaluate("reference_model", parameters_file=tmp_path / "parameters.yaml"), "parameters.yaml")


# Manifests and archives


@pytest.mark.parametrize("container", ROLES)
def test_a_manifest_is_accepted_has_its_roles_tasks_and_files_where_it_says(container: str) -> None:
    manifest = parse_manifest((TUTORIALS / container / "mlcube.yaml").read_text())
    require_tasks(manifest, ROLES[container])
    assert manifest.sandbox is not None
    assert manifest.sandbox.command == ("python", "main.py")
    assert manifest.docker is not None
    for task in manifest.tasks.values():
        for parameter in task.inputs:
            if parameter.default.startswith("additional_files/"):
                assert (TUTORIALS / container / parameter.default).is_file()


@pytest.mark.parametrize("container", ROLES)
def test_a_manifests_packages_are_those_that_the_tests_run_with(container: str) -> None:
    manifest = parse_manifest((TUTORIALS / container / "mlcube.yaml").read_text())
    locked = (REPOSITORY / "requirements" / "dev.txt").read_text()
    assert manifest.sandbox is not None
    for package in manifest.sandbox.packages:
        assert f"\n{package.name}=={package.version} " in locked
        assert len(set(package.sha256)) == 8  # four versions of Python on two kinds of processor
        assert all(f"sha256:{digest}" in locked for digest in package.sha256)


def test_all_four_containers_share_one_environment() -> None:
    manifests = [parse_manifest((TUTORIALS / container / "mlcube.yaml").read_text()) for container in ROLES]
    assert len({manifest.sandbox for manifest in manifests}) == 1


@pytest.mark.parametrize("container", ROLES)
def test_wrong_use_ends_with_2_and_says_how(container: str) -> None:
    done = run(container, "unknown")
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_an_archive_depends_on_its_files_alone(tmp_path: Path) -> None:
    source = TUTORIALS / "second_model" / "additional_files"
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (two / "main.py").chmod(0o755)
    os.utime(two / "main.py", (0, 0))
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"compiled")
    assert pack(one, tmp_path / "1.tar.gz") == pack(two, tmp_path / "2.tar.gz")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "2.tar.gz", "r:gz") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(path.name for path in one.iterdir())
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_what_was_packed_is_what_the_client_unpacks(tmp_path: Path) -> None:
    pack(TUTORIALS / "demo_data", tmp_path / "demo.tar.gz")
    extract(tmp_path / "demo.tar.gz", tmp_path / "unpacked")
    assert bytes_of(tmp_path / "unpacked") == bytes_of(TUTORIALS / "demo_data")


def test_links_and_folders_without_files_are_not_packed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no files"):
        pack(folder, tmp_path / "out.tar.gz")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        pack(folder, tmp_path / "out.tar.gz")
    with pytest.raises(NotADirectoryError):
        pack(tmp_path / "missing", tmp_path / "out.tar.gz")
    assert not (tmp_path / "out.tar.gz").exists()
