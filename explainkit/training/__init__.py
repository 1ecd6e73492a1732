"""How networks learn: phases as data, one engine that runs them."""

from explainkit.training.engine import Trainer
from explainkit.training.phases import Epoch, Loss, Phase, Repeat

__all__ = ["Epoch", "Loss", "Phase", "Repeat", "Trainer"]
