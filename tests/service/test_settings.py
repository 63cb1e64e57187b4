from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.__main__ import main
from service.app import application
from service.engine.runtimes.base import Precision, RuntimeName
from service.engine.runtimes.tuning import PolicyWishes
from service.settings import OF_A_MODEL, LogFormat, Settings, read_settings
from tests.e2e.process import ROOT


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("AIG_")]:
        monkeypatch.delenv(name)


def test_flag_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().queue_size == 128
    monkeypatch.setenv("AIG_QUEUE_SIZE", "7")
    assert Settings().queue_size == 7
    assert Settings(queue_size="9").queue_size == 9


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Settings(colour="red")


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("AIG_QUEUE_SISE", "is it AIG_QUEUE_SIZE?"),
        ("aig_prot", "is it AIG_PORT?"),
        ("AIG_XYZZY", "python -m service serve --help lists the settings"),
    ],
)
def test_variable_that_nothing_reads_keeps_the_service_from_starting(
    variable: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "7")
    told = f"there is no setting for the environment variable {variable}: {remedy}"
    for command in (["serve"], ["classify", "a.png"]):
        assert main(command) == 1
        assert capsys.readouterr().err == f"error: {told}\n"
    with pytest.raises(SettingsError, match=re.escape(told)):
        application()


def test_every_variable_that_the_project_names_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for folder in ("bench", "docker", "models", "service") for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "Makefile", ROOT / "docker" / "Dockerfile", *ROOT.glob("*.yml")]
    named = {name for path in files for name in re.findall(r"\bAIG_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert "AIG_CPUS" in named
    own = {f"AIG_{name.upper()}" for name in Settings.model_fields}
    for name in named - own:
        monkeypatch.setenv(name, "1")
    assert read_settings() == Settings()


def test_settings_of_a_model_are_settings() -> None:
    assert set(OF_A_MODEL) < Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("port", "eighty"),
        ("runtime", "tensorflow"),
        ("device", "tpu"),
        ("device", "cuda:"),
        ("device", "cuda:0,"),
        ("device", "cpu:0"),
        ("workers", "0"),
        ("max_batch", "0"),
        ("max_wait_ms", "-1"),
        ("queue_size", "0"),
        ("deadline_ms", "0"),
        ("max_bytes", "0"),
        ("max_pixels", "-5"),
        ("max_pixels", "89478486"),  # Pillow itself would object
        ("max_images", "0"),
        ("drain_seconds", "-1"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("access_log", "perhaps"),
        ("tracing", "jaeger"),
        ("deadline_ms", "nan"),
        ("deadline_ms", "inf"),
        ("drain_seconds", "inf"),
        ("max_wait_ms", "inf"),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "https://*.a.example"),
        ("cors_origins", "HTTPS://A.EXAMPLE"),
        ("cors_origins", "https://a.example https://b.example"),
        ("cors_origins", "https://a.example,https://b.example:443"),
        ("cors_origins", "http://a.example:80"),
        ("cors_origins", "https://a.example:"),
        ("cors_origins", "https://"),
        ("cors_origins", "null"),
        ("formats", "JPEG,XBM"),
        ("formats", "JPEG PNG"),
    ],
)
@pytest.mark.parametrize("source", ["flag", "environment"])
def test_value_that_cannot_be_is_one_line_that_names_the_setting(
    name: str, value: str, source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = []
    if source == "flag":
        flags = [f"--{name.replace('_', '-')}={value}"]
    else:
        monkeypatch.setenv(f"AIG_{name.upper()}", value)
    assert main(["serve", *flags, "--model", "nowhere"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: Input should be")


def test_every_setting_has_a_flag_and_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in words
        assert field.description
        assert field.description.split("(")[0].strip() in words
    assert "(default: none) (" not in words
    for values in (RuntimeName, Precision, LogFormat):
        assert f" {{{','.join(get_args(values))}}} " in words
    assert words.count("{") == 2 * 8  # in the usage, and beside its description


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://a.example",
        "http://localhost:3000",
        "https://a-b.example:8443",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "http://a.example:443",
        "https://a.example:4430",
        "chrome-extension://abcdefghijklmnop",
    ],
)
def test_origins_are_as_browsers_send_them(origin: str) -> None:
    assert Settings(cors_origins=f"{origin}, https://b.example,").cors_origins == (origin, "https://b.example")
    assert Settings(cors_origins=[origin]).cors_origins == (origin,)  # as a worker process is told


def test_formats_are_named_in_any_case_and_once() -> None:
    assert Settings(formats="png, Jpeg,PNG").formats == ("PNG", "JPEG")
    assert Settings(formats=["HEIC", "TIFF"]).formats == ("HEIC", "TIFF")  # as a worker process is told
    assert "TIFF" not in Settings().formats
    with pytest.raises(ValidationError, match="at least 1"):
        Settings(formats="")


def test_what_the_user_says_of_batches_is_what_the_engine_is_told() -> None:
    assert Settings().policy_wishes == PolicyWishes()
    assert Settings(workers=3, max_batch=5, max_wait_ms=0).policy_wishes == PolicyWishes(3, 5, 0)


def test_every_runtime_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in get_args(RuntimeName):
        monkeypatch.setenv("AIG_RUNTIME", name)
        assert Settings().runtime == name


def test_model_may_be_named_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIG_MODEL", "some/model")
    assert Settings().model == Path("some/model")


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({}, False),
        ({"log_format": "json"}, True),
        ({"log_level": "debug"}, True),
        ({"access_log": "on"}, True),
        ({"access_log": "off", "log_format": "json", "log_level": "debug"}, False),
    ],
)
def test_requests_are_logged_where_programs_read_or_it_is_asked_for(settings: dict[str, str], logged: bool) -> None:
    assert Settings(**settings).logs_requests == logged


@pytest.mark.parametrize(
    ("device", "kind", "devices"),
    [
        ("auto", "auto", ()),
        ("cpu", "cpu", ()),
        ("cuda", "cuda", (0,)),
        ("cuda:3", "cuda", (3,)),
        ("cuda:1,0,1", "cuda", (1, 0)),
    ],
)
def test_devices_are_named_by_number(device: str, kind: str, devices: tuple[int, ...]) -> None:
    settings = Settings(device=device)
    assert (settings.device_kind, settings.cuda_devices) == (kind, devices)
