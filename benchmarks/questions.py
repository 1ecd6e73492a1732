"""The three questions put to saved models on aviary: why, what is a class, what would change it; and names.

Usage: python benchmarks/questions.py --model FOLDER … [--class] [--edit] [--realised] [--names]
[--sentences 50] [--images 100] [--threads 1]

Each part prints a Markdown table with a row a model; without a part all are run. A statement that can be
checked is: an edit whose scores do not make the target win, an "exact" one that brute force betters, or a
sentence with a number that is not the rounded one is reported as such.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice

import numpy as np
import torch
from attrs import evolve
from scipy.optimize import linprog
from torch import Tensor
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.aviary import interventions
from explainkit.data.aviary.dataset import Aviary
from explainkit.decomposition import Decomposition
from explainkit.interfaces import InterpretableExplainer, undisturbed
from explainkit.metrics.concepts import concept_scores
from explainkit.questions import naming
from explainkit.questions.edits import EvidenceEdits, edit
from explainkit.questions.exchange import MOST, _Search, gather
from explainkit.wording import called

Model = InterpretableExplainer[torch.nn.Module]
Models = dict[str, Model]

MARGIN = 0.01
"""By how much the target is to be ahead by its evidence: the default of `counterfactual`."""

DRAWS = 50
"""Random regions for each image."""

TOUCHED = 0.25
"""The share of a part's visible area from which on a swap touches it, in either image."""


def table(*columns: str) -> None:
    """The head of a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*values: object) -> None:
    """A line of it."""
    print(f"| {' | '.join(str(value) for value in values)} |", flush=True)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def percent(values: Tensor) -> str:
    return f"{values.float().mean().item():.1%}" if values.numel() else "-"


def class_part(models: Models, images: int, repetitions: int) -> None:
    """What all classes are, in one pass, beside explaining the same images."""
    some = ek.dataset("aviary", test=images)
    for _ in some.batches("test"):  # drawn before the clock starts
        pass
    table("model", "images", "classes", "time / explaining", "largest gap", "R²: mean", "R²: least")
    for name, model in models.items():
        told = model.explain_class(some.batches("test", 250))
        gap = told.contributions.double().sum(1) + told.base.double() - told.totals.double()
        gap = (gap.abs() / told.totals.abs().double()).max()

        def explain(model: Model = model) -> None:
            for batch in some.batches("test", 250):
                model.explain(batch, batch.labels)

        def explain_class(model: Model = model) -> None:
            model.explain_class(some.batches("test", 250))

        ratios = []
        for index in range(repetitions + 1):
            times = {call: timed(call) for call in (explain, explain_class)[:: 1 if index % 2 else -1]}
            ratios.append(times[explain_class] / times[explain])
        assert told.linearity is not None
        row(
            name, int(told.counts.sum()), len(told), f"{statistics.median(ratios[1:]):.2f}", f"{gap:.1e}",
            f"{told.linearity.mean():.3f}", f"{told.linearity.min():.3f}",
        )  # fmt: skip


def others(model: Model, images: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Predictions, and targets: runners-up, or any other class by chance."""
    logits = model.predict(images)
    top = logits.topk(2, 1).indices
    step = torch.randint(1, logits.shape[1], (len(images),), generator=torch.Generator().manual_seed(0))
    return top[:, 0], top[:, 1] if how == "runner-up" else (top[:, 0] + step) % logits.shape[1]


def all_weights(parts: Decomposition) -> Tensor:
    """(N, C, K), one pair of an image and a class after the other."""
    n, c = parts.logits.shape
    rows = torch.arange(n).repeat_interleave(c)
    return parts.weights_for_rows(rows, torch.arange(c).repeat(n)).view(n, c, -1)


def edit_part(models: Models, data: Aviary, images: int, repetitions: int) -> None:
    """Edits of the evidence, their proof by the weights, what they cost, and brute force."""
    table(
        "model", "units", "target", "feasible", "exact", "median size", "target wins", "ms an image",
        "no smaller by brute force",
    )  # fmt: skip
    for name, model in models.items():
        batch = data.test.batch(torch.arange(images))
        with undisturbed(model.network), torch.no_grad():
            parts: Decomposition = model.network.decompose(model.read(batch))  # type: ignore[operator]
            weights = all_weights(parts)
        units = model.units
        assert units is not None and units.range is not None
        for how in ("runner-up", "random"):
            _, targets = others(model, batch.images, how)
            low, high = units.range[:, targets]

            def run(
                parts: Decomposition = parts, targets: Tensor = targets, weights: Tensor = weights,
                low: Tensor = low, high: Tensor = high,
            ) -> EvidenceEdits:  # fmt: skip
                return edit(
                    parts.logits, targets, parts.scores, lambda rows: weights[rows], low, high, margin=MARGIN
                )

            found = run()
            cost = statistics.median(timed(run) for _ in range(repetitions)) / images * 1000
            edited = torch.einsum("nck,nk->nc", weights.double(), found.after.double()) + parts.bias.double()
            wins = (edited.argmax(1) == targets)[found.feasible]
            within = (found.after >= torch.minimum(low, parts.scores) - 1e-5) & (
                found.after <= torch.maximum(high, parts.scores) + 1e-5
            )
            assert within.all(), "an edit leaves what is plausible"
            brute = "-"
            if len(units) <= 12:
                checked = [smallest(parts, weights, low, high, targets, found, i) for i in range(20)]
                brute = f"{sum(checked)} of {len(checked)}"
            sizes = found.size[found.feasible]
            row(
                name, len(units), how, percent(found.feasible), percent(found.exact),
                f"{sizes.median().item() if len(sizes) else '-'}", percent(wins), f"{cost:.2f}", brute,
            )  # fmt: skip


def smallest(
    parts: Decomposition, weights: Tensor, low: Tensor, high: Tensor, targets: Tensor, found: EvidenceEdits,
    image: int,
) -> bool:  # fmt: skip
    """Whether no set of fewer units could do, by a linear program for each set of one unit fewer.

    A smaller set that does is within one of these. Where no edit is feasible, all units are let move.
    """
    target = int(targets[image])
    gains = (weights[image, target] - weights[image]).double().numpy()
    gaps = (parts.logits[image] - parts.logits[image, target] + MARGIN).double().numpy()
    rivals = np.arange(len(gaps)) != target
    down = (low[image] - parts.scores[image]).double().clamp(max=0).numpy()
    up = (high[image] - parts.scores[image]).double().clamp(min=0).numpy()
    units = len(up)
    count = int(found.size[image]) - 1 if found.feasible[image] else units
    if count < 0:
        return True
    for chosen in combinations(range(units), count):
        free = np.isin(np.arange(units), chosen)
        solved = linprog(
            np.zeros(units), A_ub=-gains[rivals], b_ub=-gaps[rivals],
            bounds=list(zip(down * free, up * free, strict=True)), method="highs",
        )  # fmt: skip
        if solved.status == 0:
            return not found.exact[image]
    return True


def laid_over(values: Tensor, shift: Tensor, mirrored: bool) -> Tensor:
    """What is known of the pixels (..., H, W) of an image, as the image was laid over another."""
    moved = values.flip(-1) if mirrored else values
    for axis, cells in zip((-2, -1), shift.tolist(), strict=True):
        size = values.shape[axis]
        along = (torch.arange(size) - round(cells * size / 8)).clamp(0, size - 1)
        moved = moved.index_select(axis, along)
    return moved


def first_try(model: Model, images: Tensor, targets: Tensor, data: Aviary) -> Tensor:
    """Whether the network says the target (N,) once the cells are swapped that the evidence says will do."""
    assert model.units is not None
    won = []
    with undisturbed(model.network), torch.no_grad():
        bank = gather(model, data, targets, images)
        for rows in torch.arange(len(images)).split(16):
            parts: Decomposition = model.network.decompose(images[rows])  # type: ignore[operator]
            search = _Search(model, model.units, images[rows], parts, targets[rows], bank)
            order, lengths, chosen, shift = search._candidates()
            most = torch.minimum(search.valid, torch.tensor(int(MOST * order.shape[2])))
            length = torch.minimum(lengths, most)[:, 0]
            cells = order[:, 0].argsort(1) < length[:, None]
            mixed = search._mixed(images[rows], search._laid(chosen, shift)[:, 0], cells)
            won.append(model.network(mixed).argmax(1) == targets[rows])
    return torch.cat(won)


def by_chance(size: Tensor, favoured: Tensor, generator: torch.Generator) -> Tensor:
    """As many cells of each image, (N, 8, 8) bool: any, or of those `favoured` as long as there are some."""
    order = torch.rand(favoured.flatten(1).shape, generator=generator) + favoured.flatten(1).float()
    rank = order.argsort(1, descending=True).argsort(1)
    return (rank < size[:, None]).view_as(favoured)


def in_pixels(cells: Tensor, side: int) -> Tensor:
    return F.interpolate(cells[:, None].float(), (side, side), mode="nearest")[:, 0] > 0


class Swaps:
    """Swapped cells (N, 8, 8) against what is seen in the image and in what is laid over it."""

    def __init__(self, seen: Tensor, laid: Tensor, differing: Tensor) -> None:
        self.seen, self.laid, self.differing = seen, laid, differing  # (N, P, H, W) twice, (N, P)

    def on_differing(self, cells: Tensor) -> Tensor:
        """The share of the area in which the image or what is laid over shows a part that differs, (N,)."""
        shows = ((self.seen | self.laid) & self.differing[:, :, None, None]).any(1)
        area = in_pixels(cells, shows.shape[-1])
        return (shows & area).flatten(1).sum(1) / area.flatten(1).sum(1)

    def same_part(self, cells: Tensor) -> Tensor:
        """The share of cells in which both show some of the same part, (N,)."""
        both = [F.adaptive_max_pool2d(masks.float(), cells.shape[1:]) > 0 for masks in (self.seen, self.laid)]
        alike = (both[0] & both[1]).any(1)
        return (alike & cells).flatten(1).sum(1) / cells.flatten(1).sum(1)

    def touched(self, cells: Tensor) -> Tensor:
        """The parts of which a quarter or more lies in the cells, in the image or in what is laid, (N, P)."""
        area = in_pixels(cells, self.seen.shape[-1])[:, None]
        shares = [
            (masks & area).flatten(2).sum(2) / masks.flatten(2).sum(2).clamp(min=1)
            for masks in (self.seen, self.laid)
        ]
        return (shares[0] >= TOUCHED) | (shares[1] >= TOUCHED)


def minimal_sets(
    model: Model, data: Aviary, ids: Tensor, predicted: Tensor, targets: Tensor
) -> list[list[int]]:
    """For each image the inclusion-minimal sets of parts (bits) that make it the target, drawn as its own."""
    found = []
    bits = 1 << np.arange(len(data.parts))
    for image, old, new in zip(ids.tolist(), predicted.tolist(), targets.tolist(), strict=True):
        differing = [data.parts.index(part) for part in data.differing(old, new)]
        chosen = np.zeros((1 << len(differing), len(data.parts)), bool)
        chosen[:, differing] = np.arange(len(chosen))[:, None] >> np.arange(len(differing)) & 1
        scenes = data.scenes("test", [image])[np.zeros(len(chosen), np.int64)]
        codes = np.where(chosen[:, :, None], data.codes[new], scenes.codes[:, 0])
        shown = data.render(interventions.swap(scenes, data.parts, codes)).images
        said = (model.predict(shown).argmax(1) == new).numpy()
        winning = sorted((chosen @ bits)[said].tolist(), key=int.bit_count)
        least: list[int] = []
        for one in winning:
            if not any(one & other == other for other in least):
                least.append(one)
        found.append(least)
    return found


def realised_part(models: Models, data: Aviary, images: int) -> None:
    """Swaps that flip the decision, where they are, and the parts that truly must change."""
    rows: list[list[list[object]]] = [[], [], []]
    for name, model in models.items():
        for how in ("runner-up", "random"):
            for kept, told in zip(rows, realised_rows(model, data, images, how), strict=True):
                kept.append([name, how, *told])
    heads = [
        ("flip", "regions (median)", "promised (median)", "flip as promised", "passes an image",
         "s an image"),
        ("on differing parts", "random", "random on the bird", "same part", "random on the bird "),
        ("truly needed (mean)", "touch a minimal set", "random on the bird", "random",
         "parts touched (mean)", "random on the bird "),
    ]  # fmt: skip
    for head, lines in zip(heads, rows, strict=True):
        table("model", "target", *head)
        for line in lines:
            row(*line)


def realised_rows(model: Model, data: Aviary, images: int, how: str) -> Iterator[list[object]]:
    ids = torch.arange(images)
    batch = data.test.batch(ids)
    predicted, targets = others(model, batch.images, how)
    start = time.perf_counter()
    told = model.counterfactual(batch, targets, bank=data)
    seconds = (time.perf_counter() - start) / images
    found = told.realised
    says = model.predict(found.images).argmax(1) == targets
    assert torch.equal(says, found.success), "what is said of success is not what the network says"
    done = found.success
    yield [
        percent(done), int(found.size[done].median()), int(found.promised.median()),
        percent(first_try(model, batch.images, targets, data)), f"{found.passes / images:.0f}",
        f"{seconds:.2f}",
    ]  # fmt: skip
    source = data.train.batch(found.exemplars[done])
    moves = list(zip(found.shifts[done], found.mirrored[done].tolist(), strict=True))
    for image, (shift, mirrored), laid in zip(source.images, moves, found.sources[done], strict=True):
        assert torch.equal(laid_over(image, shift, mirrored), laid), "not the image that was laid over"
    assert source.masks is not None and batch.masks is not None
    laid = torch.stack(
        [laid_over(masks, *move) for masks, move in zip(source.masks, moves, strict=True)]
    )  # (M, P, H, W)
    pairs = zip(predicted[done].tolist(), targets[done].tolist(), strict=True)
    differing = torch.tensor([[part in data.differing(*pair) for part in data.parts] for pair in pairs])
    swaps = Swaps(batch.masks[done], laid, differing)
    bird = torch.from_numpy(data.draw(data.scenes("test", ids[done].numpy())).birds.any(1))
    on_bird = F.adaptive_avg_pool2d(bird.float(), 8) >= 0.25
    generator = torch.Generator().manual_seed(0)
    size = found.size[done]
    anywhere, somewhere = (
        [by_chance(size, favoured, generator) for _ in range(DRAWS)]
        for favoured in (torch.zeros_like(on_bird), on_bird)
    )
    cells = found.regions[done]

    def chance(measured: Callable[[Tensor], Tensor], regions: list[Tensor]) -> str:
        return percent(torch.stack([measured(one).float() for one in regions]))

    yield [
        percent(swaps.on_differing(cells)), chance(swaps.on_differing, anywhere),
        chance(swaps.on_differing, somewhere), percent(swaps.same_part(cells)),
        chance(swaps.same_part, somewhere),
    ]  # fmt: skip
    minimal = minimal_sets(model, data, ids[done], predicted[done], targets[done])
    bits = 1 << torch.arange(len(data.parts))

    def contains(cells: Tensor) -> Tensor:
        touched = (swaps.touched(cells) * bits).sum(1).tolist()
        hits = [any(one & bit == bit for bit in sets) for one, sets in zip(touched, minimal, strict=True)]
        return torch.tensor(hits)

    def number(cells: Tensor) -> Tensor:
        return swaps.touched(cells).sum(1).float()

    least = [min(one.bit_count() for one in sets) for sets in minimal if sets]
    yield [
        f"{statistics.mean(least):.2f}" + (f" ({len(least)} of {len(minimal)})" if len(least) < len(minimal)
        else ""), percent(contains(cells)), chance(contains, somewhere), chance(contains, anywhere),
        f"{number(cells).mean():.1f}", f"{torch.stack([number(one) for one in somewhere]).mean():.1f}",
    ]  # fmt: skip


def names_part(models: Models, data: Aviary, images: int) -> None:
    """How well units are named, between the true masks and noise."""
    lines = []
    table("model", "units", "named", "mean score", "mean of the named", "seconds")
    for name, model in models.items():
        assert model.units is not None
        start = time.perf_counter()
        names = ek.name_units(model, data, images=images)
        seconds = time.perf_counter() - start
        scores = torch.tensor([one.score for one in names])
        told = torch.tensor([one.told for one in names])
        mean = f"{scores[told].mean():.3f}" if told.any() else "-"
        row(name, len(names), int(told.sum()), f"{scores.mean():.3f}", mean, f"{seconds:.0f}")
        best = sorted(names, key=lambda one: -one.score)
        poor = [best[place * (len(best) - 1) // 4] for place in (2, 3, 4)]
        lines.append((name, best[:5], poor))
    batches = [data.validation.batch(ids) for ids in torch.arange(images).split(64)]
    concepts = naming._concepts(batches, data, True)
    noise = torch.rand(images, 96, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, maps in (
        ("the true masks", concepts.masks.float()),
        ("random maps", F.interpolate(noise, concepts.grid, mode="bilinear")),
    ):
        start = time.perf_counter()
        found = concept_scores(maps, concepts.masks, concepts.known)
        told = (found.fis >= naming.LEAST) & (found.fis > naming.BEYOND * found.error) & (found.steady > 0.5)
        mean = f"{found.fis[told].mean():.3f}" if told.any() else "-"
        seconds = time.perf_counter() - start
        row(name, maps.shape[1], int(told.sum()), f"{found.fis.mean():.3f}", mean, f"{seconds:.0f}")
    print(f"\n{len(concepts.names)} candidates, {images} validation images")
    table("model", "the best five", "at half, three quarters and the end")
    for name, best, poor in lines:
        row(name, *("; ".join(named(one) for one in some) for some in (best, poor)))
    test = [data.test.batch(ids) for ids in torch.arange(500).split(50)]
    truth = naming._concepts(test, data, True)
    table("model", "phrases told of 500 images", "of a score below 0", "true of the image",
          "where the score is above 0", "true of any image")  # fmt: skip
    for name, model in models.items():
        row(name, *truth_of_phrases(model, test, truth))


def truth_of_phrases(model: Model, batches: Sequence[ek.Batch], concepts: naming.Concepts) -> list[object]:
    """Of three reasons for each decision, those told by a phrase: how often it is true of the image.

    Where that is known; and how often the unit is a reason because it is not found.
    """
    assert model.units is not None
    phrases = model.units.phrases or [None] * len(model.units)
    place = torch.tensor([-1 if p not in concepts.names else concepts.names.index(p) for p in phrases])
    there = concepts.masks.flatten(2).any(2)
    usual = (there & concepts.known).sum(0) / concepts.known.sum(0)
    true, found, chance, below, start = [], [], [], [], 0
    for batch in batches:
        told = model.explain(batch)
        top = told.contributions.topk(3, 1)
        image, rank = ((top.values > 0) & (place[top.indices] >= 0)).nonzero(as_tuple=True)
        unit = top.indices[image, rank]
        phrase, at = place[unit], image + start
        lacking = told.scores[image, unit] < 0
        below.append(lacking)
        sure = concepts.known[at, phrase]
        true.append(there[at, phrase][sure])
        found.append(there[at, phrase][sure & ~lacking])
        chance.append(usual[phrase][sure])
        start += len(batch)
    count = sum(len(one) for one in below)
    return [count, *(percent(torch.cat(values)) for values in (below, true, found, chance))]


def named(one: naming.Name) -> str:
    return f"{one.name}: {one.phrase} {one.score:.2f} ± {one.error:.2f}{'' if one.told else ' (not told)'}"


def sentences_part(models: Models, data: Aviary, count: int, images: int) -> None:
    """Sentences, each beside what is not as it should be in it."""
    batches = list(islice(data.batches("test", 250), 2))
    classes = {name: model.explain_class(batches) for name, model in models.items()}
    wrong = 0
    for index in range(count):
        name, kind = list(models)[index % len(models)], index // len(models) % 3
        model, image = models[name], 37 * index % images
        batch = data.test.batch(torch.tensor([image]))
        turn = index // len(models) // 3
        if kind == 0:
            explained = model.explain(batch, against=int(batch.labels[0] + 3) % 20 if turn % 2 else None)[0]
            text, faults = explained.sentence(), check_explanation(explained)
        elif kind == 1:
            told = classes[name][index % len(classes[name])]
            told = told.contrast() if turn % 2 else told
            text, faults = told.sentence(), check_class(told)
        else:
            _, targets = others(model, batch.images, "random" if turn % 2 else "runner-up")
            changed = model.counterfactual(batch, targets, bank=data)[0]
            text, faults = changed.sentence(), check_change(changed, model, data)
        wrong += bool(faults)
        print(f"{index + 1}. ({name}) {text}{''.join(f'  <-- {fault}' for fault in faults)}", flush=True)
    print(f"\n{count} sentences, {wrong} with a number or word that is not as it should be")


NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?"


def agrees(text: str, value: float) -> bool:
    """Whether `text` is `value`, rounded to as many digits as it has."""
    mantissa, _, power = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10.0 ** (int(power or 0) - digits) * (1 + 1e-3)


def agrees_share(text: str, value: float) -> bool:
    if text == "under 1 %":
        return 0 < value < 0.005
    return 0.995 < value < 1 if text == "over 99 %" else agrees(text.removesuffix(" %"), value * 100)


SHARE = r"under 1 %|over 99 %|-?\d+ %"


class Reader:
    """Takes what it knows out of a sentence; digits that are left are faults."""

    def __init__(self, text: str, units: ek.Units, classes: Sequence[str]) -> None:
        self.text, self.faults = text, list[str]()
        phrases = units.phrases or [None] * len(units)
        self.names: dict[str, list[int]] = {}
        for unit, (name, phrase) in enumerate(zip(units.names, phrases, strict=True)):
            for word in {called(name, phrase), called(name, phrase, shared=True)}:
                self.names.setdefault(word, []).append(unit)
        words = "|".join(re.escape(word) for word in sorted(self.names, key=len, reverse=True))
        self.unit = f"(?<!\\w)(?P<unit>{words})"
        self.classes = classes

    def each(self, pattern: str, holds: Callable[[re.Match[str]], bool]) -> int:
        """Check whatever is as `pattern`, and take it out; how often it was there."""
        found = list(re.finditer(pattern, self.text))
        for match in found:
            if not holds(match):
                self.faults.append(f"{match[0]!r} is not so")
        self.text = re.sub(pattern, "…", self.text)
        return len(found)

    def some(self, match: re.Match[str], holds: Callable[[int], bool]) -> bool:
        """Whether it holds of a unit that is called so."""
        return any(holds(unit) for unit in self.names[match["unit"]])

    def rest(self) -> list[str]:
        """All faults: a number that nothing was found to stand for is one."""
        left = re.findall(r"\d+", self.text)
        return self.faults + ([f"what is {', '.join(left)}?"] if left else [])


def check_explanation(told: ek.Explanation) -> list[str]:
    reader = Reader(told.sentence(), told.batch.units, told.batch.classes)
    values = told.contributions.double()
    share = values / values.abs().sum()
    supporting: list[str] = []

    def is_contribution(match: re.Match[str]) -> bool:
        count, sign = int(match["units"] or 1), -1 if match["value"][0] == "-" else 1
        supporting.extend([match["unit"]] * count * (sign > 0))
        alike = values[reader.names[match["unit"]]].mul(sign).sort(descending=True).values
        if match["units"]:
            return agrees(match["value"], sign * alike[:count].sum().item())
        return reader.some(match, lambda unit: agrees(match["value"], values[unit].item()))

    def is_share(match: re.Match[str]) -> bool:
        supporting.extend([match["unit"]] * (match["value"][0] != "-"))
        return reader.some(match, lambda unit: agrees_share(match["value"], share[unit].item()))

    reader.each(rf"{reader.unit} \((?P<value>{NUMBER})(?: in (?P<units>\d+) \w+)?\)", is_contribution)
    reader.each(rf"{reader.unit} \((?P<value>{SHARE})\)", is_share)
    reader.each(OTHERS, lambda match: is_rest(match, values, len(supporting)))
    return reader.rest()


OTHERS = rf"(?P<count>one|\d+) other \w+ \((?P<value>{SHARE}|{NUMBER})(?: together)?\)"


def is_rest(match: re.Match[str], values: Tensor, told: int) -> bool:
    """Whether it is the number and the sum of what speaks for the class beside the `told` strongest."""
    rest = values.sort(descending=True).values[told:].clamp(min=0)
    right = (
        agrees_share(match["value"], (rest.sum() / values.abs().sum()).item())
        if match["value"].endswith("%")
        else agrees(match["value"], rest.sum().item())
    )
    return right and int(match["count"].replace("one", "1")) == int((rest > 0).sum())


def check_class(told: ek.ClassExplanation) -> list[str]:
    batch, unit_row = told.batch, told.row
    reader = Reader(told.sentence(), batch.units, batch.classes)
    values = batch.contributions[unit_row]
    if told.against is not None:
        assert batch.every is not None
        values = batch.every[unit_row, told.target] - batch.every[unit_row, told.against]
    reader.each(r"over (?P<value>\d+) images?", lambda m: int(m["value"]) == int(batch.counts[unit_row]))
    reader.each(r"its base is (?P<value>" + NUMBER + ")", lambda m: agrees(m["value"], told.base))

    supporting: list[str] = []

    def right(match: re.Match[str]) -> bool:
        supporting.extend([match["unit"]] * (match["value"][0] != "-"))

        def of(unit: int) -> bool:
            good = agrees(match["value"], values[unit].item())
            if match["decisive"]:
                assert batch.decisive is not None
                good &= agrees_share(match["decisive"], batch.decisive[unit_row, unit].item())
            if match["agreement"]:
                good &= agrees_share(match["agreement"], batch.agreement[unit_row, unit].item())
            return good

        return reader.some(match, of)

    reader.each(
        rf"{reader.unit} \((?P<value>{NUMBER})(?:, decisive in (?P<decisive>{SHARE}))?"
        rf"(?:, of that sign in only (?P<agreement>{SHARE}))?\)",
        right,
    )
    reader.each(OTHERS, lambda match: is_rest(match, values.double(), len(supporting)))
    return reader.rest()


def check_change(told: ek.Counterfactual, model: Model, data: Aviary) -> list[str]:
    edits, found, index = told.batch.edit, told.batch.realised, told.index
    reader = Reader(told.sentence(), told.batch.explanations.units, told.batch.classes)
    before, after = edits.before[index], edits.after[index]
    size, target = int((before != after).sum()), int(told.batch.targets[index])

    def moves(match: re.Match[str]) -> bool:
        rose = match["way"] == "rose"
        return reader.some(
            match,
            lambda unit: agrees(match["before"], before[unit].item())
            and agrees(match["after"], after[unit].item()) and rose == bool(after[unit] > before[unit]),
        )  # fmt: skip

    shown = reader.each(
        rf"{reader.unit} (?P<way>rose|fell) from (?P<before>{NUMBER}) to (?P<after>{NUMBER})", moves
    )
    reader.each(r"(?P<n>\d+) other scores? changed", lambda m: int(m["n"]) == size - shown)
    reader.each(
        r"\((?P<n>\d+) scores?, and no fewer would do\)",
        lambda m: int(m["n"]) == size and bool(edits.exact[index]),
    )
    reader.each(
        r"\((?P<n>\d+) scores?; at least (?P<least>\d+) would be needed\)",
        lambda m: (
            (int(m["n"]), int(m["least"])) == (size, int(edits.lower_bound[index])) and not edits.exact[index]
        ),
    )

    def swapped(match: re.Match[str]) -> bool:
        source, said = int(match["id"]), int(model.predict(told.image[None]).argmax(1))
        return (
            int(match["n"]) == int(found.regions[index].sum())
            and int(match["total"]) == found.regions[index].numel()
            and int(data.train.labels[source]) == target == said
            and bool(match["mirror"]) == bool(found.mirrored[index])
        )

    done = reader.each(
        r"With (?P<n>\d+) of its (?P<total>\d+) regions taken from (?P<mirror>the mirrored )?image "
        r"(?P<id>\d+) of the bank, which is [^,]+, the network says so",
        swapped,
    )
    if bool(done) != bool(found.success[index]):
        reader.faults.append("success and what is said of it differ")
    return reader.rest()


PARTS = ("class", "edit", "realised", "names", "sentences")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True, help="folders of models trained on aviary")
    for name in PARTS[:-1]:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--sentences", type=int, default=0, metavar="COUNT")
    parser.add_argument("--images", type=int, help="of each part; else 1000, 500, 100 and 1000")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = ek.dataset("aviary")
    assert isinstance(data, Aviary)
    models: Models = {}
    for folder in options.model:
        model = ek.load(folder)
        assert isinstance(model, InterpretableExplainer) and model.units is not None
        if model.units.range is None:
            model.units = evolve(model.units, range=model.ranges(data))
        models[model.card.title if model.card.title not in models else folder] = model
    chosen = [name for name in PARTS if getattr(options, name)] or list(PARTS)
    if "class" in chosen:
        class_part(models, options.images or 1000, options.repetitions)
    if "edit" in chosen:
        edit_part(models, data, options.images or 500, options.repetitions)
    if "realised" in chosen:
        realised_part(models, data, options.images or 100)
    if "names" in chosen:
        names_part(models, data, options.images or 1000)
    if "sentences" in chosen:
        for model in models.values():
            ek.name_units(model, data, images=options.images or 1000)
        sentences_part(models, data, options.sentences or 50, len(data.test))


if __name__ == "__main__":
    main()
