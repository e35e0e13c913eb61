import math

import pytest

from medperf import safe_yaml
from medperf.errors import BadManifest, ContainerFailed


def load(text: str | bytes, **options: object) -> object:
    return safe_yaml.load(text, what="the file", **options)  # type: ignore[arg-type]


def test_plain_values_keep_their_types_and_dates_stay_text() -> None:
    text = "{a: 1, b: 1.5, c: true, d: null, e: [x, '1'], f: 2024-01-02, g: ~, h: 'yes', i: !!str 5, <<: m}"
    assert load(text) == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": ["x", "1"], "f": "2024-01-02", "g": None, "h": "yes",
        "i": "5", "<<": "m",
    }  # fmt: skip


def test_undefined_numbers_are_left_to_the_caller() -> None:
    value = load("[.nan, .inf, -.inf]")
    assert isinstance(value, list)
    assert math.isnan(value[0])
    assert value[1:] == [math.inf, -math.inf]


def test_an_empty_document_is_none() -> None:
    assert load("") is None
    assert load(b"\xef\xbb\xbf# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x 1\nb: *x", "line 1: it uses an anchor"),
        ("a: 1\nb: *x", "line 2: it uses an anchor"),
        ("a: &a [b]", "anchor"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' comes twice"),
        ("1: x", "line 1: the key 1 is not text"),
        ("true: x", "the key True is not text"),
        ("? [a]\n: x", r"the key \['a'\] is not text"),
        ("a: !!python/object/apply:os.system [ls]", "the tag"),
        ("a: !!python/name:os.system x", "the tag"),
        ("a: !!binary aGVsbG8=", "the tag"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: [1", "not valid YAML, line"),
        ("a: b: c", "not valid YAML, line 1"),
        ("a: \x07", "not valid YAML"),
        (b"a: \xff\xfe", "not valid YAML"),
        ("a: \ud800", "not valid YAML"),
        ("a: " + "9" * 5000, "not a number that can be read"),
        ("a: 0x" + "f" * 5000, "not a number that can be read"),
        ("0x" + "f" * 5000 + ": a", "not a number that can be read"),
        ("a: " + "1:" * 190 + "1.5", "not a number that can be read"),
        ("[" * 10_000, "deeper than 50 levels"),
        ("{a: " * 10_000, "deeper than 50 levels"),
        ("\n".join(" " * level + "a:" for level in range(200)), "deeper than 50 levels"),
        ("- " * 10_000 + "x", "deeper than 50 levels"),
    ],
)
def test_what_could_do_harm_is_refused_with_its_line(text: str | bytes, fault: str) -> None:
    with pytest.raises(BadManifest, match=fault) as refused:
        load(text)
    assert str(refused.value).startswith("the file")
    assert refused.value.hint


def test_size_is_counted_in_bytes_before_anything_is_parsed() -> None:
    assert load("é" * 5, limit_bytes=10) == "ééééé"
    for text in ("é" * 6, ("é" * 6).encode()):
        with pytest.raises(BadManifest, match="12 bytes; the limit is 10"):
            load(text, limit_bytes=10)


def test_the_caller_chooses_the_error() -> None:
    with pytest.raises(ContainerFailed):
        load("[", error=ContainerFailed)


def test_what_is_printed_reads_back_and_has_no_aliases() -> None:
    shared = {"name": "Zoë", "score": 0.5}
    value = {"z": shared, "a": [shared, None, "yes", "1"]}
    text = safe_yaml.dump(value)
    assert text.startswith("z:\n  name: Zoë\n")
    assert "&" not in text
    assert load(text) == value


def test_each_key_and_each_item_has_its_line() -> None:
    text = "a: 1\nb:\n  - x\n  - c: {d: 2}\n    e: [3,\n        4]\n"
    value, lines = safe_yaml.load_with_lines(text, what="it")
    assert value == {"a": 1, "b": ["x", {"c": {"d": 2}, "e": [3, 4]}]}
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "c", "d"): 4,
        ("b", 1, "e"): 5,
        ("b", 1, "e", 0): 5,
        ("b", 1, "e", 1): 6,
    }


def test_lines_are_kept_for_so_many_keys_and_items_only() -> None:
    value, lines = safe_yaml.load_with_lines(f"a: [{'1,' * 2 * safe_yaml.LINES_MOST}]", what="it")
    assert len(value["a"]) == 2 * safe_yaml.LINES_MOST
    assert len(lines) == safe_yaml.LINES_MOST
