"""Checks of explanations of images."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from explainkit.errors import ConformanceError, ExplainKitError, InputError, UnknownNameError
from explainkit.explainers.interface import Explainer
from explainkit.explanations.batch import Explanations
from explainkit.testing.assertions import check, is_close, magnitude, provenance_fields, spoiled, unchanged


def check_additivity(explainer: Explainer, images: Tensor) -> None:
    """Base and contributions make the logit as the card says, and the saliency holds what has a place."""
    explanations = explainer.explain(images, strongest(explainer, images))
    check(
        explanations.additivity == explainer.card.additivity,
        f"the additivity of the card, {explainer.card.additivity!r}; got {explanations.additivity!r}",
    )
    if explanations.additivity == "exact":
        explanations.check_additivity()
    if explanations.additivity == "none":
        check(
            explanations.residual is None and not explanations.base.any(),
            "no base and no residual without additivity",
        )
    else:
        logits = explainer.predict(images).gather(1, explanations.targets[:, None])[:, 0]
        residual = explanations.residual
        if residual is None:
            raise ConformanceError("Expected a residual of explanations with additivity.")
        total = explanations.base + explanations.contributions.sum(1) + residual
        check(is_close(total, logits), "base, contributions and residual that make the network's own logit")
    localized = explanations.contributions.sum(1) - explanations.nonspatial
    for size in ((8, 8), tuple(images.shape[-2:])):
        gap = (explanations.saliency(size).sum((1, 2)) - localized).abs()
        check(
            bool((gap <= 1e-3 * magnitude(explanations)).all()),
            f"saliency at {size} that sums to the contributions with a place; off by {gap.max().item():.3g}",
        )


def check_batch_invariance(explainer: Explainer, images: Tensor) -> None:
    """Neither the batch nor `batch_size` changes the explanation of an image."""
    together = explainer.explain(images, strongest(explainer, images))
    one_by_one = explainer.explain(images, together.targets, batch_size=1)
    alone = explainer.explain(images[-1:], together.targets[-1:])
    for name, other in (("batch_size=1", one_by_one), ("the image alone", alone)):
        whole = together if len(other) == len(together) else together[[len(together) - 1]]
        check(is_close(other.logits, whole.logits), f"the same logits with {name}")
        gap = (other.contributions - whole.contributions).abs().amax(1)
        check(
            bool((gap <= 1e-3 * magnitude(whole)).all()),
            f"the same contributions with {name}; off by {gap.max():.3g}",
        )


def check_deterministic(explainer: Explainer, images: Tensor) -> None:
    """Two calls agree to the bit, whatever the caller's random state."""
    first = explainer.explain(images)
    torch.rand(3)
    second = explainer.explain(images)
    check(torch.equal(first.contributions, second.contributions), "the same contributions on a second call")
    check(torch.equal(first.saliency(), second.saliency()), "the same saliency on a second call")


def check_state_restored(explainer: Explainer, images: Tensor) -> None:
    """Mode, gradients, hooks, buffers, random state, images; also after an exception, in inference mode."""
    network = explainer.network
    with unchanged(network, images, "explaining"):
        explainer.explain(images)
    with unchanged(network, images, "an exception"):
        try:
            with spoiled(network):
                explainer.explain(images)
        except ExplainKitError:
            pass
        else:
            check(False, "an error, not an explanation, where the network gives NaN")
    with unchanged(network, images, "explaining in inference mode"), torch.inference_mode():
        explanations = explainer.explain(images + 0)
    values = [
        explanations.logits,
        explanations.base,
        explanations.scores,
        explanations.weights,
        explanations.contributions,
        explanations.images,
        explanations.saliency(),
    ]
    check(not any(value.is_inference() for value in values), "no inference tensor that leaks out")
    check(not any(value.requires_grad for value in values), "values that are cut from the graph")


def check_bad_images_refused(explainer: Explainer, images: Tensor) -> None:
    """NaN, wrong rank, type, range or channels, empty: an InputError, not a stack of torch internals."""
    spoiled = images.clone()
    spoiled[-1, 0, 0, 0] = float("nan")
    bad = {
        "NaN": spoiled,
        "infinity": torch.full_like(images, float("inf")),
        "no batch dimension": images[0],
        "five axes": images[None],
        "bytes": (images * 255).byte(),
        "integers": torch.ones_like(images, dtype=torch.long),
        "no image": images[:0],
        "no pixel": images[:, :, :0],
        "another number of channels": torch.cat([images, images[:, :1]], 1),
        "channels last": images.permute(0, 2, 3, 1),
    }
    if explainer.input_spec.value_range is not None:
        low, high = explainer.input_spec.value_range
        bad["values outside the range"] = images + 2 * (high - low)
    for what, value in bad.items():
        for question in (explainer.explain, explainer.predict):
            try:
                question(value)
            except InputError as error:
                check(len(str(error)) > 20, f"words in the refusal of {what}")
            else:
                check(False, f"an InputError for images with {what}")


def check_targets(explainer: Explainer, images: Tensor) -> None:
    """The same class by name, by index, one for all and one an image; wrong ones are refused in words."""
    last = len(explainer.classes) - 1
    name = explainer.classes[last]
    count = len(images)
    by_index = explainer.explain(images, last)
    check(bool((by_index.targets == last).all()), "the class that was asked for")
    for targets in (name, [name] * count, [last] * count, torch.full((count,), last)):
        explanations = explainer.explain(images, targets)
        check(
            torch.equal(explanations.contributions, by_index.contributions),
            f"the same for targets={targets!r}",
        )
    predicted, decision = explainer.explain(images), explainer.decision
    rows, expected = decision.explained(explainer.predict(images))
    index = rows if predicted.image_index is None else predicted.image_index
    check(
        torch.equal(predicted.targets, expected) and torch.equal(index, rows),
        "the prediction where no target is given, or each label that holds",
    )
    check(predicted.decision == decision, "explanations that know the decision")
    wrong = (last + 2, -1, "no such class", [0] * (count + 1), torch.zeros(count + 1, dtype=torch.long))
    refused: list[Any] = [*wrong, torch.zeros(count), 0.5]
    for target in refused:
        try:
            explainer.explain(images, target)
        except (InputError, UnknownNameError):
            continue
        check(False, f"a refusal in words of targets={target!r}")


def strongest(explainer: Explainer, images: Tensor) -> Tensor:
    """One target an image: the class that wins, or the label that comes nearest to holding."""
    return explainer.decision.strongest(explainer.predict(images))


def check_save_load(explainer: Explainer, images: Tensor) -> None:
    """Explanations come back from a file; an explainer that learns comes back from a folder."""
    from explainkit.explainers.saving import load, save

    explanations = explainer.explain(images)
    with tempfile.TemporaryDirectory() as folder:
        path = explanations.save(Path(folder) / "explanations.safetensors")
        loaded = Explanations.load(path)
        for name in ("logits", "targets", "base", "scores", "weights", "contributions", "images"):
            check(
                torch.equal(getattr(loaded, name), getattr(explanations, name).cpu()),
                f"the same {name} from the file",
            )
        gap = (loaded.saliency() - explanations.saliency().cpu()).abs().sum((1, 2))
        check(
            bool((gap <= 1e-2 * magnitude(explanations).cpu()).all()),
            f"the same saliency from the file; off by {gap.max():.3g}",
        )
        check(
            [item.sentence() for item in loaded] == [item.sentence() for item in explanations],
            "the same sentences",
        )
        check(
            loaded.additivity == explanations.additivity and loaded.classes == explanations.classes,
            "the same additivity and classes",
        )
        check(provenance_fields(loaded) == provenance_fields(explanations), "the same provenance")
        if explainer.card.learns_from is not None and not explainer.bound:
            reloaded = load(save(explainer, Path(folder) / "explainer"), device=explainer.device)
            same = reloaded.explain(images)
            check(
                torch.equal(same.logits, explanations.logits), "the same logits from the folder, to the bit"
            )
            check(
                torch.equal(same.contributions, explanations.contributions),
                "the same contributions from the folder",
            )


def check_pickles(explainer: Explainer, images: Tensor) -> None:
    """Explanations go to another process and come back: weight functions are classes, not lambdas."""
    explanations = explainer.explain(images)
    try:
        again = pickle.loads(pickle.dumps(explanations))
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ConformanceError(
            f"Expected explanations that pickle, with functions of rows as classes of a module: {error}."
        ) from error
    check(
        torch.equal(again.contributions, explanations.contributions), "the same contributions after a pickle"
    )
    check(torch.equal(again.saliency(), explanations.saliency()), "the same saliency after a pickle")
    check(
        [item.sentence() for item in again] == [item.sentence() for item in explanations],
        "the same sentences after a pickle",
    )


def check_layouts_and_dtypes(explainer: Explainer, images: Tensor) -> None:
    """float64 and half images, strided and channels-last ones, and images that ask for gradients."""
    explanations = explainer.explain(images, strongest(explainer, images))
    strided = torch.stack([images, images], 4)[..., 0]
    forms = {
        "float64": images.double(),
        "strided": strided,
        "channels-last": images.contiguous(memory_format=torch.channels_last),
        "gradients wanted": images.clone().requires_grad_(),
    }
    for what, form in forms.items():
        other = explainer.explain(form, explanations.targets)
        check(is_close(other.logits, explanations.logits), f"the same logits for {what} images")
        gap = (other.contributions - explanations.contributions).abs().amax(1)
        check(
            bool((gap <= 1e-3 * magnitude(explanations)).all()),
            f"the same contributions for {what} images; off by {gap.max():.3g}",
        )


def check_autocast(explainer: Explainer, images: Tensor) -> None:
    """Under the caller's autocast the heads still sum in full precision."""
    with torch.autocast(explainer.device.type, torch.bfloat16):
        explanations = explainer.explain(images)
    check(bool(explanations.contributions.isfinite().all()), "finite contributions under autocast")
    if explanations.additivity == "exact":
        explanations.check_additivity()


def check_constant_images(explainer: Explainer, images: Tensor) -> None:
    """Black, gray and white images give finite values that still add up, and can be drawn."""
    flat = torch.stack([torch.full_like(images[0], level) for level in (0.0, 0.5, 1.0)])
    explanations = explainer.explain(flat)
    check(
        bool(explanations.contributions.isfinite().all() and explanations.saliency().isfinite().all()),
        "finite values",
    )
    if explanations.additivity == "exact":
        explanations.check_additivity()
    for item in explanations:
        item.figure()


def check_rendering(explainer: Explainer, images: Tensor) -> None:
    """A figure, a sentence and markup, with every name from the data escaped."""
    explanations = explainer.explain(images[:1])
    hostile = "<script>alert(1)</script> & $x_{y}$"
    named = evolve(explanations, classes=[hostile] * len(explanations.classes))[0]
    check(hostile in named.sentence(), "the class named in the sentence")
    html = named._repr_html_()
    check("<script" not in html and "&lt;script&gt;" in html, "class names escaped in markup")
    check("<script" not in named.batch._repr_html_(), "class names escaped in the markup of several")
    figure = named.figure()
    figure.canvas.draw()
    check(bool(figure.axes), "a figure with something in it")
