from __future__ import annotations

import math

import numpy as np
import pytest
from exact_draws import ExactDraws, zeroshot_values
from torch import nn
from torch.nn import functional

import tfnas
from tfnas.core.errors import InputError
from tfnas.proxies.entropy import effectiveness
from tfnas.proxies.incorporated import PUBLISHED_WEIGHTS, combined, penalised_entropy
from tfnas.proxies.multiscale_entropies import quantized_std
from tfnas.proxies.score import ScoreFailed, score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import unequal_depth_penalty
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.spaces.zen.zoo_networks import facts

TINYNAS = ("deepmad-R18", "deepmad-R50", "deepmad-29M-224", "R50-like", "maedet_s", "mixed7d0G")
TWO_STAGES = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,4,1)SuperResK1K5K1(16,24,1,4,2)"


def entry_of(shared_data, name):
    entry = zeroshot_values(shared_data)["tinynas"][name]
    return entry, Structure.from_tinynas(entry["structure"])


def close(value, expected):
    assert math.isclose(value, expected, rel_tol=1e-12), (value, expected)


# ---- by hand ------------------------------------------------------------------------------------------------------


def hand_entropies():
    """E at the end of the first block and of the network."""
    first = 0.5 * math.log(3 * 9)
    second = 0.5 * (math.log(8 * 9) + math.log(4 * 9))
    third = 0.5 * (math.log(16) + math.log(4 * 25) + math.log(4))  # two layers of two units each
    others = 0.5 * (math.log(24) + math.log(4 * 25) + math.log(4))
    return first, first + second + third + 3 * others


def test_entropy_by_hand():
    first, whole = hand_entropies()
    penalty = 10 * math.exp(np.std([1, 4]))
    expected = 1 * (math.log(8) + 2 * math.log(16)) * first + 8 * (math.log(24) + 2 * math.log(8)) * whole - penalty
    close(score("entropy", TWO_STAGES, image_size=16), expected)
    close(score("entropy", TWO_STAGES, image_size=15), expected - 2 * math.log(16 / 15) * first)


def test_multiscale_entropy_by_hand():
    first, whole = hand_entropies()
    close(score("multiscale_entropy", TWO_STAGES), 1 * (first + math.log(8)) + 6 * (whole + math.log(24)))
    close(score("multiscale_entropy", TWO_STAGES, stage_weights=(0, 1)), whole + math.log(24))


def test_exponents_of_channels_and_kernels():
    """DeepMAD's alphas: c^alpha1 * k^(2 alpha2) for every fan-in."""
    exponents = (0.8, 1.5)

    def half(channels, kernel):
        return 0.5 * (0.8 * math.log(channels) + 1.5 * 2 * math.log(kernel))

    first = half(3, 3)
    whole = first + half(8, 3) + half(4, 3) + half(16, 1) + 4 * (half(4, 5) + half(4, 1)) + 3 * half(24, 1)
    expected = (math.log(8) + 2 * math.log(16)) * first + 8 * (math.log(24) + 2 * math.log(8)) * whole
    close(score("entropy", TWO_STAGES, image_size=16, depth_penalty=0, exponents=exponents), expected)
    plain = "[{'class': 'ConvKXBNRELU', 'in': 8, 'out': 8, 'k': 3, 's': 1, 'g': 4}]"
    settings = {"stage_weights": (1,), "image_size": 4, "depth_penalty": 0, "exponents": exponents}
    close(score("entropy", plain, variant="tinynas", **settings), math.log(8 * 16) * half(8, 3))
    close(score("entropy", plain, **settings), math.log(8 * 16) * half(2, 3))


@pytest.mark.parametrize(
    "text",
    [
        TWO_STAGES,
        "SuperConvK3BNRELU(3,6,2,1)SuperResIDWE2K5(6,8,2,8,1)SuperConvK1BNRELU(8,9,1,1)",
        "[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 6, 'k': 3, 'kt': 3, 's': 1},"
        " {'class': 'SuperRes3DK1DWK1', 'in': 6, 'out': 6, 'k': 5, 'kt': 3, 's': 2, 'L': 2, 'btn': 8}]",
    ],
)
def test_a_measured_entropy_is_that_of_the_plain_network(text):
    """ReLU lets scales through, so the log of the last map's spread is the sum over all layers."""
    structure = Structure.parse(text)
    draws, size, frames = ExactDraws(), 12, 4
    network = StructureNetwork(structure, residuals=False, batch_norm=False).double()
    for place, module in enumerate(part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)):
        module.weight.data = draws.weight(place, module.weight.shape).double()
        if module.bias is not None:
            module.bias.data.zero_()
    seen = []
    stages = structure.stages(size)
    for stage in stages:
        network.blocks[stage.last_block][-1].act.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(draws.images((3, 3, frames, size, size) if structure.is_video else (3, 3, size, size)).double())
    spreads = [float(features.detach().std().log()) for features in seen]
    weights = tuple(range(1, len(stages) + 1))
    terms = zip(weights, spreads, stages, strict=True)
    expected = sum(weight * (spread + math.log(stage.channels)) for weight, spread, stage in terms)
    settings = {"image_size": size, "frames": frames, "batch_size": 3, "dtype": "float64", "stage_weights": weights}
    found = score("multiscale_entropy", text, variant="forward", generator=ExactDraws(), **settings)
    assert math.isclose(found, expected, rel_tol=1e-10)


def test_measured_and_expected_entropy_agree_without_activations_and_padding():
    text = "SuperConvK1BNRELU(3,64,1,1)"
    settings = {"image_size": 16, "stage_weights": (1,)}
    measured = [score("multiscale_entropy", text, variant="forward", seed=seed, **settings) for seed in range(20)]
    assert abs(np.mean(measured) - score("multiscale_entropy", text, **settings)) < 0.02


def test_a_measured_entropy_of_an_architecture_leaves_the_last_layer_of_a_block_linear():
    text = "i3x8_n10:conv_k3_s1_c4_relu:mb_k3_s1_m4_c6_relu:mb_k3_s2_m8_c6_relu:conv_k1_s1_c9_relu"
    draws = ExactDraws()
    features, places = draws.images((4, 3, 8, 8)).double(), iter(range(7))
    layers = [(4, 3, 3, 1, 1, 1), (4, 4, 3, 1, 4, 1), (6, 4, 1, 1, 1, 0)]  # out, in, kernel, stride, groups, activation
    layers += [(8, 6, 1, 1, 1, 1), (8, 8, 3, 2, 8, 1), (6, 8, 1, 1, 1, 0), (9, 6, 1, 1, 1, 1)]
    for out, channels, kernel, stride, groups, active in layers:
        weight = draws.weight(next(places), (out, channels // groups, kernel, kernel)).double()
        features = functional.conv2d(features, weight, None, stride, kernel // 2, 1, groups)
        last, features = features, features.relu() if active else features
    expected = float(last.std().log()) + math.log(9)
    settings = {"batch_size": 4, "dtype": "float64", "stage_weights": (0, 1), "generator": ExactDraws()}
    assert math.isclose(score("multiscale_entropy", text, variant="forward", **settings), expected, rel_tol=1e-10)


def test_groups_narrow_the_fan_in():
    text = "[{'class': 'ConvKXBNRELU', 'in': 8, 'out': 8, 'k': 3, 's': 1, 'g': 4}]"
    expected = 6 * (0.5 * math.log(2 * 9) + math.log(8))
    close(score("multiscale_entropy", text), expected)
    close(score("multiscale_entropy", text, variant="tinynas", stage_weights=(6,)), expected + 3 * math.log(4))


def test_an_architecture_by_hand():
    text = "i3x16_n10:conv_k3_s1_c16_relu:mb_k3_s1_m16_se4_c16_relu:mb_k5_s2_m60_c24_relu:conv_k1_s1_c96_swish"
    first = 0.5 * (math.log(27) + math.log(9) + math.log(16))
    whole = first + 0.5 * (math.log(16) + math.log(25) + math.log(60)) + 0.5 * math.log(24)
    close(score("multiscale_entropy", text), 1 * (first + math.log(16)) + 6 * (whole + math.log(96)))
    expected = (math.log(16) + 2 * math.log(16)) * first + 8 * (math.log(96) + 2 * math.log(8)) * whole - 10
    close(score("entropy", text), expected)
    convs = [27, 9, 16, 16, 25, 60, 24]
    rho = max(3 / np.prod(convs[:3]) ** (1 / 3), 7 / np.prod(convs) ** (1 / 7))
    assert math.isclose(effectiveness(text), rho, rel_tol=1e-12)


def test_a_penalty_on_unequal_depths():
    assert unequal_depth_penalty([3, 3, 3], 10) == 10
    close(unequal_depth_penalty([2, 4], 7), 7 * math.e)
    assert unequal_depth_penalty([], 10) == 0


def test_quantised_spread_is_that_of_a_sample():
    drawn = 5 * np.random.RandomState(3).standard_normal(400_000)
    assert abs(np.sqrt(np.mean(np.clip(np.rint(drawn), -8, 8) ** 2)) - quantized_std(5, 4)) < 0.01


def test_quantised_spreads_of_the_program():
    for std, bits, expected in ((1, 2, 1.00891936499659), (4, 5, 4.010172973403067), (5, 6, 5.0083263997309135)):
        close(quantized_std(std, bits), expected)


def test_bits_for_a_network_that_states_none():
    plain = score("multiscale_entropy", TWO_STAGES)
    gain = math.log(quantized_std(5, 4) * quantized_std(4, 4)) - math.log(5)
    close(score("quantized_entropy", TWO_STAGES, bits=4), plain + (1 * 1 + 6 * (1 + 2 + 4 * 3)) * gain)
    with pytest.raises(InputError, match="needs bits"):
        score("quantized_entropy", TWO_STAGES)


def test_spatiotemporal_entropy_by_hand():
    text = "[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 24, 'k': 3, 'kt': 1, 's': 2}]"
    frames, size = 13, 80
    cosine = np.dot((frames, size, size), (1, 3, 3))
    cosine /= np.linalg.norm((frames, size, size)) * np.linalg.norm((1, 3, 3))
    expected = 0.5 * math.log(27 * -math.log(1 - cosine)) + math.log(24)
    close(score("spatiotemporal_entropy", text, image_size=160, frames=13), expected)


def test_a_kernel_that_fits_exactly_has_no_score():
    text = "[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 24, 'k': 3, 'kt': 3, 's': 2}]"
    with pytest.raises(ScoreFailed, match="16 frames of 16 x 16 pixels") as caught:
        score("spatiotemporal_entropy", text, image_size=32, frames=16)
    assert caught.value.architecture == text


# ---- against the programs' values --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINYNAS)
def test_entropies_of_tinynas(shared_data, name):
    entry, structure = entry_of(shared_data, name)
    for key, value in entry.items():
        if key.startswith("deepmad_11118_"):
            size = int(key.rpartition("_")[2])
            found = score("entropy", structure, image_size=size, variant="tinynas", depth_penalty=0)
            close(found, value["score"])
        elif key.startswith("madnas_0_0"):
            weights = tuple(float(weight) for weight in key.split("_")[1:])
            close(score("multiscale_entropy", structure, variant="tinynas", stage_weights=weights), value["score"])
            close(score("multiscale_entropy", structure, stage_weights=weights), value["score"])
    assert math.isclose(effectiveness(structure), entry["efficient_score"], rel_tol=1e-12)


@pytest.mark.parametrize("name", ["deepmad-R18", "deepmad-R50", "deepmad-29M-224"])
def test_entropy_less_the_programs_penalty(shared_data, name):
    entry, structure = entry_of(shared_data, name)
    close(score("entropy", structure, variant="tinynas"), entry["final_score_strategy"])


def test_default_sees_the_resolution_behind_squeeze_and_excite(shared_data):
    entry, structure = entry_of(shared_data, "deepmad-29M-224")
    sizes, weights = [112, 56, 28, 14, 7], [1, 1, 1, 1, 8]
    sums = np.cumsum(entry["deepmad_block_entropies"])[np.array(entry["stage_info_224"]["block_num"]) - 1]
    channels = entry["stage_info_224"]["channels"]
    terms = zip(weights, channels, sizes, sums, strict=True)
    expected = sum(w * (math.log(c) + 2 * math.log(r)) * e for w, c, r, e in terms)
    close(score("entropy", structure, image_size=224, depth_penalty=0), expected)


def test_quantised_entropies_of_tinynas(shared_data):
    entry, structure = entry_of(shared_data, "mixed7d0G")
    for key, value in entry.items():
        if key.startswith("madnas_00116_std"):
            stds = {"weight_std": value["args"]["init_std"], "activation_std": value["args"]["init_std_act"]}
            close(score("quantized_entropy", structure, variant="tinynas", **stds), value["score"])
            close(score("quantized_entropy", structure, **stds), value["score"])


def test_spatiotemporal_entropy_of_tinynas(shared_data):
    entry, structure = entry_of(shared_data, "E3D_S")
    expected = entry["score_config_with_image_size_160"]["score"]
    for variant in ("tinynas", "default"):
        close(score("spatiotemporal_entropy", structure, image_size=160, frames=13, variant=variant), expected)


def test_quantised_spreads_of_the_oracle(shared_data):
    for std, row in zeroshot_values(shared_data)["quant_std"]["table"].items():
        for bits, expected in row.items():
            close(quantized_std(float(std), int(bits)), expected)


def test_incorporated_of_the_program(shared_data):
    for entry in zeroshot_values(shared_data)["incorporated"].values():
        options = ScoreOptions(image_size=entry["resolution"])
        entropy = penalised_entropy(ScoredNetwork.of(entry["structure"]), options, as_program=True)
        close(entropy, entry["entropy_minus_penalty"])
        assert math.isclose(effectiveness(entry["structure"]), entry["efficient_score_rho"], rel_tol=1e-12)
        zen = entry["zen_search_mean"]
        imagenet, cifar = PUBLISHED_WEIGHTS["imagenet"], PUBLISHED_WEIGHTS["cifar"]
        close(combined(zen, entropy, "incorporated_l", imagenet), entry["inc_l_0.9_0.1"])
        close(combined(zen, entropy, "incorporated_s", imagenet), entry["inc_s_0.9_0.1"])
        close(combined(zen, entropy, "incorporated_without", imagenet), entry["inc_wo_ls"])
        close(combined(zen, entropy, "incorporated_l", cifar), entry["inc_l_0.5_0.01_cifar_script"])


def test_incorporated_of_a_small_network():
    from test_exact_scores import INIT

    value = score("incorporated", INIT, image_size=32, variant="incorporated_l")
    assert abs(value - 14.4908) < 0.9 * 5 * 0.0532  # five standard deviations of the Zen-Score
    both = [score("incorporated", INIT, image_size=32, variant=name) for name in ("logarithm", "square_root")]
    entropy = penalised_entropy(ScoredNetwork.of(INIT), ScoreOptions(image_size=32), as_program=False)
    close(both[1] - both[0], 0.1 * (math.sqrt(entropy) - math.log(entropy)))


def test_no_logarithm_of_a_negative_entropy():
    text = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,8,1,8,40)"
    with pytest.raises(ScoreFailed, match="penalty on unequal depths"):
        score("incorporated", text, image_size=4)


def test_counts_of_the_programs(shared_data):
    for name, entry in zeroshot_values(shared_data)["zennas"].items():
        book = entry["bookkeeping"]
        settings = {"image_size": book["resolution"], "num_classes": book["num_classes"], "variant": "zennas"}
        assert score("flops", entry["structure"], **settings) == book["get_FLOPs_no_reslink"], name
        assert score("params", entry["structure"], **settings) == book["get_model_size_no_reslink"]
        assert score("flops", entry["structure"], residuals=True, **settings) == book["get_FLOPs"]
    for name in TINYNAS:
        entry, structure = entry_of(shared_data, name)
        assert score("params", structure, variant="tinynas") == entry["model_size"]
        close(score("flops", structure, image_size=224, variant="tinynas"), entry["flops"]["224"])


def test_true_counts():
    architecture = tfnas.Architecture.parse(
        "i3x16_n10:conv_k3_s1_c16_relu:mb_k3_s1_m16_se4_c16_relu:mb_k5_s2_m60_c24_relu:conv_k1_s1_c96_swish"
    )
    network = tfnas.Network(architecture)
    counts = tfnas.count(network, 16)
    for subject in (architecture, architecture.to_text(), network):
        assert (score("params", subject), score("flops", subject)) == (counts.params, counts.macs)
    assert score("params", architecture, num_classes=7) == counts.params - 3 * 97
    assert score("flops", architecture, image_size=32) == tfnas.count(network, 32).macs


def test_counts_of_any_module():
    """A clip's first convolution says what comes in; parameters need no rule for how a module computes."""
    clips = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1, bias=False), nn.ReLU())
    assert score("flops", clips, image_size=6, frames=5) == 5 * 36 * 4 * 54
    assert score("params", clips) == 4 * 54
    strange = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3))
    assert score("params", strange) == 112 + 74
    with pytest.raises(InputError, match=r"cannot count the MACs of 1 \(ConvTranspose2d\)"):
        score("flops", strange, image_size=6)


def test_variants_want_their_programs_structures():
    with pytest.raises(InputError, match="needs a TinyNAS structure, and got a structure of notation zennas"):
        score("entropy", TWO_STAGES, variant="tinynas")
    with pytest.raises(InputError, match="stage_weights must be 2 numbers"):
        score("entropy", TWO_STAGES, stage_weights=(1, 1, 1))
    with pytest.raises(InputError, match="needs a structure for videos"):
        score("spatiotemporal_entropy", TWO_STAGES)


@pytest.mark.parametrize("name", ["params", "flops", "spatiotemporal_entropy", "zen", "naswot"])
def test_a_video_that_says_its_frames_is_scored_with_them(name):
    """As the bare structure is, told size, frames and classes."""
    structure = facts("init:action_recognition/E3D_X3DS_FLOPs").structure
    architecture = StructureArchitecture(structure, 32, 5, frames=5)
    settings = {"batch_size": 2} if name in ("zen", "naswot") else {}
    expected = score(name, structure, image_size=32, frames=5, num_classes=5, **settings)
    assert score(name, architecture, **settings) == expected == score(name, architecture.to_text(), **settings)
    assert name == "params" or score(name, architecture, frames=7, **settings) != expected
