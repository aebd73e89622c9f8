"""Start Python workers for the task managers of this machine, when they ask.

Beam's own pool listens on every interface, and takes the workers of two task managers
on one machine for one another's, because they have the same ids: when one is to be
stopped, it stops the other.
"""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from apache_beam.portability.api import beam_fn_api_pb2 as messages
from apache_beam.portability.api import beam_fn_api_pb2_grpc as services

# What a job's option --beam_plugins would have Beam's own start of a worker import.
_WORKER = """
import sys
import penstock
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(sys.argv[1], worker_id=sys.argv[2]).run()
"""


class Pool(services.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]
    """One process per worker; it ends when its task manager closes the connection."""

    def __init__(self) -> None:
        self._workers: list[subprocess.Popen[bytes]] = []

    def StartWorker(
        self, request: messages.StartWorkerRequest, context: grpc.ServicerContext
    ) -> messages.StartWorkerResponse:
        """Start a worker."""
        self._workers = [each for each in self._workers if each.poll() is None]
        command = [sys.executable, "-c", _WORKER]
        worker = [request.control_endpoint.url, request.worker_id]
        print("Starting worker", *worker, flush=True)
        self._workers.append(subprocess.Popen([*command, *worker]))
        return messages.StartWorkerResponse()

    def StopWorker(
        self, request: messages.StopWorkerRequest, context: grpc.ServicerContext
    ) -> messages.StopWorkerResponse:
        """Do nothing: the id does not say whose worker is meant."""
        return messages.StopWorkerResponse()

    def kill(self) -> None:
        """End all workers."""
        for each in self._workers:
            each.kill()


def main(port: int) -> None:
    """Serve until terminated."""
    pool = Pool()
    atexit.register(pool.kill)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = grpc.server(ThreadPoolExecutor())
    server.add_insecure_port(f"127.0.0.1:{port}")
    services.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]))
