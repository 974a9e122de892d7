"""`kill -9` in the middle of re-ranking: the same call goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from made_runs import NUM_CANDIDATES, rerank_quietly
from real_process import RealProcess

from tfnas.searching.reranking.rerank_tasks import JOURNAL_FILE


def numbers_in(run_dir):
    """The lines of a journal without what differs from run to run."""
    path = run_dir / JOURNAL_FILE
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in whole]


def result_in(run_dir):
    """rerank.json without what differs from run to run."""
    document = json.loads((run_dir / "rerank.json").read_text())
    del document["seconds"], document["search"], document["settings"]["model_path"]
    return document


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_killed_and_called_again(searched, tmp_path, share):
    undisturbed = shutil.copytree(searched, tmp_path / "undisturbed")
    rerank_quietly(undisturbed)
    expected = numbers_in(undisturbed)
    assert len(expected) == 4 * NUM_CANDIDATES

    process = RealProcess(rerank_quietly, searched, said=tmp_path / "said.txt")
    deadline = time.monotonic() + 120
    while len(numbers_in(searched)) < share * len(expected):
        assert process.is_running() and time.monotonic() < deadline, process.said()
        time.sleep(0.001)
    process.kill()
    found = numbers_in(searched)
    assert len(found) < len(expected) and not (searched / "rerank.json").exists()

    rerank_quietly(searched)
    assert numbers_in(searched) == expected  # in the same order, so none was computed twice
    assert result_in(searched) == result_in(undisturbed)
    for name in ("rerank.csv", "model.config", "architecture.json"):
        assert (searched / name).read_bytes() == (undisturbed / name).read_bytes()
