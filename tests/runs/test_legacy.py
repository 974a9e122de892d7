"""The authors' search checkpoints: read in both PyTorch formats; unsafe, damaged or foreign ones refused."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from authors_checkpoint import ALPHAS, WIDTHS, authors_document, small_space

import tfnas
from tfnas.core.errors import InputError
from tfnas.runs.authors_search import AuthorsSearch
from tfnas.supernet.supernet import Path, Supernet, one_hot_depths
from tfnas.utils.tensor_file import load_plain

SPACE = small_space()


def read(path):
    return AuthorsSearch.from_document(load_plain(path), str(path))


def saved(folder, document, zipped=True):
    path = folder / "searched_model_EE.pth.tar"
    torch.save(document, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["module.", "", "module._orig_mod."])
def test_what_was_learned(tmp_path, zipped, prefix):
    found = read(saved(tmp_path, authors_document(prefix), zipped))
    choice = found.choice(SPACE)
    assert found.num_classes == choice.num_classes == 7
    np.testing.assert_allclose(np.exp(choice.log_alphas), list(ALPHAS.values()), rtol=1e-6)
    np.testing.assert_allclose(np.exp(choice.log_depths[0]), [1.0])
    np.testing.assert_allclose(np.exp(choice.log_depths[1]), [0.4, 0.6], rtol=1e-6)
    np.testing.assert_array_equal(choice.widths, list(WIDTHS.values()))


def test_the_derived_network():
    architecture = AuthorsSearch.from_document(authors_document(), "made up").choice(SPACE).derived()
    assert architecture.to_text() == (
        "i3x16_n7:conv_k3_s2_c4_relu:mb_k3_s1_m4_se2_c4_relu"
        ":mb_k5_s2_m27_w16-32_se8_c6_relu"
        ":mb_k3_s1_m19_w12-24_c8_swish,mb_k5_s1_m61_w32-64_se16_c8_swish"
        ":conv_k1_s1_c12_swish"
    )


def test_weights_and_masks_go_into_a_supernet():
    document = authors_document()
    supernet = Supernet(SPACE, 7)
    found = AuthorsSearch.from_document(document, "made up")
    supernet.load_state_dict({name: found.state[name] for name in supernet.state_dict()})  # same names, same shapes
    supernet.set_active_channels(found.active_channels(SPACE))
    assert supernet.widths() == [list(widths) for widths in WIDTHS.values()]
    for number, (block, _) in enumerate(WIDTHS.items()):
        stage, position = block.split(".")
        for index, active in enumerate(supernet.active_channels()[number]):
            mask = document["mc_mask_dddict"][stage][position][index]
            assert active.tolist() == [channel for channel, value in enumerate(mask) if value == 1]
    logits = supernet(torch.randn(2, 3, 16, 16), Path((1, 0, 1)), one_hot_depths(SPACE.depth_choices, (1, 2)))
    assert logits.shape == (2, 7) and logits.isfinite().all()


def without(document, part, name):
    del document[part][name]
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: without(d, "state_dict", "module.stage2.betas"), "state_dict has no stage2.betas"),
        (lambda d: without(d, "state_dict", "module.stage2.block1.log_alphas"), "no stage2.block1.log_alphas"),
        (lambda d: without(d, "state_dict", "module.classifier.linear.bias"), "no classifier.linear.bias"),
        (
            lambda d: d["state_dict"].update({"module.stage3.betas": torch.zeros(1)}),
            "has stage3.betas, which the space",
        ),
        (
            lambda d: d["state_dict"].update({"module.stage1.block2.log_alphas": torch.zeros(2)}),
            "state_dict has stage1.block2.log_alphas, which the space has not",
        ),
        (lambda d: without(d, "mc_mask_dddict", "stage2"), "mc_mask_dddict has no entry stage2, block1, 0"),
        (lambda d: d["mc_mask_dddict"]["stage2"].update(block1=[]), "has no entry stage2, block1, 0"),
        (lambda d: d["mc_mask_dddict"]["stage2"]["block1"].pop(1), "has no entry stage2, block1, 1"),
        (lambda d: d["mc_mask_dddict"]["stage2"]["block1"].update({1: 3}), "must be a tensor of zeros and ones"),
        (lambda d: d["mc_mask_dddict"]["stage2"]["block1"][1].fill_(0.5), "must be a tensor of zeros and ones"),
        (lambda d: d["mc_mask_dddict"]["stage2"]["block1"][1].fill_(0), r"k5_e6_se in stage2\.block1 .* 24 to 48"),
        (lambda d: d["state_dict"].update({"module.stage2.betas": torch.zeros(3)}), "log_depths of stage 2"),
        (
            lambda d: d["state_dict"].update({"module.stage1.block1.log_alphas": torch.zeros(8)}),
            "is not of space small",
        ),
        (lambda d: d["state_dict"]["module.stage2.block1.log_alphas"].fill_(float("nan")), "must be finite"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    document = authors_document()
    change(document)
    with pytest.raises(InputError, match=message) as refusal:
        AuthorsSearch.from_document(document, "made up").choice(SPACE)
    assert "made up" in str(refusal.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "contains no state_dict"),
        ({"state_dict": 3}, "contains no state_dict"),
        ({"state_dict": {}}, "contains no mc_mask_dddict.*model.config that it was trained with"),
        ({"state_dict": {"epoch": 3}, "mc_mask_dddict": {}}, "entry epoch is a int, not a tensor"),
    ],
)
def test_other_files_are_refused(tmp_path, document, message):
    path = saved(tmp_path, document)
    with pytest.raises(InputError, match=message):
        read(path)


def test_another_space_is_refused():
    found = AuthorsSearch.from_document(authors_document(), "made up")
    with pytest.raises(InputError, match=r"made up is not of space imagenet: .*stage1\.block2"):
        found.choice(tfnas.space("imagenet"))


class _Runs:
    """Pickles as a call of `os.mkdir(path)`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_what_would_run_code_is_refused_and_does_not_run(tmp_path, form):
    document = {**authors_document(), "extra": _Runs(str(tmp_path / "ran"))}
    path = tmp_path / "searched.pth.tar"
    if form == "pickle":
        path.write_bytes(pickle.dumps(document["extra"]))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="are refused because loading them could run code"):
        load_plain(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(tmp_path, zipped):
    path = saved(tmp_path, authors_document(), zipped)
    whole = path.read_bytes()
    for length in (0, 1, 10, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"searched_model_EE\.pth\.tar is (no readable checkpoint|empty)"):
            load_plain(path)


def test_random_damage_never_raises_anything_else(tmp_path):
    random = np.random.default_rng(0)
    path = saved(tmp_path, {"state_dict": {"a": torch.zeros(2)}, "mc_mask_dddict": {}}, zipped=False)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[random.integers(len(whole), size=2)] = random.integers(256, size=2)
        path.write_bytes(damaged.tobytes())
        try:
            load_plain(path)
        except InputError as error:
            assert "no readable checkpoint" in str(error)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth\.tar cannot be read: No such file"):
        load_plain(tmp_path / "none.pth.tar")
