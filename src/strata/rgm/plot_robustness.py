"""Draw how recognition and reconstruction suffer from damage, and what inference restores.

First figure: accuracy and squared error against the severity of every damage, amortised and
inferred, the latter with and without knowledge of which pixels are hidden. Second figure: test
images, their damaged copies, and the pictures that the model gives back. Conventions: those of
`strata.rgm.conditions`; error bars are one standard error. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, save_figure, styled
from strata.rgm.conditions import CLEAN, Answers, Condition, read_conditions, text_of
from strata.rgm.damage_kinds import DAMAGE_KINDS
from strata.rgm.scores import Estimate, accuracy, mean_estimate, predicted_classes
from strata.stages import run_stage, stage_arguments

Pictures = Float[np.ndarray, "image height width"]

STEPS = ("image", "damaged", "amortised", "inferred")  # rows of the second figure
ROW_HEIGHT = 1.55  # inches, of the first figure
LEGEND_HEIGHT = 0.3
LABEL_WIDTH = 0.75  # of the second figure
CAPTION_HEIGHT = 0.4


@dataclass(frozen=True)
class Curve:
    """One way to answer, under damage of growing severity."""

    label: str
    way: str
    style: Mapping[str, Any]
    conditions: Sequence[Condition]

    @property
    def severities(self) -> list[float]:
        """Severities of the conditions."""
        return [condition.severity for condition in self.conditions]

    def answers(self) -> list[tuple[Condition, Answers]]:
        """Return each condition with the answers under it."""
        return [(condition, getattr(condition, self.way)) for condition in self.conditions]


AMORTISED = {"color": COLORS["blue"], "linestyle": "-", "marker": "o"}
UNKNOWN = {"color": COLORS["vermilion"], "linestyle": "--", "marker": "s"}
KNOWN = {"color": COLORS["green"], "linestyle": "-.", "marker": "^"}


def curves(conditions: Mapping[str, Condition], damage: str) -> list[Curve]:
    """Return the curves of one damage, from clean images on.

    What is amortised is taken where the mask is not known, if there are such conditions.
    """
    by_mask: dict[bool, list[Condition]] = {
        known: sorted(
            (each for each in conditions.values() if each.damage == damage and each.known == known),
            key=lambda condition: condition.severity,
        )
        for known in (False, True)
    }
    clean = conditions[CLEAN]
    found = [
        Curve("amortised", "amortised", AMORTISED, [clean, *(by_mask[False] or by_mask[True])])
    ]
    if by_mask[False]:
        label = "inferred, mask unknown"
        found.append(Curve(label, "inferred", UNKNOWN, [clean, *by_mask[False]]))
    if by_mask[True]:
        label = "inferred, mask known"
        found.append(Curve(label, "inferred", KNOWN, [clean, *by_mask[True]]))
    return found


def damages(conditions: Mapping[str, Condition]) -> list[str]:
    """Return the kinds of damage that occur."""
    occurring = {condition.damage for condition in conditions.values()}
    return [name for name in DAMAGE_KINDS if name in occurring]


@styled
def robustness(conditions: Mapping[str, Condition]) -> Figure:
    """Return the figure of accuracy and squared error against severity, a row per damage."""
    rows = damages(conditions)
    levels = sorted({0, conditions[CLEAN].n_levels - 1})
    height = ROW_HEIGHT * len(rows) + LEGEND_HEIGHT
    figure, panels = plt.subplots(
        len(rows), 1 + len(levels), squeeze=False, figsize=(PAGE_WIDTH, height), sharey="col"
    )
    titles = ["accuracy", *(f"squared error per pixel, level {level}" for level in levels)]
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, loc="left")
    for damage, (recognition, *reconstructions) in zip(rows, panels, strict=True):
        reconstructions[0].set_xlabel(_severity_label(damage))  # in the middle, for the whole row
        for curve in curves(conditions, damage):
            _draw(recognition, curve, [_accuracy(*each) for each in curve.answers()])
            for panel, level in zip(reconstructions, levels, strict=True):
                errors = [mean_estimate(answers.mse[level]) for _, answers in curve.answers()]
                _draw(panel, curve, errors)
        clean = conditions[CLEAN]
        recognition.axhline(
            _accuracy(clean, clean.amortised)[0], label="clean, amortised", **EXACT_LINE
        )
        for panel, level in zip(reconstructions, levels, strict=True):
            panel.axhline(clean.amortised.mse[level].mean(), label="clean, amortised", **EXACT_LINE)
            panel.set_ylim(bottom=0.0)
    by_label = {
        label: handle
        for panel in panels[:, 0]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        by_label.values(), by_label.keys(), loc="outside upper center", ncols=4, handlelength=3
    )
    return figure


def _severity_label(damage: str) -> str:
    kind = DAMAGE_KINDS[damage]
    return kind.label if kind.unit == "1" else f"{kind.label} ({kind.unit})"


def _accuracy(condition: Condition, answers: Answers) -> Estimate:
    return accuracy(predicted_classes(answers.probabilities), condition.labels)


def _draw(panel: Axes, curve: Curve, estimates: Sequence[Estimate]) -> None:
    values, errors = np.transpose(estimates)
    panel.errorbar(curve.severities, values, errors, label=curve.label, markersize=3, **curve.style)


def read_examples(path: Path) -> dict[str, dict[str, Pictures]]:
    """Return pictures by condition and by step: the image, damaged, amortised, inferred.

    Raises:
        UserError: the file is missing or damaged, or holds no such pictures.
    """
    arrays = read_h5(path, "conditions", "image_shape")
    shape = tuple(arrays["image_shape"].tolist())
    names = [text_of(name) for name in arrays["conditions"].tolist()]
    shown = [name for name in names if f"examples/{name}/{STEPS[0]}" in arrays]
    if not shown:
        raise UserError(f"{path} holds no examples; run the inference again.")
    examples: dict[str, dict[str, Pictures]] = {}
    for name in shown:
        datasets = {step: f"examples/{name}/{step}" for step in STEPS}
        missing = [dataset for dataset in datasets.values() if dataset not in arrays]
        if missing:
            raise UserError(f"{path} holds no {missing[0]}; run the inference again.")
        examples[name] = {
            step: arrays[dataset].reshape(-1, *shape) for step, dataset in datasets.items()
        }
    return examples


@styled
def restoration(examples: Mapping[str, Mapping[str, Pictures]]) -> Figure:
    """Return the figure of examples (by caption), a block of rows per condition."""
    n_images = max(len(pictures[STEPS[0]]) for pictures in examples.values())
    block_height = len(STEPS) * (PAGE_WIDTH - LABEL_WIDTH) / n_images + CAPTION_HEIGHT
    figure = plt.figure(
        figsize=(PAGE_WIDTH, block_height * len(examples)),
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.02, hspace=0),
    )
    blocks = figure.subfigures(len(examples), 1, squeeze=False)[:, 0]
    for block, (caption, pictures) in zip(blocks, examples.items(), strict=True):
        panels = block.subplots(len(STEPS), 1)
        panels[0].set_title(caption, loc="left", pad=3)
        for panel, step in zip(panels, STEPS, strict=True):
            side_by_side = np.concatenate(list(pictures[step]), axis=1)
            panel.imshow(side_by_side, cmap="gray", vmin=0.0, vmax=1.0, interpolation="none")
            panel.set(xticks=[], yticks=[])
            panel.set_ylabel(step, rotation=0, ha="right", va="center")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["inference"],
        outputs=["robustness", "robustness_image", "restoration", "restoration_image"],
    ).parse_args(argv)
    conditions = read_conditions(arguments.inference)
    if not damages(conditions):
        raise UserError(f"{arguments.inference} holds no damaged images; run the inference again.")
    examples = read_examples(arguments.inference)
    save_figure(robustness(conditions), [arguments.robustness, arguments.robustness_image])
    by_caption = {conditions[name].caption: pictures for name, pictures in examples.items()}
    save_figure(restoration(by_caption), [arguments.restoration, arguments.restoration_image])


if __name__ == "__main__":
    run_stage(main)
