# syntax=docker/dockerfile:1
# One image for all processes: `docker run … python -m subgraphs.bank.service`. See docs/how-to/run-in-containers.md.
ARG PYTHON=3.11-slim-bookworm

# Dependencies first, because they change rarely. All are wheels, so no compiler is needed.
FROM python:${PYTHON} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PIP_CONSTRAINT=/build/constraints.txt
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt \
    && pip --python /venv/bin/python install --no-compile -r requirements.txt

# Bytecode with unchecked hashes: valid regardless of file times, so the read-only image compiles nothing.
FROM dependencies AS build
COPY . .
RUN pip --python /venv/bin/python install --no-compile --no-deps . \
    && /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

# Locust's packages are in the load image only. constraints.txt pins their versions.
FROM build AS build-load
# hadolint ignore=DL3013
RUN pip --python /venv/bin/python install --no-compile '.[loadtest]' \
    && /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM python:${PYTHON} AS run
# Without GRPC_VERBOSITY=NONE, gRPC's C core writes to standard error, and blocks when nobody reads its lines.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GRPC_VERBOSITY=NONE
# An empty volume gets the owner and mode of the folder that it covers; `provisioning.compose` fills /secrets/*.
RUN groupadd --gid 10001 wallet \
    && useradd --uid 10001 --gid wallet --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin wallet \
    && install -d -o wallet -g wallet -m 0755 /data \
       /secrets /secrets/own /secrets/bank /secrets/card /secrets/analytics /secrets/identity /secrets/gateway \
       /secrets/acquirer /secrets/seed /secrets/load /secrets/nginx /secrets/postgres /secrets/clickhouse /secrets/redis
WORKDIR /data
USER 10001:10001
# HEALTH_URL is the address of the process's /health/ready.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s CMD \
    ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"]
CMD ["wallet", "--help"]

FROM run AS load
COPY --from=build-load /venv /venv
CMD ["python", "-m", "loadtests"]

# Default stage.
FROM run AS wallet
COPY --from=build /venv /venv
