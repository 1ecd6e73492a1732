"""What the figure of an own explanation beside post-hoc methods shows, and that it can be read."""

import pytest
import torch
from attrs import evolve
from matplotlib.backends.backend_agg import FigureCanvasAgg

from explainkit.errors import InputError, UnknownNameError
from explainkit.metrics import MetricTable, Row, Score
from explainkit.metrics.posthoc_comparison import Coincidence, PostHocComparison
from explainkit.rendering.figures import FOR

METRIC = "shapley-correlation"


def comparison_of(methods: int, better: str = "higher", **settings) -> PostHocComparison:
    """Methods of nearly equal value and cost, so that there is hardly room for their labels."""
    generator = torch.Generator().manual_seed(0)

    def row(name, mean, passes, trivial=False):
        noise = 0.1 * torch.randn(40, generator=generator, dtype=torch.float64)
        scores = {METRIC: Score(name=METRIC, values=mean + noise, better=better)}
        for way, count in zip(("forward-passes", "backward-passes"), passes or (0, 0), strict=True):
            given = {"values": torch.full((40,), float(count))} if passes else {"reason": "not run"}
            scores[way] = Score(name=way, better="lower", **given)
        return Row(name=name, network="cam", trivial=trivial, scores=scores)

    rows = [row("cam", 0.85, (1, 0))]
    rows += [row(f"captum/method-of-note-{n}", 0.7 - n / 200, (51 + n, 50)) for n in range(methods)]
    rows += [row("captum/same", 0.85, (1, 1))]
    rows += [
        row(name, mean, None, True) for name, mean in (("oracle", 0.98), ("area", 0.5), ("random", 0.49))
    ]
    table = MetricTable(
        rows=tuple(rows), columns=(METRIC, "forward-passes", "backward-passes"), dataset="aviary",
        split="mixed", images=40, seed=0,
    )  # fmt: skip
    same = {"captum/same": Coincidence(factor=1.0, difference=1e-7, roundings=0.5)}
    return PostHocComparison(own="cam", table=table, coinciding=same, **settings)


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("methods", [1, 12, 22])
def test_labels_overlap_no_other_label_and_stay_within_the_figure(methods) -> None:
    figure = comparison_of(methods).figure()
    renderer = drawn(figure)
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]

    assert len(texts) == 1 + methods + 3
    for index, box in enumerate(boxes):
        overlapping = [texts[other].get_text() for other in range(index) if box.overlaps(boxes[other])]
        assert not overlapping, texts[index].get_text()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height


def test_points_stand_at_forward_and_backward_passes_and_the_own_one_is_red() -> None:
    axes = comparison_of(2).figure().axes[0]

    points = {
        (line.get_xdata()[0], line.get_color())
        for line in axes.lines
        if line.get_marker() not in ("None", "")
    }

    assert points == {(1, FOR), (101, "#2166ac"), (102, "#2166ac")}
    assert axes.get_xscale() == "log" and "each counted as one" in axes.get_xlabel()


def test_what_is_not_drawn_is_said() -> None:
    figure = comparison_of(2, unavailable={"captum/lrp": "no rule"}).figure()

    assert "Not drawn: 1 equal to the own explanation, 1 unavailable." in figure.texts[0].get_text()
    assert not any("same" in text.get_text() for text in figure.axes[0].texts)


def test_the_axis_says_which_way_is_better() -> None:
    assert comparison_of(2, better="lower").figure().axes[0].get_ylabel().endswith("(lower is better)")


def test_a_metric_without_values_is_refused() -> None:
    comparison = comparison_of(2)
    own, *others = comparison.table.rows
    own = evolve(own, scores=own.scores | {METRIC: Score(name=METRIC, reason="There are no part masks.")})

    with pytest.raises(InputError, match="There are no part masks"):
        evolve(comparison, table=evolve(comparison.table, rows=(own, *others))).figure()
    with pytest.raises(UnknownNameError, match="No column 'gini'"):
        comparison.figure(metric="gini")
