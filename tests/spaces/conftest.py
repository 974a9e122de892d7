"""The toy family, known to the package for one test."""

import pytest
from toy_family import FAMILY

from tfnas.spaces import families


@pytest.fixture
def toy_family(monkeypatch):
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register_family(FAMILY)
    return FAMILY
