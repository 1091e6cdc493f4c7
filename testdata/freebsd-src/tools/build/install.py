#!/usr/bin/env python3
"""Installs what lists name, as install(1) does under NO_ROOT: everything on
the disk belongs to whoever runs it, without setuid bits, and the METALOG says
what it is to be."""

import argparse
import os
import shutil
import sys


def vis(text):
    """Writes what would break a line of the METALOG in octal."""
    return "".join("\\%03o" % ord(c) if c in " \t\n\\#" else c for c in text)


class Installer:
    def __init__(self, args):
        self.args = args
        self.without = options(args.srcconf)
        self.log = open(args.metalog, "a")

    def disk(self, path):
        return os.path.join(self.args.destdir, path)

    def record(self, path, kind, owner, group, mode, *more):
        name = "." if path == "." else "./" + vis(path)
        words = [name, "type=" + kind, "uname=" + owner, "gname=" + group, "mode=" + mode]
        print(*words, *[m for m in more if m], file=self.log)

    def dir(self, path, owner, group, mode, flags=""):
        os.makedirs(self.disk(path), exist_ok=True)
        self.record(path, "dir", owner, group, mode, flags)

    def listed(self, path, owner, group, mode, flags=""):
        self.record(path, "dir", owner, group, mode, flags)

    def file(self, source, path, owner, group, mode, flags=""):
        base = self.args.obj
        if source.startswith("src:"):
            base, source = self.args.src, source[4:]
        body = os.path.join(base, source)
        self.put(path)
        shutil.copyfile(body, self.disk(path))
        os.chmod(self.disk(path), int(mode, 8) & 0o777 | 0o200)
        self.record(path, "file", owner, group, mode, "size=%d" % os.path.getsize(body), flags, "tags=package=fixture")

    def database(self, path, owner, group, mode, flags=""):
        self.put(path)
        with open(self.disk(path), "w") as out:
            out.write("made of master.passwd\n")
        self.record(path, "file", owner, group, mode, flags)

    def hard(self, old, new):
        """The record of a hard link names no owner and no setuid bit; those of
        the first name count."""
        self.put(new)
        os.link(self.disk(old), self.disk(new))
        info = os.stat(self.disk(new))
        print("./" + vis(new), "type=file", "mode=0%o" % (info.st_mode & 0o777), "size=%d" % info.st_size, file=self.log)

    def link(self, text, path):
        self.put(path)
        os.symlink(text, self.disk(path))
        self.record(path, "link", "root", "wheel", "0755", "link=" + vis(text))

    def char(self, path, owner, group, mode, numbers):
        self.record(path, "char", owner, group, mode, "device=freebsd," + numbers)

    def put(self, path):
        os.makedirs(os.path.dirname(self.disk(path)), exist_ok=True)
        if os.path.lexists(self.disk(path)):
            os.remove(self.disk(path))

    def run(self, line):
        words = [w.replace("~", " ") for w in line.split()]
        wanted = [w for w in words if w.startswith("option=")]
        if any(w[7:] in self.without for w in wanted):
            return
        words = [w for w in words if w not in wanted]
        getattr(self, words[0])(*words[1:])


def options(srcconf):
    if not srcconf or not os.path.exists(srcconf):
        return set()
    with open(srcconf) as lines:
        return {l.split("=")[0][8:] for l in lines if l.startswith("WITHOUT_")}


def main():
    p = argparse.ArgumentParser()
    for name in ("src", "obj", "destdir", "metalog", "srcconf"):
        p.add_argument("--" + name)
    p.add_argument("lists", nargs="+")
    args = p.parse_args()
    if not args.destdir or not args.metalog:
        sys.exit("set DESTDIR and METALOG")
    todo = Installer(args)
    for name in args.lists:
        with open(name) as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    todo.run(line)


main()
