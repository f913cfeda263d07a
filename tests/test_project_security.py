"""What is planted in files and stores is refused, not run; nothing is written outside; no password is written down."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from stored_runs import designs, evaluation

import hardware_profiles
import nas.workload
import search_spaces
from nas import config as configs
from nas import hosts, run_folder
from nas.errors import ConfigError, RunError, StorageError, UserError
from nas.export import NEEDED, load_export
from nas.kept_arrays import read_kept
from nas.model import load
from nas.run_folder import RunFolder
from nas.store import Store
from search_spaces import catalogue, reading

ROOT = Path(__file__).parent.parent
PACKAGES = ("cli", "nas", "proxies", "search_spaces", "hardware_profiles")


class Planted:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


READERS: dict[str, Callable[[Path], object]] = {
    "run": lambda path: configs.load(path, {}, []),
    "space": lambda path: search_spaces.load(str(path)),
    "candidate": search_spaces.load_candidate,
    "device": lambda path: hardware_profiles.load(str(path)),
    "workload": lambda path: nas.workload.load(str(path)),
}
REFUSALS = (UserError, search_spaces.SpaceError, hardware_profiles.ProfileError)


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir [{}]", "python/name:os.system", "python/module:os"])
def test_a_yaml_tag_is_refused_by_every_reader(reader: Callable[[Path], object], tag: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "planted.yaml"
    file.write_text(f"space: !!{tag.format(mark)}\n", encoding="utf-8")
    with pytest.raises(REFUSALS, match="could not determine a constructor"):
        reader(file)
    assert not mark.exists()


def test_a_yaml_tag_in_the_hosts_file_and_in_a_setting_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text("hosts: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    monkeypatch.setenv(hosts.VARIABLE, str(file))
    with pytest.raises(ConfigError, match="constructor"):
        hosts.ray_address()
    with pytest.raises(ConfigError, match="constructor"):
        configs.load(None, {}, ["space=!!python/object/apply:os.getcwd []"])


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize(
    "text",
    [
        "space: 2026-99-99",  # PyYAML raises ValueError
        "space: !!int x",
        "space: !!timestamp x",
        "space: !!float ''",
        "[" * 5000,
        "\0",
        b"\xff\xfe\xff",
        f"space: {'9' * 5000}",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    ],
    ids=["date", "int", "timestamp", "float", "deep", "nul", "bytes", "long-number", "nested-aliases"],
)
def test_yaml_that_breaks_parsers_is_one_line(
    reader: Callable[[Path], object], text: str | bytes, tmp_path: Path
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(REFUSALS) as refused:
        reader(file)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize(
    "text", ["space: micro\nseed: 1\nspace: pocket\n", "a:\n  space: 1\n\n  space: 2", "{space: 1,\n\nspace: 2}"]
)
def test_a_key_that_is_given_twice_is_refused_by_every_reader(
    reader: Callable[[Path], object], text: str, tmp_path: Path
) -> None:
    file, lines = tmp_path / "twice.yaml", [place for place, line in enumerate(text.splitlines(), 1) if "space" in line]
    file.write_text(text, encoding="utf-8")
    with pytest.raises(REFUSALS, match=rf"twice.yaml: key 'space' is given twice, in lines {lines[0]} and {lines[1]};"):
        reader(file)


def test_keys_of_merged_mappings_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}"
    assert reading.parse(text, "text", ConfigError) == yaml.safe_load(text)


@pytest.mark.parametrize("file", [f for p in PACKAGES for f in (ROOT / p).rglob("*.yaml")], ids=lambda file: file.name)
def test_no_shipped_file_gives_a_key_twice(file: Path) -> None:
    reading.parse(file.read_bytes(), str(file), ConfigError)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickled_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    mark, export = tmp_path / "mark", tmp_path / "export"
    export.mkdir()
    for needed in NEEDED:
        (export / needed).write_text('{"model_type": "nas_multimodal"}', encoding="utf-8")
    if name != "model.safetensors":
        (export / "model.safetensors").unlink()
    (export / name).write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(RunError):
        load_export(export)
    assert not mark.exists()


WEIGHTS: dict[str, Callable[[str], object]] = {
    "language model": lambda folder: load.read_language_model(folder, hub=False),
    "encoder of timm": lambda folder: load.read_encoder(folder, catalogue.encoder("vit-micro"), hub=False),
    "encoder of transformers": lambda folder: load.read_encoder(folder, catalogue.encoder(f"hf:{folder}"), hub=False),
}


@pytest.mark.parametrize("reader", WEIGHTS.values(), ids=list(WEIGHTS))
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pickled_weights_that_a_user_names_are_refused(
    reader: Callable[[str], object], name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    model = {
        "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
    (tmp_path / name).write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(ConfigError) as refused:
        reader(str(tmp_path))
    assert len(str(refused.value).splitlines()) == 1 and not mark.exists()


def test_kept_features_that_are_a_pickle_are_made_anew(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "features.npy"
    np.save(file, np.array([Planted(mark)], dtype=object), allow_pickle=True)
    assert read_kept(file) is None
    file.write_bytes(pickle.dumps(Planted(mark)))
    assert read_kept(file) is None
    assert not mark.exists()


def test_code_beside_weights_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    model = {"model_type": "planted", "auto_map": {"AutoConfig": "planted.C", "AutoModelForCausalLM": "planted.M"}}
    (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
    (tmp_path / "planted.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot load a language model"):
        load.read_language_model(str(tmp_path), hub=False)
    assert not mark.exists()


def test_nothing_is_unpickled_evaluated_or_trusted_from_afar() -> None:
    """By name, in every call of the program."""
    forbidden = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    wrong = []
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {str(getattr(node, "module", ""))}
                wrong += [f"{where} imports {name}" for name in names & forbidden]
            if isinstance(node, ast.Call):
                wrong += [f"{where} {reason}" for reason in reasons(node)]
    assert not wrong


def reasons(call: ast.Call) -> list[str]:
    """What is wrong with a call."""
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = [f"calls {name}" for bad in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system") if name == bad]
    if name == "torch.load" and options.get("weights_only") != "True":
        found.append("loads weights by pickle")
    for option in ("trust_remote_code", "allow_pickle", "shell"):
        if options.get(option) == "True":
            found.append(f"has {option}=True")
    return found


@pytest.mark.parametrize("name", ["../out.txt", "linked/out.txt", "/tmp/nas-out.txt"])
def test_a_run_writes_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    folder, outside = RunFolder(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    folder.path.mkdir()
    (folder.path / "linked").symlink_to(outside)
    with pytest.raises(StorageError, match="leads out of"):
        folder.write(name, "text")
    assert not list(outside.iterdir()) and not (tmp_path / "out.txt").exists()


def test_a_link_in_a_run_s_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for name in ("front.json", "front.json.partial"):
        (folder.path / name).symlink_to(victim)
    folder.write("front.json", "{}")
    assert victim.read_text(encoding="utf-8") == "mine"
    assert (folder.path / "front.json").read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("study", ["../up", "/abs", "a/b", "", ".", "..", "latest"])
def test_a_study_s_name_is_no_path(study: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="plain name"):
        run_folder.create(tmp_path / "runs", study)


def test_a_key_in_a_store_names_no_file_elsewhere(tmp_path: Path) -> None:
    from dataclasses import replace

    store = Store(f"sqlite:///{tmp_path / 'study.db'}")
    store.add_evaluation("first", replace(evaluation(designs(4)[0], "pi", 1.0), key="../../planted"))
    with pytest.raises(StorageError, match="no candidate's key"):
        store.evaluations("first")
    store.close()


URLS = {
    "postgresql://me:s3cret@host/db": "postgresql://me@host/db",
    "postgresql://me:s3cret@pass@host:5432/db?sslmode=require": "postgresql://me@host:5432/db?sslmode=require",
    "postgresql://me:s3cret?/@host/db": "postgresql://me@host/db",
    "postgresql://host/db?user=me&password=s3cret&a=1": "postgresql://host/db?user=me&a=1",
    "postgresql://host/db?sslpassword=s3cret": "postgresql://host/db",
    "sqlite:////tmp/x:y@z/study.db": "sqlite:////tmp/x:y@z/study.db",
}


@pytest.mark.parametrize(("url", "kept"), URLS.items())
def test_a_password_is_neither_shown_nor_written_down(url: str, kept: str) -> None:
    assert "s3cret" not in configs.shown_storage(url)
    written = configs.dump(configs.load(None, {"storage": url}, []))
    assert "s3cret" not in written
    assert yaml.safe_load(written)["storage"] == kept


def test_whoever_goes_on_gives_the_password_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, file = "postgresql://me:s3cret@host/db", tmp_path / run_folder.CONFIG
    file.write_text(configs.dump(configs.load(None, {"storage": url}, [])), encoding="utf-8")
    assert configs.load(file, {}, []).storage == "postgresql://me@host/db"
    monkeypatch.setenv(configs.STORAGE_VARIABLE, "postgresql://me:s3cret@elsewhere/db")
    assert configs.load(file, {}, []).storage == "postgresql://me@host/db"
    monkeypatch.setenv(configs.STORAGE_VARIABLE, url)
    assert configs.load(file, {}, []).storage == url


def test_no_message_of_a_search_shows_its_password(tmp_path: Path) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/db"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "search", "--space", "micro", "--device", "raspberry-pi-5-8gb",
         "--storage", url, "--study", "secret"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    written = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "runs" / "secret").glob("*.*"))
    assert done.returncode == 2 and "does not answer" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr + written
