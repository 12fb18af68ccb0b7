"""How the rows of the readout lie to one another and to the plane of the driven orbit.

Conventions: row o of the readout is the direction w_o in the space of the highest layer's units
along which the logit of symbol o grows. Angles are in degrees; an angle of a row of zeros is NaN.
A row in a random direction of n dimensions has cos^2 = 2 / n to a plane on average. What is
common to all rows moves no probability, but it turns the rows: angles depend on it.

Source: the analyses of E. Torre and others, arXiv:2510.25674.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "symbol unit"]


def projected_rows(
    rows: Rows, components: Float[Tensor, "component unit"]
) -> Float[Tensor, "symbol component"]:
    """Return the coordinates w_o . e_k of each row along orthonormal components e_k."""
    return rows @ components.T


def angles_to_plane(rows: Rows, plane: Float[Tensor, "component unit"]) -> Float[Tensor, " symbol"]:
    """Return the angle between each row and a plane, arccos(|P w_o| / |w_o|).

    P projects on the plane, which two orthonormal components span: 0 degrees for a row in the
    plane, 90 for one that is normal to it.
    """
    norms = torch.linalg.vector_norm(rows, dim=1)
    within = torch.linalg.vector_norm(projected_rows(rows, plane), dim=1)
    return _degrees(within / norms)


def angles_between(rows: Rows) -> Float[Tensor, "symbol symbol"]:
    """Return the angle between every two rows, arccos(w_a . w_b / (|w_a| |w_b|))."""
    directions = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return _degrees(directions @ directions.T)


def _degrees(cosines: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosines.clamp(-1.0, 1.0)))
