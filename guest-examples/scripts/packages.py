"""A tree of Python modules in files: written, compiled to object files, imported from there.

Takes the directory for the tree. Prints as it goes; the last line is a checksum of what the modules compute."""

import hashlib
import importlib
import os
import py_compile
import sys

folder = sys.argv[1]
checksum = hashlib.sha256()
PACKAGES = 6
MODULES = 12


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def source(package, module):
    before = f"from .module_{module - 1} import value as before" if module else "before = 1"
    return f'''
"""Module {module} of package {package}."""
{before}


class Counter:
    def __init__(self, start):
        self.count = start

    def steps(self):
        for step in range({50 + module}):
            self.count = (self.count * 31 + step) % 1000003
        return self.count


value = Counter(before + {package}).steps()
'''


root = os.path.join(folder, "tree")
for package in range(PACKAGES):
    place = os.path.join(root, "library", f"package_{package}")
    os.makedirs(place)
    names = ", ".join(f"module_{module}" for module in range(MODULES))
    write(os.path.join(place, "__init__.py"), f"from . import {names}\n")
    for module in range(MODULES):
        write(os.path.join(place, f"module_{module}.py"), source(package, module))
write(os.path.join(root, "library", "__init__.py"), "")

objects = 0
for place, folders, files in os.walk(root):
    folders.sort()
    for name in sorted(files):
        if name.endswith(".py"):
            # By hash and not by time, so that equal sources have equal objects.
            mode = py_compile.PycInvalidationMode.CHECKED_HASH
            made = py_compile.compile(os.path.join(place, name), doraise=True, invalidation_mode=mode)
            objects += os.path.getsize(made) > 0
print("objects", objects, flush=True)

sys.path.insert(0, root)
for package in range(PACKAGES):
    imported = importlib.import_module(f"library.package_{package}")
    assert imported.module_0.__cached__.endswith(".pyc"), imported.module_0.__cached__
    for module in range(MODULES):
        checksum.update(str(getattr(imported, f"module_{module}").value).encode())
    print(f"package {package}:", imported.module_11.value, flush=True)
    # Renamed after use: the next ones are found all the same.
    os.rename(os.path.join(root, "library", f"package_{package}"), os.path.join(root, f"used_{package}"))
    importlib.invalidate_caches()
print("checksum", checksum.hexdigest()[:16])
