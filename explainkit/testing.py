"""The conformance kit: what every explainer promises, as checks that run over anybody's.

>>> import pytest
>>> from explainkit.testing import PROMISES, specimen, tiny_data
>>> @pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
... def test_conformance(promise):
...     promise(specimen("mine"), tiny_data().test.batch(torch.arange(6)).images)
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from explainkit import registry
from explainkit.catalogue import explainer as explainer_by_name
from explainkit.data.images import ArraySplit, Batch, Caption, ImageData
from explainkit.errors import ContractError, ExplainKitError, InputError, UnknownNameError
from explainkit.explanation import Explanations
from explainkit.interfaces import Explainer, InterpretableExplainer

Promise = Callable[[Explainer, Tensor], None]


def contributions_add_up(explainer: Explainer, images: Tensor) -> None:
    """Base and contributions make the logit as the card claims, and the saliency holds what has a place."""
    told = explainer.explain(images)
    _hold(
        told.claim == explainer.card.claim,
        f"the claim of the card, {explainer.card.claim!r}; got {told.claim!r}",
    )
    if told.claim == "exact":
        told.check()
    if told.claim == "none":
        _hold(
            told.residual is None and not told.base.any(), "no base and no residual where no sum is claimed"
        )
    else:
        logits = explainer.predict(images).gather(1, told.targets[:, None])[:, 0]
        residual = told.residual
        if residual is None:
            raise ContractError("Expected a residual where a sum is claimed.")
        total = told.base + told.contributions.sum(1) + residual
        _hold(_near(total, logits), "base, contributions and residual that make the network's own logit")
    placed = told.contributions.sum(1) - told.unplaced
    for size in ((8, 8), tuple(images.shape[-2:])):
        gap = (told.saliency(size).sum((1, 2)) - placed).abs()
        _hold(
            bool((gap <= 1e-3 * _scale(told)).all()),
            f"saliency at {size} that sums to the contributions with a place; off by {gap.max().item():.3g}",
        )


def one_image_is_explained_as_in_a_batch(explainer: Explainer, images: Tensor) -> None:
    """Neither the batch nor `max_batch` changes what is said of an image."""
    together = explainer.explain(images)
    one_by_one = explainer.explain(images, together.targets, max_batch=1)
    alone = explainer.explain(images[-1:], together.targets[-1:])
    for name, other in (("max_batch=1", one_by_one), ("the image alone", alone)):
        whole = together if len(other) == len(together) else together[[len(together) - 1]]
        _hold(_near(other.logits, whole.logits), f"the same logits with {name}")
        gap = (other.contributions - whole.contributions).abs().amax(1)
        _hold(
            bool((gap <= 1e-3 * _scale(whole)).all()),
            f"the same contributions with {name}; off by {gap.max():.3g}",
        )


def the_same_call_says_the_same(explainer: Explainer, images: Tensor) -> None:
    """Two calls agree to the bit, whatever the caller's random state."""
    first = explainer.explain(images)
    torch.rand(3)
    second = explainer.explain(images)
    _hold(torch.equal(first.contributions, second.contributions), "the same contributions on a second call")
    _hold(torch.equal(first.saliency(), second.saliency()), "the same saliency on a second call")


def everything_is_left_as_it_was(explainer: Explainer, images: Tensor) -> None:
    """Mode, gradients, hooks, buffers, random state, images; also after an exception, in inference mode."""
    network = explainer.network
    with _unchanged(network, images, "explaining"):
        explainer.explain(images)
    with _unchanged(network, images, "an exception"):
        try:
            with _spoiled(network):
                explainer.explain(images)
        except ExplainKitError:
            pass
        else:
            _hold(False, "an error, not an explanation, where the network gives NaN")
    with _unchanged(network, images, "explaining in inference mode"), torch.inference_mode():
        told = explainer.explain(images + 0)
    values = [
        told.logits,
        told.base,
        told.scores,
        told.weights,
        told.contributions,
        told.images,
        told.saliency(),
    ]
    _hold(not any(value.is_inference() for value in values), "no inference tensor that leaks out")
    _hold(not any(value.requires_grad for value in values), "values that are cut from the graph")


def images_are_refused_in_words(explainer: Explainer, images: Tensor) -> None:
    """NaN, wrong rank, wrong type, empty, grey: an InputError, never a stack of torch internals."""
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
        "grey": images[:, :1],
        "channels last": images.permute(0, 2, 3, 1),
    }
    for what, value in bad.items():
        try:
            explainer.explain(value)
        except InputError as error:
            _hold(len(str(error)) > 20, f"words in the refusal of {what}")
        else:
            _hold(False, f"an InputError for images with {what}")


def targets_go_by_name_and_index(explainer: Explainer, images: Tensor) -> None:
    """The same class by name, by index, one for all and one an image; wrong ones are refused in words."""
    last = len(explainer.classes) - 1
    name = explainer.classes[last]
    count = len(images)
    by_index = explainer.explain(images, last)
    _hold(bool((by_index.targets == last).all()), "the class that was asked for")
    for given in (name, [name] * count, [last] * count, torch.full((count,), last)):
        told = explainer.explain(images, given)
        _hold(torch.equal(told.contributions, by_index.contributions), f"the same for targets={given!r}")
    predicted = explainer.explain(images)
    _hold(
        torch.equal(predicted.targets, predicted.logits.argmax(1)), "the prediction where no target is given"
    )
    wrong = (last + 1, -1, "no such class", [0] * (count + 1), torch.zeros(count + 1, dtype=torch.long))
    refused: list[Any] = [*wrong, torch.zeros(count), 0.5]
    for target in refused:
        try:
            explainer.explain(images, target)
        except (InputError, UnknownNameError):
            continue
        _hold(False, f"a refusal in words of targets={target!r}")


def saved_and_loaded_says_the_same(explainer: Explainer, images: Tensor) -> None:
    """Explanations come back from a file; an explainer that learns comes back from a folder."""
    from explainkit.storage import load, save

    told = explainer.explain(images)
    with tempfile.TemporaryDirectory() as folder:
        path = told.save(Path(folder) / "told.safetensors")
        again = Explanations.load(path)
        for name in ("logits", "targets", "base", "scores", "weights", "contributions", "images"):
            _hold(
                torch.equal(getattr(again, name), getattr(told, name).cpu()), f"the same {name} from the file"
            )
        gap = (again.saliency() - told.saliency().cpu()).abs().sum((1, 2))
        _hold(
            bool((gap <= 1e-2 * _scale(told).cpu()).all()),
            f"the same saliency from the file; off by {gap.max():.3g}",
        )
        _hold([item.sentence() for item in again] == [item.sentence() for item in told], "the same sentences")
        _hold(again.claim == told.claim and again.classes == told.classes, "the same claim and classes")
        _hold(_origin(again) == _origin(told), "the same provenance")
        if isinstance(explainer, InterpretableExplainer) and not explainer.bound:
            loaded = load(save(explainer, Path(folder) / "explainer"), device=explainer.device)
            same = loaded.explain(images)
            _hold(torch.equal(same.logits, told.logits), "the same logits from the folder, to the bit")
            _hold(
                torch.equal(same.contributions, told.contributions), "the same contributions from the folder"
            )


def any_layout_and_precision_will_do(explainer: Explainer, images: Tensor) -> None:
    """float64 and half images, strided and channels-last ones, and images that ask for gradients."""
    told = explainer.explain(images)
    strided = torch.stack([images, images], 4)[..., 0]
    forms = {
        "float64": images.double(),
        "strided": strided,
        "channels-last": images.contiguous(memory_format=torch.channels_last),
        "gradients wanted": images.clone().requires_grad_(),
    }
    for what, form in forms.items():
        other = explainer.explain(form, told.targets)
        _hold(_near(other.logits, told.logits), f"the same logits for {what} images")
        gap = (other.contributions - told.contributions).abs().amax(1)
        _hold(
            bool((gap <= 1e-3 * _scale(told)).all()),
            f"the same contributions for {what} images; off by {gap.max():.3g}",
        )


def sums_hold_in_mixed_precision(explainer: Explainer, images: Tensor) -> None:
    """Under the caller's autocast the heads still sum in full precision."""
    with torch.autocast(explainer.device.type, torch.bfloat16):
        told = explainer.explain(images)
    _hold(bool(told.contributions.isfinite().all()), "finite contributions under autocast")
    if told.claim == "exact":
        told.check()


def a_constant_image_is_explained(explainer: Explainer, images: Tensor) -> None:
    """Black, grey and white images give finite values that still add up, and can be drawn."""
    flat = torch.stack([torch.full_like(images[0], level) for level in (0.0, 0.5, 1.0)])
    told = explainer.explain(flat)
    _hold(bool(told.contributions.isfinite().all() and told.saliency().isfinite().all()), "finite values")
    if told.claim == "exact":
        told.check()
    for item in told:
        item.figure()


def it_renders_and_escapes(explainer: Explainer, images: Tensor) -> None:
    """A figure, a sentence and markup, with every name from the data escaped."""
    told = explainer.explain(images[:1])
    hostile = "<script>alert(1)</script> & $x_{y}$"
    named = evolve(told, classes=[hostile] * len(told.classes))[0]
    _hold(hostile in named.sentence(), "the class named in the sentence")
    html = named._repr_html_()
    _hold("<script" not in html and "&lt;script&gt;" in html, "class names escaped in markup")
    _hold("<script" not in named.batch._repr_html_(), "class names escaped in the markup of several")
    figure = named.figure()
    figure.canvas.draw()
    _hold(bool(figure.axes), "a figure with something in it")


def classes_add_up(explainer: Explainer, images: Tensor) -> None:
    """What classes are is told in sums that make the mean logit; refused in words where no sum is claimed."""
    predicted = explainer.predict(images).argmax(1)
    batch = Batch(images=images, labels=predicted.cpu(), ids=torch.arange(len(images)))
    if explainer.card.claim == "none":
        _refuses("to average what is no sum", lambda: explainer.explain_class([batch]))
        return
    told = explainer.explain_class([batch, batch])
    if explainer.card.claim == "exact":
        told.check()
    _hold(int(told.counts.sum()) == 2 * len(images), "every image counted in its class")
    logits = explainer.predict(images)
    for item in told:
        mean = logits[predicted == item.target].mean(0)[item.target]
        _hold(_near(torch.tensor(item.total), mean.cpu()), f"the mean logit of {item.name}")
        sums = torch.tensor(item.base + item.contributions.sum().item() + item.residual)
        _hold(_near(sums, torch.tensor(item.total)), "base and mean contributions that make the mean logit")
        _hold(item.name.lower() in item.sentence().lower(), "the class named in its sentence")
        _hold("<article" in item._repr_html_() and bool(item.figure().axes), "a class that can be drawn")
    for name in ("agreement", "decisive"):
        shares = getattr(told, name)
        if shares is not None:
            _hold(bool(((shares >= 0) & (shares <= 1)).all()), f"shares of images, in 0 … 1, as {name}")
    if isinstance(explainer, InterpretableExplainer) and told.every is not None:
        first = next(iter(told)).contrast()
        _hold(abs(first.residual) <= 1e-3 * max(1.0, abs(first.total)), "a contrast that sums to the margin")


def changes_flip(explainer: Explainer, images: Tensor) -> None:
    """Edits that are called feasible flip, within what is plausible; swaps are what the network says."""
    if not isinstance(explainer, InterpretableExplainer):
        _refuses("to change scores where there are none", lambda: explainer.counterfactual(images))
        return
    network, logits = explainer.network, explainer.predict(images)
    labels = logits.argmax(1).cpu()
    bank = Batch(images=images, labels=labels, ids=torch.arange(len(images)))
    with _unchanged(network, images, "asking what would change"):
        told = explainer.counterfactual(images, bank=bank)
    edit, realised, targets = told.edit, told.realised, told.targets.cpu()
    parts, feasible = told.explanations.decomposition, told.edit.feasible
    if parts is None:
        raise ContractError("Expected explanations of all classes of an architecture.")
    if getattr(network, "rescore", None) is None:
        after = logits.double().cpu()
        rows = torch.arange(len(images), device=logits.device)
        for label in range(logits.shape[1]):
            weights = parts.weights_for_rows(rows, torch.full_like(rows, label)).double().cpu()
            after[:, label] += (weights * (edit.after.double() - edit.before.double())).sum(1)
        _hold(
            torch.equal(after.argmax(1)[feasible], targets[feasible]),
            "edits that make the target win, where they are called feasible",
        )
    ranges = told.explanations.units.range
    low, high = explainer.ranges(bank).cpu() if ranges is None else ranges.cpu()
    least = torch.minimum(low[targets].to(edit.before), edit.before) - 1e-5
    most = torch.maximum(high[targets].to(edit.before), edit.before) + 1e-5
    _hold(bool(((edit.after >= least) & (edit.after <= most)).all()), "scores within what is plausible")
    _hold(bool((edit.size >= edit.lower_bound)[feasible].all()), "no fewer changes than their lower bound")
    said = explainer.predict(realised.images).argmax(1)
    _hold(torch.equal(said == told.targets, realised.success), "success as the network says of the images")
    changed = (realised.images != images.to(realised.images)).any(1)
    none_swapped = ~realised.regions.flatten(1).any(1)
    _hold(not changed[none_swapped].any(), "images as they were where nothing is swapped")
    for item in told:
        _hold(item.target_name in item.sentence(), "the target named in the sentence")
    _hold("<article" in told[0]._repr_html_() and bool(told[0].figure().axes), "a change that can be drawn")


def units_are_named_or_not(explainer: Explainer, images: Tensor) -> None:
    """Naming raises for no kind of unit: each gets a phrase with its score, or none."""
    from explainkit.questions.naming import name_units

    labels = explainer.predict(images).argmax(1).cpu()
    words = ("red square", "blue circle")
    captions = tuple(Caption(text=f"A picture of a {words[place % 2]}.") for place in range(len(images)))
    levels = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    split = ArraySplit(images=levels, labels=labels, captions=captions)
    data = ImageData(
        name="named", classes=explainer.classes, size=tuple(images.shape[-2:]),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip
    before = explainer.units if isinstance(explainer, InterpretableExplainer) else None
    try:
        names = name_units(explainer, data)
        told = explainer.explain(images)
    finally:
        if isinstance(explainer, InterpretableExplainer):
            explainer.units = before
    _hold(bool(names.reason) or len(names) == len(told.units), "a name a unit, or a reason why there is none")
    scores = torch.tensor([[name.score, name.error] for name in names])
    _hold(bool(scores.isfinite().all()), "finite scores of names")


PROMISES: tuple[Promise, ...] = (
    contributions_add_up,
    one_image_is_explained_as_in_a_batch,
    the_same_call_says_the_same,
    everything_is_left_as_it_was,
    images_are_refused_in_words,
    targets_go_by_name_and_index,
    saved_and_loaded_says_the_same,
    any_layout_and_precision_will_do,
    sums_hold_in_mixed_precision,
    a_constant_image_is_explained,
    it_renders_and_escapes,
    classes_add_up,
    changes_flip,
    units_are_named_or_not,
)


def check_explainer(explainer: Explainer, images: Tensor | None = None) -> None:
    """Hold a ready `explainer` to every promise.

    Parameters
    ----------
    images : Tensor or None, (N, 3, H, W)
        Of the kind that the network knows; six of `tiny_data` unless given.

    Raises
    ------
    ContractError
        At the first broken promise, with its name.
    """
    for promise in PROMISES:
        try:
            promise(explainer, tiny_images() if images is None else images)
        except ContractError as error:
            raise ContractError(f"{promise.__name__}: {error}") from error


_ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "last")


@cache
def tiny_data(size: int = 32, classes: int = 3) -> ImageData:
    """A data set for tests that is learned in seconds: a coloured square at a place that tells the class.

    Captions tell its colour, and of every other image its place.
    """
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ArraySplit:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 90, (count, 3, size, size), generator=generator, dtype=torch.uint8)
        step = size // classes
        for label in range(classes):
            start = label * step
            mine = labels == label
            images[mine, label % 3, start : start + step, start : start + step] = 230
        colours = ("red", "green", "blue")
        captions = tuple(
            Caption(
                text=f"A picture with a {colours[label % 3]} square"
                + (f" and a {_ORDER[label]} corner." if place // classes % 2 else ".")
            )
            for place, label in enumerate(labels.tolist())
        )
        return ArraySplit(images=images, labels=labels, captions=captions)

    return ImageData(
        name="tiny",
        classes=[f"square {label}" for label in range(classes)],
        size=(size, size),
        splits={"train": split(96), "validation": split(24), "test": split(24)},
    )


def tiny_images() -> Tensor:
    """Six images of `tiny_data`, (6, 3, 32, 32)."""
    return tiny_data().test.batch(torch.arange(6)).images


@cache
def specimen(name: str) -> Explainer:
    """The registered explainer called `name`, with its preset ``"tiny"`` if it has one, for `tiny_data`.

    One that learns is fitted; a post-hoc one is bound to a network with ReLU modules and a linear end.
    """
    factory = registry.find("explainers", name)
    preset = "tiny" if "tiny" in getattr(factory, "presets", {}) else None
    if isinstance(factory, type) and issubclass(factory, InterpretableExplainer):
        explainer = explainer_by_name(name, preset=preset)
        if isinstance(explainer, InterpretableExplainer):
            return explainer.fit(tiny_data(), seed=0, device="cpu", progress=False)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    ).eval()  # fmt: skip
    return explainer_by_name(name, preset=preset, network=network, classes=tiny_data().classes)


def _refuses(what: str, ask: Callable[[], object]) -> None:
    """Hold `ask` to a refusal in words."""
    try:
        ask()
    except InputError as error:
        _hold(len(str(error)) > 20, f"words in the refusal {what}")
    else:
        _hold(False, f"a refusal {what}")


@contextmanager
def _spoiled(network: nn.Module) -> Iterator[None]:
    """`network` with a NaN in its last parameter, for as long as the context lasts."""
    last = list(network.parameters())[-1]
    before = last.detach().clone()
    with torch.no_grad():
        last.fill_(float("nan"))
    try:
        yield
    finally:
        with torch.no_grad():
            last.copy_(before)


@contextmanager
def _unchanged(network: nn.Module, images: Tensor, what: str) -> Iterator[None]:
    """Hold that nothing of the network, the images or the caller's state is changed by `what`."""
    network.train()
    frozen = next((module for module in network.modules() if module is not network), network)
    frozen.eval()
    marked = next(network.parameters())
    marked.grad = torch.ones_like(marked)
    before = _state(network, images)
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    _hold(torch.equal(torch.rand(2), expected), f"the caller's random state after {what}")
    for name, value in _state(network, images).items():
        _hold(_same(value, before[name]), f"{name} as before after {what}")
    _hold(bool((marked.grad == 1).all()), f"gradients as before after {what}")
    marked.grad = None
    network.eval()


def _state(network: nn.Module, images: Tensor) -> dict[str, object]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training mode": [module.training for module in network.modules()],
        "which parameters learn": [parameter.requires_grad for parameter in network.parameters()],
        "which parameters have gradients": [parameter.grad is None for parameter in network.parameters()],
        "hooks": [len(getattr(module, name)) for module in network.modules() for name in hooks],
        "weights and buffers": [value.clone() for value in network.state_dict().values()],
        "images": [images.clone()],
        "the images' gradient": images.grad,
        "the default type": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
    }


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and one and isinstance(one[0], Tensor):
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[call-overload]
    return one == other


def _scale(told: Explanations) -> Tensor:
    """What values are small against, (N,)."""
    if told.claim == "none":
        return told.contributions.abs().sum(1).clamp(min=1e-12)
    return torch.maximum(told.logits.abs().amax(1), told.contributions.abs().sum(1)).clamp(min=1e-12)


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(
        one.double(), other.double(), rtol=1e-3, atol=1e-3 * float(other.abs().max().clamp(min=1e-12))
    )


def _origin(told: Explanations) -> tuple[object, ...]:
    origin = told.provenance
    return origin.explainer, origin.created, dict(origin.versions), origin.seed, origin.model_digest


def _hold(kept: bool, promise: str) -> None:
    if not kept:
        raise ContractError(f"Expected {promise}.")
