"""How many front ends there are, and what each has of the service's workers and limits."""

from __future__ import annotations

import sys

from pydantic_settings import SettingsError

from artifact.cores import usable_cores
from service.images.workers import cuda_devices
from service.settings import WORKERS_A_FRONT_END, Settings, share

# Limits that hold for the service, so that each front end has a part of them; where they are not set, there is nothing
# to divide.
_DIVIDED = ("queue_size", "max_connections", "max_connections_per_address", "max_pending_bytes")


def front_end_count(settings: Settings) -> int:
    """As many as are set, else as many as the workers keep busy.

    One serves where dividing takes something from somebody: with API keys, whose holders would have only a part of
    their limits on one connection, and with GPUs, each of which has one owner.
    """
    if settings.frontends is not None:
        return settings.frontends
    if sys.platform != "linux" or settings.api_keys or cuda_devices(settings):
        return 1
    least: int = min(value for name in _DIVIDED if (value := getattr(settings, name)) is not None)
    workers = settings.workers or usable_cores()
    return max(1, min(workers // WORKERS_A_FRONT_END, least, settings.max_pending_bytes // settings.max_bytes))


def divided(settings: Settings, count: int) -> list[Settings]:
    """The settings of each front end: its part of what holds for all, and the rest as it is.

    Raises:
        SettingsError: something cannot be divided into so many parts.
    """
    if sys.platform != "linux":
        raise SettingsError("--frontends above 1 needs Linux, which spreads connections over processes")
    workers = settings.workers or max(usable_cores(), count)
    devices = cuda_devices(settings)
    if devices and len(devices) < count:
        raise SettingsError(f"{count} front ends need a GPU each, as one process owns each: name more, or --device cpu")
    if settings.max_pending_bytes // count < settings.max_bytes:
        raise SettingsError(f"--max-pending-bytes must hold an image of --max-bytes for each of {count} front ends")
    totals = {"workers": workers} | {name: getattr(settings, name) for name in _DIVIDED}
    for name, total in totals.items():
        if total is not None and total < count:
            flag = name.replace("_", "-")
            raise SettingsError(f"--{flag} {total} cannot be divided among {count} front ends; see --frontends")
    return [_part(settings, totals, devices, number, count) for number in range(count)]


def _part(
    settings: Settings, totals: dict[str, int | None], devices: tuple[int, ...], number: int, count: int
) -> Settings:
    parts: dict[str, object] = {
        name: share(total, number, count) for name, total in totals.items() if total is not None
    }
    if devices:
        parts["device"] = "cuda:" + ",".join(map(str, devices[number::count]))
    if number:  # two processes cannot share a path; another front end would take it over
        parts["admin_socket"] = None
    return settings.model_copy(update=parts)
