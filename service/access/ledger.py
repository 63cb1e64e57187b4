"""The accounts of all API keys there are, by whatever transport their requests come."""

from __future__ import annotations

from functools import partial

from service.access.accounts import Account
from service.access.keys import Keyring, KeySource
from service.access.metrics import KeyMetrics


class Ledger:
    """Finds the account of whoever presents a key.

    Args:
        keys: there are, which may change.
        metrics: of keys.
    """

    def __init__(self, keys: KeySource, metrics: KeyMetrics) -> None:
        self._keys = keys
        self._metrics = metrics
        self._accounts: dict[str, Account] = {}
        self._open_accounts(keys.current())

    def find(self, presented: bytes) -> Account | None:
        """The account of a key; None where there is no such key."""
        keyring = self._keys.current()
        if keyring is not self._keyring:
            self._open_accounts(keyring)
        key = keyring.find(presented)
        return None if key is None else self._accounts[key.name]

    def count_request(self, account: Account, result: str) -> None:
        """Count what became of a request."""
        self._metrics.count_request(account.key.name, result)

    def _open_accounts(self, keyring: Keyring) -> None:
        """Have an account for every key, which remembers what was done: that of a key that is as it was stays."""
        self._keyring = keyring
        before = self._accounts
        self._accounts = {
            key.name: known
            if (known := before.get(key.name)) and known.key == key
            else Account(key, partial(self._metrics.count_image, key.name))
            for key in keyring.keys
        }
