"""A cascade of networks, each opened by itself in the same runtime."""

from __future__ import annotations

from collections.abc import Sequence

from artifact.agreement import LogitsAndMargins
from artifact.cascade import run_cascade
from artifact.manifest import Manifest
from artifact.preprocessing import Float32Array
from service.engine.runtimes.base import Candidate, Closing, Runtime


class CascadeRuntime:
    """Runs the first network on every image, and each later one on those that come to it.

    Args:
        manifest: of the cascade.
        networks: in the order they run.
    """

    candidates: tuple[Candidate, ...] = ()

    def __init__(self, manifest: Manifest, networks: Sequence[Runtime]) -> None:
        first = networks[0]
        self.name, self.device, self.precision = first.name, first.device, first.precision
        self.runs_batches = first.runs_batches
        self.manifest = manifest
        self._networks = networks
        self._runs = [network.run for network in networks]
        self._gates = [len(network.manifest.gated_indices) for network in networks]
        self._sure_above = [member.sure_above for member in manifest.members if member.sure_above is not None]

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        threshold = self.manifest.gate_threshold
        return run_cascade(self._runs, self._gates, self._sure_above, threshold, images, gate_offset)

    def close(self) -> None:
        """See `Closing`."""
        for network in self._networks:
            if isinstance(network, Closing):
                network.close()
