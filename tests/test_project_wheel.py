"""A wheel built from the tree installs and runs without the checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_clean_wheel_carries_data_and_runs_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    for data in ("search_spaces/pocket.yaml", "search_spaces/components/encoders.yaml", "nas/workloads/vqa-short.yaml"):
        assert data in inside
    assert not [name for name in inside if name.split("/")[0] in ("tests", "bench", "runs")]

    # The environment's libraries, but the package from the wheel only, and a folder that is not the checkout.
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    code = "import sys, cli.main; print(cli.main.__file__); sys.argv = ['nas', 'spaces', 'list']; cli.main.main()"
    done = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert "pocket" in done.stdout
