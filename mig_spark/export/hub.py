"""An exported folder to the Hugging Face Hub, by the Hub's own client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mig_spark.errors import DependencyError, InputError, PlatformError
from mig_spark.export.format import Format
from mig_spark.scrub import remember_secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: What the Hub says to people whom it does not know, or does not let.
_REFUSED = (401, 403)


def see_that_it_can_be_pushed(name: str, form: Format, out: str | None) -> None:
    """Before anything is written: the client is there, and format, folder and name are such as the Hub takes.

    Args:
        name: of the data set on the Hub, `owner/name`.
        form: of the export.
        out: where the export goes.

    Raises:
        DependencyError: huggingface_hub is not installed.
        InputError: the format has no card for the Hub, the folder is not on this machine, or the name is not one.
    """
    _client()
    if form.kind != "huggingface":
        raise InputError(
            f"--push-to-hub {name}: the Hub reads the format huggingface, not {form.kind}: --to huggingface"
        )
    if out is None or "://" in out:
        raise InputError(f"--push-to-hub {name}: the files go by a folder on this machine: name one with --out")
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as e:
        raise InputError(f"--push-to-hub {name}: {e}") from None
    token = get_token()
    if token is None:
        raise InputError(
            f"--push-to-hub {name}: there is no token for the Hub: set HF_TOKEN, or log in once with `hf auth login`"
        )
    remember_secret(token)


def push_folder(folder: str, name: str, *, public: bool = False) -> str:
    """Put a folder on the Hub as a data set, in one commit; files of the data set with other names stay.

    Args:
        folder: the folder that an export wrote.
        name: of the data set, `owner/name`; it is made where it is not there.
        public: whether a new data set can be read by everybody; one that is there stays what it is.

    Returns:
        The data set's address.

    Raises:
        InputError: the Hub does not let this token write there.
        PlatformError: the Hub cannot be reached, or answered with an error.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    client = _client()
    kept = f"the files are in {folder}; nothing else was changed"
    try:
        address = client.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        client.upload_folder(
            repo_id=name, repo_type="dataset", folder_path=Path(folder), commit_message="Selected by mig-spark"
        )
    except OfflineModeIsEnabled:
        raise PlatformError(f"--push-to-hub {name}: HF_HUB_OFFLINE is set, so the Hub is not asked; {kept}") from None
    except HfHubHTTPError as e:
        status = e.response.status_code if e.response is not None else 0
        said = f"--push-to-hub {name}: the Hub answered {status or 'with an error'} ({_line(e)}); {kept}"
        if status in _REFUSED:
            raise InputError(f"{said}. The token needs the right to write there") from None
        raise PlatformError(said) from None
    except (httpx2.HTTPError, OSError) as e:
        raise PlatformError(f"--push-to-hub {name}: the Hub cannot be reached ({_line(e)}); {kept}") from None
    return str(address)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _client() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise DependencyError(
            "--push-to-hub needs huggingface_hub, which is not installed here: pip install 'mig-spark[hub]'"
        ) from None
    return HfApi(library_name="mig-spark")
