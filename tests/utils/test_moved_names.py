"""Imports that the documentation once gave still work, and say where the name is now."""

from importlib import import_module

import pytest

import tfnas
from tfnas.utils.lazy_names import MOVED


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in MOVED.items() for name in names])
def test_a_name_is_what_it_says_it_is_now(module, name):
    home, _, new_name = MOVED[module][name].partition(":")
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now {home}\.{new_name or name}"):
        found = getattr(import_module(module), name)
    assert found is getattr(import_module(home), new_name or name)


def test_what_never_was_there_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = import_module("tfnas.structures").nothing
    with pytest.raises(ModuleNotFoundError):
        import_module("tfnas.never_was")


def test_all_public_names_are_there():
    assert all(getattr(tfnas, name) is not None for name in tfnas.__all__)
