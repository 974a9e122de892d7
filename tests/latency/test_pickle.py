"""The authors' pickled tables: read exactly, warned about, and nothing else admitted, let alone run."""

from __future__ import annotations

import collections
import json
import os
import pickle
import re
import struct
import warnings

import numpy as np
import pytest

import tfnas
from tfnas.core.errors import InputError
from tfnas.latency import authors_table as authors
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.utils.pickles import MOST_NESTED, NUMPY_NAMES

KEY = "MBInvertedResBlock_112_16_0_24_k3_s2_relu"
OTHER_KEY = "MBInvertedResBlock_56_24_48_40_k5_s2_swish"


def authors_document(**changes):
    """A few of the authors' numbers (`latency_gpu.pkl`), in their structure."""
    row = collections.OrderedDict((width, 0.5 + 0.001 * width) for width in range(1, 129))
    row[1] = -0.23310141
    document = collections.OrderedDict(base=1.985807514190674)
    document[KEY] = row
    document[OTHER_KEY] = collections.OrderedDict((width, 0.002 * width) for width in range(1, 193))
    document.update(changes)
    return document


def written(folder, document, protocol=3):
    path = folder / "latency.pkl"
    path.write_bytes(document if isinstance(document, bytes) else pickle.dumps(document, protocol))
    return path


def load_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatencyTableWarning)
        return LatencyTable.load(path)


def block(width, kernel_size=3):
    space = tfnas.space("imagenet")
    operation = space.operations[0 if kernel_size == 3 else 2]
    return space.block(space.blocks[0], operation, width)


@pytest.mark.parametrize("protocol", range(6))
def test_a_table_of_the_authors_form_loads(tmp_path, protocol):
    path = written(tmp_path, authors_document(), protocol)
    with pytest.warns(LatencyTableWarning, match=r"1 non-positive entries, for instance -0\.2331 ms for .*112"):
        table = LatencyTable.load(path)
    assert table.base_ms() == 1.985807514190674
    assert table.block_ms(block(48), 112) == 0.5 + 0.048
    assert table.batch_size is None
    assert table.description == "the authors' table (no device recorded)"
    assert len(table.fingerprint) == 16


def test_a_negative_entry_that_is_asked_for_is_an_error(tmp_path):
    path = written(
        tmp_path,
        authors_document(**{KEY: collections.OrderedDict({w: 0.1 if w != 40 else -0.2 for w in range(1, 65)})}),
    )
    table = load_quietly(path)
    assert table.block_ms(block(48), 112) == 0.1
    with pytest.raises(InputError, match=rf"gives -0\.2 ms for {KEY} at width 40: the file is corrupt"):
        table.widths_ms(block(48), 112)
    with pytest.raises(InputError, match="at width 40"):
        table.block_ms(block(40), 112)


def test_a_table_without_provenance_is_not_written_in_our_form(tmp_path):
    table = load_quietly(written(tmp_path, authors_document()))
    with pytest.raises(InputError, match="do not say where they were measured"):
        table.save(tmp_path / "table.json")
    assert not (tmp_path / "table.json").exists()


def test_its_own_space_only(tmp_path):
    table = load_quietly(written(tmp_path, authors_document()))
    with pytest.raises(InputError, match=r"stage1\.block1 of the space 'digits'.*nearest it has"):
        table.check(tfnas.space("digits"))


class _Runs:
    """Pickles as a call of `os.mkdir(path)`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_that_calls_something_is_refused_and_does_not_run(tmp_path, protocol, inside):
    trap = _Runs(str(tmp_path / "ran"))
    path = written(tmp_path, authors_document(**{KEY: trap}) if inside else trap, protocol)
    with pytest.raises(InputError, match=r"latency\.pkl: "):
        LatencyTable.load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["os getcwd", "builtins eval", "builtins dict", "collections deque", "numpy ndarray"])
@pytest.mark.parametrize("called", [b")R.", b"."])
def test_other_names_are_refused(tmp_path, name, called):
    module, attribute = name.split()
    for data in (
        b"\x80\x03c" + f"{module}\n{attribute}\n".encode() + called,
        b"\x80\x04"
        + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in name.split())
        + b"\x93"
        + called,
    ):
        with pytest.raises(InputError, match=rf"it contains {module}\.{attribute}, which is refused: save dict"):
            LatencyTable.load(written(tmp_path, data))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_plain_dicts_whole_numbers_and_numpys_say_the_same(tmp_path, protocol, core):
    plain = load_quietly(written(tmp_path, authors_document(base=2.0, **{KEY: {24: 0.25, 48: 3.0}})))
    numbers = {np.int64(24): np.float32(0.25), np.uint8(48): np.float64(3)}
    for changes in (
        {"base": 2, KEY: {24: 0.25, 48: 3}},
        {"base": np.float64(2), KEY: numbers},
        {"base": np.int16(2), KEY: collections.OrderedDict(numbers)},
        {"base": np.float64(2).astype(">f8"), KEY: numbers},
    ):
        document = {**authors_document(), **changes}
        data = pickle.dumps(document, protocol)
        if protocol < 4:  # names as another version of numpy writes them; in later protocols they have lengths
            data = re.sub(rb"numpy\._?core\.multiarray\n", f"{core}.multiarray\n".encode(), data)
        table = load_quietly(written(tmp_path, data))
        assert table.contents == plain.contents
        assert type(table.contents.base["base"].ms) is float
        assert all(type(ms) is float for ms in table.contents.curves[KEY].ms)


class _Calls:
    """Pickles as a call of `function` with `arguments`, and of the result's `__setstate__` with `state`."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    "call",
    [
        _Calls(np.dtype, ("O8", False, True)),
        _Calls(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": 1}, 8, 1, 0)),
        _Calls(np.dtype, ("f8", False, True), (3, "<", None, None, None, 2**60, 1, 64)),
        _Calls(np.dtype, ("f8", False, True), (4, "<", None, None, None, -1, -1, 0, {"metadata": 1})),
        _Calls(np.dtype, ("f8", False, False), ()),
        _Calls(np.float64(1).__reduce__()[0], (1, b"")),
        _Calls(np.float64(1).__reduce__()[0], (np.dtype("f8"), b"\0" * 7)),
        _Calls(np.float64(1).__reduce__()[0], (np.dtype("f8"), "text")),
        _Calls(collections.OrderedDict, (), {"items": 1, "pop": 2}),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpys_names_make_numbers_alone(tmp_path, protocol, call):
    """Whatever they are called with, they make a number or nothing; and what a pickle does to a class stays undone."""
    before = {name: dict(vars(kind)) for name, kind in NUMPY_NAMES.items()}
    for document in (authors_document(base=call), authors_document(**{KEY: {1: call}}), call):
        with pytest.raises(InputError, match=r"latency\.pkl: a pickle of another kind"):
            LatencyTable.load(written(tmp_path, document, protocol))
    assert {name: dict(vars(kind)) for name, kind in NUMPY_NAMES.items()} == before
    assert np.dtype("f8").byteorder == "="


@pytest.mark.parametrize("name", ["numpy dtype", "numpy.core.multiarray scalar", "collections OrderedDict"])
def test_a_class_itself_is_not_changed(tmp_path, name):
    """BUILD on what a name stands for, with a state of entries and with one of attributes."""
    module, attribute = name.split()
    for state in (b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x01\x00\x00\x00aK\x01s\x86"):
        data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + state + b"b."
        with pytest.raises(InputError, match=r"latency\.pkl: "):
            LatencyTable.load(written(tmp_path, data))
    assert not hasattr(NUMPY_NAMES.get(f"{module}.{attribute}", collections.OrderedDict), "a")


def test_what_follows_a_table_is_refused(tmp_path):
    whole = pickle.dumps(authors_document(), 3)
    for rest in (b".", whole):
        with pytest.raises(InputError, match=f"it has trailing data after byte {len(whole)}"):
            LatencyTable.load(written(tmp_path, whole + rest))


SCALAR = np.float64(1).__reduce__()[0]


@pytest.mark.parametrize("protocol", range(6))
def test_other_structures_are_refused_in_every_protocol_without_words_of_pickles(tmp_path, protocol):
    for thing in ([2.0], {2.0}, np.zeros(2), collections.defaultdict(float), collections.Counter("a"), b"1", "1"):
        with pytest.raises(InputError) as refused:
            LatencyTable.load(written(tmp_path, authors_document(**{KEY: {1: thing}}), protocol))
        assert not re.search(r"EMPTY|instruction|_reconstruct|opcode|[A-Z]{4}", str(refused.value))


def test_a_table_of_python_2_is_read(tmp_path):
    data = b"(dp0\nS'base'\np1\nF2.5\nsS'" + KEY.encode() + b"'\np2\n(dp3\nI24\nF0.25\nsL48L\nI3\nss."
    assert pickle.loads(data) == {"base": 2.5, KEY: {24: 0.25, 48: 3}}
    table = load_quietly(written(tmp_path, data))
    assert table.base_ms() == 2.5
    assert table.contents.curves[KEY].ms == (0.25, 3.0)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("twice", [b"base", KEY.encode(), b"24"])
@pytest.mark.parametrize("protocol", [0, 2])
def test_what_stands_twice_is_refused(tmp_path, plain, twice, protocol):
    kind = dict if plain else collections.OrderedDict
    row = kind({24: 0.25, 99: 3.0})
    other = KEY.replace("112", "113")
    document = kind({"base": 2.0, "bass": 2.0, KEY: row, other: kind({1: 1.0})})
    data = pickle.dumps(document, protocol)
    for unlike, alike in {b"base": [(b"bass", b"base")], b"24": [(b"I99\n", b"I24\n"), (b"Kc", b"K\x18")]}.get(
        twice, [(other.encode(), KEY.encode())]
    ):
        data = data.replace(unlike, alike)
    with pytest.raises(InputError, match="duplicate block or width"):
        LatencyTable.load(written(tmp_path, data))


def test_a_row_that_two_blocks_share_is_none_that_stands_twice(tmp_path):
    row = {24: 0.25, 48: 3.0}
    table = load_quietly(written(tmp_path, {"base": 1.0, KEY: row, OTHER_KEY: row}))
    assert table.contents.curves[KEY] == table.contents.curves[OTHER_KEY]


@pytest.mark.parametrize("protocol", range(6))
def test_deep_nesting_is_refused_before_anything_is_read(tmp_path, monkeypatch, protocol):
    """As a key too, where a container counts like any other."""
    key = (1,)
    for _ in range(MOST_NESTED):
        key = (key,)
    monkeypatch.setattr(authors._TableUnpickler, "load", lambda _: pytest.fail("it is read"), raising=False)
    with pytest.raises(InputError, match="nested more than 100 deep"):
        LatencyTable.load(written(tmp_path, {"base": 1.0, key: 1.0}, protocol))


def test_a_frame_that_no_memory_holds_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"latency\.pkl: a pickle of another kind .*damaged"):
        LatencyTable.load(written(tmp_path, b"\x80\x04\x95" + b"\xff" * 8 + b"N."))


class _Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "elsewhere" if obj == "outside" else None


def test_references_to_the_outside_are_refused(tmp_path):
    path = tmp_path / "latency.pkl"
    with path.open("wb") as file:
        _Persistent(file, 3).dump(authors_document(base="outside"))
    with pytest.raises(InputError, match="it contains a reference to something outside the file"):
        LatencyTable.load(path)


def test_extension_codes_and_memory_tricks_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(authors._TableUnpickler, "load", lambda _: pytest.fail("it is read"), raising=False)
    with pytest.raises(InputError, match="it contains other things: a table is a dict of numbers"):
        LatencyTable.load(written(tmp_path, b"\x80\x02\x82\x01."))
    for data in (b"\x80\x02)r" + struct.pack("<I", 4_000_000_000) + b".", b"(dp4000000000\n."):
        with pytest.raises(InputError, match=r"it is damaged, truncated, or was not written by"):
            LatencyTable.load(written(tmp_path, data))


@pytest.mark.parametrize("keep", [1, 2, 30, 500, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    with pytest.raises(InputError, match=r"pickle of another kind .*: it is damaged, truncated"):
        LatencyTable.load(written(tmp_path, pickle.dumps(authors_document(), 3)[:keep]))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"base": 1.0}, "contains no blocks"),
        ({}, "with a number `base`"),
        ([1.0], r"it contains a list or a set: save one number, float\(ms\), for every width$"),
        (3.5, "must be an OrderedDict"),
        (collections.OrderedDict(), "with a number `base`"),
        (collections.OrderedDict(base=1.0), "contains no blocks"),
        (authors_document(base=True), "base must be above 0 ms, .*got True"),
        (authors_document(base="1"), "base must be above 0 ms, .*got '1'"),
        (authors_document(base=10**400), "base must be above 0 ms, .*got a whole number of 1329 bits"),
        (authors_document(base=np.array(1.0)), r"it contains an array: save one number, float\(ms\), for"),
        (authors_document(base=np.bool_(True)), "base must be above 0 ms, .*got True"),
        (authors_document(base=float("nan")), "base must be above 0 ms"),
        (authors_document(base=-1.0), "base must be above 0 ms"),
        (authors_document(stem=collections.OrderedDict({1: 1.0})), "'stem' is not a block"),
        (authors_document(**{KEY: 1.0}), "must be an OrderedDict of width -> ms"),
        (authors_document(**{KEY: collections.OrderedDict()}), "must be an OrderedDict of width -> ms"),
        (authors_document(**{KEY: collections.OrderedDict({"1": 1.0})}), "has the width '1'"),
        (authors_document(**{KEY: collections.OrderedDict({0: 1.0})}), "has the width 0"),
        (authors_document(**{KEY: collections.OrderedDict({2_000_000_000: 1.0})}), "has the width 2000000000"),
        (authors_document(**{KEY: collections.OrderedDict({1: float("inf")})}), "at width 1 must be a finite number"),
        (authors_document(**{KEY: {1: True}}), "at width 1 must be a finite number"),
        (authors_document(**{KEY: {1: None}}), "at width 1 must be a finite number of ms, got None"),
        (authors_document(**{KEY: {1: 10**400}}), "at width 1 must be a finite number"),
        (authors_document(**{KEY: {1: np.float32("nan")}}), "at width 1 must be a finite number"),
        (
            authors_document(**{KEY: {1: np.datetime64("2020-01-01")}}),
            r"an unsupported kind \(numpy\.dtype of .M8.*save float\(ms\), and int",
        ),
        (
            authors_document(**{KEY: {1: [2.0]}}),
            r"it contains a list or a set: save one number, float\(ms\), for every width$",
        ),
        (authors_document(**{KEY: {1: {2.0}}}), "it contains a list or a set: save one number"),
        (authors_document(**{KEY: collections.defaultdict(float)}), r"contains collections\.defaultdict, .*save dict"),
        (authors_document(base=_Calls(SCALAR, (np.dtype("<U1"), b"\0\0\x11\0"))), r"\(numpy\.str_ of what is no"),
        (authors_document(**{KEY: {1.0: 2.0}}), "has the width 1.0"),
        (authors_document(**{KEY: {True: 2.0}}), "has the width True"),
    ],
)
def test_other_structures_are_refused(tmp_path, document, message):
    with pytest.raises(InputError, match=message):
        LatencyTable.load(written(tmp_path, document))


# ---- the authors' files themselves --------------------------------------------------------------------------------


def net_of(space, entry):
    depths, operations, widths = [], [], []
    for number, stage in enumerate(space.stages, 1):
        chosen, width = entry["arch"][f"stage{number}"], entry["widths"][f"stage{number}"]
        depths.append(len(chosen))
        for position in range(1, stage.blocks + 1):
            operations.append(chosen.get(f"block{position}", 0))
            widths.append(width.get(f"block{position}", 1))
    return space.architecture(operations, depths, widths, 1000)


@pytest.mark.parametrize(("device", "faults"), [("gpu", 88), ("cpu", 84)])
def test_sums_equal_those_of_the_authors_program(shared_data, device, faults):
    with pytest.warns(LatencyTableWarning, match=f"{faults} non-positive entries"):
        table = LatencyTable.load(shared_data / "tfnas" / f"latency_{device}.pkl")
    space = tfnas.space("imagenet")
    table.check(space)
    nets = json.loads((shared_data / "oracles" / "tfnas.json").read_text())["nets"]
    sums = [table.architecture_ms(net_of(space, entry)) for entry in nets]
    assert sums == pytest.approx([entry[f"table_ms_{device}"] for entry in nets], rel=1e-9)
    assert sums[0] == pytest.approx({"gpu": 9.304095482826233, "cpu": 43.422337567806245}[device], rel=1e-9)
