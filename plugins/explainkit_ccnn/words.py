"""How CCNN puts it: the class, and the phrases that speak for it with their shares of the evidence."""

from explainkit import Explanation
from explainkit_ccnn.explainer import shares

ENOUGH = 0.9
"""The share of the evidence for the class that a sentence tells (the paper's explanations stop there)."""

MOST = 5
"""Phrases at most."""


def sentence(explanation: Explanation) -> str:
    """A cardinal, because of red crest (31 %) and hooked beak (20 %), despite … (-5 %)."""
    told = shares(explanation.batch[[explanation.index]])[0]
    order = told.argsort(descending=True).tolist()
    positive = told.clamp(min=0).sum().item()
    reasons: list[str] = []
    covered = 0.0
    for unit in order:
        share = told[unit].item()
        if share <= 0 or len(reasons) == MOST or covered >= ENOUGH * positive:
            break
        reasons.append(f"{explanation.evidence_of(unit).words} ({share:.0%})")
        covered += share
    worst = order[-1]
    rival = f" rather than {explanation.against_name}" if explanation.against_name else ""
    because = f", because of {_listed(reasons)}" if reasons else ", though no phrase speaks for it"
    share = told[worst].item()
    despite = f", despite {explanation.evidence_of(worst).words} ({share:.0%})" if share <= -0.01 else ""
    return f"{explanation.target_name}{rival}{because}{despite}."


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
