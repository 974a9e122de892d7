"""Files of tensors: damage anywhere shows or does nothing, numpy's numbers are read, and other objects are refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pickle
import random
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from made_networks import digits_architecture, random_network

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.preprocessing import Preprocessing
from tfnas.runs.model_file import TrainedModel
from tfnas.utils.pickles import MOST_NESTED, NUMPY_NAMES, StoredNumber, StoredType
from tfnas.utils.tensor_file import load_plain, load_plain_bytes

NUMBERS = {
    "best_acc_top1": np.float64(75.25),
    "float32": np.float32(0.1),
    "float16": np.float16(-2),
    "big_endian": np.float64(3.5).astype(">f8"),
    "epoch": np.int64(-3),
    "uint8": np.uint8(200),
    "amp": np.bool_(True),
    "complex": np.complex64(1 + 2j),
    "name": np.str_("résumé"),
}


def saved(document, zipped=True):
    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def with_names_of(core, data):
    """The file as another version of numpy names its own parts (`numpy.core` or `numpy._core`)."""
    if not data.startswith(b"PK"):
        return re.sub(rb"numpy\._?core\.", f"{core}.".encode(), data)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as other:
        for name in archive.namelist():
            other.writestr(name, re.sub(rb"numpy\._?core\.", f"{core}.".encode(), archive.read(name)))
    return made.getvalue()


def equal(first, second):
    """Bit for bit, and in every type, shape, name and place."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        alike = first.dtype == second.dtype and first.shape == second.shape and first.stride() == second.stride()
        return alike and first.numpy().tobytes() == second.numpy().tobytes()
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def kinds_of_flips(whole, bits):
    """How many files with one of these bits flipped are refused, and how many load; those that load must be equal."""
    original = load_plain_bytes(io.BytesIO(whole), "the file")
    refused = 0
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert equal(load_plain_bytes(io.BytesIO(damaged), "the file"), original), bit
        except InputError:
            refused += 1
    return refused, len(bits) - refused


def test_no_flipped_bit_of_a_trained_model_gives_other_weights(tmp_path):
    network = random_network()
    preprocessing = Preprocessing.of("digits", 16)
    names = tuple("abcdefghij")
    TrainedModel(digits_architecture(), network.state_dict(), names, preprocessing, "digits").save(
        tmp_path / "model.pt"
    )
    whole = (tmp_path / "model.pt").read_bytes()
    bits = random.Random(0).sample(range(8 * len(whole)), 150)
    refused, _ = kinds_of_flips(whole, bits)
    assert refused > 50
    places = [whole.index(value.numpy().tobytes()) for value in network.state_dict().values() if value.numel() > 100]
    for place in places[:10]:  # in the weights themselves: each is refused, whoever reads the file
        damaged = bytearray(whole)
        damaged[place + 5] ^= 4
        (tmp_path / "damaged.pt").write_bytes(damaged)
        for read in (tfnas.load, load_plain, lambda path: tfnas.load_weights(random_network(), path)):
            with pytest.raises(InputError, match=r"damaged\.pt is no readable checkpoint: it is damaged"):
                read(tmp_path / "damaged.pt")


def test_the_directory_of_an_archive_may_be_damaged_too():
    """Every bit behind the tensors: torch reads nothing of a member that is marked as a folder, and says nothing."""
    whole = saved({"weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), "count": 3})
    start = whole.index(b"PK\x01\x02")
    refused, loaded = kinds_of_flips(whole, range(8 * start, 8 * len(whole)))
    assert refused and loaded


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_that_is_there_twice_is_refused():
    whole = saved({"weight": torch.arange(3.0)})
    made = io.BytesIO(whole)
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr(next(name for name in archive.namelist() if name.endswith("data/0")), b"\0" * 12)
    with pytest.raises(InputError, match="is damaged"):
        load_plain_bytes(io.BytesIO(made.getvalue()), "the file")


@pytest.mark.slow
def test_no_flipped_bit_of_a_whole_file_gives_another_document():
    whole = saved({"state_dict": {"a": torch.arange(7.0), "b": torch.ones(2, 2)}, "names": ["x"], "n": 3})
    kinds_of_flips(whole, range(8 * len(whole)))


@pytest.fixture
def without_checksums():
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.usefixtures("without_checksums")
def test_files_without_checksums_load(zipped):
    """As torch writes them on request, and as it wrote them before version 1.6."""
    document = {"weight": torch.arange(3.0)}
    assert equal(load_plain_bytes(io.BytesIO(saved(document, zipped)), "the file"), document)


def test_what_follows_an_old_file_is_refused():
    whole = saved({"weight": torch.arange(3.0)}, zipped=False)
    for rest in (b"x", whole):
        with pytest.raises(
            InputError, match="the file is no readable checkpoint: it has trailing data; write or copy it again"
        ):
            load_plain_bytes(io.BytesIO(whole + rest), "the file")


# ---- numpy's numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpys_numbers_are_read(zipped, core):
    document = {"state_dict": {"weight": torch.arange(3.0)}, **NUMBERS, "dtype": np.dtype("float32")}
    found = load_plain_bytes(io.BytesIO(with_names_of(core, saved(document, zipped))), "the file")
    assert found["state_dict"]["weight"].tolist() == [0, 1, 2]
    assert {name: found[name] for name in NUMBERS} == NUMBERS
    assert {type(found[name]) for name in NUMBERS} == {float, int, bool, complex, str}
    assert found["dtype"].dtype == np.dtype("float32")


@pytest.mark.parametrize("value", ["", "a", "résumé", "\0a\0", "\U0001f40d", "\ud800"])
@pytest.mark.parametrize("order", "<>=")
def test_text_is_what_numpy_makes_of_it(value, order):
    array = np.array(value, f"{order}U7")
    kind = StoredType("U7")
    kind.__setstate__((3, order, None, None, None, 28, 4, 8))
    assert StoredNumber(kind, array.tobytes()) == array.item()
    assert StoredNumber(StoredType("S4"), b"a\0b\0") == np.array(b"a\0b\0", "S4").item() == b"a\0b"


class Call:
    """Pickles as a call, with what `__setstate__` of the result is called with."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


SCALAR = np.float64(1).__reduce__()[0]


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (np.zeros(2), "numpy.ndarray"),
        (np.datetime64("2020-01-01"), "numpy.dtype"),
        (np.dtype("O"), "numpy.dtype"),
        (np.dtype([("a", "f4")]), "numpy.dtype"),
        (Call(np.dtype, ("f8", False, True), (3, "<", ("f8", (2,)), None, None, -1, -1, 0)), "numpy.dtype"),
        (Call(np.dtype, ("f8", False, False), (3, "<", None, None, None, -1)), "numpy.dtype"),
        (Call(SCALAR, (np.dtype("f8"), b"\1" * 7)), "numpy.generic"),
        (Call(SCALAR, (1.5, b"\1" * 8)), "numpy.generic"),
        (Call(SCALAR, (np.dtype("<U2"), b"a\0\0\0\0\0\x11\0")), "numpy.str_"),
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (datetime.timedelta(1), "datetime.timedelta"),
        (random.Random(1), "random.Random"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_other_objects_are_refused_by_name_with_the_way_out(tmp_path, thing, name, zipped):
    before = {key: dict(vars(kind)) for key, kind in NUMPY_NAMES.items()}
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(saved({"state_dict": {}, "args": thing}, zipped))
    with pytest.raises(InputError, match=rf"it contains objects other than .* \({re.escape(name)}\), which") as refused:
        load_plain(path)
    assert "torch.save(model.state_dict(), 'weights.pt')" in str(refused.value)
    assert f"torch.load({str(path)!r}, weights_only=False)" in str(refused.value)
    assert {key: dict(vars(kind)) for key, kind in NUMPY_NAMES.items()} == before
    assert np.dtype("f8").byteorder == "="


def test_the_way_out_works(tmp_path, monkeypatch):
    """The lines of the message, typed as they stand."""
    monkeypatch.chdir(tmp_path)
    trained, network = random_network(), random_network(seed=1)
    torch.save({"state_dict": trained.state_dict(), "args": argparse.Namespace(lr=0.1)}, "checkpoint.pth.tar")
    with pytest.raises(InputError) as refused:
        tfnas.load_weights(network, "checkpoint.pth.tar")
    lines = re.search(r"(checkpoint = torch\.load\(.*\)); (torch\.save\(.*\))$", str(refused.value))
    exec("\n".join(lines.groups()), {"torch": torch})
    tfnas.load_weights(network, "weights.pt")
    assert equal(dict(network.state_dict()), dict(trained.state_dict()))


def test_nothing_is_allowed_but_while_a_file_is_read():
    before = set(torch.serialization.get_safe_globals())
    load_plain_bytes(io.BytesIO(saved({"best": np.float64(1)})), "the file")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(saved({"best": np.float64(1)})), weights_only=True)


class Allowed:
    """What a program around may have told torch to allow."""

    def __init__(self):
        self.number = 3


def test_what_the_program_around_allows_is_not_allowed_here():
    data = saved({"state_dict": {}, "other": Allowed()})
    with torch.serialization.safe_globals([Allowed]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(InputError, match=r"it contains objects other than .* \(test_tensor_file\.Allowed\), which"):
            load_plain_bytes(io.BytesIO(data), "the file")
        assert set(torch.serialization.get_safe_globals()) == before
        assert torch.load(io.BytesIO(data), weights_only=True)["other"].number == 3


def test_what_another_thread_allows_meanwhile_stays_allowed(monkeypatch):
    read = torch.load

    def allow_and_read(*arguments, **options):
        torch.serialization.add_safe_globals([Allowed])
        return read(*arguments, **options)

    monkeypatch.setattr(torch, "load", allow_and_read)
    before = set(torch.serialization.get_safe_globals())
    load_plain_bytes(io.BytesIO(saved({"n": 1})), "the file")
    after = set(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(before))
    assert after == before | {Allowed}


def test_threads_may_read_at_once():
    data = saved({"best": np.float64(1), "weight": torch.arange(3.0)})
    before = set(torch.serialization.get_safe_globals())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: load_plain_bytes(io.BytesIO(data), "the file")["best"], range(200)))
    assert found == [1.0] * 200
    assert set(torch.serialization.get_safe_globals()) == before


# ---- how deep, and in which protocol ------------------------------------------------------------------------------


def nested(make, depth):
    value = make(0)
    for _ in range(depth - 1):
        value = make(value)
    return value


MAKERS = {
    "tuples": lambda value: (value,),
    "pairs": lambda value: (value, 1),
    "long tuples": lambda value: (1, 2, value, 4),
    "lists": lambda value: [value],
    "dicts": lambda value: {"a": value},
    "ordered dicts": lambda value: collections.OrderedDict(a=value),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_deep_nesting_is_refused_before_it_is_built(monkeypatch, make, zipped):
    whole = saved({"a": nested(make, 30), "weight": torch.arange(3.0)}, zipped)
    assert load_plain_bytes(io.BytesIO(whole), "the file")["a"] == nested(make, 30)
    deep = saved({"a": nested(make, MOST_NESTED)}, zipped)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch reads it"))
    with pytest.raises(InputError, match=r"^the file is no readable checkpoint: .* nested more than 100 deep$"):
        load_plain_bytes(io.BytesIO(deep), "the file")


def test_nesting_through_the_memory_of_a_pickle_counts(monkeypatch):
    """`tuple(stored)`, stored, fetched and put into a tuple again."""
    data = b"\x80\x02)q\0" + b"0h\0\x85q\0" * (MOST_NESTED + 1) + b"."
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch reads it"))
    with pytest.raises(InputError, match="nested more than 100 deep"):
        load_plain_bytes(io.BytesIO(data), "the file")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_later_protocol_is_read_or_named(zipped, protocol):
    file = io.BytesIO()
    document = {"weight": torch.arange(3.0), "n": 1}
    torch.save(document, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    if protocol == 3:
        assert equal(load_plain_bytes(io.BytesIO(file.getvalue()), "the file"), document)
        return
    with pytest.raises(InputError, match=f"saved with pickle protocol {protocol}, .*again without pickle_protocol"):
        load_plain_bytes(io.BytesIO(file.getvalue()), "the file")
