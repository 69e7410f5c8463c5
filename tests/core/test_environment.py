"""What outside programs see of the environment."""

from __future__ import annotations

import pytest

from autoresearch.core.environment import allowed_environment, check_names, git_environment
from autoresearch.core.errors import PrerequisiteError, UsageError

SECRETS = (
    *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "GITHUB_TOKEN"),
    *("PIP_INDEX_URL", "LC_KEY", "XDG_TOKEN", "GIT_ASKPASS", "GIT_CONFIG_PARAMETERS", "LD_AUDIT", "GIT_DIR"),
)


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")


@pytest.mark.parametrize("environment", [allowed_environment, git_environment])
def test_no_key_is_among_them_and_what_programs_need_is(environment):
    found = environment()
    assert not set(SECRETS) & set(found) and "hush" not in found.values()
    assert found["SSH_AUTH_SOCK"] == "/tmp/agent" and "PATH" in found


def test_a_key_is_there_where_it_is_named():
    found = allowed_environment(["OPENAI_API_KEY"])
    assert found["OPENAI_API_KEY"] == "hush" and "HF_TOKEN" not in found


def test_git_sees_settings_that_were_given_as_variables(monkeypatch):
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given.items() <= git_environment().items()
    assert not set(given) & set(allowed_environment())


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("OPENAI_API_KEY=sk-123", UsageError, "'OPENAI_API_KEY' is not one"),
        ("A B", UsageError, "is not one"),
        ("", UsageError, "is not one"),
        ("NO_SUCH_VARIABLE", PrerequisiteError, "is not set"),
    ],
)
def test_a_name_that_is_none_or_is_not_set_is_said_without_its_value(name, error, words):
    with pytest.raises(error, match=words) as raised:
        check_names("--agent-env", [name])
    assert "sk-123" not in str(raised.value)
