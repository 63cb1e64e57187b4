from __future__ import annotations

import argparse

import pytest

from models.command_line import add_bad_images, finite, interrupted


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("-1.5", -1.5), ("1e9", 1e9)])
def test_finite_numbers_are_taken(text: str, value: float) -> None:
    assert finite(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999", "half", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a finite number"):
        finite(text)


def test_bad_images_stop_unless_they_are_to_be_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_bad_images(parser)
    assert parser.parse_args([]).bad_images == "stop"
    assert parser.parse_args(["--bad-images", "skip"]).bad_images == "skip"
    with pytest.raises(SystemExit):
        parser.parse_args(["--bad-images", "ignore"])
    assert "choose from" in capsys.readouterr().err


def test_interruption_is_one_line_and_the_status_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert interrupted("nothing was done") == 130
    assert capsys.readouterr() == ("", "interrupted: nothing was done\n")
