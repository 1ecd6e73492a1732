"""Models in folders, and what is asked of those that somebody changed."""

import hashlib
import json

import torch

import explainkit as ek
from explainkit.errors import ExplainKitError
from explainkit.explainers.inputs import InputSpec
from explainkit_protopnet.explainer import ProtoPNet

CLASSES = ("cardinal", "jay", "wren")
FIELDS = (
    "schema", "explainer", "settings", "classes", "size", "seed", "augment", "bound", "units", "versions",
    "history", "digest",
)  # fmt: skip
SETTINGS = (
    "backbone",
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "label_smoothing",
    "dropout",
    "precision",
)
GIGANTIC = {
    f"{count:.0e} {what}": {what: count}
    for what in ("prototypes_per_class", "depth")
    for count in (10**7, 10**8, 10**9, 2**31 - 1, 10**12)
}


def build(explainer, size=(16, 16)):
    """An explainer as `fit` leaves it, without the cost."""
    torch.manual_seed(0)
    network = explainer._build_network(ek.Task(classes=3, size=32)).eval()
    if isinstance(explainer, ProtoPNet):
        network.start = None
        network.projected.fill_(True)
        network.sources.image.fill_(1)
        network.sources.box[:, 2:] = 8
        network.sources.picture = torch.zeros(len(network.owner), 3, 16, 16, dtype=torch.uint8)
    return explainer._adopt(network, CLASSES, InputSpec.of_shape(size))


def described(folder, change):
    """Change what the description says, and keep its digest right."""
    path = folder / "explainer.json"
    facts = json.loads(path.read_text())
    facts["digest"] = hashlib.sha256((folder / "network.safetensors").read_bytes()).hexdigest()
    change(facts)
    path.write_text(json.dumps(facts))


def weighed(folder, content):
    """Change the weights, and put the digest right."""
    (folder / "network.safetensors").write_bytes(content)
    described(folder, lambda _: None)


def questions(model):
    """All that can be asked of a model."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    yield lambda: model.explain(images).check_additivity()
    yield lambda: model.explain(images)[0].sentence()
    yield lambda: model.explain(images, 0, foils=1).saliency()
    yield lambda: model.explain(images, "jay")
    yield lambda: model.explain(images).save("explanations.safetensors")
    yield lambda: ek.save(model, "again")


def met(folder, contained, answer):
    """Whether a folder is read; then every question is answered, or refused in words."""
    try:
        with contained():
            model = ek.load(folder)
    except ExplainKitError:
        return False
    for question in questions(model):
        answer(question)
    return True
