"""Tracing, where the settings ask for it: its packages are imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_settings import SettingsError

from service.settings import Settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.observability.tracing import Tracing


def open_tracing(settings: Settings) -> Tracing | None:
    """The tracing that the settings ask for, or None.

    Raises:
        SettingsError: its packages are not installed.
    """
    if settings.tracing == "off":
        return None
    try:
        from service.observability.tracing import Tracing, otlp_provider
    except ImportError as error:
        raise SettingsError(f"tracing needs packages of its own, pip install '.[tracing]': {error}") from error
    return Tracing(otlp_provider())
