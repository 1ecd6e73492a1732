"""Class explanations of saved models on aviary: time, additivity, and how linear each class is.

Usage: python benchmarks/class_explanations.py --model FOLDER … [--images 1000] [--threads 1]

A row a model. Time is that of `explain_class` in one pass, beside explaining the same images.
"""

import statistics

from aviary_models import Model, Models, load_models, model_parser, print_header, print_row, seconds

import explainkit as ek


def measure_classes(models: Models, images: int, repetitions: int) -> None:
    """Print all classes of each model, in one pass, beside explaining the same images."""
    dataset = ek.dataset("aviary", test=images)
    for _ in dataset.batches("test"):  # drawn before the clock starts
        pass
    print_header("model", "images", "classes", "time / explaining", "largest gap", "R²: mean", "R²: least")
    for name, model in models.items():
        class_explanations = model.explain_class(dataset.batches("test", 250))
        output = class_explanations.explained_output.double()
        sums = class_explanations.contributions.double().sum(1) + class_explanations.base.double()
        gap = ((sums - output).abs() / output.abs()).max()

        def explain(model: Model = model) -> None:
            for batch in dataset.batches("test", 250):
                model.explain(batch, batch.labels)

        def explain_class(model: Model = model) -> None:
            model.explain_class(dataset.batches("test", 250))

        ratios = []
        for index in range(repetitions + 1):
            times = {call: seconds(call) for call in (explain, explain_class)[:: 1 if index % 2 else -1]}
            ratios.append(times[explain_class] / times[explain])
        linear_r2 = class_explanations.linear_r2
        assert linear_r2 is not None
        print_row(
            name, int(class_explanations.counts.sum()), len(class_explanations),
            f"{statistics.median(ratios[1:]):.2f}", f"{gap:.1e}", f"{linear_r2.mean():.3f}",
            f"{linear_r2.min():.3f}",
        )  # fmt: skip


def main() -> None:
    parser = model_parser(__doc__, images=1000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    models, _ = load_models(options)
    measure_classes(models, options.images, options.repetitions)


if __name__ == "__main__":
    main()
