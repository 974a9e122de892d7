"""Damaged tables: whatever stands in a file, it loads to a table that holds what it claims, or is refused."""

from __future__ import annotations

import collections
import json
import math
import pickle
import random
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tables import full_contents
from tiny import tiny_space

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_json import table_to_json, to_text

FULL = table_to_json(full_contents(tiny_space(), random.Random(3)))
TEXT = to_text(FULL).encode()
PICKLE = pickle.dumps(
    collections.OrderedDict(
        base=1.5,
        MBInvertedResBlock_112_16_0_24_k3_s2_relu=collections.OrderedDict({1: 0.5, 2: 0.75, 9: 1.0}),
        MBInvertedResBlock_56_24_48_40_k5_s2_swish=collections.OrderedDict({3: -0.5, 4: 0.25}),
    ),
    3,
)
FUZZ = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def holds_what_it_claims(table, folder):
    """Lookups are finite and positive, or refused; a table of ours comes back as it was saved."""
    for key, curve in table.contents.curves.items():
        block, size = block_of(key, curve)
        if block is None:
            continue
        try:
            values = table.widths_ms(block, size)
        except InputError as error:
            assert table.contents.measurement is None and "the file is corrupt" in str(error)  # the authors' only warn
        else:
            assert np.isfinite(values).all() and values.min() > 0
    assert 0 < table.base_ms() < math.inf
    str(table.description).encode()
    if table.contents.classifier is None:
        return
    for classes in (table.contents.classifier.curve.widths[0], table.contents.classifier.curve.widths[-1]):
        assert 0 < table.base_ms(classes) < math.inf
    table.save(folder / "again.json")
    assert LatencyTable.load(folder / "again.json").contents == table.contents


def block_of(key, curve):
    """The block that a key names, with all the widths of its curve, and its input size; None where there is none."""
    _, *numbers, kernel, stride, activation = key.split("_")
    size, channels, se_channels, out_channels = map(int, numbers)
    first, last = max(curve.widths[0], channels), curve.widths[-1]
    try:
        return Block(
            channels, last, se_channels, out_channels, int(kernel[1:]), int(stride[1:]), activation, (first, last)
        ), size
    except InputError:
        return None, size


def loads_or_is_refused(data, folder):
    """The table in the bytes, having passed; None where it was refused. Anything else escapes."""
    file = folder / "fuzzed.json"
    file.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LatencyTableWarning)
            table = LatencyTable.load(file)
    except InputError as error:
        assert "fuzzed.json" in str(error) and str(error).isprintable()
        return None
    holds_what_it_claims(table, folder)
    return table


# ---- documents ------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-2, 70_000),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([10**400, -(10**400), 2**63, 5e-324, 1e308, 1e-9, 1e15, -0.0, 0]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5), st.just("x" * 10_000)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def containers(document):
    """All objects and lists of a document, itself first."""
    yield document
    for value in document.values() if isinstance(document, dict) else document:
        if isinstance(value, dict | list):
            yield from containers(value)


@st.composite
def edited_documents(draw):
    """The full document with a few random edits anywhere in it."""
    document = json.loads(json.dumps(FULL))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(containers(document))))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        action = draw(st.sampled_from(["replace", "replace", "delete", "add", "swap", "lengthen"]))
        if action == "add" or not keys:
            if isinstance(place, dict):
                place[draw(st.one_of(st.text(max_size=8), st.sampled_from(list(FULL))))] = draw(values)
            else:
                place.append(draw(values))
            continue
        key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
        if action == "replace":
            place[key] = draw(values)
        elif action == "delete":
            del place[key]
        elif action == "swap":
            place[key], place[other] = place[other], place[key]
        else:
            times = 20_000 if isinstance(place[key], int | float) else 2
            place[key] = [place[key]] * draw(st.sampled_from([1, 2, times]))
    return document


@FUZZ
@given(edited_documents())
def test_an_edited_document(tmp_path, document):
    loads_or_is_refused(json.dumps(document).encode(), tmp_path)


@FUZZ
@given(st.data())
def test_a_number_replaced_by_another(tmp_path, data):
    """One at a time, so that many of them are accepted, and the tables they make are put to use."""
    document = json.loads(json.dumps(FULL))
    places = [
        (place, key)
        for place in containers(document)
        for key in (place if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], int | float)
    ]
    place, key = data.draw(st.sampled_from(places))
    place[key] = data.draw(numbers)
    loads_or_is_refused(json.dumps(document).encode(), tmp_path)


@pytest.mark.parametrize("ms", [1e-9, 1e-3, 1, 1e6, 1e15])
def test_figures_of_all_sizes_load(tmp_path, ms):
    document = json.loads(TEXT)
    document["correction"]["block_ms"] = 0
    for curve in document["blocks"].values():
        curve["ms"][0] = ms
    assert loads_or_is_refused(json.dumps(document).encode(), tmp_path) is not None


# ---- bytes ------------------------------------------------------------------------------------------------------


@st.composite
def damaged_bytes(draw, whole):
    """Bytes cut off, with bits flipped, parts left out, repeated, or other bytes put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 40))
        action = draw(st.sampled_from(["cut", "flip", "leave out", "repeat", "put in"]))
        if action == "cut":
            del data[start:]
        elif action == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif action == "leave out":
            del data[start : start + length]
        elif action == "repeat":
            data[start:start] = data[start : start + length]
        else:
            data[start:start] = draw(st.binary(max_size=10))
    return bytes(data)


@FUZZ
@given(damaged_bytes(TEXT))
def test_damaged_text(tmp_path, data):
    loads_or_is_refused(data, tmp_path)


@FUZZ
@given(damaged_bytes(PICKLE))
def test_damaged_pickles(tmp_path, data):
    loads_or_is_refused(data, tmp_path)


@FUZZ
@given(st.sampled_from([b"", b"{", b"\x80\x03", b"\x80\x04\x95"]), st.binary(max_size=200))
def test_random_bytes(tmp_path, start, data):
    assert loads_or_is_refused(start + data, tmp_path) is None


@pytest.mark.slow
@settings(FUZZ, max_examples=5_000)
@given(st.one_of(edited_documents().map(lambda document: json.dumps(document).encode()), damaged_bytes(PICKLE)))
def test_many_more(tmp_path, data):
    loads_or_is_refused(data, tmp_path)
