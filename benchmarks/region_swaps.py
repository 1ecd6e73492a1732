"""Region swaps of saved models on aviary: how often they flip the decision, and which parts they touch.

Usage: python benchmarks/region_swaps.py --model FOLDER … [--images 100] [--threads 1]

Three tables, with a row a model and a choice of targets: success, size and time; the share of the swapped
area that shows parts that differ between the two species, beside random regions; and whether the swapped
cells touch a minimal set of parts that truly must change, which is found by drawing the bird anew.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from attrs import frozen
from aviary_models import (
    TARGETS,
    Model,
    Models,
    choose_targets,
    load_models,
    model_parser,
    percent,
    print_header,
    print_row,
)
from torch import Tensor
from torch.nn import functional as F

from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.data.types import Batch
from explainkit.explainers.state import undisturbed
from explainkit.explanations.decomposition import Decomposition
from explainkit.explanations.edits import RegionSwaps
from explainkit.questions.goals import Goals
from explainkit.questions.region_swap import MOST, _RegionSwapSearch, gather_distractors

DRAWS = 50
"""Random regions for each image."""

TOUCHED = 0.25
"""The share of a part's visible area from which on a swap touches it, in either image."""

HEADERS = (
    ("flip", "regions (median)", "predicted (median)", "flip as predicted", "forwards an image",
     "s an image"),
    ("on differing parts", "random", "random on the bird", "same part", "random on the bird "),
    ("truly needed (mean)", "touch a minimal set", "random on the bird", "random", "parts touched (mean)",
     "random on the bird "),
)  # fmt: skip


def measure_swaps(models: Models, dataset: Aviary, images: int) -> None:
    """Print the three tables."""
    tables: list[list[list[object]]] = [[] for _ in HEADERS]
    for name, model in models.items():
        for how in TARGETS:
            for rows, cells in zip(tables, swap_cells(model, dataset, images, how), strict=True):
                rows.append([name, how, *cells])
    for header, rows in zip(HEADERS, tables, strict=True):
        print_header("model", "target", *header)
        for cells in rows:
            print_row(*cells)


def swap_cells(model: Model, dataset: Aviary, images: int, how: str) -> list[list[object]]:
    """The measured columns of a row of each table."""
    ids = torch.arange(images)
    batch = dataset.test.batch(ids)
    predicted, targets = choose_targets(model, batch.images, how)
    start = time.perf_counter()
    counterfactuals = model.counterfactual(batch, targets, distractors=dataset)
    duration = (time.perf_counter() - start) / images
    swaps = counterfactuals.edits["region-swap"]
    is_target = model.predict(swaps.images).argmax(1) == targets
    assert torch.equal(is_target, swaps.success), "the reported success is not what the network says"
    flipped = swaps.success
    at_once = flips_as_predicted(model, batch.images, targets, dataset)
    success_cells: list[object] = [
        percent(flipped), int(swaps.size[flipped].median()), int(swaps.predicted_size.median()),
        percent(at_once), f"{swaps.num_forwards / images:.0f}", f"{duration:.2f}",
    ]  # fmt: skip
    shown = shown_parts(dataset, batch, swaps, predicted, targets)
    chance = RandomRegions(dataset, ids[flipped], swaps.size[flipped])
    cells = swaps.regions[flipped]
    area_cells: list[object] = [
        percent(shown.on_differing(cells)), percent(chance.anywhere(shown.on_differing)),
        percent(chance.on_bird(shown.on_differing)), percent(shown.same_part(cells)),
        percent(chance.on_bird(shown.same_part)),
    ]  # fmt: skip
    minimal = minimal_sets(model, dataset, ids[flipped], predicted[flipped], targets[flipped])
    return [success_cells, area_cells, needed_cells(shown, minimal, cells, chance)]


def flips_as_predicted(model: Model, images: Tensor, targets: Tensor, dataset: Aviary) -> Tensor:
    """Whether the network says the target (N,) once the cells are swapped that the evidence says will do."""
    assert model.units is not None
    is_flipped = []
    goals = Goals(decision=model.decision, targets=targets, wanted=torch.ones(len(targets), dtype=torch.bool))
    with undisturbed(model.network), torch.no_grad():
        distractors = gather_distractors(model, dataset, goals, images)
        for rows in torch.arange(len(images)).split(16):
            decomposition: Decomposition = model.network.decompose(images[rows])  # type: ignore[operator]
            search = _RegionSwapSearch(
                model, model.units, images[rows], decomposition, goals.select(rows), distractors
            )
            order, lengths, chosen, shift = search._candidates()
            most = torch.minimum(search.num_valid_cells, torch.tensor(int(MOST * order.shape[2])))
            length = torch.minimum(lengths, most)[:, 0]
            cells = order[:, 0].argsort(1) < length[:, None]
            sources = search._shift_images(chosen, shift)[:, 0]
            swapped = search.cells.swap(images[rows], sources, cells)
            is_flipped.append(model.network(swapped).argmax(1) == targets[rows])
    return torch.cat(is_flipped)


def shift_and_mirror(values: Tensor, shift: Tensor, mirrored: bool) -> Tensor:
    """Values of the pixels (..., H, W) of an image, as the image was laid over another."""
    moved = values.flip(-1) if mirrored else values
    for axis, cells in zip((-2, -1), shift.tolist(), strict=True):
        size = values.shape[axis]
        along = (torch.arange(size) - round(cells * size / 8)).clamp(0, size - 1)
        moved = moved.index_select(axis, along)
    return moved


def upsample_cells(cells: Tensor, side: int) -> Tensor:
    return F.interpolate(cells[:, None].float(), (side, side), mode="nearest")[:, 0] > 0


@frozen(eq=False)
class ShownParts:
    """Masks of parts in M images and in what is laid over them, (M, P, H, W), and which differ, (M, P)."""

    image: Tensor
    source: Tensor
    differing: Tensor

    def on_differing(self, cells: Tensor) -> Tensor:
        """The share of the area in which the image or what is laid over shows a part that differs, (M,)."""
        shows = ((self.image | self.source) & self.differing[:, :, None, None]).any(1)
        area = upsample_cells(cells, shows.shape[-1])
        return (shows & area).flatten(1).sum(1) / area.flatten(1).sum(1)

    def same_part(self, cells: Tensor) -> Tensor:
        """The share of cells in which both show some of the same part, (M,)."""
        image, source = (
            F.adaptive_max_pool2d(masks.float(), cells.shape[1:]) > 0 for masks in (self.image, self.source)
        )
        alike = (image & source).any(1)
        return (alike & cells).flatten(1).sum(1) / cells.flatten(1).sum(1)

    def touched(self, cells: Tensor) -> Tensor:
        """The parts of which a quarter or more lies in the cells, in the image or in what is laid, (M, P)."""
        area = upsample_cells(cells, self.image.shape[-1])[:, None]
        image, source = (
            (masks & area).flatten(2).sum(2) / masks.flatten(2).sum(2).clamp(min=1)
            for masks in (self.image, self.source)
        )
        return (image >= TOUCHED) | (source >= TOUCHED)


def shown_parts(
    dataset: Aviary, batch: Batch, swaps: RegionSwaps, predicted: Tensor, targets: Tensor
) -> ShownParts:
    """Of the images that were flipped; sources are found to be the distractors, shifted and mirrored."""
    flipped = swaps.success
    distractors = dataset.train.batch(swaps.exemplars[flipped])
    moves = list(zip(swaps.shifts[flipped], swaps.mirrored[flipped].tolist(), strict=True))
    for image, move, source in zip(distractors.images, moves, swaps.sources[flipped], strict=True):
        assert torch.equal(shift_and_mirror(image, *move), source), "not the image that was laid over"
    assert distractors.masks is not None and batch.masks is not None
    masks = [shift_and_mirror(mask, *move) for mask, move in zip(distractors.masks, moves, strict=True)]
    pairs = zip(predicted[flipped].tolist(), targets[flipped].tolist(), strict=True)
    differing = torch.tensor([[part in dataset.differing(*pair) for part in dataset.parts] for pair in pairs])
    return ShownParts(batch.masks[flipped], torch.stack(masks), differing)


class RandomRegions:
    """As many cells of each image as were swapped, by chance: anywhere, or on the bird."""

    def __init__(self, dataset: Aviary, ids: Tensor, size: Tensor) -> None:
        bird = torch.from_numpy(dataset.draw(dataset.scenes("test", ids.numpy())).birds.any(1))
        on_bird = F.adaptive_avg_pool2d(bird.float(), 8) >= 0.25
        generator = torch.Generator().manual_seed(0)
        self._anywhere, self._on_bird = (
            [random_cells(size, favored, generator) for _ in range(DRAWS)]
            for favored in (torch.zeros_like(on_bird), on_bird)
        )

    def anywhere(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """`measure` of regions anywhere, (draws, M)."""
        return torch.stack([measure(cells).float() for cells in self._anywhere])

    def on_bird(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """`measure` of regions on the bird, (draws, M)."""
        return torch.stack([measure(cells).float() for cells in self._on_bird])


def random_cells(size: Tensor, favored: Tensor, generator: torch.Generator) -> Tensor:
    """As many cells of each image, (N, 8, 8) bool: any, or of those `favored` as long as there are some."""
    order = torch.rand(favored.flatten(1).shape, generator=generator) + favored.flatten(1).float()
    rank = order.argsort(1, descending=True).argsort(1)
    return (rank < size[:, None]).view_as(favored)


def minimal_sets(
    model: Model, dataset: Aviary, ids: Tensor, predicted: Tensor, targets: Tensor
) -> list[list[int]]:
    """For each image the inclusion-minimal sets of parts (bits) that make it the target, drawn as its own."""
    sets_of_images = []
    bits = 1 << np.arange(len(dataset.parts))
    for image, old, new in zip(ids.tolist(), predicted.tolist(), targets.tolist(), strict=True):
        differing = [dataset.parts.index(part) for part in dataset.differing(old, new)]
        chosen = np.zeros((1 << len(differing), len(dataset.parts)), bool)
        chosen[:, differing] = np.arange(len(chosen))[:, None] >> np.arange(len(differing)) & 1
        scenes = dataset.scenes("test", [image])[np.zeros(len(chosen), np.int64)]
        codes = np.where(chosen[:, :, None], dataset.codes[new], scenes.codes[:, 0])
        images = dataset.render(interventions.swap(scenes, dataset.parts, codes)).images
        is_target = (model.predict(images).argmax(1) == new).numpy()
        winning = sorted((chosen @ bits)[is_target].tolist(), key=int.bit_count)
        minimal: list[int] = []
        for candidate in winning:
            if not any(candidate & smaller == smaller for smaller in minimal):
                minimal.append(candidate)
        sets_of_images.append(minimal)
    return sets_of_images


def needed_cells(
    shown: ShownParts, minimal: list[list[int]], cells: Tensor, chance: RandomRegions
) -> list[object]:
    """The columns of the third table: minimal sets of parts, and whether the swapped cells touch one."""
    bits = 1 << torch.arange(shown.differing.shape[1])

    def contains_minimal(cells: Tensor) -> Tensor:
        touched = (shown.touched(cells) * bits).sum(1).tolist()
        hits = [any(bit & smaller == smaller for smaller in sets)
                for bit, sets in zip(touched, minimal, strict=True)]  # fmt: skip
        return torch.tensor(hits)

    def num_touched(cells: Tensor) -> Tensor:
        return shown.touched(cells).sum(1).float()

    least = [min(bit.bit_count() for bit in sets) for sets in minimal if sets]
    missing = f" ({len(least)} of {len(minimal)})" if len(least) < len(minimal) else ""
    return [
        f"{statistics.mean(least):.2f}{missing}", percent(contains_minimal(cells)),
        percent(chance.on_bird(contains_minimal)), percent(chance.anywhere(contains_minimal)),
        f"{num_touched(cells).mean():.1f}", f"{chance.on_bird(num_touched).mean():.1f}",
    ]  # fmt: skip


def main() -> None:
    options = model_parser(__doc__, images=100).parse_args()
    models, dataset = load_models(options)
    measure_swaps(models, dataset, options.images)


if __name__ == "__main__":
    main()
