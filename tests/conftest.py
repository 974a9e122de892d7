"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tfnas.searching.differentiable.differentiable_search import SearchResult
    from tfnas.searching.differentiable.search_config import SearchConfig

_PROJECT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)  # on a machine with other work, two threads wait for each other far longer than they compute


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the authors' files and oracle values (TFNAS_TEST_DATA, else ../shared/data); skips where absent."""
    folder = Path(os.environ.get("TFNAS_TEST_DATA", _PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no oracle data at {folder}: set TFNAS_TEST_DATA to the folder that holds tfnas/ and oracles/")
    return folder


@pytest.fixture(scope="session")
def searched_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, SearchResult]:
    """The configuration and the result of a small search that has ended; its files are to be read only."""
    from rich.console import Console
    from small_search import small_config

    from tfnas.searching.differentiable.differentiable_search import search

    config = small_config(tmp_path_factory.mktemp("searched"), "run")
    return config, search(config, Console(quiet=True))


@pytest.fixture(scope="session")
def small_search(searched_small: tuple[SearchConfig, SearchResult]) -> Path:
    """The run directory of that search, with its inputs beside it."""
    return searched_small[1].run_dir


@pytest.fixture(params=["compiled", "operators"])
def kernels_or_operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search's passes by the compiled kernels, where they are, and by PyTorch's operators."""
    from tfnas.supernet.cpu import row_ops

    if request.param == "operators":
        monkeypatch.setattr(row_ops, "level", None)
    elif row_ops.level is None:
        pytest.skip("this installation has no compiled kernels: it needs a C compiler")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search's steps compute here as they do on a GPU: operations grouped, parameters updated together."""
    from tfnas.supernet import elastic

    monkeypatch.setattr(elastic, "use_cpu_kernels", lambda device: False)


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors and modules are in double precision during the test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
