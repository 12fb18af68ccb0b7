"""Which files the stages of neural_rg need, run by run. No rules."""


def exact_answer(wildcards):
    """Return the file of the exact answer that a run is held against."""
    return RUNS[wildcards.run].target.exact_file


def exact_data(wildcards):
    """Return the exact samples of a run where it can have any, by the name `data`."""
    return run_file(wildcards, "ising_samples.h5", RUNS[wildcards.run].has_exact_samples)


def information(wildcards):
    """Return what the flow makes of a run's exact samples, by the name `information`."""
    return run_file(wildcards, "information.h5", RUNS[wildcards.run].has_exact_samples)


def training_data(wildcards):
    """Return the exact samples that a run learns from, if it does."""
    return run_file(wildcards, "ising_samples.h5", RUNS[wildcards.run].training.data == "exact")


def run_file(wildcards, name, there):
    """Return a list with one file of a run, or an empty one."""
    return [f"results/{wildcards.run}/{name}"] if there else []


def original_checkpoint(wildcards):
    """Return the checkpoint of the original programs that a run is imported from."""
    return RUNS[wildcards.run].original.checkpoint


def original_parameters(wildcards):
    """Return the `_settings.h5` beside that checkpoint, if there is one."""
    return RUNS[wildcards.run].original.parameters or []
