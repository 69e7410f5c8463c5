# `ar` in a container: docker build -t ar . && docker run -it -v ar-data:/home/ar/.local/share -v ar-work:/work ar loop -n 20
# For an NVIDIA GPU (with nvidia-container-toolkit on the host):
#   docker build -t ar --build-arg BASE=nvidia/cuda:12.8.1-devel-ubuntu24.04 --build-arg EXTRAS=cuda .
#   docker run -it --gpus all --ipc=host -v ar-data:/home/ar/.local/share -v ar-work:/work ar loop --hours 8
# Trials need a sandbox. Docker's own filter forbids the namespaces of bubblewrap, so `ar` takes landlock there; with
# `--security-opt seccomp=unconfined --security-opt apparmor=unconfined` it takes bubblewrap. `ar doctor` says which.
ARG BASE=debian:trixie-slim
FROM ${BASE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# g++ and python3-dev: Inductor and Triton compile with them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap ca-certificates g++ git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The versions first: this layer is built anew only when they change. TORCH may name a smaller build of PyTorch.
WORKDIR /opt/ar
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH=torch
COPY constraints.txt ./
RUN python3 -m venv /opt/venv && pip install -c constraints.txt "${TORCH}"
ARG EXTRAS=
COPY . .
RUN pip install -c constraints.txt -e ".${EXTRAS:+[${EXTRAS}]}"

# Not root: the sandbox has less to take away then.
RUN useradd --create-home --uid 1001 ar && mkdir -p /work /home/ar/.local/share && chown -R ar: /work /home/ar
USER 1001
WORKDIR /work
RUN git config --global user.name ar && git config --global user.email ar@localhost && ar init /work
VOLUME ["/work", "/home/ar/.local/share"]
ENTRYPOINT ["ar"]
CMD ["doctor"]
