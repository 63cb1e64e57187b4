"""`POST /v2/models/{name}/infer`: a request with tensors, by HTTP."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service.classify.budgets import Wish
from service.classify.context import Context
from service.classify.request import ClassifyRequest
from service.http.transport import Head, HttpTransport
from service.protocol.answer import answer_of
from service.protocol.bodies import JsonBody
from service.protocol.json_form import BINARY_HEADER, write_answer
from service.protocol.request import Inference, InferenceRequest, Limits
from service.protocol.tensors import invalid


class InferenceEndpoint:
    """Answers requests for inference; it raises what goes wrong.

    Args:
        served: the model that answers.
    """

    def __init__(self, served: Context) -> None:
        self._served = served
        self._limits = Limits(served.settings.max_images, served.settings.max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        served, state = self._served, scope["state"]
        request = ClassifyRequest(served, state["record"], state.get("account"))
        request.admit()
        if scope["query_string"]:
            raise invalid("this route takes no query; the request's parameters stand in its body")
        head = Head(scope)
        head.require_no_encoding()
        body = JsonBody(self._ask, self._limits, served.manifest.input_size, _json_bytes(head))
        deadline = head.deadline(state["record"].started_at, served.settings.deadline_ms)
        transport = HttpTransport(head.declared_bytes, receive)
        classified = await request.classify(body, transport, deadline, Wish(head.budget))
        told, json_bytes = write_answer(answer_of(body.inference, served.manifest, classified), body.wants_binary)
        headers = [(b"content-length", b"%d" % len(told))]
        if json_bytes is None:
            headers.append((b"content-type", b"application/json"))
        else:
            headers.append((b"content-type", b"application/octet-stream"))
            headers.append((BINARY_HEADER.lower().encode("ascii"), b"%d" % json_bytes))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    def _ask(self, request: InferenceRequest) -> Inference:
        return Inference(request, self._served.manifest, self._limits)


def _json_bytes(head: Head) -> int | None:
    """How much of the body is JSON; None where all of it is."""
    said = head.text(BINARY_HEADER)
    if said is None:
        return None
    if not (said.isascii() and said.isdecimal() and 0 < len(said) < 20 and int(said)):
        raise invalid(f"the header {BINARY_HEADER} must be a whole number above 0")
    return int(said)
