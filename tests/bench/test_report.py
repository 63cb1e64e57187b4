from __future__ import annotations

import json

import pytest

from bench.report import print_result, table


def test_table_has_its_first_column_to_the_left_and_numbers_to_the_right() -> None:
    assert table(("name", "ms"), [("a", "1.0"), ("longer", "12.0")]) == "name      ms\na        1.0\nlonger  12.0"


@pytest.mark.parametrize("ok", [True, False])
def test_last_line_is_json_and_the_status_says_whether_the_targets_hold(
    ok: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_result(ok, {"figure": 1}) == (0 if ok else 1)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["ok"] is ok
    assert told["figure"] == 1
    assert told["machine"]
    assert told["commit"]
