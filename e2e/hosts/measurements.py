"""What ran on the hosts, brought home: the data files of coverage, with the paths of this checkout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import coverage

from e2e.hosts.images import ROOT

if TYPE_CHECKING:
    from e2e.hosts.world import World

_HERE: Final = ROOT / "packages" / "proxy" / "src" / "edgeproxy"
_THERE: Final = "/opt/edgeproxy/own/edgeproxy"
_DATA_FILE: Final = "COVERAGE_FILE"


def collect(world: World) -> None:
    """Put what each POP measured beside the data file that this run writes; without one, only look at it.

    Raises:
        AssertionError: a POP that a story had measured returned nothing, so that what ran there would be
            taken for not having run.
    """
    target = os.environ.get(_DATA_FILE)
    for region in world.pops:
        folder = world.measurements(region)
        files = sorted(map(str, folder.glob(".coverage.*")))
        assert files or region not in world.measured, f"the POP in {region} returned no measurement"
        if not files:
            continue
        source = f"pop-{region}-{world.atlas.number}"
        name = f"{target}.{source}" if target is not None else str(folder / "combined")
        combined = coverage.Coverage(data_file=name, config_file=False)
        combined.set_option("paths", {"proxy": [str(_HERE), _THERE]})
        combined.combine(files, strict=True, keep=True)
        measured = combined.get_data().measured_files()
        assert any(Path(file).is_relative_to(_HERE) for file in measured), f"{region} measured {measured}"
        combined.save()
