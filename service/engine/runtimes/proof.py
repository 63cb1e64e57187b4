"""Whether a runtime gives a model's own answers on this machine: every one shows it before it serves.

In fp32 the gates and logits have to be those of the trained network within the tolerances of the export, on a GPU as on
a CPU; in bf16 and int8 nearly all decisions and predictions have to be. What is compared:

- the answers to all probes, one image at a time, as the export wrote them;
- those to four probes with all gates forced open, with all closed, and by turns in one batch, so that no branch goes
  unseen. These too are the trained network's and were written by the export.

An artifact of an earlier export has no answers with forced gates. Then they are those of its portable graph in ONNX
Runtime on the CPU, which the export had compared with the trained network; of that runtime itself this only shows that
it runs. Where it cannot be opened, forced gates are not compared, and a warning says so.
"""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np

from artifact.agreement import LEAST_EQUAL_PREDICTIONS, Agreement, LogitsAndMargins
from artifact.probes import forced_agreement, read_probes, run_forced
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Model, Runtime
from service.engine.runtimes.registry import RUNTIMES

_log = logging.getLogger(__name__)

# On paths that no image takes by itself the network is less sure, and fewer bits turn more of its predictions. A branch
# that computes something else turns nearly all of them where it is open, which is half of the time.
_LEAST_EQUAL_FORCED_PREDICTIONS = 0.75


class Proof:
    """What the runtimes of a model have to show.

    Args:
        model: they run.

    Raises:
        ArtifactError: its probes are missing or damaged.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.probes = read_probes(model.folder, model.manifest)

    def problem(self, runtime: Runtime) -> str | None:
        """What is wrong with a runtime's answers; None where it may serve."""
        return self._problem_with_probes(runtime) or self._problem_with_forced_gates(runtime)

    def _problem_with_probes(self, runtime: Runtime) -> str | None:
        images, offset = self.probes.images, np.zeros(1, np.float32)
        try:
            answers = [runtime.run(images[row : row + 1], offset) for row in range(len(images))]
            logits, margins = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
        except Exception as error:  # whatever a library raises
            return f"it fails: {error}"
        agreement = self.probes.agreement((logits, margins), self._model.manifest.gating)
        return _verdict(runtime, agreement, LEAST_EQUAL_PREDICTIONS)

    def _problem_with_forced_gates(self, runtime: Runtime) -> str | None:
        try:
            if (expected := self._forced) is None:
                return None
            answers = run_forced(runtime.run, self.probes.images)
        except Exception as error:  # whatever a library raises
            return f"with forced gates it fails: {error}"
        agreement = forced_agreement(expected, answers, self._model.manifest.gating)
        return _verdict(runtime, agreement, _LEAST_EQUAL_FORCED_PREDICTIONS)

    @cached_property
    def _forced(self) -> LogitsAndMargins | None:
        """The right answers with forced gates, if they can be had."""
        if self.probes.forced is not None:
            return self.probes.forced
        try:
            portable = RUNTIMES["onnx"].open(self._model, "cpu", "fp32")
        except RuntimeUnavailable as error:
            told = "%s was exported without answers for forced gates, so these are not compared: %s"
            _log.warning(told, self._model.manifest.name, error)
            return None
        return run_forced(portable.run, self.probes.images)


def _verdict(runtime: Runtime, agreement: Agreement, least_equal_predictions: float) -> str | None:
    if runtime.precision == "fp32":
        return agreement.problems[0] if agreement.problems else None
    return agreement.low_precision_problem(least_equal_predictions)
