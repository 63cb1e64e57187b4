"""Client of the ConvNet-AIG image classification service."""

from convnet_aig_client.answers import (
    BatchItem,
    BlockRun,
    Classification,
    Compute,
    Edge,
    ErrorDetail,
    InferenceGraph,
    Layers,
    ModelName,
    Prediction,
    Timing,
)
from convnet_aig_client.async_client import AsyncClient
from convnet_aig_client.client import Client
from convnet_aig_client.errors import BusyError, DeadlineError, NotReachedError, ServiceError
from convnet_aig_client.files import FileAnswer
from convnet_aig_client.images import Image
from convnet_aig_client.models import ListedModel, ModelDescription
from convnet_aig_client.options import BatchOptions, Options

__all__ = [
    "AsyncClient",
    "BatchItem",
    "BatchOptions",
    "BlockRun",
    "BusyError",
    "Classification",
    "Client",
    "Compute",
    "DeadlineError",
    "Edge",
    "ErrorDetail",
    "FileAnswer",
    "Image",
    "InferenceGraph",
    "Layers",
    "ListedModel",
    "ModelDescription",
    "ModelName",
    "NotReachedError",
    "Options",
    "Prediction",
    "ServiceError",
    "Timing",
]
