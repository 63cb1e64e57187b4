"""What the command lines tell of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from bench import dear_images, load, overhead, precisions, servers, skipping
from bench.chaos import __main__ as chaos
from export import __main__ as export
from models import evaluate, train
from service import __main__ as service
from tests.images import compare

_PROGRAMS: dict[str, tuple[Callable[[Sequence[str]], int], list[str]]] = {
    "serve": (service.main, ["serve"]),
    "classify": (service.main, ["classify"]),
    "key": (service.main, ["key"]),
    "train": (train.main, []),
    "evaluate": (evaluate.main, []),
    "export": (export.main, []),
    **{
        module.__name__: (module.main, [])
        for module in (chaos, compare, dear_images, load, overhead, precisions, servers, skipping)
    },
}


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Each argument with its description."""
    described = text.partition("\n\n")[2]
    for entry in re.split(r"\n(?=  \S)", described):
        found = re.match(r"  (\S+(?: \S+)*)(?:\s{2,}|\n\s+|$)(.*)", entry.split("\n\n")[0], re.DOTALL)
        if found and (found[1].startswith("-") or " " not in found[1]):  # else it describes a group of arguments
            yield found[1], " ".join(found[2].split())


@pytest.mark.parametrize("name", _PROGRAMS)
def test_help_says_what_every_argument_means_and_its_default(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    main, command = _PROGRAMS[name]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    usage, _, described = told.partition("\n\n")
    entries = [entry for entry in _entries(f"\n\n{described}") if entry[0] != "-h, --help"]
    assert entries
    for flag, text in entries:
        meaning = text.partition("(default:")[0]
        assert re.search("[a-z]{2}", meaning), f"{flag} has no meaning"
        option = flag.split()[0]
        if option.startswith("-") and (f"[{option}" in usage or f"| {option}" in usage):
            assert "(default: " in text, f"{flag} has no default"
