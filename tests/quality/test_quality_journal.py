"""The journal outlives a kill in the middle of a line, and belongs to one process."""

from __future__ import annotations

import pytest
from quality.journal import Journal

from tfnas.core.errors import InputError


def test_what_was_recorded_is_found_again_after_a_cut_off_line(tmp_path) -> None:
    path = tmp_path / "runs" / "journal.jsonl"
    journal = Journal(path)
    journal.record({"loss": 0.1 + 0.2}, kind="training", seed=1, recipe={"steps": 3, "lr": 0.1})
    journal.record({"loss": 2.0}, kind="training", seed=2, recipe={"steps": 3, "lr": 0.1})
    with pytest.raises(InputError, match="another benchmark is at work"):
        Journal(path)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = Journal(path)
    assert again.find(recipe={"lr": 0.1, "steps": 3}, seed=1, kind="training") == {"loss": 0.1 + 0.2}
    assert again.find(recipe={"lr": 0.1, "steps": 3}, seed=2, kind="training") is None
    assert again.find(recipe={"lr": 0.1, "steps": 4}, seed=1, kind="training") is None
    again.record({"loss": 2.0}, kind="training", seed=2, recipe={"steps": 3, "lr": 0.1})
    again.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"not JSON\n", b"[1]\n", b'{"kind": "training"}\n', b"3\n"])
def test_another_file_is_named_with_its_line(tmp_path, line) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"kind": "training", "numbers": {}}\n' + line)
    with pytest.raises(InputError, match=r"journal\.jsonl:2 is no line of this benchmark"):
        Journal(path)
