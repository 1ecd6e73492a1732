"""Sentences of saved models on aviary, each beside what is not as it should be in it.

Usage: python benchmarks/sentences.py --model FOLDER … [--sentences 50] [--images 1000] [--threads 1]

Units are named on ``--images`` validation images first. A number that is not the rounded value, or that
stands for nothing, is reported.
"""

from itertools import islice

import torch
from aviary_models import Models, choose_targets, load_models, model_parser
from sentence_checks import check_class_explanation, check_counterfactual, check_explanation

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary


def check_sentences(models: Models, dataset: Aviary, count: int) -> None:
    """Print `count` sentences of images, classes and counterfactuals in turn, with their faults."""
    batches = list(islice(dataset.batches("test", 250), 2))
    classes = {name: model.explain_class(batches) for name, model in models.items()}
    num_wrong = 0
    for index in range(count):
        name, kind = list(models)[index % len(models)], index // len(models) % 3
        model, image = models[name], 37 * index % len(dataset.test)
        batch = dataset.test.batch(torch.tensor([image]))
        is_odd = index // len(models) // 3 % 2 == 1
        if kind == 0:
            foils = int(batch.labels[0] + 3) % 20 if is_odd else None
            explanation = model.explain(batch, foils=foils)[0]
            sentence, faults = explanation.sentence(), check_explanation(explanation)
        elif kind == 1:
            class_explanation = classes[name][index % len(classes[name])]
            class_explanation = class_explanation.contrast() if is_odd else class_explanation
            sentence, faults = class_explanation.sentence(), check_class_explanation(class_explanation)
        else:
            _, targets = choose_targets(model, batch.images, "random" if is_odd else "runner-up")
            counterfactual = model.counterfactual(batch, targets, distractors=dataset)[0]
            sentence = counterfactual.sentence()
            faults = check_counterfactual(counterfactual, model, dataset)
        num_wrong += bool(faults)
        marks = "".join(f"  <-- {fault}" for fault in faults)
        print(f"{index + 1}. ({name}) {sentence}{marks}", flush=True)
    print(f"\n{count} sentences, {num_wrong} with a number or word that is not as it should be")


def main() -> None:
    parser = model_parser(__doc__, images=1000)
    parser.add_argument("--sentences", type=int, default=50, metavar="COUNT")
    options = parser.parse_args()
    models, dataset = load_models(options)
    for model in models.values():
        ek.name_units(model, dataset, images=options.images)
    check_sentences(models, dataset, options.sentences)


if __name__ == "__main__":
    main()
