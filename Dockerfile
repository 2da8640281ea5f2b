# chexray on Ray: one image for head, workers and submitter. How to build it, with or without CUDA: images/README.md.
# BuildKit and buildah >= 1.28 build it; it asks no registry but for BASE_IMAGE. The base brings Python 3.11 to 3.13.
ARG BASE_IMAGE=python:3.11-slim-bookworm


# RELEASE=1 refuses a base without a digest: its tag may name another image tomorrow. A stage of its own, so that
# another RELEASE installs nothing again.
FROM ${BASE_IMAGE} AS base-check
ARG BASE_IMAGE
ARG RELEASE=0
RUN case "$RELEASE $BASE_IMAGE" in \
      "0 "* | "1 "*@sha256:?*) ;; \
      *) echo "RELEASE=$RELEASE needs BASE_IMAGE=NAME@sha256:DIGEST, not $BASE_IMAGE: images/README.md" >&2; exit 1 ;; \
    esac \
    && touch -d @0 /base-checked


FROM ${BASE_IMAGE} AS dependencies
# hadolint ignore=DL3002
USER 0:0
# gpu (CUDA wheels, run on CPUs too) or cpu: images/lock/VARIANT.txt has what is installed and the sha256 of each wheel.
ARG VARIANT=gpu
# Where pip looks, like its own variables of these names; a secret pip_conf says the same without staying in a log.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
COPY --from=base-check /base-checked /build/
COPY images/lock /build/lock
# First pip itself, which checks the rest. What writes the SBOM, the list of contents, stays in this stage: /opt/sbom.
# Byte code is made here: with a read-only root every worker would compile torch again. It is checked by hash, since not
# every builder keeps dates; what newer Pythons alone can read (torch's own tests) stays as it is.
RUN --mount=type=secret,id=ca_bundle,target=/run/secrets/ca-bundle.crt \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    if [ -s /run/secrets/ca-bundle.crt ]; then export PIP_CERT=/run/secrets/ca-bundle.crt; fi; \
    lock="/build/lock/${VARIANT}.txt"; \
    [ -s "$lock" ] || { echo "images/lock/${VARIANT}.txt is missing: make it as images/README.md says" >&2; exit 1; }; \
    set -- --no-compile --only-binary :all: --require-hashes --disable-pip-version-check --progress-bar off; \
    python3 -m venv /opt/chexray && python3 -m venv --without-pip /opt/sbom \
    && /opt/chexray/bin/python -m pip install --no-cache-dir "$@" -r /build/lock/pip.txt \
    && /opt/chexray/bin/python -m pip install --no-cache-dir "$@" -r "$lock" \
    && /opt/chexray/bin/python -m pip --python /opt/sbom install --no-cache-dir "$@" -r /build/lock/sbom.txt \
    && cp "$lock" /opt/chexray/lock.txt \
    && { /opt/chexray/bin/python -m compileall -qq -j 0 --invalidation-mode checked-hash /opt/chexray/lib || true; }


# chexray itself, last and without the network: a change of its code rebuilds this and one small layer.
FROM dependencies AS package
WORKDIR /src
COPY . ./
RUN /opt/chexray/bin/python -m pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/chexray/bin/python -m pip install --no-cache-dir --no-index --no-deps --no-compile \
         --prefix /opt/package --find-links /dist chexray \
    && /opt/chexray/bin/python -m compileall -q --invalidation-mode checked-hash \
         -s /opt/package -p /opt/chexray /opt/package/lib
# The SBOM is read from what is installed, chexray included; in the image it is /opt/chexray/sbom.cdx.json.
RUN /opt/chexray/bin/python -m pip install --no-cache-dir --no-index --no-deps --no-compile --find-links /dist chexray \
    && /opt/chexray/bin/python -m pip check \
    && /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
         --output-file /opt/package/sbom.cdx.json /opt/chexray/bin/python


FROM ${BASE_IMAGE}
USER 0:0
# What the base may lack: bash for KubeRay's start command, wget for its probes of serving workers, tini to pass signals
# on. Versions are those of the base's release.
# hadolint ignore=DL3008,SC2086
RUN missing=; for tool in bash tini wget; do command -v "$tool" > /dev/null || missing="$missing $tool"; done; \
    [ -z "$missing" ] || { apt-get update && apt-get install -y --no-install-recommends ca-certificates $missing \
      && rm -rf /var/lib/apt/lists/*; }
# Some bases have a user 1000 already; it keeps its name then, and chexray asks for no more than the number.
RUN getent group 1000 > /dev/null || groupadd --gid 1000 ray; \
    getent passwd 1000 > /dev/null || useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray; \
    install -d -o 1000 -g 1000 /home/ray
COPY --from=dependencies /opt/chexray /opt/chexray
COPY --from=package /opt/package /opt/chexray

# Caches go to /tmp: the root is read-only on a cluster. 25 s: what a stopped job needs to commit or drop its chunks
# (Ray gives 3). RAY_AUTH_MODE is left to the manifests; NVIDIA_VISIBLE_DEVICES to who grants GPUs, since a head that
# asks for none would else see those of its node.
ENV PATH=/opt/chexray/bin:$PATH \
    HOME=/home/ray \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/tmp/cache/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_JOB_STOP_WAIT_TIME_S=25 \
    RAY_USAGE_STATS_ENABLED=0 \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/cache/triton \
    XDG_CACHE_HOME=/tmp/cache

ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="chexray" \
      org.opencontainers.image.description="Evaluates synthetic chest radiographs: fidelity, privacy and utility, on Ray" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

USER 1000:1000
WORKDIR /home/ray
# Ray's own probe, which needs no token; KubeRay sets probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:52365/api/healthz', timeout=3)"]
# Never tini -g: it signals all of Ray at once, which then waits for itself (33 s instead of 3).
ENTRYPOINT ["tini", "--"]
CMD ["chexray", "--help"]
