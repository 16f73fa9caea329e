"""`python -I -S .../django_prefork/supervisor FD`: what a started `runprefork` becomes. Not for people to call."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    # Isolated, Python finds its own library and nothing else. The package is put in place by its path, not by sys.path,
    # where the project and everything installed beside it would come along.
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "django_prefork", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["django_prefork"] = package
    spec.loader.exec_module(package)

    from django_prefork.supervisor.supervisor import Supervisor

    supervisor = Supervisor.inherit(int(sys.argv[-1]))
    if "--probe" in sys.argv:
        return 0  # a new image could take over: that is all that was asked
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
