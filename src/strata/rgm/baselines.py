"""What simple methods reach on the same images: the bars that the model must pass.

Reconstruction by the mean image, a black image and principal components; classification by
logistic regression and nearest neighbours. Each is fitted to training images alone and measured on
test images.

Conventions: images are rows of pixels in [0, 1]; errors are means over images and pixels of the
squared difference, in squared pixel values; accuracies are fractions; seconds of wall time include
the fit and the prediction. A principal-component code is centred and not whitened. Imports no
torch.

Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning (2009), sections 4.4,
13.3 and 14.5.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Integer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

Images = Float[np.ndarray, "image pixel"]
Codes = Float[np.ndarray, "image component"]
Labels = Integer[np.ndarray, " image"]

# Where the accuracy no longer changes: on MNIST a tenth of it moves it by less than 0.001.
LOGISTIC_TOLERANCE = 1e-3
LOGISTIC_ITERATIONS = 2000


@dataclass(frozen=True)
class Digits:
    """Images with a class each; raises ValueError if their numbers differ or there are none."""

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or len(self.images) == 0:
            raise ValueError(
                "Digits are as many labels as images, and at least one; got "
                f"{len(self.images)} images and {len(self.labels)} labels."
            )


@dataclass(frozen=True)
class Reconstruction:
    """Mean squared error per pixel on the test images, as it comes and clipped to [0, 1]."""

    mse: float
    mse_clipped: float
    seconds: float


@dataclass(frozen=True)
class Classification:
    """Fraction of the test images whose class is found."""

    accuracy: float
    seconds: float


class PrincipalComponents:
    """The leading principal components of training images; fewer of them are nested in more.

    Args:
        images: training images.
        n_components: components to find.

    Raises:
        ValueError: more components than the images or their pixels allow.
    """

    def __init__(self, images: Images, n_components: int) -> None:
        if not 1 <= n_components <= min(images.shape):
            raise ValueError(
                f"{images.shape[0]} images of {images.shape[1]} pixels have 1 to "
                f"{min(images.shape)} principal components; {n_components} were asked for."
            )
        # Exact and the same every time; single precision would blur the smallest components.
        fit = PCA(n_components, svd_solver="covariance_eigh").fit(images.astype(np.float64))
        self.mean = fit.mean_.astype(images.dtype)
        self.components = fit.components_.astype(images.dtype)

    def encode(self, images: Images, n_components: int) -> Codes:
        """Return the first components of each image."""
        return (images - self.mean) @ self.components[:n_components].T

    def decode(self, codes: Codes) -> Images:
        """Return the images that the first components, as many as given, stand for."""
        return codes @ self.components[: codes.shape[1]] + self.mean


def reconstruction_baselines(
    train: Digits, test: Digits, n_components: Sequence[int]
) -> dict[str, Reconstruction]:
    """Return the errors of `black`, `mean_image` and `pca_<n>` for each number of components.

    Raises ValueError where the training images do not have so many components.
    """

    methods: dict[str, Callable[[], Images]] = {
        "black": lambda: np.zeros_like(test.images),
        "mean_image": lambda: np.broadcast_to(train.images.mean(axis=0), test.images.shape),
    }
    for n in n_components:
        methods[f"pca_{n}"] = partial(_projected, train.images, test.images, n)
    return {name: _reconstruction(method, test.images) for name, method in methods.items()}


def _projected(train: np.ndarray, test: np.ndarray, n_components: int) -> np.ndarray:
    pca = PrincipalComponents(train, n_components)
    return pca.decode(pca.encode(test, n_components))


def _reconstruction(method: Callable[[], Images], images: Images) -> Reconstruction:
    start = time.perf_counter()
    found = method()
    seconds = time.perf_counter() - start
    return Reconstruction(
        mean_squared_error(found, images),
        mean_squared_error(found.clip(0, 1), images),
        seconds,
    )


def mean_squared_error(found: Images, images: Images) -> float:
    """Return the squared difference, averaged over images and pixels."""
    return float(np.square(found - images).mean(dtype=np.float64))


def classification_baselines(
    train: Digits,
    test: Digits,
    *,
    logistic_components: Sequence[int],
    neighbour_components: Sequence[int],
    n_neighbours: int,
) -> dict[str, Classification]:
    """Return the accuracies of simple classifiers.

    - `logistic_raw`: multinomial logistic regression on the pixels;
    - `logistic_pca_<n>`: the same on n principal components;
    - `<k>_neighbours_pca_<n>`: the majority among the k nearest codes of training images.

    Raises ValueError where the training images do not have so many components or neighbours.
    """
    if not 1 <= n_neighbours <= len(train.images):
        raise ValueError(
            f"{len(train.images)} training images have 1 to {len(train.images)} neighbours; "
            f"{n_neighbours} were asked for."
        )
    logistic = {f"logistic_pca_{n}": (n, _logistic_regression()) for n in logistic_components}
    neighbours = {
        f"{n_neighbours}_neighbours_pca_{n}": (n, KNeighborsClassifier(n_neighbours))
        for n in neighbour_components
    }
    return {
        "logistic_raw": _classification(_logistic_regression(), train, test, None),
        **{
            name: _classification(classifier, train, test, n)
            for name, (n, classifier) in (logistic | neighbours).items()
        },
    }


def _logistic_regression() -> LogisticRegression:
    return LogisticRegression(tol=LOGISTIC_TOLERANCE, max_iter=LOGISTIC_ITERATIONS)


def _classification(
    classifier: LogisticRegression | KNeighborsClassifier,
    train: Digits,
    test: Digits,
    n_components: int | None,
) -> Classification:
    start = time.perf_counter()
    seen, unseen = train.images, test.images
    if n_components is not None:
        pca = PrincipalComponents(train.images, n_components)
        seen, unseen = pca.encode(seen, n_components), pca.encode(unseen, n_components)
    found = classifier.fit(seen, train.labels).predict(unseen)
    accuracy = float(np.mean(found == test.labels))
    return Classification(accuracy, time.perf_counter() - start)
