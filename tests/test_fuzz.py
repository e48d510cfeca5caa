"""Any content of a user's file works, or gives an error of one line that says what is wrong."""

import copy
import json

import pytest
import yaml
from calls import CONFIG, SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leapwarp import plan
from leapwarp.experiments import resolve
from leapwarp.report import __main__ as command
from leapwarp.report import rows

SMOKE = yaml.safe_load((SIZES / "smoke.yaml").read_text())
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=8),
    st.sampled_from(["{x}", "~", "$HOME", "${NO}", "a b", "'", '"', "010", "yes", "../x", "\n", "é", "-1", "*"]),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def quickly(n):
    """The same examples in every run, few enough for a test."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=n, derandomize=True, deadline=None, database=None, suppress_health_check=checks)


def places(value, path=()):
    """The paths of all values in nested mappings and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return value


def works_or_says_so(make):
    try:
        make()
    except ValueError as error:
        text = str(error)
        assert text and "\n" not in text.replace("\\n", "")


@quickly(150)
@given(place=st.sampled_from(list(places(CONFIG))[1:]), new=ODD)
def test_any_value_in_config_yaml(place, new):
    config = replaced(CONFIG, place, new)

    def read():
        found = plan.settled(config)
        for each in plan.jobs(found, plan.read_config(found, SIZES)).values():
            assert plan.outputs(each) and plan.row_files(each) and json.dumps(each.seeds)

    works_or_says_so(read)


SMALL = SMOKE | {"experiments": {name: SMOKE["experiments"][name] for name in ("omniglot_leap", "few_shot")}}


@quickly(150)
@given(place=st.sampled_from(list(places(SMALL))), new=ODD)
def test_any_value_in_the_file_of_a_size(tmp_path, place, new):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(replaced(SMALL, place, new), allow_unicode=True), encoding="utf-8")

    def read():
        size = plan.read_size(path)
        for where, about in size.experiments.items():
            resolve.of_experiment(where, size.entries[about.name], "mine.yaml")

    works_or_says_so(read)


@quickly(200)
@given(
    at=st.integers(0, 400), cut=st.integers(0, 30), new=st.text("abc:{}[]#&*!|>'\"%@`\t\n -?,0123.eé", max_size=6)
)  # fmt: skip
def test_any_damage_to_the_text_of_a_size(tmp_path, at, cut, new):
    text = yaml.safe_dump(SMALL)
    path = tmp_path / "mine.yaml"
    path.write_text(text[:at] + new + text[at + cut :], encoding="utf-8")
    works_or_says_so(lambda: plan.read_size(path))


WHOLE = rows.rows(
    [("a", None, "accuracy", 0.5), ("a", 1, "heldout_accuracy", 0.25), ("", 1, "meta_loss", 2.0)],
    experiment="omniglot_leap", method="leap", n_tasks=1, seed=0, size="quick", data_source="omniglot",
    data_checksum="0a", settings="0b", version="1", device="cpu", seconds=1.0,
)  # fmt: skip


@quickly(100)
@given(at=st.integers(0, 430), cut=st.integers(0, 40), new=st.binary(max_size=6))
def test_any_damage_to_a_csv_of_rows_is_one_line_and_leaves_no_table(tmp_path, capsys, at, cut, new):
    path, out = tmp_path / "rows.csv", tmp_path / "out"
    rows.write(path, WHOLE)
    data = path.read_bytes()
    path.write_bytes(data[:at] + new + data[at + cut :])
    code = 0
    try:
        command.main(["table", "omniglot_leap", "--rows", str(path), "--out-dir", str(out)])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err
    assert (code, said.count("\n")) in ((0, 0), (1, 1)), said
    assert "Traceback" not in said and (not code or said.startswith("error: "))
    left = sorted(each.name for each in out.glob("*")) if out.exists() else []
    assert not [name for name in left if name.startswith(".")]
    if not code:
        for each in out.iterdir():
            each.unlink()


def test_a_csv_with_a_byte_order_mark_is_read(tmp_path):
    """As Excel saves it."""
    rows.write(tmp_path / "rows.csv", WHOLE)
    data = (tmp_path / "rows.csv").read_bytes()
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert rows.read(tmp_path / "rows.csv").equals(WHOLE)
    (tmp_path / "rows.csv").write_bytes(b"\xff\xfe" + data)
    with pytest.raises(ValueError, match="found the header"):
        rows.read(tmp_path / "rows.csv")
