#!/usr/bin/env python3
"""config OUT DIR... NAME: reads a kernel configuration with its includes and
writes a header, or says in config(8)'s words what is wrong with it."""

import os
import sys


def names(path):
    with open(path) as lines:
        return {l.split()[0] for l in lines if l.strip() and not l.startswith("#")}


class Config:
    def __init__(self, dirs):
        self.dirs, self.options, self.devices, self.ident = dirs, {}, {}, ""

    def find(self, name):
        for d in self.dirs:
            if os.path.exists(os.path.join(d, name)):
                return os.path.join(d, name)
        sys.exit("config: cannot open include file %s: No such file or directory" % name)

    def read(self, name):
        path = self.find(name)
        with open(path) as lines:
            for number, line in enumerate(lines, 1):
                words = line.split("#")[0].split(None, 1)
                if words:
                    self.word(path, number, words[0], words[1].strip() if len(words) > 1 else "")

    def word(self, path, number, word, rest):
        parts = [w.strip() for w in rest.split(",")]
        if word == "include":
            self.read(rest.strip('"'))
        elif word == "ident":
            self.ident = rest.strip('"')
        elif word in ("options", "option"):
            self.options.update((p.split("=")[0], p) for p in parts)
        elif word in ("nooptions", "nooption"):
            [self.options.pop(p, None) for p in parts]
        elif word in ("device", "devices"):
            self.devices.update((p, p) for p in parts)
        elif word in ("nodevice", "nodevices"):
            [self.devices.pop(p, None) for p in parts]
        elif word not in ("machine", "cpu", "makeoptions"):
            sys.exit("config: %s:%d: syntax error" % (path, number))

    def check(self, conf):
        known = names(os.path.join(conf, "options")) | names(os.path.join(conf, "options.amd64"))
        for o in sorted(self.options):
            if o not in known:
                sys.exit('config: unknown option "%s"' % o)
        devices = names(os.path.join(conf, "devices"))
        for d in sorted(self.devices):
            if d not in devices:
                sys.exit('config: Error: device "%s" is unknown' % d)


def main():
    out, conf, *dirs, name = sys.argv[1:]
    c = Config([d for d in dirs if d])
    if os.path.exists(os.path.join(dirs[-1], "DEFAULTS")):
        c.read("DEFAULTS")
    c.read(name)
    c.check(conf)
    with open(out, "w") as header:
        print('#define IDENT "%s"' % c.ident, file=header)
        print('#define OPTIONS "%s"' % " ".join(sorted(c.options.values())), file=header)
        print('#define DEVICES "%s"' % " ".join(sorted(c.devices)), file=header)


main()
