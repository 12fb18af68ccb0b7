# Strata's environment and code in one image; results, settings and Snakemake's records stay outside:
#   docker build --tag strata .
#   mkdir -p results downloads .snakemake
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/config:/strata/config" \
#     -v "$PWD/results:/strata/results" -v "$PWD/downloads:/strata/downloads" \
#     -v "$PWD/.snakemake:/strata/.snakemake" strata --cores 2 demo
# With Apptainer the same folders are bound:
#   apptainer build strata.sif docker-daemon://strata:latest
#   apptainer run --pwd /strata --bind config:/strata/config --bind results:/strata/results \
#     --bind downloads:/strata/downloads --bind .snakemake:/strata/.snakemake strata.sif --cores 2 demo
# The image holds no git history: results made in it carry the commit "unknown".
FROM python:3.11-slim

WORKDIR /strata

# The pins change seldom, the code often. pip's own index gives torch with CUDA; for the smaller build
# without, docker build --build-arg PIP_EXTRA_INDEX_URL=<the index of torch's CPU wheels>
ARG PIP_EXTRA_INDEX_URL
COPY envs/requirements.lock envs/requirements.lock
RUN pip install --no-cache-dir --disable-pip-version-check -r envs/requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --disable-pip-version-check \
    --no-deps --no-build-isolation --editable .

COPY Snakefile ./
COPY workflow workflow
COPY profiles profiles
COPY config config
COPY envs envs
COPY results/README.md results/README.md

# Any user can run it: what is written lies in folders of the host, caches below /tmp.
RUN useradd --create-home strata && mkdir -p downloads .snakemake && chown -R strata /strata
ENV HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
USER strata

ENTRYPOINT ["snakemake"]
CMD ["--cores", "2", "demo"]
