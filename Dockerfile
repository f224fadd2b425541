# `isrrescnet` as a container, by itself and with the demo; docs/howto/container.md says how to use it.
#
#     docker build -t isrrescnet .                              # CPU
#     docker build -t isrrescnet --build-arg CUDA=13 .          # NVIDIA GPUs; 12 for older drivers
#     docker build -t isrrescnet-demo --target demo .
#
# Tests carry out these very steps in a folder (tests/docker_steps.py). So RUN names its folders by
# variables, and what is not understood there is an error there.

FROM python:3.13.15-slim-bookworm@sha256:cbd229d7b9bd041012af758ce5ffd807a6518d76493ce9035d208f1db9ceff1e AS base
# One path for building and running: the scripts of an environment name it.
ENV VIRTUAL_ENV=/opt/isrrescnet
ENV PATH="$VIRTUAL_ENV/bin:$PATH"

FROM base AS build
ARG CUDA
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY isrrescnet_jax isrrescnet_jax
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv "$VIRTUAL_ENV" && pip install . ${CUDA:+"jax[cuda$CUDA]"}

FROM build AS build-demo
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install ".[demo]"

FROM base AS runtime
# Compiled programs, and weights from the hub; any user may be given (--user), so all may write.
ENV HOME=/home/isrrescnet
RUN install -d -m 1777 "$HOME"
WORKDIR /work
USER 1000:1000
# What Ctrl-C sends: the first process of a container does not hear SIGTERM.
STOPSIGNAL SIGINT

FROM runtime AS demo
COPY --from=build-demo $VIRTUAL_ENV $VIRTUAL_ENV
ENV PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 7860, timeout=5); c.request('GET', '/'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["isrrescnet", "demo", "--host", "0.0.0.0", "--port", "7860"]

FROM runtime AS isrrescnet
COPY --from=build $VIRTUAL_ENV $VIRTUAL_ENV
ENTRYPOINT ["isrrescnet"]
CMD ["--help"]
