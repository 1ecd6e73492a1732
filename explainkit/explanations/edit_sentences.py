"""What would change a decision, in words: a sentence for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explainkit.explanations.edits import Change, ImageEdits, ScoreEdits
from explainkit.explanations.sentences import apart, called, counted, listed, repeated

if TYPE_CHECKING:
    from explainkit.explanations.counterfactuals import Counterfactual

MAX_CHANGES = 4
"""Changes of scores that a sentence lists."""


def counterfactual_sentence(counterfactual: Counterfactual) -> str:
    """`Counterfactual.sentence`."""
    if counterfactual.already:
        return f"It is {counterfactual.target_name} already."
    return " ".join(edit_sentence(counterfactual, method) for method in counterfactual.batch.edits)


def edit_sentence(counterfactual: Counterfactual, method: str) -> str:
    """What one method found, or that it found nothing."""
    edits = counterfactual.batch.edits[method]
    if counterfactual.already:
        return f"It is {counterfactual.target_name} already."
    if isinstance(edits, ImageEdits):
        return _image_edit_sentence(counterfactual, edits)
    return _score_edit_sentence(counterfactual, method, edits)


def _image_edit_sentence(counterfactual: Counterfactual, edits: ImageEdits) -> str:
    name, row = counterfactual.target_name, counterfactual.index
    if edits.success is None or not edits.success[row]:
        return edits.describe_failure(row, name)
    return f"{edits.describe(row, name)}, the network says so."


def _score_edit_sentence(counterfactual: Counterfactual, method: str, edits: ScoreEdits) -> str:
    row, name = counterfactual.index, counterfactual.target_name
    if not edits.feasible[row] and edits.lower_bound is None:  # of a method that knows no range of scores
        return f"No edit of its scores that was tried made it {name}."
    if not edits.feasible[row] and not edits.exact[row]:
        return f"No scores within what is plausible for {name} were found that would make it {name}."
    if not edits.feasible[row]:
        return f"No scores within what is plausible for {name} would make it {name}."
    if edits.descriptions and edits.descriptions[row]:
        count = counted(int(edits.size[row]), "score")
        return f"{edits.descriptions[row]} ({count}) it would be {name} by its evidence."
    changes = counterfactual.changes_by(method)
    shared = repeated([item.text for item in changes[:MAX_CHANGES]])
    parts = [_score_change(item, item.text in shared) for item in changes[:MAX_CHANGES]]
    if len(changes) > MAX_CHANGES:
        parts.append(f"{counted(len(changes) - MAX_CHANGES, 'other score')} changed")
    count = counted(len(changes), "score")
    if edits.lower_bound is None:
        proof = count
    elif edits.norm != "l0":
        proof = f"the least change, of {count}" if edits.exact[row] else f"a change of {count}"
    elif edits.exact[row]:
        proof = f"{count}, and no fewer would do"
    else:
        proof = f"{count}; at least {int(edits.lower_bound[row])} would be needed"
    return f"By its evidence it would be {name} if {listed(parts)} ({proof})."


def _score_change(item: Change, shared: bool) -> str:
    """How a score would change; a phrase is left out where it is absent before and after."""
    verb = "rose" if item.after > item.before else "fell"
    before, after = apart(item.before, item.after)
    phrase = None if item.is_absent else item.phrase
    return f"{called(item.name, phrase, shared=shared)} {verb} from {before} to {after}"
