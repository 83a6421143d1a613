"""Names to folders, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmkit.errors import VlmkitError
from vlmkit.loading import resolve_checkpoint
from vlmkit.loading.resolve import EMBEDDED_MODELS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_embedded_model_and_local_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in EMBEDDED_MODELS:
        assert (resolve_checkpoint(name) / "model.safetensors").is_file()
    assert resolve_checkpoint(folder) == folder
    assert resolve_checkpoint(str(folder)) == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_checkpoint(f"~/{folder.name}") == folder
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "config.json").write_text("{}")
    assert resolve_checkpoint("./shapes").resolve() == tmp_path / "shapes"
    assert resolve_checkpoint("shapes") != Path("shapes")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shapse", "did you mean 'shapes'?"),
        ("./no/such", "no checkpoint folder './no/such'"),
        ("a/b/c", "hub id 'owner/name'"),
        ("", "no config.json"),
        ("x" * 5000, "no"),
        ("a\0b", "no"),
        (Path("owner/name"), "no checkpoint folder 'owner/name'"),
        (Path("shapes-2"), "'shapes'"),
    ],
)
def test_no_such_folder(
    name: str | Path, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VlmkitError) as caught:
        resolve_checkpoint(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_and_a_folder_without_config(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match=r"config\.json' is a file: give the folder"):
        resolve_checkpoint(folder / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VlmkitError, match=r"no config\.json in '.*empty': a checkpoint folder"):
        resolve_checkpoint(tmp_path / "empty")


@pytest.mark.parametrize("name", ["shapes", "folder"])
def test_a_revision_needs_the_hub(name: str, folder: Path) -> None:
    with pytest.raises(VlmkitError, match="revision='v1'"):
        resolve_checkpoint(folder if name == "folder" else name, revision="v1")


def _hub(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)


def test_hub_fetches_data_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def answer(hub_id: str, **options: Any) -> str:
        asked.append({"hub_id": hub_id, **options})
        return str(folder)

    _hub(monkeypatch, answer)
    assert resolve_checkpoint("owner/name", revision="v1") == folder
    assert (asked[0]["hub_id"], asked[0]["revision"]) == ("owner/name", "v1")
    assert "*.safetensors" in asked[0]["allow_patterns"]
    assert not {"*.py", "*.bin", "*"} & set(asked[0]["allow_patterns"])
    resolve_checkpoint("owner/name", trust_remote_code=True)
    assert "*.py" in asked[1]["allow_patterns"]
    assert "*.bin" not in asked[1]["allow_patterns"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("GatedRepoError", "is gated: accept its terms"),
        ("RepositoryNotFoundError", "is no local folder, and the hub has no such"),
        ("RevisionNotFoundError", "at revision 'v1' does not exist"),
        ("LocalEntryNotFoundError", "cannot be reached and its cache has no copy"),
        ("OfflineModeIsEnabled", "cannot be reached and its cache has no copy"),
        ("HFValidationError", "no valid hub id"),
    ],
)
def test_hub_errors_are_one_line(kind: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def answer(hub_id: str, **_: Any) -> str:
        error = getattr(errors, kind)
        raise error.__new__(error)  # without the HTTP response that some of them want

    _hub(monkeypatch, answer)
    with pytest.raises(VlmkitError) as caught:
        resolve_checkpoint("owner/name", revision="v1")
    assert said in str(caught.value)
    assert "owner/name" in str(caught.value)
    assert "\n" not in str(caught.value)
