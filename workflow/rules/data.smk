"""Data sets: images and labels that several families learn from.

Inputs: none; config/config.yaml says where to look for the files, and a change there runs nothing
again.
Outputs: results/data/<data set>.h5; what was downloaded stays in the folder that config.yaml names.
"""


# A cluster's nodes may have no network; the machine that Snakemake runs on is likelier to.
localrules:
    mnist,
    fashion_mnist,


rule mnist:
    """Get handwritten digits: 60000 to learn from, 10000 to test with."""
    output:
        images="results/data/mnist.h5",
    log:
        "results/data/logs/mnist.log",
    benchmark:
        "results/data/benchmarks/mnist.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=60,
    params:
        dataset="mnist",
    shell:
        "python -m strata.fetch --dataset {params.dataset:q} --config config/config.yaml"
        " --images {output.images:q} > {log:q} 2>&1"


use rule mnist as fashion_mnist with:
    output:
        images="results/data/fashion_mnist.h5",
    log:
        "results/data/logs/fashion_mnist.log",
    benchmark:
        "results/data/benchmarks/fashion_mnist.tsv"
    params:
        dataset="fashion_mnist",
