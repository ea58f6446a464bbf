# An image for NVIDIA GPUs, with vLLM: docker build -f launch/docker/gpu.Dockerfile -t reasontrain .
#   docker run --rm --gpus all --ipc host -v /data/runs:/work/out reasontrain train tip_qwen3.yaml
# Not run yet by its authors, who have no GPU; torch brings its own CUDA libraries, so the driver is all a host needs.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE VIRTUAL_ENV=/opt/reasontrain
ENV PATH=$VIRTUAL_ENV/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ libnuma1 python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && python3 -m venv "$VIRTUAL_ENV"
WORKDIR /src
COPY . .
RUN pip install -c constraints-vllm.txt '.[vllm]' && rm -rf /src
RUN useradd --create-home --uid 10001 trainer && mkdir /work && chown trainer /work
USER 10001
WORKDIR /work
RUN reasontrain recipes copy tip_qwen3
ENTRYPOINT ["reasontrain"]
CMD ["--help"]
