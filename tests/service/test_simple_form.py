from __future__ import annotations

import pytest

from service.simple_form import simple_file

TYPE = "multipart/form-data; boundary=edge"
HEAD = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a b.png"\r\n\r\n'
END = b"\r\n--edge--\r\n"


@pytest.mark.parametrize(
    "file", [b"an image", b"", b"\r\n", b"--edge", b"\n--edge\r\n", b"\r\n-edge--\r\n", b"\r\n\r\n--"]
)
@pytest.mark.parametrize("end", [END, END[:-2]])
def test_file_is_what_stands_between_head_and_boundary(file: bytes, end: bytes) -> None:
    assert simple_file(TYPE, HEAD + file + end) == file
    typed = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-type: image/png\r\n\r\n")
    assert simple_file("multipart/form-data;boundary=edge", typed + file + end) == file


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD,
        HEAD + b"x",
        HEAD + b"x\r\n--edge",
        HEAD + b"x" + END + b"more",
        b"before\r\n" + HEAD + b"x" + END,
        HEAD + b"x\r\n" + HEAD + b"y" + END,
        HEAD + b"x\r\n--edge--\r\n--edge--\r\n",
        HEAD + b"x\r\n--edgeless" + END,
        HEAD.replace(b'"file"', b'"image"') + b"x" + END,
        HEAD.replace(b'; filename="a b.png"', b"") + b"x" + END,
        HEAD.replace(b"a b.png", b"a\xff.png") + b"x" + END,
        HEAD.replace(b"a b.png", b'a\\".png') + b"x" + END,
        HEAD.replace(b"\r\n\r\n", b"\r\nX-More: y\r\n\r\n") + b"x" + END,
        HEAD.replace(b"\r\n\r\n", b"\r\n continued\r\n\r\n") + b"x" + END,
    ],
)
def test_whatever_is_not_plain_is_left_to_the_parser(body: bytes) -> None:
    assert simple_file(TYPE, body) is None


@pytest.mark.parametrize(
    "kind",
    [
        "image/png",
        "multipart/form-data",
        f'{TYPE[:-4]}"edge"',
        f"{TYPE}; charset=utf-8",
        "multipart/form-data; boundary=",
    ],
)
def test_other_content_types_are_left_to_the_parser(kind: str) -> None:
    assert simple_file(kind, HEAD + b"x" + END) is None
