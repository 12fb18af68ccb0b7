"""Settings of the workflow itself, `config/config.yaml`: what is not science.

Imports neither torch nor numpy.
"""

from typing import Any

from pydantic import field_validator

from strata.config import DEVICE, Settings, setting


class DatasetSources(Settings):
    """Where data sets are had from; a change here re-runs nothing."""

    folder: str = setting(
        "downloads",
        "Folder of the data sets' files: those in <folder>/mnist/ and so on are taken, and what is "
        "downloaded is kept there.",
    )
    mnist_mirrors: tuple[str, ...] = setting(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "Addresses of the four .gz files of MNIST, tried in this order.",
    )
    fashion_mnist_mirrors: tuple[str, ...] = setting(
        (
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "Addresses of the four .gz files of Fashion-MNIST, likewise.",
    )

    @field_validator("mnist_mirrors", "fashion_mnist_mirrors")
    @classmethod
    def _encrypted(cls, mirrors: tuple[str, ...]) -> tuple[str, ...]:
        for mirror in mirrors:
            if not mirror.startswith("https://"):
                raise ValueError(f"expected addresses that begin with https://; got {mirror!r}.")
        return mirrors

    @property
    def mirrors(self) -> dict[str, tuple[str, ...]]:
        """The mirrors of each data set."""
        return {"mnist": self.mnist_mirrors, "fashion_mnist": self.fashion_mnist_mirrors}


class WorkflowSettings(Settings):
    """`config/config.yaml`: what is not science."""

    families: dict[str, str] = setting(
        {}, "Family -> file of its experiments, relative to the working directory."
    )
    device: str = setting(
        "auto", "Where training and sampling run: auto, cpu, cuda or cuda:<number>."
    )
    largest_full_sweep: int = setting(
        100,
        "Sweeps of more runs than this end in their summary and the verdicts of their runs; other "
        "files of a run, its figures among them, are then made when they are asked for by name. A "
        "change here re-runs nothing.",
        unit="runs",
        ge=0,
    )
    datasets: DatasetSources = setting(DatasetSources(), "Where data sets are had from.")
    compare: tuple[str, ...] = setting(
        (),
        "Experiments of one family that `snakemake compare` draws over each other; also "
        "`--config compare=mera_L8,mera_best_L8` on the command line.",
    )

    @field_validator("compare", mode="before")
    @classmethod
    def _separated_by_commas(cls, names: Any) -> Any:
        if isinstance(names, str):
            return tuple(name.strip() for name in names.split(",") if name.strip())
        return names

    @field_validator("compare")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"an experiment stands twice in {list(names)}.")
        return names

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"expected auto, cpu, cuda or cuda:<number>; got {value!r}.")
        return value
