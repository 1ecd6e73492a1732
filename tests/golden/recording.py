"""What the five architectures and Captum's methods say of six images, as tensors and sentences.

``python tests/golden/recording.py`` writes the golden files; the test beside it compares. Weights are in the
files too, so that only explaining is compared: training would amplify the rounding of another processor.
"""

import copy
import hashlib
import json
import os
import platform
from pathlib import Path

import torch
from attrs import evolve
from safetensors.torch import load_file, save_file

from explainkit import registry
from explainkit.questions.naming import name_units
from explainkit.testing import fitted_example, tiny_dataset, tiny_images

FOLDER = Path(__file__).parent
ARCHITECTURES = ("cam", "ccnn", "protopnet", "ra-cnn", "senn")
METHODS = tuple(name for name in registry.offers("explainers") if name.startswith("captum/"))

ADDED = "unit_mask"
"""A buffer that networks have since: all units are enabled."""


PROCESSOR = ("model name", "cpu family", "model", "stepping", "cache size", "flags")
VARIABLES = ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OPENBLAS_CORETYPE")


def environment():
    """What bits depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kernels = [facts.get(name, "") for name in PROCESSOR] + [os.environ.get(name, "") for name in VARIABLES]
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": facts.get("model name", platform.processor()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": hashlib.sha256("\n".join(kernels).encode()).hexdigest(),
    }


def digest(tensor):
    """SHA-256 of shape, type and bytes."""
    tensor = tensor.detach().cpu().contiguous()
    kind = f"{tuple(tensor.shape)}{tensor.dtype}".encode()
    return hashlib.sha256(kind + tensor.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def weights_of(explainer):
    """A network's state by position: names may change."""
    state = explainer.network.state_dict()
    values = [value for name, value in state.items() if name != ADDED]
    return {f"{index:03}": value for index, value in enumerate(values)}


def trained(name):
    """The architecture's tiny network, trained anew with one thread."""
    return fitted_example.__wrapped__(name)


def with_weights(name, weights):
    """The architecture's tiny network with given weights, and its units read off them."""
    explainer = copy.deepcopy(fitted_example(name))
    names = [name for name in explainer.network.state_dict() if name != ADDED]
    prefix = f"{name}/"
    values = [value for key, value in sorted(weights.items()) if key.startswith(prefix)]
    state = dict(zip(names, values, strict=True)) | {ADDED: explainer.network.unit_mask}
    explainer.load_state(state, explainer.classes, explainer.input_spec, None)
    if name == "senn":
        explainer.with_instability = True
    score_range = explainer.score_ranges(tiny_dataset())
    explainer.units = evolve(explainer.units, score_range=score_range)
    explainer.network.eval()
    return explainer


def of_architecture(name, weights):
    """Tensors and sentences of one architecture: an image, a class, a counterfactual, names."""
    explainer = with_weights(name, weights)
    dataset, images = tiny_dataset(), tiny_images()
    tensors, words = {}, {}
    explanations = explainer.explain(images)
    tensors |= {f"image/{key}": value for key, value in columns(explanations).items()}
    words["image"] = [item.sentence() for item in explanations]
    margins = explanations.contrast(0)
    tensors |= {f"contrast/{key}": value for key, value in columns(margins).items()}
    words["contrast"] = [item.sentence() for item in margins]
    classes = explainer.explain_class(dataset.batches("test"))
    tensors |= {f"class/{key}": value for key, value in class_columns(classes).items()}
    words["class"] = [item.sentence() for item in classes]
    words["class contrast"] = [item.contrast().sentence() for item in classes]
    for norm in ("l0", "l1", "l2"):
        changes = explainer.counterfactual(images, distractors=dataset, norm=norm, prove=True)
        edit = changes.edits["score-edit"]
        tensors |= {
            f"score-edit {norm}/{key}": getattr(edit, key)
            for key in ("before", "after", "gains", "logits", "feasible", "exact", "lower_bound", "size")
        }
        words[f"counterfactual {norm}"] = [item.sentence() for item in changes]
    swap = changes.edits["region-swap"]
    tensors |= {
        "region-swap/images": swap.images, "region-swap/regions": swap.regions,
        "region-swap/success": swap.success, "region-swap/logits": swap.logits,
        "region-swap/source_ids": swap.exemplars, "region-swap/shifts": swap.shifts,
        "region-swap/mirrored": swap.mirrored, "region-swap/predicted_size": swap.predicted_size,
        "region-swap/num_forwards": torch.tensor(swap.num_forwards),
    }  # fmt: skip
    names = name_units(explainer, dataset)
    tensors["names/scores"] = torch.tensor(
        [[item.score, item.std_error, item.selection_stability] for item in names]
    )
    words["names"] = [f"{item.phrase}: {item.accepted}" for item in names]
    words["named image"] = [item.sentence() for item in explainer.explain(images)]
    return tensors, words


def of_method(name):
    """The same of a post-hoc method on the fixed network; those with sums answer for classes too."""
    explainer = fitted_example(name)
    explanations = explainer.explain(tiny_images())
    tensors = {f"image/{key}": value for key, value in columns(explanations).items()}
    words = {"image": [item.sentence() for item in explanations]}
    if explainer.card.additivity != "none":
        classes = explainer.explain_class(tiny_dataset().batches("test"))
        tensors |= {f"class/{key}": value for key, value in class_columns(classes).items()}
        words["class"] = [item.sentence() for item in classes]
    return tensors, words


def columns(explanations):
    """Explanations by the names of the second edition."""
    given = {
        "logits": explanations.logits,
        "targets": explanations.targets,
        "base": explanations.base,
        "scores": explanations.scores,
        "weights": explanations.weights,
        "contributions": explanations.contributions,
        "residual": explanations.residual,
        "explained_output": explanations.explained_output,
        "nonspatial": explanations.nonspatial,
        "maps": explanations.maps,
        "boxes": explanations.boxes,
        "saliency": explanations.saliency(),
        "saliency_8x8": explanations.saliency((8, 8)),
    }
    given |= {f"diagnostics {key}": value for key, value in explanations.diagnostics.items()}
    return {key: value.detach() for key, value in given.items() if value is not None}


def class_columns(classes):
    """Class explanations by the names of the second edition."""
    given = {
        "counts": classes.counts,
        "logits": classes.logits,
        "base": classes.base,
        "scores": classes.scores,
        "contributions": classes.contributions,
        "std": classes.std,
        "quantiles": classes.quantiles,
        "sign_agreement": classes.sign_agreement,
        "decisive_rate": classes.decisive_rate,
        "confusion": classes.confusion,
        "linear_r2": classes.linear_r2,
        "all_class_contributions": classes.all_class_contributions,
        "bases": classes.bases,
        "ids": classes.examples.ids,
        "cells": classes.examples.cells,
        "boxes": classes.examples.boxes,
    }
    return {key: value.detach() for key, value in given.items() if value is not None}


LARGEST = 400
"""Numbers in a tensor that is kept whole; of larger ones every n-th number is."""


def thinned(tensor):
    """The tensor, or as many of its numbers, evenly spaced."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat[:: max(1, -(-len(flat) // LARGEST))].clone()


def record(weights):
    """Everything, as tensors to compare within tolerances, digests to compare bits, and sentences."""
    tensors, digests, words = {}, {}, {}
    for name in (*ARCHITECTURES, *METHODS):
        found, said = of_architecture(name, weights) if name in ARCHITECTURES else of_method(name)
        for key, value in found.items():
            tensors[f"{name}/{key}"], digests[f"{name}/{key}"] = thinned(value), digest(value)
        words[name] = said
    return tensors, digests, words


def load_golden():
    """Weights, tensors, and everything else that was recorded."""
    facts = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
    return load_file(FOLDER / "weights.safetensors"), load_file(FOLDER / "golden.safetensors"), facts


def main():
    """Write the golden files anew."""
    torch.set_num_threads(1)
    weights = {
        f"{name}/{key}": value.contiguous()
        for name in ARCHITECTURES
        for key, value in weights_of(trained(name)).items()
    }
    tensors, digests, words = record(weights)
    save_file(weights, FOLDER / "weights.safetensors")
    save_file(tensors, FOLDER / "golden.safetensors")
    facts = {
        "environment": environment(),
        "trained": {key: digest(value) for key, value in weights.items()},
        "digests": digests,
        "words": words,
    }
    text = json.dumps(facts, indent=0, ensure_ascii=False, sort_keys=True)
    (FOLDER / "golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
