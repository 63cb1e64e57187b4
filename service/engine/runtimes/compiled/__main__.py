"""For those who work on the compiler: what it makes of a network, written to files.

python -m service.engine.runtimes.compiled MODEL FOLDER [--precision fp32]

The folder gets module.ll, the whole program in LLVM's intermediate representation (IR); module.s, the instructions that
LLVM makes of it for this processor; and every function by itself, such as kernel3.ll, which begins with what it does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from artifact.manifest import ArtifactError, read_manifest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Precision
from service.engine.runtimes.compiled.processor import instructions, require
from service.engine.runtimes.compiled.program import Program
from service.engine.runtimes.compiled.runtime import lowered, onnx_files


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m service.engine.runtimes.compiled",
        description="Write what the compiler makes of a network to files.",
    )
    parser.add_argument("model", type=Path, help="folder of the exported model")
    parser.add_argument("folder", type=Path, help="where to write to; made where it does not exist")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the convolutions")
    arguments = parser.parse_args(argv)
    try:
        require(arguments.precision)
        manifest = read_manifest(arguments.model)
        files = onnx_files(arguments.model, manifest, arguments.precision)
        dump(lowered(files, manifest, arguments.precision), arguments.folder)
    except (ArtifactError, RuntimeUnavailable, OSError) as error:
        print("error:", error, file=sys.stderr)
        return 1
    return 0


def dump(program: Program, folder: Path) -> None:
    """Write a program to files in a folder.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole, does = str(program.module), program.kernels
    (folder / "module.ll").write_text(whole, encoding="utf-8")
    (folder / "module.s").write_text(instructions(whole), encoding="utf-8")
    for function in program.module.functions:
        if function.blocks:  # others are LLVM's own
            head = f"; {does.get(function.name, 'the whole network, for one image')}\n"
            (folder / f"{function.name}.ll").write_text(head + str(function), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
