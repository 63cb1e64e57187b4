"""The application for another ASGI server than the one that `python -m service` runs.

    granian --interface asgi --factory service.asgi:application
    hypercorn "service.asgi:application()"

Settings come from the environment (AIG_...). One worker process of the server is enough: inference has its own. How
many connections there may be, how long they may idle, and what happens on signals is the server's business then.
"""

from __future__ import annotations

from artifact.manifest import read_manifest
from service.app import Service, create_app
from service.keys import read_keys
from service.settings import Settings
from service.startup import begin_pool, open_tracing


def application() -> Service:
    """Open the model and make the application.

    Raises:
        ArtifactError, EngineError, KeyFileError, SettingsError, ValidationError: something that is set cannot be used.
    """
    settings = Settings()
    manifest = read_manifest(settings.model)
    keyring = read_keys(settings.api_keys) if settings.api_keys else None
    tracing = open_tracing(settings, manifest)
    return create_app(settings, begin_pool(settings, manifest)(), keyring, tracing)
