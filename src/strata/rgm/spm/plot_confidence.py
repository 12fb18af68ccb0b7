"""Draw whether the discrete model knows what it knows, on clean test images.

Panels: (a) accuracy against confidence (the probability of the answer), in the bins of the
calibration error; on the dashed line confidence is accuracy; (b) the share of the images in each
bin; (c) accuracy of the most confident share of the images against that share, ranked by the margin
(the log odds of the answer against the second class) and by the log evidence of the image; the
dashed line is the amortised accuracy on all images, and the legend says those on one half.

Conventions: those of `strata.rgm.conditions`. Answers are amortised, or exact for the model; each
is ranked by its own margin and its own log evidence. Bars are binomial standard errors. Imports no
torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, save_figure, styled
from strata.rgm.conditions import CLEAN, WAYS, Answers, read_conditions
from strata.rgm.scores import (
    CALIBRATION_BINS,
    calibration_bin,
    calibration_error,
    predicted_classes,
)
from strata.rgm.spm.confidence import confident_accuracy, margins, read_log_evidence, risk_coverage
from strata.stages import run_stage, stage_arguments

HEIGHT = 2.9  # inches
HALF = 0.5
LEAST_COVERAGE = 0.02  # below, few images decide
N_POINTS = 300  # of a curve
WAY_STYLES = {  # name in words, colour, marker
    "amortised": ("amortised", COLORS["blue"], "o"),
    "inferred": ("exact", COLORS["vermilion"], "s"),
}
RANKINGS = {"margin": "-", "log evidence": "--"}

Labels = Integer[np.ndarray, " image"]
PerImage = Float[np.ndarray, " image"]


@dataclass(frozen=True)
class Reliability:
    """What the images of each bin of confidence have in common; bins without images are left out.

    edges: of all bins, from 0 to 1.
    number: images in each bin, those without any included.
    """

    confidence: Float[np.ndarray, " filled"]
    accuracy: Float[np.ndarray, " filled"]
    error: Float[np.ndarray, " filled"]
    edges: Float[np.ndarray, " edge"]
    number: Integer[np.ndarray, " bin"]


def reliability(
    probabilities: Float[np.ndarray, "image class"],
    labels: Labels,
    n_bins: int = CALIBRATION_BINS,
) -> Reliability:
    """Return mean confidence and accuracy in bins of equal width on (0, 1]."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = predicted_classes(probabilities) == labels
    number = calibration_bin(confidence, n_bins)
    counts, confident, correct = (
        np.bincount(number, weights=weights, minlength=n_bins)
        for weights in (None, confidence, right)
    )
    filled = counts > 0
    share = correct[filled] / counts[filled]
    return Reliability(
        confidence=confident[filled] / counts[filled],
        accuracy=share,
        error=np.sqrt(share * (1.0 - share) / counts[filled]),
        edges=np.linspace(0.0, 1.0, n_bins + 1),
        number=counts.astype(np.int64),
    )


@styled
def confidence(
    answers: Mapping[str, Answers], labels: Labels, log_evidence: Mapping[str, PerImage]
) -> Figure:
    """Return the figure; `answers` and `log_evidence` (nats) are of clean images, by way."""
    figure = plt.figure(figsize=(PAGE_WIDTH, HEIGHT))
    grid = figure.add_gridspec(2, 2, height_ratios=[2.4, 1.0], width_ratios=[1.0, 1.1])
    calibrated = figure.add_subplot(grid[0, 0])
    numbers = figure.add_subplot(grid[1, 0], sharex=calibrated)
    selective = figure.add_subplot(grid[:, 1])
    for way in WAYS:
        _draw_reliability(calibrated, numbers, way, answers[way].probabilities, labels)
        _draw_selective(selective, way, answers[way].probabilities, labels, log_evidence[way])
    calibrated.plot([0.0, 1.0], [0.0, 1.0], **EXACT_LINE)
    calibrated.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0), ylabel="accuracy")
    calibrated.tick_params(labelbottom=False)
    calibrated.legend(loc="upper left", title="calibration error", alignment="left")
    numbers.set(xlabel="confidence", ylabel="share of\nimages", yscale="log")
    right = predicted_classes(answers[WAYS[0]].probabilities) == labels
    label = f"all images,\n{WAY_STYLES[WAYS[0]][0]}: {right.mean():.4f}"
    selective.axhline(right.mean(), label=label, **EXACT_LINE)
    selective.axvline(HALF, color="0.7", linewidth=0.8, zorder=0)
    selective.set(xlim=(0.0, 1.0), xlabel="most confident share of the images", ylabel="accuracy")
    selective.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), title="accuracy on one half,\nranked by",
        alignment="left", handlelength=2.5,
    )  # fmt: skip
    for letter, panel in zip("abc", (calibrated, numbers, selective), strict=True):
        panel.set_title(f"({letter})", loc="left")
    return figure


def _draw_reliability(
    panel: Axes,
    numbers: Axes,
    way: str,
    probabilities: Float[np.ndarray, "image class"],
    labels: Labels,
) -> None:
    words, color, marker = WAY_STYLES[way]
    found = reliability(probabilities, labels)
    panel.errorbar(
        found.confidence,
        found.accuracy,
        found.error,
        color=color,
        marker=marker,
        markersize=3,
        linewidth=0.8,
        label=f"{words}: {calibration_error(probabilities, labels):.4f}",
        clip_on=False,
    )
    linestyle = "-" if way == WAYS[0] else "--"
    numbers.stairs(found.number / len(labels), found.edges, color=color, linestyle=linestyle)


def _draw_selective(
    panel: Axes,
    way: str,
    probabilities: Float[np.ndarray, "image class"],
    labels: Labels,
    log_evidence: PerImage,
) -> None:
    """Draw the accuracy of the most confident images, ranked in both ways."""
    words, color, marker = WAY_STYLES[way]
    right = predicted_classes(probabilities) == labels
    with np.errstate(divide="ignore"):
        log_classes = np.log(probabilities.astype(np.float64))
    confidences = (margins(log_classes), log_evidence)
    for (name, linestyle), confidence_of in zip(RANKINGS.items(), confidences, strict=True):
        coverage, share = risk_coverage(confidence_of, right)
        first = int(np.searchsorted(coverage, LEAST_COVERAGE))
        shown = np.linspace(first, len(coverage) - 1, N_POINTS).round().astype(int)
        on_half, _ = confident_accuracy(confidence_of, right, HALF)
        label = f"{name},\n{words}: {on_half:.4f}"
        panel.plot(coverage[shown], share[shown], color=color, linestyle=linestyle, label=label)
        panel.plot(HALF, on_half, color=color, marker=marker, markersize=3.5)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["inference"], outputs=["figure", "image"]
    ).parse_args(argv)
    clean = read_conditions(arguments.inference)[CLEAN]
    log_evidence = read_log_evidence(arguments.inference, len(clean.labels))
    by_way = dict(zip(WAYS, (clean.amortised, clean.inferred), strict=True))
    figure = confidence(by_way, clean.labels, log_evidence)
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
