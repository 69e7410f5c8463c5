"""Upload a folder to the Hugging Face hub, by its own library."""

from __future__ import annotations

import os
from pathlib import Path

from autoresearch.core.errors import ArError, PrerequisiteError, UsageError
from autoresearch.core.report.wording import one_line


def push(folder: Path, repo: str, *, public: bool) -> str:
    """Upload every file of the folder to a model repository, made if missing; return its address.

    The library finds the token: HF_TOKEN, or the one of `hf auth login`. Raises `PrerequisiteError` without the library
    or the right, `UsageError` for a name that no repository can have, `ArError` for any other failure.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ImportError as error:
        raise PrerequisiteError("--push needs huggingface_hub.", fix="pip install huggingface_hub") from error
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        made = api.create_repo(repo, exist_ok=True, private=not public)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Add the model")
    except HFValidationError as error:
        raise UsageError(f"{repo!r} names no repository: {one_line(str(error), 200)}", fix="--push you/name") from error
    except LocalTokenNotFoundError as error:
        raise PrerequisiteError("there is no token for the hub.", fix="`hf auth login`, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise PrerequisiteError(
                f"the hub refuses to write to {repo!r} (status {status}).",
                fix="`hf auth login` with a token that may write, or set HF_TOKEN",
            ) from error
        raise ArError(f"the hub answered with status {status}; {folder} stays as it is.", fix="try again") from error
    except (OSError, RuntimeError, ValueError) as error:
        said = one_line(str(error), 200)
        raise ArError(f"the upload to {repo!r} failed: {said}; {folder} stays as it is.", fix="try again") from error
    return str(made)
