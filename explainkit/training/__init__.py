"""How networks learn: phases as data, one engine that runs them."""

from explainkit.training.phases import Epoch, Loss, Phase, Repeat
from explainkit.training.trainer import Trainer

__all__ = ["Epoch", "Loss", "Phase", "Repeat", "Trainer"]
