"""Every method of Captum over networks of four kinds: what its sum leaves out, or why it gives no answer.

Usage: python benchmarks/captum_methods.py [--model runs/demo/cam] [--images 4]

CAM's network on aviary (of ``--model``, else trained on a fifth of the images for three epochs), and
torchvision's ResNet-18, ConvNeXt-Tiny and ViT-B/16 with random weights, at 64 pixels. Cheap settings for
methods that sample. A number is the mean of |residual| / |logit - base|; "value" is an answer that claims no
sum.
"""

import argparse
import time
import warnings

import torch
from torch import Tensor, nn
from torchvision import models

import explainkit as ek
from explainkit import registry

CHEAP = {
    "integrated-gradients": {"n_steps": 20}, "internal-influence": {"n_steps": 20},
    "layer-conductance": {"n_steps": 20}, "layer-integrated-gradients": {"n_steps": 20},
    "kernel-shap": {"n_samples": 64, "patches": 4}, "lime": {"n_samples": 64, "patches": 4},
    "shapley-value-sampling": {"n_samples": 4, "patches": 4}, "feature-ablation": {"patches": 4},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a saved CAM")
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dataset = ek.dataset("aviary", **({} if options.model else {"train": 1000}))
    cam = ek.load(options.model) if options.model else ek.explainer("cam", epochs=3).fit(dataset)
    images = dataset.test.batch(torch.arange(options.images)).images
    torch.manual_seed(0)
    networks = {
        "CAM, aviary": cam.network,
        "ResNet-18": models.resnet18(num_classes=20).eval(),
        "ConvNeXt-Tiny": models.convnext_tiny(num_classes=20).eval(),
        "ViT-B/16": models.vit_b_16(num_classes=20, image_size=64).eval(),
    }
    nn.init.normal_(networks["ViT-B/16"].heads.head.weight, std=0.02)  # zero as torchvision makes it
    reasons: dict[str, int] = {}
    print(f"| method | {' | '.join(networks)} |\n|{'---|' * (len(networks) + 1)}")
    started = time.perf_counter()
    for name in registry.offers("explainers"):
        if name.startswith("captum/"):
            cells = [answer(name, network, images, reasons) for network in networks.values()]
            print(f"| `{name}` | {' | '.join(cells)} |", flush=True)
    print("\n" + "\n".join(f"[{number}] {reason}" for reason, number in reasons.items()))
    print(f"{time.perf_counter() - started:.0f} s, {torch.get_num_threads()} threads")


def answer(name: str, network: nn.Module, images: Tensor, reasons: dict[str, int]) -> str:
    """One cell: a number, "value", or the number of a reason."""
    try:
        settings = CHEAP.get(name.partition("/")[2], {})
        explanations = ek.explainer(name, network=network, size=(64, 64), **settings).explain(images)
    except ek.ExplainKitError as error:
        return f"[{reasons.setdefault(str(error), len(reasons) + 1)}]"
    residual = explanations.residual
    if residual is None:
        return "value"
    evidence = (explanations.explained_output - explanations.base).abs().clamp(min=1e-6)
    return f"{(residual.abs() / evidence).mean():.2g}"


if __name__ == "__main__":
    main()
