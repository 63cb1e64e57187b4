"""What does a request by the Open Inference Protocol cost, beside one to /classify?

    python -m bench.protocol [--rounds 5]

The same images, the same server and as many clients, in turns: /classify, an image file as a binary tensor, and the
network's own input as a binary tensor. Ratios of images a second are told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import orjson
from tqdm import tqdm

from artifact.manifest import Manifest, read_manifest
from bench.load import closed_loop
from bench.peer_servers import SERVICE, running
from bench.report import print_result, table
from service.images.decoding import ImageDecoder

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT, _CLIENTS, _WARMUP_S, _TIMEOUT_S = 8460, 16, 1.0, 10.0
# Images a second of a file as a binary tensor, of those of /classify.
_LEAST = 0.9


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if the target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.protocol", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="an artifact (default: the shipped one)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    arguments = parser.parse_args(argv)
    manifest = read_manifest(arguments.model)
    files = [path.read_bytes() for path in sorted((_ROOT / "service/ui/static/samples").glob("*.webp"))]
    asked = {"/classify": ("/classify?graph=none", files, {"Content-Type": "image/webp"})}
    for name, bodies in {"file as a tensor": _files(files), "network's input": _inputs(files, manifest)}.items():
        header = {"Inference-Header-Content-Length": str(bodies[0].index(b"}]}") + 3)}
        asked[name] = (f"/v2/models/{manifest.name}/infer", bodies, header)
    rates: dict[str, list[float]] = {name: [] for name in asked}
    with running(SERVICE, arguments.model, _PORT) as server:
        base = server.url.removesuffix("/classify")
        for _ in tqdm(range(arguments.rounds), desc="rounds"):
            for name, (path, bodies, headers) in asked.items():
                result = closed_loop(
                    f"{base}{path}", bodies, headers, _CLIENTS, arguments.seconds, _WARMUP_S, _TIMEOUT_S
                )
                rates[name].append(result.images_per_s)
    ratios = {name: median(map(float.__truediv__, each, rates["/classify"])) for name, each in rates.items()}
    print(table(["", "images/s", "of /classify"], [[n, f"{median(rates[n]):.0f}", f"{ratios[n]:.3f}"] for n in asked]))
    told = {"images_per_s": rates, "of_classify": ratios}
    return print_result(ratios["file as a tensor"] >= _LEAST, {"benchmark": "protocol", "model": manifest.name, **told})


def _files(files: Sequence[bytes]) -> list[bytes]:
    """Bodies with one image file each; the lengths of their descriptions are the same."""
    elements = [len(file).to_bytes(4, "little") + file for file in files]
    return [_body("encoded_images", "BYTES", [1], element) for element in elements]


def _inputs(files: Sequence[bytes], manifest: Manifest) -> list[bytes]:
    decoder = ImageDecoder(manifest.preprocessing, max_bytes=10**8, max_pixels=50_000_000)
    shape = [1, 3, manifest.input_size, manifest.input_size]
    return [_body("images", "FP32", shape, decoder.decode(file).astype(np.float32).tobytes()) for file in files]


def _body(name: str, datatype: str, shape: list[int], raw: bytes) -> bytes:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    described = orjson.dumps({"inputs": [tensor], "outputs": outputs})
    return described.replace(b'"binary_data_size":', b'"binary_data_size":' + b" " * (7 - len(str(len(raw))))) + raw


if __name__ == "__main__":
    sys.exit(main())
