#!/usr/bin/env python3
"""The way into this tree from a host that is not FreeBSD. It wants what the
real one wants: MAKEOBJDIRPREFIX in the environment, TARGET and TARGET_ARCH,
and a folder with a cross compiler."""

import os
import sys
from pathlib import Path


def main():
    src = Path(__file__).resolve().parent.parent.parent
    objects = os.environ.get("MAKEOBJDIRPREFIX")
    if not objects or not Path(objects).is_dir():
        sys.exit("MAKEOBJDIRPREFIX is not set or is no directory")
    flags, rest = split(sys.argv[1:])
    variables = dict(a.split("=", 1) for a in rest if "=" in a)
    if "TARGET" not in variables or "TARGET_ARCH" not in variables:
        sys.exit("TARGET and TARGET_ARCH must be set")
    compiler = Path(flags.get("--cross-bindir", "")) / "clang"
    if not compiler.is_file():
        sys.exit("Could not infer value for $XCC: %s does not exist" % compiler)
    bootstrap(Path(objects))
    if "-V" in rest:
        print("amd64")
        return
    obj = "%s%s/%s.%s" % (objects, src, variables["TARGET"], variables["TARGET_ARCH"])
    os.makedirs(obj, exist_ok=True)
    os.chdir(src)
    args = ["make", "SRCTOP=%s" % src, "OBJTOP=%s" % obj, "XCC=%s" % compiler]
    os.execvp("make", args + [define(a) for a in rest])


def split(args):
    """Parts make.py's own flags from make's arguments."""
    own = {}
    rest = []
    for a in args:
        name, _, value = a.partition("=")
        if a.startswith("--"):
            own[name] = value
        else:
            rest.append(a)
    return own, rest


def define(arg):
    """GNU make knows no -DNAME."""
    return arg[2:] + "=1" if arg.startswith("-D") else arg


def bootstrap(objects):
    """Stands for the building of bmake, which happens once and must not be
    done twice at a time: it works in the source tree."""
    done = objects / "bmake-install"
    if done.exists():
        return
    print("Bootstrapping bmake...")
    done.mkdir()


main()
