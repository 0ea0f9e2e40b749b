"""What reaches an installation: the package, with its rules and catalogues, and nothing beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = sorted(path.relative_to(ROOT).as_posix() for folder in ("rules", "catalog") for path in (ROOT / folder).rglob("*.*"))


def python(*words: str, **options: object) -> str:
    """A Python process that must end well."""
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return str(ended.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, without its dependencies."""
    target = tmp_path_factory.mktemp("site-packages")
    [wheel] = built.glob("*.whl")
    python(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    )
    return target


def test_only_advisor_reaches_site_packages(installed: Path) -> None:
    """Beside it stand what pip notes and the command."""
    from advisor import __version__

    assert {path.name for path in installed.iterdir()} == {"advisor", f"oom_advisor-{__version__}.dist-info", "bin"}
    assert [path.name for path in (installed / "bin").iterdir()] == ["advise"]


def test_every_rule_and_catalogue_is_installed(installed: Path) -> None:
    """Byte for byte, and no other data file."""
    for name in DATA:
        assert (installed / "advisor" / name).read_bytes() == (ROOT / name).read_bytes()
    assert len(DATA) == sum(1 for folder in ("rules", "catalog") for _ in (installed / "advisor" / folder).rglob("*.*"))


def test_every_module_and_the_mark_of_types_are_installed(installed: Path) -> None:
    """py.typed tells type checkers that the package has types."""
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "advisor").rglob("*.py")} | {"advisor/py.typed"}
    assert modules <= {path.relative_to(installed).as_posix() for path in installed.rglob("*")}


def test_the_installed_command_works_far_from_the_clone(installed: Path, tmp_path: Path) -> None:
    """It finds its rules and catalogues inside the package."""
    # -P keeps the current folder, and so the clone, out of the search.
    code = "import advisor; print(advisor.__file__); import sys; sys.argv = ['advise', 'gpus', 'v100']; advisor.cli.main()"
    code = code.replace("advisor.cli.main()", "from advisor.cli import main; main()")
    printed = python("-P", "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert printed.splitlines()[0] == str(installed / "advisor" / "__init__.py")
    assert "v100-16" in printed
    assert "T1" in python("-P", "-m", "advisor", "rules", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})


def test_the_sdist_has_all_that_a_wheel_needs(built: Path) -> None:
    """The wheel above was built from it; the licence and the tests are there too, and nothing that git ignores."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*DATA, "LICENSE", "README.md", "pyproject.toml", "CHANGELOG.md", "tests/test_package.py"} <= names
    assert not [name for name in names if name.startswith((".venv", "dist", ".hypothesis"))]
