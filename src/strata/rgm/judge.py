"""A judge of generated digits: it knows real images only, and never the model that made them.

The judge is the majority among the nearest neighbours in the principal components of real training
images. Two numbers describe digits that were asked for by class: how often the judge agrees with
what was asked for, and how far digits of one class lie apart compared with real ones.

Conventions: images are rows of pixels in [0, 1]; distances are Euclidean over all pixels; a class
without digits has no consistency and one with fewer than two has no diversity (NaN). Imports no
torch.

Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning (2009), section 13.3.
"""

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy.spatial.distance import pdist
from sklearn.neighbors import KNeighborsClassifier

from strata.rgm.baselines import Digits, Images, Labels, PrincipalComponents

# A judge must not fall for blur, since generated digits are smoother than real ones. Few components
# and a majority find .975 of MNIST's test images, and .945 of the same images cut down to 16
# components; a support-vector classifier on 50 components finds .986 and .847.
N_COMPONENTS = 32
N_NEIGHBOURS = 5


class Judge:
    """A classifier of real digits.

    Args:
        train: real digits.
        n_components: principal components it looks at; at most what the training images have.
    """

    def __init__(self, train: Digits, n_components: int = N_COMPONENTS) -> None:
        start = time.perf_counter()
        self.n_components = min(n_components, *train.images.shape)
        self.pca = PrincipalComponents(train.images, self.n_components)
        self.classifier = KNeighborsClassifier(min(N_NEIGHBOURS, len(train.images)))
        self.classifier.fit(self._codes(train.images), train.labels)
        self.seconds = time.perf_counter() - start

    def classify(self, images: Images) -> Labels:
        """Return the class of each image."""
        return self.classifier.predict(self._codes(images))

    def accuracy(self, digits: Digits) -> float:
        """Return the fraction of digits whose class is found."""
        return float(np.mean(self.classify(digits.images) == digits.labels))

    def _codes(self, images: Images) -> Float[np.ndarray, "image component"]:
        return self.pca.encode(images, self.n_components)


@dataclass(frozen=True)
class Verdict:
    """What the judge finds of generated digits, per class and over all.

    consistency: fraction of the digits of a class that the judge calls so.
    diversity: mean distance between two digits of a class, relative to that of real digits.
    confusion: number of digits asked for as one class (row) and called another (column).
    """

    consistency: Float[np.ndarray, " class"]
    diversity: Float[np.ndarray, " class"]
    confusion: Integer[np.ndarray, "class class"]

    @property
    def mean_consistency(self) -> float:
        """Fraction of all digits that the judge calls what was asked for."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def judge_digits(judge: Judge, generated: Digits, real: Digits, n_classes: int) -> Verdict:
    """Return the verdict on generated digits, whose labels are the classes asked for.

    Args:
        judge: fitted to real digits.
        generated: digits to judge.
        real: digits that the judge was not fitted to, for the distances.
        n_classes: classes are the numbers below this.

    Raises:
        ValueError: a label outside the classes.
    """
    for digits in (generated, real):
        if digits.labels.min() < 0 or digits.labels.max() >= n_classes:
            raise ValueError(
                f"Labels must be numbers from 0 to {n_classes - 1}; got {digits.labels.min()} to "
                f"{digits.labels.max()}."
            )
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (generated.labels, judge.classify(generated.images)), 1)
    asked = confusion.sum(axis=1)
    consistency = np.full(n_classes, np.nan)
    np.divide(np.diag(confusion), asked, out=consistency, where=asked > 0)
    spread, real_spread = (spread_by_class(digits, n_classes) for digits in (generated, real))
    return Verdict(consistency, spread / real_spread, confusion)


def spread_by_class(digits: Digits, n_classes: int) -> Float[np.ndarray, " class"]:
    """Return the mean distance between two digits of a class; NaN for fewer than two."""
    spread = np.full(n_classes, np.nan)
    for number in range(n_classes):
        members = digits.images[digits.labels == number]
        if len(members) > 1:
            spread[number] = pdist(members.astype(np.float64)).mean()
    return spread
