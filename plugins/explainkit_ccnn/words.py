"""How CCNN puts it: the class, and the phrases that speak for it with their shares of the evidence."""

from collections.abc import Sequence

from explainkit import Evidence, Explanation
from explainkit_ccnn.explainer import shares

ENOUGH = 0.9
"""The share of the evidence for the class that a sentence tells (the paper's explanations stop there)."""

MOST = 5
"""Phrases at most."""


def sentence(explanation: Explanation) -> str:
    """A cardinal, because of the red crest (31 %) and the hooked beak (20 %), despite the grey tail (-5 %).

    "The" is right before one, many and what cannot be counted. A share is ``contribution / sum
    |contribution|`` over all phrases, told or not, so that the sizes of all sum to 100 %. Where five do not
    tell enough, the others that speak for the class are told by their number.
    """
    told = shares(explanation.batch[[explanation.index]])[0]
    order = told.argsort(descending=True, stable=True).tolist()
    positive = told.clamp(min=0).sum().item()
    reasons: list[str] = []
    covered = 0.0
    for unit in order[:MOST]:
        share = told[unit].item()
        if share <= 0 or covered >= ENOUGH * positive:
            break
        reasons.append(_reason(explanation.evidence_of(unit), share))
        covered += share
    others = int((told > 0).sum()) - len(reasons)
    if others and covered < ENOUGH * positive:
        what = "one other phrase" if others == 1 else f"{others} other phrases"
        reasons.append(f"{what} ({_percent(positive - covered)})")
    worst, share = order[-1], told[order[-1]].item()
    rival = f" rather than {explanation.against_name}" if explanation.against_name else ""
    because = f", because of {_listed(reasons)}" if reasons else ", though no phrase speaks for it"
    despite = f", despite {_reason(explanation.evidence_of(worst), share)}" if share <= -0.01 else ""
    return f"{explanation.target_name}{rival}{because}{despite}."


def _reason(evidence: Evidence, share: float) -> str:
    what = f"the {evidence.phrase}" if evidence.phrase else evidence.name
    return f"{what} ({_percent(share)})"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if abs(share) >= 0.005 else "under 1 %"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
