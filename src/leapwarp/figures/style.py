"""How every method and paper is named, coloured and marked, in tables and figures alike.

Colours are Okabe and Ito's, which stay apart for the common kinds of colour blindness, with a grey and a
brown. No plotting library is imported here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Method(NamedTuple):
    """`pretrained` is False for methods that are run once, with n_tasks = 0, and hold for every count."""

    name: str
    colour: str
    marker: str
    pretrained: bool = True


# In the order of legends and of columns that the paper's table does not have.
METHODS = {
    "warp_leap": Method("Warp-Leap", "#D55E00", "o"),
    "warp_leap_approx": Method("Warp-Leap (first-order)", "#882255", ">"),
    "leap": Method("Leap", "#0072B2", "s"),
    "leap_released_pixels": Method("Leap (ink 0 on paper 1)", "#44AA99", "<"),
    "leap_energy": Method("Energy, parameters only", "#E69F00", "D"),
    "leap_energy_loss": Method("Energy, with loss", "#56B4E9", "P"),
    "leap_energy_stabiliser": Method("Energy, loss, stabiliser", "#0072B2", "v"),
    "leap_length": Method("Length, parameters only", "#CC79A7", "X"),
    "leap_length_loss": Method("Length, with loss", "#D55E00", "<"),
    "leap_length_stabiliser": Method("Length, loss, stabiliser (Leap)", "#882255", "o"),
    "warp_leap_no_step": Method("Warp-Leap (no inner step)", "#44AA99", "<"),
    "warp_leap_online": Method("Warp-Leap (online)", "#56B4E9", "v"),
    "warp_leap_rates": Method("Warp-Leap (learned rate)", "#CC79A7", "P"),
    "warp_scaling": Method("Scaling", "#999933", "h"),
    "warp_1x1": Method("1×1 conv", "#8C510A", "s"),
    "warp_relu": Method("3×3 conv + ReLU", "#E69F00", "D"),
    "warp_norm": Method("3×3 conv + BN", "#117733", "^"),
    "warp_norm_relu": Method("3×3 conv + BN + ReLU", "#332288", "X"),
    "warp_residual": Method("3×3 conv + BN + residual + ReLU", "#AA4499", "p"),
    "warp_two_layers": Method("2 layers + BN + residual", "#000000", "*"),
    "warp_embedding": Method("2 layers + BN + residual + task embeddings", "#7F7F7F", "d"),
    "rate_0.01": Method("α = 0.01", "#56B4E9", "o"),
    "rate_0.1": Method("α = 0.1", "#0072B2", "s"),
    "rate_0.5": Method("α = 0.5", "#D55E00", "^"),
    "unnormalised_0.5": Method("α = 0.5, no batch norm", "#7F7F7F", "v"),
    "layers": Method("every layer, α = 0.1", "#009E73", "D"),
    "beta_0.003": Method("β = 0.003", "#F0C808", "o"),
    "beta_0.01": Method("β = 0.01", "#E69F00", "s"),
    "beta_0.03": Method("β = 0.03", "#D55E00", "^"),
    "beta_0.1": Method("β = 0.1", "#A02C5A", "v"),
    "beta_0.3": Method("β = 0.3", "#332288", "D"),
    "alpha_0.02": Method("α = 0.02", "#999933", "d"),
    "alpha_1.0": Method("α = 1", "#56B4E9", "X"),
    "energy": Method("energy (p = 2)", "#009E73", "P"),
    "identity": Method("identity Jacobians", "#0072B2", "<"),
    "many_basins": Method("several basins", "#000000", "*"),
    "batch_8": Method("batch of 8 of 32", "#CC79A7", ">"),
    "batch_1": Method("batch of 1 of 32", "#882255", "h"),
    "linear_warp": Method("linear", "#7F7F7F", "o"),
    "residual_tanh": Method("residual tanh", "#0072B2", "s"),
    "two_layer_tanh": Method("two-layer tanh", "#D55E00", "^"),
    "warpgrad": Method("WarpGrad", "#D55E00", "o"),
    "warpgrad_residual": Method("WarpGrad (residual, random)", "#CC79A7", "v"),
    "warpgrad_plain": Method("WarpGrad (no residual)", "#E69F00", "D"),
    "warpgrad_printed": Method("WarpGrad (weights as printed)", "#CC79A7", "v"),
    "warpgrad_no_step": Method("WarpGrad (no inner step)", "#E69F00", "D"),
    "untrained_warp": Method("Untrained warp", "#8C510A", "X"),
    "no_warp": Method("No warp", "#000000", "s"),
    "no_warp_fast": Method("No warp (rate for the current sub-task)", "#0072B2", "<"),
    "no_warp_tuned": Method("No warp (rate for all sub-tasks)", "#56B4E9", ">"),
    "replay": Method("Experience replay", "#009E73", "^"),
    "multitask": Method("All sub-tasks at once", "#7F7F7F", "h"),
    "gd": Method("Gradient descent", "#000000", "s"),
    "gd_tuned": Method("Gradient descent (tuned)", "#7F7F7F", "h"),
    "adam": Method("Adam (tuned)", "#0072B2", "<"),
    "warpgrad_peaks": Method("WarpGrad (peaks)", "#882255", "P"),
    "gd_peaks": Method("Gradient descent (peaks)", "#332288", "X"),
    "gd_tuned_peaks": Method("Gradient descent (peaks, tuned)", "#44AA99", "d"),
    "adam_peaks": Method("Adam (peaks, tuned)", "#56B4E9", ">"),
    "leap_1_epoch": Method("Leap (1 epoch)", "#56B4E9", "<"),
    "hat": Method("HAT", "#CC79A7", "v"),
    "progressive": Method("Progressive Nets", "#009E73", "^"),
    "finetune_many_epochs": Method("Finetuning (Leap's epochs)", "#F0C808", "d"),
    "hat_many_epochs": Method("HAT (Leap's epochs)", "#882255", "P"),
    "progressive_many_epochs": Method("Progressive Nets (Leap's epochs)", "#44AA99", "X"),
    "reptile": Method("Reptile", "#009E73", "^"),
    "finetune": Method("Finetuning (multi-head)", "#E69F00", "D"),
    "maml": Method("MAML", "#CC79A7", "v"),
    "fomaml": Method("MAML (first-order)", "#56B4E9", "P"),
    "warp_linear": Method("Linear warps (3×3 conv)", "#D55E00", "o"),
    "warp_nonlinear": Method("Non-linear warps (2 layers)", "#AA4499", "p"),
    "warp_maml": Method("Warp-MAML", "#D55E00", "o"),
    "metasgd": Method("Meta-SGD", "#E69F00", "D"),
    "cavia": Method("CAVIA", "#0072B2", "s"),
    "tnets": Method("T-Nets", "#8C510A", "X"),
    "warp_maml_1shot": Method("Warp-MAML (1-shot)", "#D55E00", "o"),
    "maml_1shot": Method("MAML (1-shot)", "#CC79A7", "v"),
    "fomaml_1shot": Method("MAML (first-order, 1-shot)", "#56B4E9", "P"),
    "reptile_1shot": Method("Reptile (1-shot)", "#009E73", "^"),
    "metasgd_1shot": Method("Meta-SGD (1-shot)", "#E69F00", "D"),
    "cavia_1shot": Method("CAVIA (1-shot)", "#0072B2", "s"),
    "tnets_1shot": Method("T-Nets (1-shot)", "#8C510A", "X"),
    "maml_wide_1shot": Method("MAML (wide, 1-shot)", "#882255", ">"),
    "tnets_wide_1shot": Method("T-Nets (wide, 1-shot)", "#332288", "<"),
    "kfac": Method("KFAC", "#8C510A", "X", pretrained=False),
    "kfac_exact": Method("KFAC (exact Fisher)", "#E69F00", "P", pretrained=False),
    "sgd": Method("SGD", "#000000", "*", pretrained=False),
    "sgd10x": Method("SGD (10× batch, rate)", "#000000", "*", pretrained=False),
    "warp_rnn": Method("Warp-RNN", "#D55E00", "o"),
    "hyper_rnn": Method("HyperRNN", "#CC79A7", "v"),
    "hebbian": Method("Hebbian, simple modulation", "#009E73", "^"),
    "hebbian_retroactive": Method("Hebbian, retroactive modulation", "#56B4E9", ">"),
    "rnn": Method("RNN (L2RL)", "#0072B2", "s"),
    "tnets_rnn": Method("T-Nets-RNN", "#E69F00", "D"),
    "rnn_shifted": Method("RNN, rewards a step late", "#332288", "X"),
    "rnn_first_baseline": Method("RNN, first episode's baseline", "#44AA99", "d"),
    "rnn_pillars": Method("RNN, teleport into pillars", "#8C510A", "P"),
    "rnn_no_clip": Method("RNN, no clipping", "#999933", "h"),
    "rnn_epsilon": Method("RNN, Adam's epsilon 1e-8", "#AA4499", "p"),
    "random": Method("Random policy", "#7F7F7F", "*", pretrained=False),
    "sgd_large": Method("SGD, large batches", "#000000", "*", pretrained=False),
    "random_policy": Method("Random play", "#000000", "x", pretrained=False),
    "scratch": Method("No pretraining", "#7F7F7F", "h", pretrained=False),
}
PAPERS = {"leap": "Leap paper", "warpgrad": "WarpGrad paper"}  # by file of paper/

FIGURES = (  # in the order of a page
    "by_tasks",
    "auc_by_tasks",
    "heldout_curves",
    "meta_curves",
    "leap_ablation",
    "leap_ablation_heldout",
    "warp_ablation",
    "warp_ablation_curves",
    "natural_gradient",
    "activations",
    "jacobian",
    "jacobian_layers",
    "theorem1",
    "theorem1_variants",
    "geometry",
    "surfaces_paths",
    "surfaces_curves",
    "surfaces_sweep",
    "sine_losses",
    "sine_predictions",
    "sine_meta",
    "atari_scores",
    "atari_meta",
    "atari_pictures",
    "maze_return",
    "maze_picture",
    "few_shot",
    "few_shot_curves",
    "inner_cost",
    "multicv",
    "multicv_map",
    "multicv_curves",
    "multi_shot",
    "multi_shot_meta",
    "search",
)


def figure_order(path: Path) -> tuple[int, str]:
    """Where a figure's file comes on a page: in the order of FIGURES, then those not listed by name."""
    return (FIGURES.index(path.stem) if path.stem in FIGURES else len(FIGURES), path.stem)


def method(key: str) -> Method:
    """The style of a method; a key that is not listed keeps its own name, in a dark violet."""
    return METHODS.get(key, Method(key, "#5E3C99", "p"))


def ordered(keys: Iterable[str]) -> list[str]:
    """Method keys, each once, in the order of METHODS, then those not listed by name."""
    order = list(METHODS)
    return sorted(set(keys), key=lambda key: (order.index(key) if key in order else len(order), key))
