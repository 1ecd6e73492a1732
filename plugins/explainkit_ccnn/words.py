"""How CCNN puts it: the class, and the phrases that speak for it with their shares of the evidence."""

from explainkit import Evidence, Explanation
from explainkit.explanations.sentences import listed, percent
from explainkit_ccnn.explainer import shares

ENOUGH = 0.9
"""The share of the evidence for the class that a sentence tells (the paper's explanations stop there)."""

MOST = 5
"""Phrases at most."""


def sentence(explanation: Explanation) -> str:
    """A cardinal, because of the red crest (31 %) and the hooked beak (20 %), despite the gray tail (-5 %).

    "The" is right before one, many and what cannot be counted. A share is ``contribution / sum
    |contribution|`` over all phrases, named or not, so that the sizes of all sum to 100 %. Where five do not
    tell enough, the others that support the class are given by their number.
    """
    unit_shares = shares(explanation.batch[[explanation.index]])[0]
    order = unit_shares.argsort(descending=True, stable=True).tolist()
    positive = unit_shares.clamp(min=0).sum().item()
    reasons: list[str] = []
    covered = 0.0
    for unit in order[:MOST]:
        share = unit_shares[unit].item()
        if share <= 0 or covered >= ENOUGH * positive:
            break
        reasons.append(_reason(explanation.evidence_of(unit), share))
        covered += share
    others = int((unit_shares > 0).sum()) - len(reasons)
    if others and covered < ENOUGH * positive:
        name = "one other phrase" if others == 1 else f"{others} other phrases"
        reasons.append(f"{name} ({percent(positive - covered)})")
    worst, share = order[-1], unit_shares[order[-1]].item()
    foil = f" rather than {explanation.foil_name}" if explanation.foil_name else ""
    because = f", because of {listed(reasons)}" if reasons else ", though no phrase supports it"
    despite = f", despite {_reason(explanation.evidence_of(worst), share)}" if share <= -0.01 else ""
    return f"{explanation.target_name}{foil}{because}{despite}."


def _reason(evidence: Evidence, share: float) -> str:
    name = f"the {evidence.phrase}" if evidence.phrase else evidence.name
    return f"{name} ({percent(share)})"
