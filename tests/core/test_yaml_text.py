"""YAML: read in one way only, by every reader of it, and refused on one line."""

from __future__ import annotations

import pytest
import yaml

import tfnas
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_yaml
from tfnas.runs.run_directory import UnreadableConfig, read_config

REFUSED = [
    ("a: 1\nb: 2\na: 3\n", "not YAML: duplicate key 'a' in .*line 3, column 1"),
    ("a: 1\n'a': 2\n", "not YAML: duplicate key 'a'"),
    ("a: {b: 1, c: [{d: 1, d: 2}]}", "not YAML: duplicate key 'd'"),
    ("? [a, b]\n: 3\n", "not YAML: .*unhashable key"),
    ("? {a: b}\n: 3\n", "not YAML: .*unhashable key"),
    ("a: [1", "not YAML: "),
    ("a: 2020-13-45", "not YAML: month must be"),
    ("a: !!int x", "not YAML: "),
    ("a: !!float", "not YAML: "),
    ("a: !!bool x", "not YAML: "),
    ("a: !!timestamp x", "not YAML: "),
    ("a: !!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
    ("a: 1\n---\na: 2\n", "not YAML: expected a single document"),
    ("a: \0", "not YAML: unacceptable character"),
    ("[\n" * 1500 + "]" * 1500, "not YAML: maximum recursion depth"),  # on one line each would be a possible key
]
ACCEPTED = [
    "a: 1\nA: 2\n? 3\n: [x, {a: 1}, {a: 2}]\n",
    "first: &base {a: 1, b: 2}\nsecond: {<<: *base, a: 3}\n",
    "deep: {deeper: &x {<<: &base {a: 1}, a: 2}}\nother: {<<: *x, a: 3}\n",
    "a: &list [1]\nb: *list\n",
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused_on_one_line_by_every_reader(tmp_path, text, message):
    with pytest.raises(InputError, match=f"^{message}") as refused:
        load_yaml(text)
    assert "\n" not in str(refused.value)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"config\.yaml (is |cannot be read \(){message}") as refused:
        read_config(tmp_path)
    assert isinstance(refused.value, UnreadableConfig) == ("duplicate key" not in message)
    with pytest.raises(InputError, match=rf"space file .*config\.yaml is {message}"):
        tfnas.space(tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ACCEPTED)
def test_the_rest_is_what_the_library_makes_of_it(text):
    assert load_yaml(text) == yaml.safe_load(text)
