"""Metrics of every API key, under the name of its holder."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Summary

from artifact.manifest import Manifest


class KeyMetrics:
    """What was done for each key.

    The mean share of the multiply-accumulates that a key's images cost is `aig_key_mac_share_sum` by
    `aig_key_mac_share_count`; a holder whose share is far above everybody's sends images that open gates.

    Args:
        registry: where they are entered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "aig_key_requests", "Requests by key and outcome.", ["key", "outcome"], registry=registry
        )
        self._images = Counter("aig_key_images", "Images run, by key and model.", ["key", "model"], registry=registry)
        self._macs = Counter(
            "aig_key_macs", "Multiply-accumulates spent, by key and model.", ["key", "model"], registry=registry
        )
        self._share = Summary(
            "aig_key_mac_share",
            "Multiply-accumulates spent on an image, of those with every block executed.",
            ["key", "model"],
            registry=registry,
        )
        # Made once: to look a label up takes longer than to count.
        self._of_key: dict[tuple[str, str], tuple[Counter, Counter, Summary]] = {}
        self._outcomes: dict[tuple[str, str], Counter] = {}

    def count_request(self, name: str, outcome: str) -> None:
        """Count a request that was answered; `outcome` is "ok" or the type of its error."""
        counter = self._outcomes.get((name, outcome))
        if counter is None:
            counter = self._outcomes[name, outcome] = self._requests.labels(name, outcome)
        counter.inc()

    def count_image(self, name: str, macs: int, manifest: Manifest) -> None:
        """Count an image that a model was run on. Names of keys and models are the only labels there can be."""
        series = self._of_key.get((name, manifest.name))
        if series is None:
            labels = name, manifest.name
            series = self._images.labels(*labels), self._macs.labels(*labels), self._share.labels(*labels)
            self._of_key[labels] = series
        images, spent, share = series
        images.inc()
        spent.inc(macs)
        share.observe(macs / manifest.total_macs)
