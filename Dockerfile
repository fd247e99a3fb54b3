# Two images from one build: `--target registry` (the server) and `--target registrar` (the sidecar).
ARG PYTHON=python:3.13-slim

# Every locked package, each file checked against its hash. This stage changes only with the lock.
FROM ${PYTHON} AS locked
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock /src/
RUN pip download --require-hashes --only-binary=:all: --requirement /src/requirements.lock --dest /wheels

# There is one lock, for development too, and an image wants a part of it. So pip chooses that part itself,
# from the extras, but sees only the files checked above (--no-index): what is not locked cannot be installed.
# That fetches development tools into a stage that no image keeps, and spares a second lock to keep in step.
FROM locked AS build
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
RUN pip install hatchling
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
RUN python -m hatchling build --target wheel --directory /dist
RUN python -m venv --without-pip /registry && python -m venv --without-pip /registrar
RUN pip --python /registry install "$(echo /dist/*.whl)[server]"
RUN pip --python /registrar install "$(echo /dist/*.whl)[yaml]"

FROM ${PYTHON} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number and no name: Kubernetes and ECS can tell that it is not root without reading /etc/passwd.
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM

FROM base AS registrar
COPY --from=build /registrar /registrar
ENV PATH=/registrar/bin:${PATH}
ENTRYPOINT ["registrar"]
CMD ["run"]

# The last stage is what a build without a target makes.
FROM base AS registry
COPY --from=build /registry /registry
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
