"""Looking for cycles seldom, and as before afterwards."""

import gc

import pytest

from tfnas.utils.garbage_collection import collecting_seldom


@pytest.fixture(autouse=True)
def as_it_was():
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.parametrize("fails", [False, True])
def test_it_ends_with_the_body(fails):
    gc.set_threshold(700, 11, 12)
    try:
        with collecting_seldom():
            assert gc.get_freeze_count() > 0
            assert gc.get_threshold()[0] > 700 and gc.get_threshold()[1:] == (11, 12)
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 11, 12))


def test_what_a_program_set_itself_stays():
    gc.set_threshold(0)  # it does without
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collecting_seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_freeze_count() == frozen


def test_new_cycles_are_still_found():
    class Node:
        alive = 0

        def __init__(self):
            self.itself = self
            Node.alive += 1

        def __del__(self):
            Node.alive -= 1

    with collecting_seldom():
        for _ in range(200_000):
            Node()
        assert Node.alive < 150_000
