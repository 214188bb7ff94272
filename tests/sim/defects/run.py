#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run.py SOURCE BUILD [NAME…]: applies each patch of this folder, one defect each, to a copy of the sources, builds the
simulator, and has it find the defect within 1,000 seeds. Prints the seed and what was seen; exit 1 where a defect stayed
hidden, the simulator ended otherwise than by telling a seed, or a patch no longer applies. BUILD is a directory of its own
and may be kept: it makes the next run faster."""
import pathlib
import re
import shutil
import subprocess
import sys

SEEDS = 1000
PARTS = ["bpf/abi", "dataplane/base", "dataplane/port", "dataplane/transport", "tests/sim", "tools/cmake"]
# The simulator needs five folders; the rest of the project and its dependencies stay out of this build.
CMAKE = """cmake_minimum_required(VERSION 3.25)
project(weft_defects LANGUAGES C CXX)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_MODULE_PATH ${PROJECT_SOURCE_DIR}/tools/cmake)
include(weft)
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_package(absl REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(libxdp REQUIRED IMPORTED_TARGET libxdp libbpf)
enable_testing()
foreach(folder bpf/abi dataplane/base dataplane/port dataplane/transport tests/sim)
  add_subdirectory(${folder})
endforeach()
"""


def run(*command, **options):
    return subprocess.run(command, text=True, capture_output=True, **options)


def must(result, what):
    if result.returncode != 0:
        sys.exit(f"{what}:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")


def copy(source, target):
    for part in PARTS:
        for path in (source / part).rglob("*"):
            if not path.is_file():
                continue
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            # An unchanged file keeps its time, so that ninja builds only what a patch touches.
            if not to.exists() or to.read_bytes() != path.read_bytes():
                shutil.copyfile(path, to)
    top = target / "CMakeLists.txt"
    if not top.exists() or top.read_text() != CMAKE:
        top.write_text(CMAKE)


def search(program):
    """The line of the seed that `program` found, or None where no seed broke anything. All else, as a crash or a failed
    check, is no find: it ends this run."""
    ran = run(program, "0", str(SEEDS - 1), "stop")
    seed = re.search(r"^seed \d+: .*", ran.stdout, re.MULTILINE)
    if ran.returncode == 1 and seed:
        return seed[0]
    if ran.returncode == 0:
        return None
    sys.exit(f"the simulator told no seed, exit {ran.returncode}:\n"
             f"{ran.stdout[-3000:]}{ran.stderr[-3000:]}")


def main():
    source, build = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    tree = build / "tree"
    patches = sorted((source / "tests/sim/defects").glob("*.patch"))
    if sys.argv[3:]:
        patches = [p for p in patches if p.stem in sys.argv[3:]]
    copy(source, tree)
    must(run("cmake", "-G", "Ninja", "-S", tree, "-B", build / "out", "-DCMAKE_BUILD_TYPE=Dev"), "configure")
    hidden = []
    for patch in [None] + patches:
        copy(source, tree)
        if patch is not None:
            must(run("patch", "-p0", "-s", "-d", tree, "-i", patch), f"{patch.name} does not apply")
        must(run("ninja", "-C", build / "out", "weft-sim-seeds"), f"build with {patch}")
        name = "no defect" if patch is None else patch.stem
        found = search(build / "out/bin/weft-sim-seeds")
        print(f"{name}: {found or f'nothing in {SEEDS} seeds'}", flush=True)
        # Without a patch nothing may be found, else what is found with one means nothing.
        if (found is None) != (patch is None):
            hidden.append(name)
    copy(source, tree)
    if hidden:
        sys.exit("not as expected: " + ", ".join(hidden))


if __name__ == "__main__":
    main()
