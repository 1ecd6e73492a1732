"""``explainkit train``."""

import json as jsonlib
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from explainkit.cli.options import settings_of


def train(
    explainer: str,
    /,
    *,
    data: str = "aviary",
    out: Path = Path("model"),
    preset: str | None = None,
    seed: int = 0,
    device: str = "auto",
    logger: str = "csv",
    resume: bool = False,
    set: Annotated[list[str] | None, Parameter(negative="")] = None,
    data_set: Annotated[list[str] | None, Parameter(name="--data-set", negative="")] = None,
) -> None:
    """Train an interpretable explainer and save it to a folder.

    Parameters
    ----------
    explainer
        Its name, as `explainkit plugins` lists it.
    data
        Name of a data set.
    out
        Folder for the model and its log.csv.
    preset
        A named set of settings, such as small or paper.
    seed
        Of first weights, order and augmentation.
    device
        auto, cpu, cuda …
    logger
        Where epochs are told: the name of a logger, which writes to a folder beside `out`.
    resume
        Go on where a run with the same settings was cut off; its checkpoint lies beside `out`.
    set
        One setting of the explainer, as name=value; may be given again.
    data_set
        One setting of the data set, as name=value; may be given again.

    Examples
    --------
    explainkit train cam --data digits --preset digits --out model
    explainkit train cam --data aviary --data-set classes=10 --set epochs=6 --out model
    torchrun --nproc-per-node 2 -m explainkit train cam --out model
    """
    import explainkit as ek
    from explainkit import registry
    from explainkit.errors import InputError
    from explainkit.interfaces import InterpretableExplainer
    from explainkit.storage import check_folder
    from explainkit.training.checkpoints import FILE

    model = ek.explainer(explainer, preset=preset, **settings_of(set))
    if not isinstance(model, InterpretableExplainer):
        raise InputError(f"Expected an explainer that learns; {explainer!r} explains networks of others.")
    images = ek.dataset(data, **settings_of(data_set))
    check_folder(out)
    beside = out.with_name(f"{out.name}-log")
    checkpoint = beside / FILE
    if checkpoint.exists() and not resume:
        raise InputError(f"A run was cut off at {str(checkpoint)!r}. Go on with --resume, or remove it.")
    model.fit(
        images,
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
    print(jsonlib.dumps(model.evaluate(images, ["validation", "test"]), indent=1))
    print(f"saved to {out}")
