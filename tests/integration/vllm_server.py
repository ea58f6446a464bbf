"""vLLM's own server as a process of a test."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx2
import psutil

from tests.integration.processes import Process, environment, free_ports, until

CONTEXT = 256


class VllmServer:
    """vLLM's server for the weights in a folder, on loopback."""

    def __init__(self, model: Path, folder: Path, *options: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/v1"
        # `vllm serve` itself fails in the build for CPUs, whose package has another name
        self.command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        self.command += ["--model", str(model), "--served-model-name", "the-model"]
        self.command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "16"]
        self.command += ["--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager"]
        self.command += ["--no-enable-chunked-prefill", "--distributed-executor-backend", "uni"]
        self.command += options
        self.log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Start it; return when it answers."""
        variables = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        self.process = Process(self.command, self.log, environment(**variables))
        try:
            until(self._answers, limit_s=300, what="vLLM's server", watch=[self.process])
        except BaseException:
            self.process.end()
            raise

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/models", trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def kill_engine(self) -> None:
        """Kill the process that decodes; its parent, which talks HTTP, then ends itself."""
        children = psutil.Process(self.process.popen.pid).children(recursive=True)
        engine = max(children, key=lambda child: child.memory_info().rss)
        os.kill(engine.pid, signal.SIGKILL)
        until(lambda: self.process.ended, limit_s=60, what="the end of the server")
