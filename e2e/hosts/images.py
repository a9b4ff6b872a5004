"""The images: a base with systemd and Python, the application's, and the hosts' on top of it.

``python -m e2e.hosts.images [TAG]`` builds the application's image for use, as ``./dev image`` does.

The application's image is made by ``packages/proxy/Dockerfile``, which is what ships. What it copies is put
together here, with the locked dependencies for the base image's interpreter: building needs no network.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
import docker.errors

from e2e.hosts.engine import LABEL, NoEngineError, reach_engine

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "edgeproxy-base:local"
APPLICATION: Final = "edgeproxy:e2e"
HOST: Final = "edgeproxy-host:e2e"

_PULLED_BASE: Final = "python:3.12-slim"
_PACKAGES: Final = ("systemd", "systemd-sysv", "passwd", "python3", "iproute2", "iptables", "curl", "sqlite3")
_LEFT_OUT: Final = ("man", "locale", "doc", "info")
_BUILD_TIMEOUT_S: Final = 600
_OPERATIONS: Final = ROOT / "docs" / "operations"

_FINGERPRINT_LABEL: Final = "edgeproxy.made-of"
_APPLICATION_SOURCES: Final = (
    ROOT / "packages" / "proxy" / "Dockerfile",
    ROOT / "requirements" / "edgeproxy.txt",
    ROOT / "packages" / "proxy" / "src",
    ROOT / "packages" / "proxy" / "pyproject.toml",
)
_HOST_SOURCES: Final = (
    ROOT / "e2e" / "hosts" / "Dockerfile",
    ROOT / "e2e" / "hosts" / "inside",
    _OPERATIONS / "systemd",
    _OPERATIONS / "ec2",
    ROOT / "packages" / "mock_backend" / "src",
    ROOT / "requirements" / "dev.txt",
)

Say = Callable[[str], None]


class NoBaseImageError(NoEngineError):
    """There is an engine, but nothing to build on."""


def provide_images(client: docker.DockerClient, say: Say = print) -> None:
    """Have :data:`BASE`, :data:`APPLICATION` and :data:`HOST` up to date.

    Raises:
        NoBaseImageError: no base image is there and none can be made.
    """
    _provide_base(client, say)
    python = build_application(client, APPLICATION, say)
    _build(
        client,
        HOST,
        {"APPLICATION": APPLICATION},
        (client.images.get(APPLICATION).id, *_HOST_SOURCES),
        lambda context: _put_host_parts(context, python),
        say,
    )


def build_application(client: docker.DockerClient, tag: str, say: Say = print) -> str:
    """Build the image that ships, on :data:`BASE` where that is there, else on what the Dockerfile names.

    Returns the version of its interpreter, such as 3.12.
    """
    base = BASE if _has(client, BASE) else _PULLED_BASE
    python = _python_of(client, base)

    def parts(context: Path) -> None:
        shutil.copy(ROOT / "packages" / "proxy" / "Dockerfile", context)
        _install(context / "dependencies", python, "--require-hashes", "-r", "requirements/edgeproxy.txt")
        _install(context / "own", python, "--no-deps", "--no-build-isolation", "./packages/proxy")

    _build(client, tag, {"BASE_IMAGE": base}, (client.images.get(base).id, *_APPLICATION_SOURCES), parts, say)
    return python


def _put_host_parts(context: Path, python: str) -> None:
    shutil.copy(ROOT / "e2e" / "hosts" / "Dockerfile", context)
    tools = context / "tools"
    _install(tools, python, "--no-deps", "--constraints", "requirements/dev.txt", "coverage")
    _install(tools, python, "--no-deps", "--no-build-isolation", "./packages/mock_backend")
    shutil.copytree(
        ROOT / "e2e" / "hosts" / "inside",
        context / "inside",
        ignore=shutil.ignore_patterns("__pycache__", "units"),
    )
    units = shutil.copytree(ROOT / "e2e" / "hosts" / "inside" / "units", context / "units")
    for unit in (*(_OPERATIONS / "systemd").iterdir(), _OPERATIONS / "ec2" / "edgeproxy-boot.service"):
        shutil.copy(unit, units)
    (context / "bin").mkdir()
    shutil.copy(_OPERATIONS / "ec2" / "edgeproxy-boot", context / "bin")


# ---- the base --------------------------------------------------------------------------------------------


def _provide_base(client: docker.DockerClient, say: Say) -> None:
    if _has(client, BASE):
        return
    archive = _cache_folder() / "edgeproxy-base.tar.gz"
    for way in (_load, _bootstrap, _pull):
        began_s = time.monotonic()
        if way(client, archive):
            say(f"base image: {way.__doc__} in {time.monotonic() - began_s:.1f} s")
            break
    else:
        raise NoBaseImageError(
            f"no base image {BASE}: mmdebstrap is not installed (apt-get install mmdebstrap) or cannot reach "
            f"this machine's mirror, and {_PULLED_BASE} cannot be pulled"
        )
    if not archive.exists():
        _save(client, archive)


def _load(client: docker.DockerClient, archive: Path) -> bool:
    """loaded from the cache"""
    if not archive.exists():
        return False
    with gzip.open(archive) as stream:
        client.images.load(stream)
    return _has(client, BASE)


def _save(client: docker.DockerClient, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole: the next run takes what is there for good.
    unfinished = archive.with_suffix(f".{os.getpid()}")
    with gzip.open(unfinished, "wb", compresslevel=1) as stream:
        for chunk in client.images.get(BASE).save(named=BASE):
            stream.write(chunk)
    unfinished.rename(archive)


def _bootstrap(client: docker.DockerClient, archive: Path) -> bool:
    """made of this machine's distribution"""
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        return False
    mirror = _mirror()
    if mirror is None:
        return False
    url, codename = mirror
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base.tar"
        made = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(_PACKAGES)}"),
                *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT),
                *(codename, str(tree), f"deb {url} {codename} main"),
            ],
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
        if made.returncode != 0:
            return False
        repository, _, tag = BASE.partition(":")
        client.api.import_image_from_file(str(tree), repository=repository, tag=tag)
    return _has(client, BASE)


def _mirror() -> tuple[str, str] | None:
    """Where this machine's apt gets Debian from, and the name of its release."""
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
        if line
    )
    codename = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') != "debian" or not codename:
        return None
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    urls = (line.partition(" ")[2] for line in told.splitlines() if line.partition(" ")[0] == codename)
    url = next(urls, None)
    return (url, codename) if url else None


def _pull(client: docker.DockerClient, archive: Path) -> bool:
    """pulled and completed"""
    try:
        client.images.pull(_PULLED_BASE)
        client.images.build(path=str(ROOT / "e2e" / "hosts"), dockerfile="base.Dockerfile", tag=BASE, rm=True)
    except docker.errors.DockerException:
        return False
    return True


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeproxy"


def _has(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        return False
    return True


# ---- building --------------------------------------------------------------------------------------------


def _build(
    client: docker.DockerClient,
    tag: str,
    arguments: dict[str, str],
    made_of: Sequence[str | Path | None],
    fill: Callable[[Path], None],
    say: Say,
) -> None:
    """Build ``tag`` in a folder that ``fill`` fills, unless it is there, made of the same."""
    fingerprint = _fingerprint(made_of)
    if _has(client, tag) and client.images.get(tag).labels.get(_FINGERPRINT_LABEL) == fingerprint:
        return
    began_s = time.monotonic()
    with _context() as context:
        fill(context)
        client.images.build(
            path=str(context),
            tag=tag,
            buildargs=arguments,
            labels={LABEL: "image", _FINGERPRINT_LABEL: fingerprint},
            network_mode="none",
            rm=True,
            forcerm=True,
        )
    say(f"image {tag}: built in {time.monotonic() - began_s:.1f} s")


def _fingerprint(made_of: Sequence[str | Path | None]) -> str:
    """The same for the same files and words, and for nothing else."""
    digest = hashlib.sha256()
    for part in made_of:
        files = sorted(part.rglob("*")) if isinstance(part, Path) and part.is_dir() else [part]
        for each in files:
            if isinstance(each, Path) and each.is_file() and each.suffix != ".pyc":
                digest.update(f"{each.relative_to(ROOT)}\n".encode() + each.read_bytes())
            elif not isinstance(each, Path):
                digest.update(f"{each}\n".encode())
    return digest.hexdigest()


@contextmanager
def _context() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgeproxy-image-") as folder:
        yield Path(folder)


def _install(target: Path, python: str, *what: str) -> None:
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("uv")), "--quiet", "--system-certs", "pip", "install"),
            *("--target", str(target), "--python-version", python, *what),
        ],
        cwd=ROOT,
        timeout=_BUILD_TIMEOUT_S,
        check=True,
    )
    # Scripts name the interpreter of this machine.
    shutil.rmtree(target / "bin", ignore_errors=True)


def _python_of(client: docker.DockerClient, image: str) -> str:
    command = ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    told: bytes = client.containers.run(
        image, command, remove=True, network_mode="none", labels={LABEL: "probe"}
    )
    return told.decode().strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.hosts.images", description="Build the image that ships."
    )
    parser.add_argument(
        "tag", nargs="?", default="edgeproxy:local", help="name of the image (edgeproxy:local)"
    )
    tag = parser.parse_args().tag
    build_application(reach_engine(), tag)
    print(f"built {tag}")


if __name__ == "__main__":
    main()
