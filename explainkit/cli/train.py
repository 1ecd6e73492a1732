"""``explainkit train``."""

import json as jsonlib
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import options_of


def train(
    explainer: str,
    /,
    *,
    dataset: str = "aviary",
    out: Path = Path("model"),
    preset: str | None = None,
    network: Path | None = None,
    seed: int = 0,
    device: str = "auto",
    logger: str = "csv",
    resume: bool = False,
    option: Annotated[list[str] | None, Parameter(name="--option", negative="")] = None,
    dataset_option: Annotated[list[str] | None, Parameter(name="--dataset-option", negative="")] = None,
) -> None:
    """Train an interpretable architecture, or a method that learns about a network, and save it to a folder.

    Parameters
    ----------
    explainer
        Its name, as `explainkit plugins` lists it.
    dataset
        Name of a data set.
    out
        Folder for the model and its log.csv.
    preset
        A named set of settings, such as small or paper.
    network
        Folder of a saved explainer, for a method that learns about the network of another. The data set has
        then a class for each concept, such as --dataset folder --dataset-option path=concepts.
    seed
        Of first weights, order and augmentation.
    device
        auto, cpu, cuda …
    logger
        Where epochs are recorded: the name of a logger, which writes to a folder beside `out`.
    resume
        Go on where a run with the same settings was cut off; its checkpoint lies beside `out`.
    option
        One setting of the explainer, as name=value; may be given again.
    dataset_option
        One setting of the data set, as name=value; may be given again.

    Examples
    --------
    explainkit train cam --dataset digits --preset digits --out model
    explainkit train cam --dataset aviary --dataset-option classes=10 --option epochs=6 --out model
    torchrun --nproc-per-node 2 -m explainkit train cam --out model
    """
    import explainkit as ek
    from explainkit import registry
    from explainkit.errors import InputError
    from explainkit.explainers.saving import check_folder
    from explainkit.training.checkpoints import FILE

    if network is not None:
        if resume:
            raise InputError("Expected --resume without --network: what is learned about a network is quick.")
        _learn_about(network, explainer, preset, dataset, out, seed, device, option, dataset_option)
        return
    model = ek.explainer(explainer, preset=preset, **options_of(option))
    image_dataset = ek.dataset(dataset, **options_of(dataset_option))
    check_folder(out)
    beside = out.with_name(f"{out.name}-log")
    checkpoint = beside / FILE
    if checkpoint.exists() and not resume:
        raise InputError(f"A run was cut off at {str(checkpoint)!r}. Go on with --resume, or remove it.")
    model.fit(
        image_dataset,
        seed=seed,
        device=device,
        loggers=[registry.find("loggers", logger)(beside)],
        checkpoints=beside,
        resume=resume,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes: the first one saves
    ek.save(model, out)
    checkpoint.unlink(missing_ok=True)
    print(jsonlib.dumps(model.evaluate(image_dataset, ["validation", "test"]), indent=1))
    print(f"saved to {out}")


def _learn_about(
    network: Path,
    explainer: str,
    preset: str | None,
    dataset: str,
    out: Path,
    seed: int,
    device: str,
    option: list[str] | None,
    dataset_option: list[str] | None,
) -> None:
    """Let a post-hoc method learn about the network of the saved explainer in the folder `network`."""
    import explainkit as ek
    from explainkit.explainers.posthoc import PostHocExplainer
    from explainkit.explainers.saving import check_folder

    explained = ek.load(network, device="cpu" if device == "auto" else device)
    model = ek.explainer(
        explainer, preset=preset, network=explained.network, classes=explained.classes, **options_of(option)
    )
    if not isinstance(model, PostHocExplainer):
        raise ek.InputError(f"Expected a method that learns about a network; {explainer!r} trains its own.")
    check_folder(out)
    model.fit(ek.dataset(dataset, **options_of(dataset_option)), seed=seed)
    ek.save(model, out)
    print(f"saved to {out}")
