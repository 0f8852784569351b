"""``python -m marketenvs.testing [ids] [--golden] [--folder tests/golden]``: check markets, or record golden trajectories."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from .. import list_markets, list_presets, make
from . import CHECKS, LIBRARY_CHECKS, describe_check, libraries, run_check, write_golden


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the number of failed checks."""
    parser = argparse.ArgumentParser(
        prog="python -m marketenvs.testing", description="Conformance checks of registered markets."
    )
    parser.add_argument("ids", nargs="*", help="market ids (default: all registered)")
    parser.add_argument("--golden", action="store_true", help="record golden trajectories instead of checking")
    parser.add_argument("--folder", default="tests/golden", help="where golden trajectories are written")
    parser.add_argument("--presets", nargs="*", help="presets to check (default: all)")
    parser.add_argument("--list", action="store_true", help="say what each check demands")
    options = parser.parse_args(arguments)
    if options.list:
        for name in (*CHECKS, *LIBRARY_CHECKS):
            print(f"{name}: {describe_check(name)}")
        return 0
    failed = 0
    for id in options.ids or list_markets():
        if options.golden:
            print(write_golden(id, options.folder))
        else:
            failed += _report(id, options.presets or list_presets(id))
    return failed


def _report(id: str, presets: Sequence[str]) -> int:
    failed = 0
    jobs = [(preset, "numpy", name) for preset in presets for name in CHECKS]
    others = [b for b in libraries.LIBRARIES if b != "numpy" and libraries.installed(b)]
    jobs += [(presets[0], backend, name) for backend in others for name in LIBRARY_CHECKS]
    for preset, backend, name in jobs:
        begun = time.perf_counter()
        try:
            run_check(name, make(id, preset=preset), backend)
            verdict = "ok"
        except AssertionError as error:
            verdict, failed = f"FAILED {error}", failed + 1
        print(f"{id:22} {preset:14} {backend:16} {name:20} {time.perf_counter() - begun:6.2f} s  {verdict}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
