"""What speaks against a configuration: which sentence is said when, and with which numbers.

Staircases are either those of theory for a configuration, or given, with steps chosen to tell the
sentences' limits apart. Counts of neurons are those of the exact solutions, written out by hand.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.experiments import load_experiments
from strata.group_composition.config import RunSettings
from strata.group_composition.group_settings import Cyclic, Dihedral
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.linter import Expectation, names_of, problems
from strata.group_composition.predict import expectation
from strata.group_composition.theory import Component, Drop, components, drops

SHIPPED = Path(__file__).parents[2] / "config" / "group_composition.yaml"
EXAMPLE: dict[str, Any] = {
    "group": {"name": "cyclic", "n": 10},
    "template": {"name": "custom_fourier", "powers": [0, 3, 2, 1]},
    "task": {"k": 2},
    "model": {"kind": "TwoLayerNet", "hidden_dim": 50},
    "training": {"steps": 1000},
}


def settings_with(**sections: Mapping[str, Any]) -> RunSettings:
    merged = {
        name: {**({} if "name" in block else EXAMPLE[name]), **block}
        for name, block in sections.items()
    }
    return RunSettings.model_validate({**EXAMPLE, **merged})


def staircase(settings: RunSettings, steps: list[float]) -> Expectation:
    """The staircase of the template, with steps of our choice."""
    _, expected = expectation(settings, None)
    assert len(steps) == len(expected.drops)
    return Expectation(
        expected.drops, [float(step) for step in steps], expected.irreps, expected.template
    )


def said(settings: RunSettings) -> list[str]:
    return problems(settings, expectation(settings, None)[1])


# --- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[10, 100, 1000.0], [math.nan] * 3])
def test_nothing_is_said_of_drops_in_time_or_without_prediction(steps: list[float]) -> None:
    settings = settings_with()
    assert problems(settings, staircase(settings, steps)) == []


def test_a_first_drop_after_the_last_step_means_that_nothing_is_learned() -> None:
    settings = settings_with()
    assert problems(settings, staircase(settings, [1000.6, 2000, 4000])) == [
        "The first drop is expected at step 1,001 at the earliest; training ends at step 1,000, "
        "before anything is learned."
    ]


@pytest.mark.parametrize(
    ("steps", "number", "name", "step"),
    [
        ([10, 2000, 4500], 2, "f = 2", "2,000"),
        ([10, 100, 4500], 3, "f = 3", "4,500"),
    ],
)
def test_a_later_drop_after_the_last_step_is_named_with_the_plateau_that_remains(
    steps: list[float], number: int, name: str, step: str
) -> None:
    settings = settings_with()
    assert problems(settings, staircase(settings, steps)) == [
        f"Drop {number} of 3 ({name}) is expected at step {step} at the earliest and the last at "
        f"step 4,500; training ends at step 1,000, on plateau {number - 1} at the lowest."
    ]


def test_a_second_drop_that_may_come_before_the_first_is_not_ruled_out() -> None:
    """A drop of less power can have less far to grow."""
    settings = settings_with()
    assert problems(settings, staircase(settings, [1100, 900, 4500])) == [
        "Drop 1 of 3 (f = 1) is expected at step 1,100 at the earliest and the last at step 4,500; "
        "training ends at step 1,000, on plateau 1 at the lowest."
    ]
    (sentence, _) = problems(settings, staircase(settings, [1100, 1050, 1200]))
    assert sentence.startswith("The first drop is expected at step 1,050 at the earliest;")


# --- widths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "fit"), [(5, 0), (6, 1), (11, 1), (12, 2), (17, 2), (18, None)])
def test_a_narrow_network_has_room_for_the_first_representations(
    width: int, fit: int | None
) -> None:
    """Six neurons for a frequency with a phase."""
    settings = settings_with(model={"hidden_dim": width})
    sentence = (
        f"Width {width} < 18: the exact solution of this network has room for {fit} of 3 "
        "representations."
    )
    found = problems(settings, staircase(settings, [10, 100, 900]))
    assert found == ([] if fit is None else [sentence])


@pytest.mark.parametrize(
    ("kind", "k", "transform", "needed"),
    [
        ("SequentialMLP", 3, "quadratic", 3 * 16),
        ("QuadraticRNN", 3, "quadratic", 3 * 6),
        ("QuadraticRNN", 3, "multiplicative", 3 * 3),
        ("TreeMLP", 5, "quadratic", 3 * 6),
    ],
)
def test_the_width_that_is_needed_is_that_of_the_network(
    kind: str, k: int, transform: str, needed: int
) -> None:
    for width, is_said in ((needed - 1, True), (needed, False)):
        model = {"kind": kind, "hidden_dim": width, "transform": transform}
        settings = settings_with(
            model=model, task={"k": k}, training={"steps": 10**9, "optimizer": "adam"}
        )
        found = said(settings)
        assert [f"Width {width} < {needed}:" in sentence for sentence in found] == [True] * is_said


def test_neurons_are_counted_once_for_a_representation_that_is_learned_along_several_paths() -> (
    None
):
    """D_3: sixteen neurons for the representation of dimension two, two for the sign."""
    settings = settings_with(
        group={"name": "dihedral", "n": 3},
        template={"name": "gaussian"},
        model={"hidden_dim": 17},
        training={"steps": 10**9},
    )
    irreps = irreducible_representations(build_group(Dihedral(n=3)))
    template = np.random.default_rng(0).normal(size=6)
    template -= template.mean()
    found = drops(components(irreps, template, 2), 6, 2)
    assert len([drop for drop in found if drop.irreps == (2,)]) > 1
    sentences = problems(settings, Expectation(found, [math.nan] * len(found), irreps, template))
    fit = 1  # either alone, but not both
    assert sentences == [
        f"Width 17 < 18: the exact solution of this network has room for {fit} of 2 "
        "representations."
    ]


# --- no staircase -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "n_modes"), [(5, 2), (7, 3), (11, 5)])
def test_a_one_hot_template_on_a_prime_cyclic_group_has_no_staircase(n: int, n_modes: int) -> None:
    settings = settings_with(group={"n": n}, template={"name": "onehot"}, training={"steps": 10**9})
    assert said(settings) == [f"All {n_modes} representations tie: no staircase, one drop."]


def test_one_frequency_is_one_drop_and_no_tie() -> None:
    settings = settings_with(
        template={"name": "custom_fourier", "powers": [0, 1]}, training={"steps": 10**9}
    )
    assert said(settings) == []


def test_paths_through_one_representation_that_tie_are_one_drop_and_no_tie() -> None:
    settings = settings_with(group={"name": "dihedral", "n": 3})
    irreps = irreducible_representations(build_group(Dihedral(n=3)))
    R = irreps[2].matrices
    template = R[:, 0, 0] + 0.997 * R[:, 1, 1]
    found = drops(components(irreps, template, 2), 6, 2)
    assert (len(found), len(found[0].components)) == (1, 4)
    assert problems(settings, Expectation(found, [10.0], irreps, template)) == []


@pytest.mark.parametrize(
    ("steps", "is_said"),
    [
        ([100, 124, 150], True),
        ([100, 126, 150], False),
        ([100, 124, 160], False),
        ([math.nan] * 3, False),
    ],
)
def test_drops_that_follow_at_once_leave_no_flat_plateau(steps: list[float], is_said: bool) -> None:
    settings = settings_with()
    assert problems(settings, staircase(settings, steps)) == [
        "All 3 drops are expected within a factor 1.25 of the one before: no plateau will be flat."
    ] * int(is_said)


# --- beyond the theory --------------------------------------------------------------------------


def test_a_singular_fourier_matrix_is_named() -> None:
    settings = settings_with(
        group={"name": "dihedral", "n": 3}, template={"name": "onehot"}, training={"steps": 10**9}
    )
    irreps = irreducible_representations(build_group(Dihedral(n=3)))
    for template, is_singular in (
        (irreps[2].matrices[:, 0, 0], True),
        (irreps[2].matrices[:, 0, 0] + 0.1 * irreps[2].matrices[:, 1, 1], False),
    ):
        found = drops(components(irreps, template, 2), 6, 2)
        steps = [10.0 * 4**number for number in range(len(found))]
        sentences = problems(settings, Expectation(found, steps, irreps, template))
        assert sentences == [
            "The template's Fourier matrix is singular for 2: the constructed solution does not "
            "exist, and the loss may stay above zero."
        ] * int(is_singular)


@pytest.mark.parametrize("nonlinearity", ["square", "relu", "tanh", "gelu", "linear"])
def test_other_activations_than_the_square_are_beyond_the_theory(nonlinearity: str) -> None:
    settings = settings_with(model={"nonlinearity": nonlinearity}, training={"steps": 10**9})
    assert said(settings) == [
        f"The order and the utilities hold for the activation square; with {nonlinearity} only the "
        "initial loss and the powers are predictions."
    ] * int(nonlinearity != "square")


def test_several_sentences_are_said_at_once_the_steps_first() -> None:
    settings = settings_with(model={"hidden_dim": 12})
    found = problems(settings, staircase(settings, [1100, 1200, 1300]))
    assert [sentence.split()[0] for sentence in found] == ["The", "Width", "All"]


def test_a_drop_is_named_by_its_representations_in_their_order() -> None:
    irreps = irreducible_representations(build_group(Cyclic(n=10)))
    parts = tuple(Component(irrep, 1.0, 1.0, 1.0) for irrep in (4, 2, 4))
    assert names_of(Drop(parts, 1.0, 0.0, 1.0, 1.0), irreps) == "f = 2, f = 4"


# --- what is shipped ----------------------------------------------------------------------------


def digit() -> np.ndarray:
    """Something like a four: three strokes."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 4:16, 6:9], image[0, 14:17, 6:22], image[0, 4:25, 17:20] = 220, 250, 230
    return image


def shipped(name: str) -> tuple[list[str], Expectation]:
    settings = load_experiments("group_composition", SHIPPED)[name].runs[name]
    assert isinstance(settings, RunSettings)
    _, expected = expectation(settings, digit())
    return problems(settings, expected), expected


def test_the_originals_ten_elements_are_told_that_nothing_will_be_learned() -> None:
    (sentence,), expected = shipped("group_c10_original")
    first, second = expected.steps
    assert 1.5e5 < first < 2e5
    assert 3e5 < second < 4e5
    assert sentence == (
        f"The first drop is expected at step {first:,.0f} at the earliest; training ends at step "
        "8,000, before anything is learned."
    )


def test_the_originals_torus_is_told_that_it_is_too_narrow_and_too_short() -> None:
    (too_short, too_narrow), expected = shipped("group_c10xc10_original")
    late = int(np.argmax(np.array(expected.steps) > 20000))
    assert late > 0
    assert too_short.startswith(f"Drop {late + 1} of {len(expected.drops)} (f = (")
    assert f"expected at step {expected.steps[late]:,.0f} at the earliest" in too_short
    assert too_short.endswith(f"ends at step 20,000, on plateau {late} at the lowest.")
    # Sixteen neurons for each of 48 frequencies with a phase, four for each of three without.
    assert too_narrow.startswith("Width 600 < 780: ")
    assert too_narrow.endswith("of 51 representations.")


@pytest.mark.parametrize("name", ["group_c11", "group_c5xc5", "group_d5", "demo_group"])
def test_nothing_speaks_against_the_staircases_of_the_papers_figure(name: str) -> None:
    sentences, expected = shipped(name)
    assert sentences == []
    assert np.isfinite(expected.steps).all()
