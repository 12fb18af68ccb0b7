"""How datasets of the network, of the hidden Markov model and their exact values are named.

Imports no torch.
"""


def of_both(measure: str, axes: str) -> dict[str, str]:
    """Return the axes of a measure of the network and of the hidden Markov model."""
    return {f"{measure}/rnn": axes, f"{measure}/hmm": axes}


def of_all(measure: str, axes: str) -> dict[str, str]:
    """Return the axes of a measure of both samples and of its exact value."""
    return {**of_both(measure, axes), f"{measure}/exact": axes}
