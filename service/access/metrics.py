"""Metrics of every API key, under the name of its holder."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Summary

from service.access.keys import Keyring


class KeyMetrics:
    """What was done for each key.

    The mean share of the multiply-accumulates that a key's images cost is `aig_key_mac_share_sum` by
    `aig_key_mac_share_count`; a holder whose share is far above everybody's sends images that open gates.

    Args:
        registry: where they are entered.
        keyring: of the keys there are at first.
    """

    def __init__(self, registry: CollectorRegistry, keyring: Keyring) -> None:
        self._requests = Counter(
            "aig_key_requests", "Requests by key and outcome.", ["key", "outcome"], registry=registry
        )
        self._images = Counter("aig_key_images", "Images run, by key.", ["key"], registry=registry)
        self._macs = Counter("aig_key_macs", "Multiply-accumulates spent, by key.", ["key"], registry=registry)
        self._share = Summary(
            "aig_key_mac_share",
            "Multiply-accumulates spent on an image, of those with every block executed.",
            ["key"],
            registry=registry,
        )
        # Made once: to look a label up takes longer than to count.
        self._of_key: dict[str, tuple[Counter, Counter, Summary]] = {}
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self.start_at_zero(keyring)

    def start_at_zero(self, keyring: Keyring) -> None:
        """Tell of the holders of keys before they have done anything. Their names are the only labels there can be."""
        for name in (key.name for key in keyring.keys):
            self._of_key[name] = self._images.labels(name), self._macs.labels(name), self._share.labels(name)

    def count_request(self, name: str, outcome: str) -> None:
        """Count a request that was answered; `outcome` is "ok" or the type of its error."""
        counter = self._outcomes.get((name, outcome))
        if counter is None:
            counter = self._outcomes[name, outcome] = self._requests.labels(name, outcome)
        counter.inc()

    def count_image(self, name: str, macs: int, total_macs: int) -> None:
        """Count an image that was run; `total_macs` are those of one for which every block runs."""
        images, spent, share = self._of_key[name]
        images.inc()
        spent.inc(macs)
        share.observe(macs / total_macs)
