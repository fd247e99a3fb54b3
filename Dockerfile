# Two images from one build: `--target registry` (the server) and `--target registrar` (the sidecar). `make images` builds
# both. Nothing here depends on the architecture: every locked package has wheels for amd64 and arm64, or is pure Python.
ARG PYTHON=python:3.13.15-slim-trixie

# What builds: hatchling makes the wheel, cyclonedx the bill of materials. No image keeps this stage.
FROM ${PYTHON} AS build
ARG PIP_INDEX_URL=https://pypi.org/simple
# Bytecode names the source's hash instead of its time, and sets are written in one order: two builds are the same bytes.
ARG SOURCE_DATE_EPOCH=0
# Not every builder hands arguments on to the stages that start from this one.
ENV PIP_INDEX_URL=${PIP_INDEX_URL} SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} PYTHONHASHSEED=0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ENV PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all: PIP_NO_DEPS=1
COPY deploy/images/build.lock /locks/
RUN python3 -m venv /build && /build/bin/pip install --requirement /locks/build.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
RUN /build/bin/hatchling build --target wheel --directory /dist
COPY deploy/images/sbom.py /sbom.py

# Each image has a lock of its own, so that a build fetches what the image keeps. The wheel, which was built just now,
# is the only file without a hash, and pip sees no index when it installs that.
FROM build AS registry-environment
COPY deploy/images/registry.lock /locks/
RUN python3 -m venv --without-pip /registry && \
  /build/bin/pip --python /registry install --requirement /locks/registry.lock
RUN PIP_REQUIRE_HASHES=0 /build/bin/pip --python /registry install --no-index /dist/*.whl && \
  /build/bin/python /sbom.py /registry > /registry/sbom.cdx.json

# The sidecar imports `registrar` and `wire` alone, which an import contract holds; the server stays out of its image.
FROM build AS registrar-environment
COPY deploy/images/registrar.lock /locks/
RUN python3 -m venv --without-pip /registrar && \
  /build/bin/pip --python /registrar install --requirement /locks/registrar.lock
RUN PIP_REQUIRE_HASHES=0 /build/bin/pip --python /registrar install --no-index /dist/*.whl && \
  rm -r /registrar/bin/registry* /registrar/lib/python3.*/site-packages/registry* \
    /registrar/lib/python3.*/site-packages/meshconfig && \
  /build/bin/python /sbom.py /registrar > /registrar/sbom.cdx.json

FROM ${PYTHON} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number and no name: Kubernetes and ECS can tell that it is not root without reading /etc/passwd.
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
# `make images` says of which commit and of when this is.
ARG PYTHON
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.created="${CREATED}" \
  org.opencontainers.image.base.name="${PYTHON}" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.vendor="Headcount"

FROM base AS registrar
LABEL org.opencontainers.image.title="headcount-registrar" \
  org.opencontainers.image.description="Health-check sidecar that registers an application with Headcount's registry"
COPY --from=registrar-environment /registrar /registrar
ENV PATH=/registrar/bin:${PATH}
# Healthy once the first registration was accepted, and from then on; an unavailable registry never fails it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 CMD ["registrar", "healthcheck"]
ENTRYPOINT ["registrar"]
CMD ["run"]

# The last stage is what a build without a target makes.
FROM base AS registry
LABEL org.opencontainers.image.title="headcount-registry" \
  org.opencontainers.image.description="Service registry for Envoy, on PostgreSQL"
COPY --from=registry-environment /registry /registry
# Inside a container loopback reaches nobody; who may reach the container is decided outside of it.
ENV PATH=/registry/bin:${PATH} REGISTRY_LISTEN=0.0.0.0:8080
EXPOSE 8080
# The slim image has no curl. /livez asks the process alone: a database that is away must not restart us.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, ssl, urllib.request as http; \
address = os.environ.get('REGISTRY_PLAIN_LISTEN') or os.environ['REGISTRY_LISTEN']; \
tls = not os.environ.get('REGISTRY_PLAIN_LISTEN') and bool(os.environ.get('REGISTRY_TLS_CERT_FILE')); \
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls else None; \
tls and (setattr(context, 'check_hostname', False), setattr(context, 'verify_mode', ssl.CERT_NONE)); \
http.urlopen('http' + 's' * tls + '://127.0.0.1:' + address.rpartition(':')[2] + '/livez', timeout=2, context=context)"]
ENTRYPOINT ["registry"]
CMD ["serve"]
