"""Checks of sentences against values: every number has to be a value, rounded to the digits it has."""

import re
from collections.abc import Callable, Sequence

from aviary_models import Model
from torch import Tensor

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import Aviary
from explainkit.explanations.sentences import called

NUMBER = r"[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?"
SHARE = r"under 1 %|over 99 %|-?\d+ %"
OTHERS = rf"(?P<count>one|\d+) other \w+ \((?P<value>{SHARE}|{NUMBER})(?: together)?\)"


def is_rounded(text: str, value: float) -> bool:
    """Whether `text` is `value`, rounded to as many digits as it has."""
    mantissa, _, power = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10.0 ** (int(power or 0) - digits) * (1 + 1e-3)


def is_rounded_share(text: str, value: float) -> bool:
    if text == "under 1 %":
        return 0 < value < 0.005
    return 0.995 < value < 1 if text == "over 99 %" else is_rounded(text.removesuffix(" %"), value * 100)


class Reader:
    """Removes from a sentence what is checked; digits that are left are faults."""

    def __init__(self, text: str, units: ek.Units, classes: Sequence[str]) -> None:
        self.text, self.faults = text, list[str]()
        phrases = units.phrases or [None] * len(units)
        self.names: dict[str, list[int]] = {}
        for unit, (name, phrase) in enumerate(zip(units.names, phrases, strict=True)):
            for word in {called(name, phrase), called(name, phrase, shared=True)}:
                self.names.setdefault(word, []).append(unit)
        words = "|".join(re.escape(word) for word in sorted(self.names, key=len, reverse=True))
        self.unit = f"(?<!\\w)(?P<unit>{words})"
        self.classes = classes

    def check_all(self, pattern: str, is_true: Callable[[re.Match[str]], bool]) -> int:
        """Check whatever matches `pattern`, and remove it; how often it was there."""
        matches = list(re.finditer(pattern, self.text))
        for match in matches:
            if not is_true(match):
                self.faults.append(f"{match[0]!r} is not so")
        self.text = re.sub(pattern, "…", self.text)
        return len(matches)

    def is_true_of_any(self, match: re.Match[str], is_true: Callable[[int], bool]) -> bool:
        """Whether it holds of a unit that is called so."""
        return any(is_true(unit) for unit in self.names[match["unit"]])

    def all_faults(self) -> list[str]:
        """A number that stands for nothing is one."""
        left = re.findall(r"\d+", self.text)
        return self.faults + ([f"what is {', '.join(left)}?"] if left else [])


def check_explanation(explanation: ek.Explanation) -> list[str]:
    """The faults of an explanation's sentence."""
    reader = Reader(explanation.sentence(), explanation.batch.units, explanation.batch.classes)
    values = explanation.contributions.double()
    share = values / values.abs().sum()
    supporting: list[str] = []

    def is_contribution(match: re.Match[str]) -> bool:
        count, sign = int(match["units"] or 1), -1 if match["value"][0] == "-" else 1
        supporting.extend([match["unit"]] * count * (sign > 0))
        alike = values[reader.names[match["unit"]]].mul(sign).sort(descending=True).values
        if match["units"]:
            return is_rounded(match["value"], sign * alike[:count].sum().item())
        return reader.is_true_of_any(match, lambda unit: is_rounded(match["value"], values[unit].item()))

    def is_share(match: re.Match[str]) -> bool:
        supporting.extend([match["unit"]] * (match["value"][0] != "-"))
        return reader.is_true_of_any(match, lambda unit: is_rounded_share(match["value"], share[unit].item()))

    reader.check_all(rf"{reader.unit} \((?P<value>{NUMBER})(?: in (?P<units>\d+) \w+)?\)", is_contribution)
    reader.check_all(rf"{reader.unit} \((?P<value>{SHARE})\)", is_share)
    reader.check_all(OTHERS, lambda match: is_sum_of_others(match, values, len(supporting)))
    return reader.all_faults()


def is_sum_of_others(match: re.Match[str], values: Tensor, num_named: int) -> bool:
    """Whether it is the number and the sum of what supports the class beside the `num_named` largest."""
    others = values.sort(descending=True).values[num_named:].clamp(min=0)
    is_sum = (
        is_rounded_share(match["value"], (others.sum() / values.abs().sum()).item())
        if match["value"].endswith("%")
        else is_rounded(match["value"], others.sum().item())
    )
    return is_sum and int(match["count"].replace("one", "1")) == int((others > 0).sum())


def check_class_explanation(class_explanation: ek.ClassExplanation) -> list[str]:
    """The faults of a class explanation's sentence."""
    batch, row = class_explanation.batch, class_explanation.row
    reader = Reader(class_explanation.sentence(), batch.units, batch.classes)
    values = class_explanation.contributions
    reader.check_all(r"over (?P<value>\d+) images?", lambda m: int(m["value"]) == int(batch.counts[row]))
    reader.check_all(
        rf"its base is (?P<value>{NUMBER})", lambda m: is_rounded(m["value"], class_explanation.base)
    )
    supporting: list[str] = []

    def is_reason(match: re.Match[str]) -> bool:
        supporting.extend([match["unit"]] * (match["value"][0] != "-"))

        def is_true_of(unit: int) -> bool:
            is_true = is_rounded(match["value"], values[unit].item())
            if match["decisive_rate"]:
                assert batch.decisive_rate is not None
                is_true &= is_rounded_share(match["decisive_rate"], batch.decisive_rate[row, unit].item())
            if match["sign_agreement"]:
                is_true &= is_rounded_share(match["sign_agreement"], batch.sign_agreement[row, unit].item())
            return is_true

        return reader.is_true_of_any(match, is_true_of)

    reader.check_all(
        rf"{reader.unit} \((?P<value>{NUMBER})(?:, decisive in (?P<decisive_rate>{SHARE}))?"
        rf"(?:, of that sign in only (?P<sign_agreement>{SHARE}))?\)",
        is_reason,
    )
    reader.check_all(OTHERS, lambda match: is_sum_of_others(match, values.double(), len(supporting)))
    return reader.all_faults()


def check_counterfactual(counterfactual: ek.Counterfactual, model: Model, dataset: Aviary) -> list[str]:
    """The faults of a counterfactual's sentence."""
    batch, index = counterfactual.batch, counterfactual.index
    reader = Reader(counterfactual.sentence(), batch.explanations.units, batch.classes)
    check_score_edit(reader, counterfactual)
    swaps, target = batch.edits["region-swap"], int(batch.targets[index])

    def is_swap(match: re.Match[str]) -> bool:
        source, prediction = int(match["id"]), int(model.predict(counterfactual.image[None]).argmax(1))
        return (
            int(match["n"]) == int(swaps.regions[index].sum())
            and int(match["total"]) == swaps.regions[index].numel()
            and int(dataset.train.labels[source]) == target == prediction
            and bool(match["mirror"]) == bool(swaps.mirrored[index])
        )

    num_swaps = reader.check_all(
        r"With (?P<n>\d+) of its (?P<total>\d+) regions taken from (?P<mirror>the mirrored )?image "
        r"(?P<id>\d+) of the bank, which is [^,]+, the network says so",
        is_swap,
    )
    if bool(num_swaps) != bool(swaps.success[index]):
        reader.faults.append("success and what is said of it differ")
    return reader.all_faults()


def check_score_edit(reader: Reader, counterfactual: ek.Counterfactual) -> None:
    """Check what the sentence says of scores that would have to change."""
    edits, index = counterfactual.batch.edits["score-edit"], counterfactual.index
    before, after = edits.before[index], edits.after[index]
    size = int((before != after).sum())

    def is_change(match: re.Match[str]) -> bool:
        rose = match["way"] == "rose"
        return reader.is_true_of_any(
            match,
            lambda unit: is_rounded(match["before"], before[unit].item())
            and is_rounded(match["after"], after[unit].item()) and rose == bool(after[unit] > before[unit]),
        )  # fmt: skip

    shown = reader.check_all(
        rf"{reader.unit} (?P<way>rose|fell) from (?P<before>{NUMBER}) to (?P<after>{NUMBER})", is_change
    )
    reader.check_all(r"(?P<n>\d+) other scores? changed", lambda m: int(m["n"]) == size - shown)
    reader.check_all(
        r"\((?P<n>\d+) scores?, and no fewer would do\)",
        lambda m: int(m["n"]) == size and bool(edits.exact[index]),
    )
    reader.check_all(
        r"\((?P<n>\d+) scores?; at least (?P<least>\d+) would be needed\)",
        lambda m: (
            (int(m["n"]), int(m["least"])) == (size, int(edits.lower_bound[index])) and not edits.exact[index]
        ),
    )
