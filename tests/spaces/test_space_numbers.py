"""Space files with numbers that no space has, and with fields that stand twice: refused at once, by name."""

from __future__ import annotations

import pytest
import yaml

import tfnas
from tfnas.core.errors import InputError


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.update(image_size=2**63), "image_size must be 65536 at most, got 9223372036854775808"),
    (lambda d: d.update(image_size=10**400), "image_size must be 65536 at most, got a whole number of 1329 bits"),
    (lambda d: d.update(stem_stride=256), "stem_stride must be 255 at most, got 256"),
    (lambda d: d.update(stem_channels=65_537), "stem_channels must be 65536 at most"),
    (lambda d: d.update(feature_mix_channels=10**9), "feature_mix_channels must be 65536 at most"),
    (lambda d: d.update(width_multiple=10**9), "width_multiple must be 65536 at most"),
    (lambda d: d["stages"][1].update(blocks=10**12), r"stages\[1\]\.blocks must be 1000 at most"),
    (lambda d: d["stages"][1].update(channels=65_537), r"stages\[1\]\.channels must be 65536 at most"),
    (lambda d: d.update(operations=["k257_e3"]), "operations: the kernel of k257_e3 must be 255 at most"),
    (lambda d: d.update(operations=["k3_e99999"]), "the width of k3_e99999 in stage1.block1 must be 65536"),
    (lambda d: d.update(operations=["k3_e" + "9" * 5000]), r"operations: 'k3_e9+'\.\.\. is not an operation"),
    (lambda d: d.update(width_bounds=["2/3", "1e999999999"]), "width_bounds must be two numbers"),
    (lambda d: d.update(width_bounds=["2/3", "9" * 5000]), "width_bounds must be two numbers"),
])  # fmt: skip
def test_numbers_that_no_space_has_are_refused(tmp_path, change, message):
    document = tfnas.space("digits").to_json()
    change(document)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(InputError, match=message) as refused:
        tfnas.space(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(refused.value)


@pytest.mark.parametrize("text", [
    "extends: digits\noperations: [k3_e3]\nstem_channels: 16\noperations: [k5_e6]\n",
    "extends: digits\nschedule: {epochs: 7, T: 4, epochs: 9}\n",
])  # fmt: skip
def test_a_field_that_stands_twice_is_refused_with_its_line(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=r"duplicate key '(operations|epochs)'\s+in .*line [24], column"):
        tfnas.space(tmp_path / "mine.yaml")


def test_merged_fields_may_be_replaced(tmp_path):
    """YAML's own way of writing a mapping with changes."""
    text = "extends: digits\nschedule:\n  <<: {epochs: 12, T: 4}\n  epochs: 13\n"
    (tmp_path / "mine.yaml").write_text(text)
    schedule = tfnas.space(tmp_path / "mine.yaml").schedule
    assert schedule.items() >= {"epochs": 13, "T": 4}.items()
